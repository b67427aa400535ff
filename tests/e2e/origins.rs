//! Which pages may connect.

use crate::harness::*;

/// The status that a handshake with this Origin gets.
async fn status(address: &str, origin: &[u8]) -> (u16, String) {
    let mut raw = Raw::connect(address).await;
    let good = handshake("wsd.example:8000", "Origin: @\r\n");
    let (before, after) = good.split_once('@').unwrap();
    raw.send([before.as_bytes(), origin, after.as_bytes()].concat()).await;
    let head = raw.head().await;
    let status: u16 = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    if status == 101 {
        return (status, head);
    }
    let body = String::from_utf8_lossy(&raw.rest().await).into_owned();
    (status, head + &body)
}

const SAME_HOST: &[(&[u8], u16)] = &[
    (b"http://wsd.example:8000", 101),
    (b"HTTP://WSD.Example:8000", 101),
    (b"https://wsd.example:8000", 101),
    (b"http://wsd.example", 403),
    (b"https://wsd.example", 403),
    (b"http://wsd.example:80", 403),
    (b"http://wsd.example:8001", 403),
    (b"http://wsd.example:08000", 101),
    (b"http://wsd.example:", 403),
    (b"http://wsd.example:8000/", 403),
    (b"http://wsd.example:8000/path", 403),
    (b"http://wsd.example:8000?x", 403),
    (b"http://wsd.example:8000#x", 403),
    (b"http://wsd.example:8000:8000", 403),
    (b"http://user@wsd.example:8000", 403),
    (b"http://user:word@wsd.example:8000", 403),
    (b"http://wsd.example:8000@evil.example", 403),
    (b"http://evil.example", 403),
    (b"http://evil.example:8000", 403),
    (b"http://wsd.example.evil.example:8000", 403),
    (b"http://evilwsd.example:8000", 403),
    (b"http://sub.wsd.example:8000", 403),
    (b"http://wsd.example.:8000", 403),
    (b"http://wsd,example:8000", 403),
    (b"http://wsd.example\t:8000", 403),
    (b"http:// wsd.example:8000", 403),
    (b"http:/wsd.example:8000", 403),
    (b"http:wsd.example:8000", 403),
    (b"//wsd.example:8000", 403),
    (b"wsd.example:8000", 403),
    (b"wsd.example", 403),
    (b"http://", 403),
    (b"null", 403),
    (b"NULL", 403),
    (b"", 403),
    (b"*", 403),
    (b"file://", 403),
    (b"http://[::1]:8000", 403),
    (b"http://wsd.example:8000 http://evil.example", 403),
    (b"http://wsd.example:8000, http://evil.example", 403),
    (b"http://ws\xc3\xa4.example:8000", 403),
    (b"http://wsd.example:99999", 403),
    (b"http://wsd%2eexample:8000", 403),
];

#[tokio::test]
async fn by_default_only_pages_of_the_same_host_and_port_connect() {
    assert!(SAME_HOST.len() >= 40);
    let server = Setup::stock().start().await;
    let mut faults = Vec::new();
    for (origin, wanted) in SAME_HOST {
        let (status, answer) = status(&server.address, origin).await;
        if status != *wanted {
            faults.push(format!("{}: {wanted}, not {answer:?}", origin.escape_ascii()));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // Without one it is no browser.
    let _client = server.client().await;
}

#[tokio::test]
async fn a_list_of_origins_is_the_list() {
    let allowed = r#"["https://shop.example", "http://localhost:3000"]"#;
    let server = Setup::stock().set("allowed_origins", allowed).start().await;
    for (origin, wanted) in [
        ("https://shop.example", 101),
        ("https://SHOP.example:443", 101),
        ("http://localhost:3000", 101),
        ("http://shop.example", 403),
        ("https://shop.example:8443", 403),
        ("http://wsd.example:8000", 403),
        ("null", 403),
    ] {
        assert_eq!(status(&server.address, origin.as_bytes()).await.0, wanted, "{origin}");
    }
}

#[tokio::test]
async fn a_refusal_and_the_log_tell_what_to_add_and_where() {
    let server = Setup::stock().start().await;
    let (_, answer) = status(&server.address, b"https://shop.example").await;
    let tells =
        |text: &str| text.contains("allowed_origins") && text.contains("https://shop.example");
    assert!(tells(&answer), "{answer}");
    // The log is written by a thread of its own.
    until("the log to tell", || async { tells(&server.log()).then_some(()) }).await;
}

#[tokio::test]
async fn a_star_lets_everyone_in() {
    let server = Setup::stock().set("allowed_origins", r#"["*"]"#).start().await;
    for origin in ["https://shop.example", "null", "http://wsd.example:8000"] {
        assert_eq!(status(&server.address, origin.as_bytes()).await.0, 101, "{origin}");
    }
}
