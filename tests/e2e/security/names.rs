//! By which names the server is called, by which pages, and what is told to whom.

use crate::harness::*;

fn setup() -> Setup {
    Setup::stock().set("worker_num", 1).set("allowed_hosts", r#"["auto"]"#)
}

/// The whole answer to a request, or its head where the connection stays open.
async fn answer(server: &Server, request: impl AsRef<[u8]>) -> String {
    let mut raw = Raw::connect(&server.address).await;
    raw.send(request).await;
    let head = raw.head().await;
    if head.starts_with("HTTP/1.1 101 ") {
        return head;
    }
    head + &String::from_utf8_lossy(&raw.rest().await)
}

fn get(path: &str, fields: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nConnection: close\r\n{fields}\r\n")
}

#[tokio::test]
async fn a_name_that_somebody_made_lead_to_loopback_is_not_answered_to() {
    let server = setup().start().await;
    let port = server.address.rsplit(':').next().unwrap();
    for host in ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example"] {
        let host = format!("{host}:{port}");
        let page = format!("Origin: http://{host}\r\n");
        let socket = answer(&server, handshake(&host, &page)).await;
        assert!(socket.starts_with("HTTP/1.1 421 "), "{socket}");
        let plain = answer(&server, get("/", &format!("Host: {host}\r\n"))).await;
        assert!(plain.starts_with("HTTP/1.1 421 "), "{plain}");
        let pretends = format!("Host: {host}\r\nX-Forwarded-For: 192.0.2.1\r\n");
        let plain = answer(&server, get("/", &pretends)).await;
        assert!(plain.starts_with("HTTP/1.1 421 ") && !plain.contains("allowed_hosts"), "{plain}");
    }
    for host in ["localhost", "127.0.0.1", "[::1]", "app.localhost", "192.0.2.1"] {
        let host = format!("{host}:{port}");
        let page = format!("Origin: http://{host}\r\n");
        let socket = answer(&server, handshake(&host, &page)).await;
        assert!(socket.starts_with("HTTP/1.1 101 "), "{socket}");
    }
    let cure = r#"add "evil.example" to allowed_hosts"#;
    until("the log to tell", async || {
        let log = server.log();
        let warned = log.lines().filter(|line| line.contains("WARN") && line.contains("421"));
        (warned.count() == 1 && log.contains(cure)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn health_checks_and_who_names_no_host_pass() {
    let server = setup().start().await;
    let health = answer(&server, get("/healthz", "Host: evil.example\r\n")).await;
    assert!(health.starts_with("HTTP/1.1 200 "), "{health}");
    let old = answer(&server, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.contains(" 200 OK"), "{old}");
}

#[tokio::test]
async fn who_is_forwarded_by_a_trusted_proxy_may_call_the_server_by_the_proxys_names() {
    let server = setup().set("trusted_proxies", r#"["127.0.0.1"]"#).start().await;
    let forwarded = "Host: app.example\r\nX-Forwarded-For: 192.0.2.1\r\n";
    let plain = answer(&server, get("/", forwarded)).await;
    assert!(plain.starts_with("HTTP/1.1 200 "), "{plain}");
    let direct = answer(&server, get("/", "Host: app.example\r\n")).await;
    assert!(direct.starts_with("HTTP/1.1 421 "), "{direct}");
    let listed = setup().set("allowed_hosts", r#"["auto", "app.example"]"#).start().await;
    let direct = answer(&listed, get("/", "Host: app.example:81\r\n")).await;
    assert!(direct.starts_with("HTTP/1.1 200 "), "{direct}");
}

#[tokio::test]
async fn the_scheme_that_a_trusted_proxy_tells_is_part_of_the_same_host() {
    let server = setup().set("trusted_proxies", r#"["127.0.0.1"]"#).start().await;
    for (origin, scheme, wanted) in [
        ("https://app.example", "https", 101),
        ("http://app.example", "https", 403),
        ("https://app.example", "http", 403),
        ("http://app.example", "http", 101),
    ] {
        let fields = format!(
            "Origin: {origin}\r\nX-Forwarded-Proto: {scheme}\r\nX-Forwarded-For: 192.0.2.1\r\n"
        );
        let answer = answer(&server, handshake("app.example", &fields)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {wanted} ")), "{origin}: {answer}");
    }
}

#[tokio::test]
async fn a_page_from_disk_comes_in_where_all_is_local_and_one_warning_says_what_that_means() {
    let server = setup().set("allowed_origins", r#"["same-host", "local-null"]"#).start().await;
    let null = "Origin: null\r\n";
    for _ in 0..2 {
        let local = answer(&server, handshake(&server.address, null)).await;
        assert!(local.starts_with("HTTP/1.1 101 "), "{local}");
    }
    let forwarded = handshake(&server.address, "Origin: null\r\nX-Real-IP: 192.0.2.1\r\n");
    let forwarded = answer(&server, forwarded).await;
    assert!(forwarded.starts_with("HTTP/1.1 403 "), "{forwarded}");
    let other = answer(&server, handshake("192.0.2.1", null)).await;
    assert!(other.starts_with("HTTP/1.1 403 "), "{other}");
    until("the log to warn", async || {
        (server.log().matches("has local-null").count() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_first_refused_origin_of_a_run_is_a_warning_and_the_rest_are_not() {
    let server = setup().start().await;
    for _ in 0..3 {
        let answer = answer(&server, handshake(&server.address, "Origin: http://a.example\r\n"));
        assert!(answer.await.starts_with("HTTP/1.1 403 "));
    }
    until("three lines", async || {
        let log = server.log();
        let told = log.lines().filter(|line| line.contains("allowed_origins"));
        let warned = told.clone().filter(|line| line.contains("WARN")).count();
        (told.count() == 3 && warned == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn no_text_is_guessed_to_be_something_else() {
    let server = setup().start().await;
    for request in [
        get("/nothing", "Host: localhost\r\n"),
        get("/healthz", "Host: localhost\r\n"),
        get("/", "Host: evil.example\r\n"),
        handshake("localhost", "Origin: http://evil.example\r\n"),
        "GET / HTTP/1.1\r\n\r\n".to_owned(),
    ] {
        let answer = answer(&server, request).await.to_ascii_lowercase();
        assert!(answer.contains("x-content-type-options: nosniff"), "{answer}");
    }
}

#[tokio::test]
async fn no_query_cookie_or_password_is_in_the_log_at_any_level() {
    let server = setup().set("log_level", r#""trace""#).start().await;
    let secret = "Cookie: seat=s3cret\r\nAuthorization: Bearer s3cret\r\n";
    let open = handshake("localhost", secret).replace("GET / ", "GET /ws?token=s3cret ");
    assert!(answer(&server, open).await.starts_with("HTTP/1.1 101 "));
    let origin = format!("{secret}Origin: http://ada:s3cret@a.example/?s3cret\r\n");
    let refused = handshake("localhost", &origin).replace("GET / ", "GET /?s3cret ");
    assert!(answer(&server, refused).await.starts_with("HTTP/1.1 403 "));
    let plain = get("/?token=s3cret", &format!("Host: localhost\r\n{secret}"));
    assert!(answer(&server, plain).await.starts_with("HTTP/1.1 200 "));
    until("the log", async || {
        let log = server.log();
        (log.contains("opened") && log.contains("refused") && log.contains("closed")).then_some(())
    })
    .await;
    assert!(!server.log().contains("s3cret"), "{}", server.log());
}

#[tokio::test]
async fn check_warns_of_proxies_that_are_everybody() {
    for (networks, doubts) in [
        (r#"["0.0.0.0/0"]"#, true),
        (r#"["::ffff:0.0.0.0/96"]"#, true),
        (r#"["0.0.0.0/1", "128.0.0.0/1"]"#, true),
        (r#"["fc00::/7"]"#, false),
        (r#"["10.0.0.0/8"]"#, false),
    ] {
        let server = setup().set("trusted_proxies", networks).start().await;
        let said = server.wsd(["check"]).await.ok();
        assert_eq!(said.contains("everybody may say"), doubts, "{said}");
    }
}

#[tokio::test]
async fn fields_that_look_like_another_one_to_php_are_seen_by_no_handler() {
    let server = Setup::testbed().start().await;
    let fields = "X_Real_IP: 6.6.6.6\r\nX-Real_Name: 1\r\nX-Asked: 1\r\n_: 1\r\n";
    let plain = answer(&server, get("/names", &format!("Host: server\r\n{fields}"))).await;
    let socket = handshake("server", fields).replacen("GET / ", "GET /names ", 1);
    let socket = answer(&server, socket).await;
    for answer in [plain, socket] {
        let (_, names) = answer.split_once("\r\n\r\n").unwrap();
        assert!(names.contains("x-asked") && !names.contains('_'), "{answer}");
    }
}
