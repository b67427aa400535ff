use std::cell::RefCell;
use std::future::pending;
use std::net::Ipv4Addr;

use tokio::io::{DuplexStream, duplex};

use super::*;

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

/// Answers `/echo` with the body and notes each request's path and client.
#[derive(Default)]
struct Site {
    refused: RefCell<Vec<u16>>,
    body_waits: Cell<usize>,
    seen: RefCell<Vec<(String, Option<IpAddr>)>>,
    has_ended: Cell<bool>,
}

impl Service for Site {
    async fn answer(&self, request: HttpRequest) -> Option<HttpResponse> {
        let path = request.request.uri().path().to_owned();
        self.seen.borrow_mut().push((path.clone(), request.client));
        let response = http::Response::builder();
        match path.as_str() {
            "/echo" => Some(HttpResponse::new(request.request.into_body().into())),
            "/reserved" => {
                let response = response.header("Connection", "close").header("X-A", "b");
                response.header("Content-Length", "7").body("whole".into()).ok()
            }
            "/299" => response.status(299).body(Bytes::new().into()).ok(),
            "/101" => response.status(101).body(Bytes::new().into()).ok(),
            "/never" => pending().await,
            "/breaks" => {
                let (writer, body) = crate::api::Body::in_parts(None);
                writer.send("said").await.unwrap();
                Some(HttpResponse::new(body))
            }
            _ => None,
        }
    }

    fn is_websocket_path(&self, path: &str) -> bool {
        path == "/ws"
    }

    fn health(&self, path: &str) -> Option<Result<(), String>> {
        match path {
            "/healthz" => Some(Ok(())),
            "/ill" => Some(Err("nobody takes anything".to_owned())),
            _ => None,
        }
    }

    fn refused(&self, refusal: &Refusal) {
        self.refused.borrow_mut().push(refusal.status);
    }

    fn check(&self, _: &http::request::Parts, _: Option<IpAddr>) -> Result<(), Refusal> {
        Ok(())
    }

    fn wants_body(&self, request: &http::request::Parts) -> bool {
        request.uri.path() != "/bodiless"
    }

    fn waits_for(&self, wait: Option<Wait>) {
        self.body_waits.set(self.body_waits.get() + usize::from(wait == Some(Wait::Body)));
    }

    async fn hurried(&self) {
        pending().await
    }

    fn is_last(&self) -> bool {
        false
    }

    fn ends(&self) {
        self.has_ended.set(true);
    }

    fn hold(&self, _: usize) -> bool {
        true
    }

    fn let_go(&self) {}

    fn trusted_proxies(&self) -> &[Net] {
        &[Net::Inet { addr: IpAddr::V4(Ipv4Addr::LOCALHOST), bits: 8 }]
    }
}

fn limits() -> Limits {
    Limits {
        head: head::Limits::default(),
        body_bytes_max: 10,
        head_timeout: Duration::from_secs(10),
        body_timeout: Duration::from_secs(10),
        body_rate_min: 1,
        idle_timeout: Duration::from_secs(75),
        send_timeout: Duration::from_secs(60),
    }
}

/// Serves one connection on which the client first sends `bytes`; `then` is the client after.
async fn with_client<T>(
    bytes: &[u8],
    stop: impl Future<Output = Stop>,
    then: impl AsyncFnOnce(&mut DuplexStream) -> T,
) -> (End<DuplexStream>, T, Site) {
    let site = Site::default();
    let (mut client, server) = duplex(64 * 1024);
    let peer = "127.0.0.1:9".parse().ok();
    client.write_all(bytes).await.unwrap();
    let limits = limits();
    let served = serve(server, Vec::new(), peer, &site, &limits, stop);
    let client = async move {
        let value = then(&mut client).await;
        (value, client)
    };
    let (end, (value, _client)) = tokio::join!(served, client);
    (end, value, site)
}

/// All that the server says to these bytes; the client leaves its side open.
async fn exchange(bytes: &[u8]) -> (End<DuplexStream>, String, Site) {
    let (end, said, site) = with_client(bytes, pending(), all).await;
    (end, said, site)
}

async fn all(client: &mut DuplexStream) -> String {
    let mut said = Vec::new();
    client.read_to_end(&mut said).await.unwrap();
    String::from_utf8(said).unwrap()
}

/// Reads until all of `wanted` was said.
async fn until(client: &mut DuplexStream, wanted: &str) -> String {
    let mut said = String::new();
    while !said.contains(wanted) {
        let mut chunk = [0; 1024];
        let count = client.read(&mut chunk).await.unwrap();
        assert_ne!(count, 0, "{wanted:?} is not in {said:?}");
        said.push_str(str::from_utf8(&chunk[..count]).unwrap());
    }
    said
}

fn get(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n")
}

fn statuses(said: &str) -> Vec<&str> {
    let answers = said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]);
    answers.filter(|status| status.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

#[tokio::test(start_paused = true)]
async fn whoever_may_be_a_stranger_reads_no_name_of_a_key() {
    for body in ["Content-Length: 11\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\nb\r\n"] {
        for (fields, is_told) in [("", true), ("X-Forwarded-For: 192.0.2.1\r\n", false)] {
            let request = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{fields}{body}");
            let (_, said, _) = exchange(request.as_bytes()).await;
            assert_eq!(statuses(&said), ["413"], "{said}");
            assert_eq!(said.contains("package_max_length"), is_told, "{said}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_built_ins_stand_around_the_handler() {
    for (path, status, body) in [
        ("/healthz", "200", "ok\n"),
        ("/healthz?x", "200", "ok\n"),
        ("/echo", "200", ""),
        ("/ill", "503", "nobody takes anything\n"),
        ("/", "200", "this path speaks WebSocket; connect with ws:// or wss://\n"),
        ("/ws", "426", "this path speaks WebSocket; connect with ws:// or wss://\n"),
        ("/other", "404", "there is nothing here\n"),
        ("/101", "500", "the handler's answer is informational\n"),
    ] {
        let (end, said, _) = exchange(get(path, "Connection: close\r\n").as_bytes()).await;
        assert!(matches!(end, End::Closed));
        assert_eq!(statuses(&said), [status], "{said}");
        assert!(said.ends_with(&format!("\r\n\r\n{body}")), "{said}");
        assert!(said.contains("\r\ndate: ") && !said.contains("\r\nserver: "), "{said}");
    }
}

#[tokio::test]
async fn a_status_that_nobody_has_named_has_no_name() {
    let (_, said, _) = exchange(get("/299", "Connection: close\r\n").as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 299 \r\n"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_is_no_progress_of_a_body() {
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 10\r\n\r\n";
    let bytes = async |client: &mut DuplexStream| {
        for _ in 0..10 {
            client.write_all(b"x").await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        all(client).await
    };
    let (_, said, site) = with_client(head.as_bytes(), pending(), bytes).await;
    assert!(said.ends_with("xxxxxxxxxx"), "{said}");
    assert_eq!(site.body_waits.get(), 1, "it waits since it began");
}

#[tokio::test(start_paused = true)]
async fn a_426_names_what_to_upgrade_to() {
    let (_, said, _) = exchange(get("/ws", "Connection: close\r\n").as_bytes()).await;
    assert!(said.contains("\r\nupgrade: websocket\r\n"), "{said}");
    assert!(said.contains("\r\nsec-websocket-version: 13\r\n"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_alive_and_pipelined_requests_are_answered_in_order() {
    let bytes = [
        get("/healthz", ""),
        "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello".to_owned(),
        "HEAD /healthz HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        get("/nothing", "Connection: close\r\n"),
        get("/healthz", ""),
    ];
    let (end, said, _) = exchange(bytes.concat().as_bytes()).await;
    assert!(matches!(end, End::Closed));
    assert_eq!(statuses(&said), ["200", "200", "200", "404"], "{said}");
    assert!(said.contains("\r\n\r\nhelloHTTP/1.1 200"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn what_was_read_before_is_replayed_however_it_was_cut() {
    let bytes = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /healthz \
        HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for cut in 0..bytes.len() {
        let (mut client, server) = duplex(4096);
        client.write_all(&bytes.as_bytes()[cut..]).await.unwrap();
        let (site, limits) = (Site::default(), limits());
        let received = bytes.as_bytes()[..cut].to_vec();
        let served = serve(server, received, None, &site, &limits, pending());
        let said = async move {
            let said = all(&mut client).await;
            drop(client);
            said
        };
        let (_, said) = tokio::join!(served, said);
        assert_eq!(statuses(&said), ["200", "200"], "cut at {cut}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_head_passes_the_same_checks() {
    for (bad, status) in [
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505"),
        ("GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n", "400"),
    ] {
        let bytes = [&get("/healthz", ""), bad, &get("/healthz", "")].concat();
        let (end, said, site) = exchange(bytes.as_bytes()).await;
        assert!(matches!(end, End::Refused(_)));
        assert_eq!(statuses(&said), ["200", status], "{bad}: {said}");
        assert!(said.contains("\r\nConnection: close\r\n"), "{said}");
        assert!(site.seen.borrow().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_later_upgrade_comes_back_with_its_head_and_first_frames() {
    let bytes = [get("/echo", "").as_bytes(), UPGRADE.as_bytes(), b"\x81\x80abcd"].concat();
    let read = async |client: &mut DuplexStream| until(client, "\r\n\r\n").await;
    let (end, said, _) = with_client(&bytes, pending(), read).await;
    assert_eq!(statuses(&said), ["200"], "{said}");
    let End::Upgrade(_, received) = end else { panic!("{end:?}") };
    assert_eq!(received, [UPGRADE.as_bytes(), b"\x81\x80abcd"].concat());
}

#[tokio::test(start_paused = true)]
async fn a_body_has_a_cap_and_the_413_closes() {
    for head in [
        "Content-Length: 11\r\n\r\nhello world",
        "Content-Length: 99999999999\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n",
    ] {
        let bytes = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{head}{}", get("/healthz", ""));
        let (_, said, site) = exchange(bytes.as_bytes()).await;
        assert_eq!(statuses(&said), ["413"], "{said}");
        assert!(said.to_lowercase().contains("\r\nconnection: close\r\n"), "{said}");
        assert!(site.seen.borrow().is_empty());
    }
}

const CHUNKED: &str = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_malformed_chunk_is_refused_and_one_that_is_too_long_at_once() {
    for (body, status) in [
        ("zz\r\n", "400"),
        ("5\nhello\r\n", "400"),
        ("5\r\nhello!\r\n", "400"),
        ("5\r\nhello\r\n0\r\nX Y: z\r\n", "400"),
        ("b\r\n", "413"),
        ("6\r\nhello!\r\n5\r\n", "413"),
    ] {
        let began = tokio::time::Instant::now();
        let (_, said, site) = exchange(format!("{CHUNKED}{body}").as_bytes()).await;
        assert_eq!(statuses(&said), [status], "{body:?}: {said}");
        assert!(site.seen.borrow().is_empty() && site.refused.borrow().len() == 1);
        assert!(began.elapsed() < Duration::from_secs(10), "{body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_behind_a_chunked_body_is_served() {
    let body = "2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n";
    let bytes = format!("{CHUNKED}{body}\r\n{}", get("/nothing", "Connection: close\r\n"));
    let (_, said, site) = exchange(bytes.as_bytes()).await;
    assert_eq!(statuses(&said), ["200", "404"], "{said}");
    assert!(said.contains("\r\n\r\nhello"), "{said}");
    let seen: Vec<_> = site.seen.borrow().iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(seen, ["/echo", "/nothing"]);
}

#[tokio::test(start_paused = true)]
async fn what_follows_a_body_of_many_chunks_is_as_it_came() {
    let body = ["1\r\nx\r\n".repeat(10), "0\r\n\r\n".to_owned()].concat();
    let chunked = format!("{CHUNKED}{body}");
    let bytes = [chunked.as_bytes(), UPGRADE.as_bytes(), b"\x81\x80abcd"].concat();
    let read = async |client: &mut DuplexStream| until(client, "xxxxxxxxxx").await;
    let (end, said, _) = with_client(&bytes, pending(), read).await;
    assert_eq!(statuses(&said), ["200"], "{said}");
    let End::Upgrade(_, received) = end else { panic!("{end:?}") };
    assert_eq!(received, [UPGRADE.as_bytes(), b"\x81\x80abcd"].concat());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_cut_short_is_answered() {
    for cut in
        ["GET / HTTP/1.1\r\nHo", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nh"]
    {
        let then = async |client: &mut DuplexStream| {
            client.shutdown().await.unwrap();
            all(client).await
        };
        let (_, said, site) = with_client(cut.as_bytes(), pending(), then).await;
        assert_eq!(statuses(&said), ["400"], "{cut}: {said}");
        assert!(site.seen.borrow().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_an_answer_broke_off_has_left() {
    let (_, said, _) = exchange(get("/breaks", "").as_bytes()).await;
    assert!(said.ends_with("\r\n\r\n4\r\nsaid\r\n"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_wants_is_not_answered_beside_its_request() {
    for body in ["zz\r\n", "99\r\n", "2\r\nabc", "1\r\na\r\n0\r\n\r\nNO\r\n\r\n"] {
        let head = "POST /bodiless HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (_, said, _) = exchange(format!("{head}{body}").as_bytes()).await;
        assert_eq!(statuses(&said), ["404"], "{body}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_slow_but_not_silent_and_not_slower_than_its_least_rate() {
    let head = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    for (pause, status) in [(1, "200"), (3, "408"), (11, "408")] {
        let then = async |client: &mut DuplexStream| {
            for _ in 0..10 {
                tokio::time::sleep(Duration::from_secs(pause)).await;
                if client.write_all(b"x").await.is_err() {
                    break;
                }
            }
            all(client).await
        };
        let (_, said, _) = with_client(head.as_bytes(), pending(), then).await;
        assert_eq!(statuses(&said), [status], "{pause}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_head_and_half_a_body_end_at_their_deadlines() {
    let (end, said, _) = exchange(b"GET /healthz HTTP/1.1\r\nHo").await;
    assert!(matches!(end, End::Refused(_)));
    assert_eq!(statuses(&said), ["408"], "{said}");
    let half = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe";
    let (_, said, site) = exchange(half.as_bytes()).await;
    assert_eq!(statuses(&said), ["408"], "{said}");
    assert!(site.seen.borrow().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_does_not_move_its_deadline() {
    let began = tokio::time::Instant::now();
    let trickle = async |client: &mut DuplexStream| {
        while client.write_all(b"a").await.is_ok() && began.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        all(client).await
    };
    let (end, said, _) = with_client(b"GET /", pending(), trickle).await;
    assert!(matches!(end, End::Refused(_)));
    assert_eq!(statuses(&said), ["408"], "{said}");
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_without_a_word() {
    let (end, said, _) = exchange(get("/healthz", "").as_bytes()).await;
    assert!(matches!(end, End::Closed));
    assert_eq!(statuses(&said), ["200"], "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_stop_closes_what_is_idle_and_lets_a_running_request_end() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async move {
        stopped.await.unwrap();
        Stop::Leaves
    };
    let then = async |client: &mut DuplexStream| {
        until(client, "ok\n").await;
        stop.send(()).unwrap();
        all(client).await
    };
    let (end, said, _) = with_client(get("/healthz", "").as_bytes(), stopped, then).await;
    assert!(matches!(end, End::Closed));
    assert_eq!(said, "");

    let bytes = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe";
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async move {
        stopped.await.unwrap();
        Stop::Leaves
    };
    let then = async |client: &mut DuplexStream| {
        stop.send(()).unwrap();
        tokio::task::yield_now().await;
        client.write_all(b"llo").await.unwrap();
        all(client).await
    };
    let (_, said, _) = with_client(bytes.as_bytes(), stopped, then).await;
    assert!(said.starts_with("HTTP/1.1 200") && said.ends_with("hello"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn who_gives_a_place_away_is_told_in_a_request_and_nothing_between_two() {
    for (sent, want) in [("", ""), ("\r\n", ""), ("GET / HTTP/1.1\r\nHo", "HTTP/1.1 503")] {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let stopped = async move {
            stopped.await.unwrap();
            Stop::Yields
        };
        let then = async |client: &mut DuplexStream| {
            until(client, "ok\n").await;
            client.write_all(sent.as_bytes()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
            stop.send(()).unwrap();
            all(client).await
        };
        let (_, said, _) = with_client(get("/healthz", "").as_bytes(), stopped, then).await;
        assert!(said.starts_with(want) && said.is_empty() == want.is_empty(), "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_request_of_a_proxys_connection_has_its_own_client() {
    let bytes = [
        get("/a", "X-Forwarded-For: 6.6.6.6, 1.1.1.1\r\n"),
        get("/b", "X-Real-IP: 2.2.2.2\r\n"),
        get("/c", "Connection: close\r\n"),
    ];
    let (_, _, site) = exchange(bytes.concat().as_bytes()).await;
    let expected = [("/a", "1.1.1.1"), ("/b", "2.2.2.2"), ("/c", "127.0.0.1")];
    let expected = expected.map(|(path, ip)| (path.to_owned(), Some(ip.parse().unwrap())));
    assert_eq!(*site.seen.borrow(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_handler_does_not_frame_its_answer() {
    let bytes = [get("/reserved", ""), get("/healthz", "Connection: close\r\n")];
    let (_, said, _) = exchange(bytes.concat().as_bytes()).await;
    assert_eq!(statuses(&said), ["200", "200"], "{said}");
    assert!(said.contains("\r\nx-a: b\r\n") && said.contains("\r\ncontent-length: 5\r\n"));
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_to_something_else_is_served_as_plain_http() {
    let h2c = get("/healthz", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n");
    let bytes = [h2c, get("/echo", "Connection: close\r\n")].concat();
    let (_, said, _) = exchange(bytes.as_bytes()).await;
    assert_eq!(statuses(&said), ["200", "200"], "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_client_of_http_1_0_is_closed_unless_it_asks_to_stay() {
    let (_, said, _) = exchange(b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(said.starts_with("HTTP/1.0 200 OK\r\n") && said.ends_with("ok\n"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_ends_the_connection() {
    let (client, server) = duplex(64);
    drop(client);
    let end = serve(server, Vec::new(), None, &Site::default(), &limits(), pending()).await;
    assert!(matches!(end, End::Closed));
}

#[tokio::test]
async fn a_connection_has_ended_when_its_last_answer_is_told_though_the_client_stays() {
    let (site, limits) = (Site::default(), limits());
    let (mut client, server) = duplex(64 * 1024);
    let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    client.write_all(request).await.unwrap();
    let peer = "127.0.0.1:9".parse().ok();
    let served = serve(server, Vec::new(), peer, &site, &limits, pending());
    let told = async {
        let said = all(&mut client).await;
        let has_ended = site.has_ended.get();
        drop(client);
        (said, has_ended)
    };
    let (_, (said, has_ended)) = tokio::join!(served, told);
    assert!(said.starts_with("HTTP/1.1 200") && has_ended, "{said}");
}
