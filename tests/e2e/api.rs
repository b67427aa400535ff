//! The HTTP API: every request with each of its answers, by any worker, over reloads.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::harness::{
    Api, Client, Closed, Reply, Server, Setup, command, repository, soon, stock_program,
};

pub fn connection(fd: u64) -> String {
    format!("/v1/connections/{fd}")
}

/// The status and the code of an error.
pub fn error(reply: &Reply) -> (u16, String) {
    (reply.status, reply.code())
}

pub fn expect(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[tokio::test]
async fn a_client_is_pushed_to_asked_about_and_closed_wherever_it_is() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    for slot in 0..2 {
        let mut client = server.client_on(slot).await;
        let fd = client.who().await.fd;
        // Whichever worker is free answers, so that both ways to the client are gone.
        for round in 0..8 {
            let text = format!("hello {round}");
            let pushed = api.ask("POST", &connection(fd), &text).await;
            assert_eq!((pushed.status, pushed.json()), (200, json!({ "verdict": "queued" })));
            assert_eq!(client.receive().await, text);
        }
        let info = api.get(&connection(fd)).await.json();
        assert_eq!((&info["fd"], &info["worker"]), (&json!(fd), &json!(slot)));
        let closing = format!("{}?code=4001&reason=so%20it%20is", connection(fd));
        assert_eq!(api.ask("DELETE", &closing, "").await.status, 200);
        assert_eq!(client.closed().await, Closed::Frame(4001, "so it is".to_owned()));
        for (method, body) in [("GET", ""), ("POST", "x"), ("DELETE", "")] {
            let reply = api.ask(method, &connection(fd), body).await;
            assert_eq!(error(&reply), expect(410, "gone"), "{method}");
        }
    }
}

#[tokio::test]
async fn what_is_not_done_says_why_in_json() {
    let setup = Setup::testbed().with_api().set("package_max_length", 1000);
    let setup = setup.set("buffer_output_size", 1000).set("api.body_max", r#""1KiB""#);
    let server = setup.start().await;
    let api = Api::of(&server).await;
    let mut client = server.client().await;
    let fd = client.who().await.fd;
    let path = connection(fd);
    for (method, path, body, want) in [
        ("POST", path.clone(), "x".repeat(1001), expect(413, "too_big")),
        ("POST", path.clone(), "x".repeat(2000), expect(413, "too_big")),
        ("GET", "/v1/connections/0".to_owned(), String::new(), expect(400, "bad_request")),
        ("GET", "/v1/connections/x".to_owned(), String::new(), expect(400, "bad_request")),
        ("DELETE", format!("{path}?code=1005"), String::new(), expect(400, "bad_request")),
        ("DELETE", format!("{path}?cod=1000"), String::new(), expect(400, "bad_request")),
        ("GET", "/v1/connections?limit=0".to_owned(), String::new(), expect(400, "bad_request")),
        ("POST", "/v1/push".to_owned(), "{}".to_owned(), expect(400, "bad_request")),
        (
            "POST",
            "/v1/push".to_owned(),
            format!(r#"{{"messages":[{{"fd":{fd}}}]}}"#),
            expect(400, "bad_request"),
        ),
        ("POST", "/v1/broadcast?except=x".to_owned(), "x".to_owned(), expect(400, "bad_request")),
        ("POST", "/v1/push".to_owned(), "[[]]".to_owned(), expect(400, "bad_request")),
        (
            "POST",
            "/v1/push".to_owned(),
            format!("[[[{fd},\"x\",null]]]"),
            expect(400, "bad_request"),
        ),
        (
            "POST",
            "/v1/push".to_owned(),
            format!(r#"{{"messages":[[{fd},"x",null]]}}"#),
            expect(400, "bad_request"),
        ),
        (
            "POST",
            "/v1/push?x=1".to_owned(),
            r#"{"messages":[]}"#.to_owned(),
            expect(400, "bad_request"),
        ),
        ("POST", format!("{path}?x=1"), "x".to_owned(), expect(400, "bad_request")),
        ("GET", format!("{path}?x=1"), String::new(), expect(400, "bad_request")),
        ("GET", format!("/v1/connections/+{fd}"), String::new(), expect(400, "bad_request")),
        ("GET", format!("/v1/connections/0{fd}"), String::new(), expect(400, "bad_request")),
        ("PUT", path.clone(), "x".to_owned(), expect(405, "method")),
        ("GET", "/v2".to_owned(), String::new(), expect(404, "not_found")),
    ] {
        let reply = api.ask(method, &path, body).await;
        assert_eq!(error(&reply), want, "{method} {path}: {reply:?}");
        assert!(reply.head.to_lowercase().contains("content-type: application/json"), "{reply:?}");
    }
    let invalid = api.ask("POST", &path, [0xff, 0xfe]).await;
    assert_eq!(error(&invalid), expect(400, "bad_request"));
}

#[tokio::test]
async fn a_full_client_is_429_and_an_owner_that_hangs_is_409() {
    let setup = Setup::testbed().with_api().set("buffer_policy", r#""drop""#);
    let server = setup.set("worker_timeout", r#""60s""#).start().await;
    let api = Api::of(&server).await;
    let mut client = server.client_on(0).await;
    let who = client.who().await;
    let big = "x".repeat(1 << 20);
    let full = crate::harness::until("a full client", async || {
        let reply = api.ask("POST", &connection(who.fd), &big).await;
        (reply.status == 429).then_some(reply)
    })
    .await;
    assert_eq!(error(&full), expect(429, "full"));
    assert!(full.head.to_lowercase().contains("retry-after: 1"), "{}", full.head);

    crate::harness::kill(who.pid, nix::sys::signal::Signal::SIGSTOP);
    let reply = api.ask("POST", &connection(who.fd), "x").await;
    assert_eq!(error(&reply), expect(409, "unknown"));
    let reply = api.get(&connection(who.fd)).await;
    assert_eq!(error(&reply), expect(503, "unavailable"));
    crate::harness::kill(who.pid, nix::sys::signal::Signal::SIGCONT);
}

/// A server whose workers serve four connections of the API each, and a token for all of it.
async fn with_four_places() -> (Server, Api, String) {
    let mut wsd = Command::new(stock_program());
    let made = command(wsd.args(["token", "all", "--scope", "read", "--json"])).await.ok();
    let made: Value = serde_json::from_str(&made).unwrap();
    let setup = Setup::testbed().set("api.listen", r#"["127.0.0.1:0"]"#);
    let setup = setup.set("api.tokens", json!([made["entry"]])).set("api.connections_max", 4);
    let server = setup.set("handshake_timeout", r#""10m""#).start().await;
    let token = made["token"].as_str().unwrap().to_owned();
    let api = Api::of(&server).await.with(&token);
    (server, api, token)
}

#[tokio::test]
async fn however_many_requests_of_the_api_stay_unfinished_a_whole_one_is_answered() {
    let (server, api, token) = with_four_places().await;
    let address = server.status().await["api"][0].as_str().unwrap().to_owned();
    let get = format!("GET /v1/connections HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}");
    let mut kept = TcpStream::connect(&address).await.unwrap();
    kept.write_all(format!("{get}\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 4096];
    assert!(kept.read(&mut answer).await.unwrap() > 0);

    let mut slow = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(get.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    assert_eq!(api.get("/v1/connections").await.status, 200);
    // Whoever had to give a place away reads why, and who came with a token before stays.
    let mut told = String::new();
    soon("the first of the slow", slow[0].read_to_string(&mut told)).await.unwrap();
    assert!(told.starts_with("HTTP/1.1 503 ") && told.contains(r#""unavailable""#), "{told}");
    kept.write_all(format!("{get}\r\n\r\n").as_bytes()).await.unwrap();
    let read = soon("an answer", kept.read(&mut answer)).await.unwrap();
    assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{:?}", &answer[..read]);
}

#[tokio::test]
async fn a_batch_tells_of_each_message_and_keeps_their_order() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let mut clients = [server.client_on(0).await, server.client_on(1).await];
    let fds = [clients[0].who().await.fd, clients[1].who().await.fd];
    let item = |index: usize| json!({ "fd": fds[index % 2], "text": index.to_string() });
    let mut messages: Vec<Value> = (0..998).map(item).collect();
    messages.push(json!({ "fd": 12345, "text": "nobody" }));
    messages.push(json!({ "fd": fds[0], "binary": "AAEC" }));
    let reply = api.ask("POST", "/v1/push", json!({ "messages": messages }).to_string()).await;
    let results = reply.json()["results"].as_array().unwrap().clone();
    assert_eq!(results.len(), 1000);
    assert_eq!(results[998], json!({ "fd": 12345, "verdict": "gone" }));
    let queued = results.iter().filter(|result| result["verdict"] == "queued").count();
    assert_eq!(queued, 999, "{results:?}");
    for index in 0..998 {
        assert_eq!(clients[index % 2].receive().await, index.to_string());
    }
    assert_eq!(clients[0].next().await.unwrap().into_data().as_ref(), [0, 1, 2]);
    messages.push(json!({ "fd": fds[0], "text": "one too many" }));
    let reply = api.ask("POST", "/v1/push", json!({ "messages": messages }).to_string()).await;
    assert_eq!(error(&reply), expect(400, "bad_request"));
}

#[tokio::test]
async fn of_many_requests_at_once_each_is_answered() {
    let server = Setup::testbed().with_api().set("worker_num", 1).start().await;
    let api = Api::of(&server).await;
    let mut client = server.client().await;
    let path = connection(client.who().await.fd);
    // More than the worker answers before its clients have a turn: the others wait, each until it
    // is called.
    let ask = async |number: usize| {
        assert_eq!(api.get("/metrics").await.status, 200);
        assert_eq!(api.ask("POST", &path, number.to_string()).await.status, 200);
    };
    futures_util::future::join_all((0..100).map(ask)).await;
    let mut heard = Vec::new();
    for _ in 0..100 {
        heard.push(client.receive().await.parse::<usize>().unwrap());
    }
    heard.sort_unstable();
    assert!(heard.into_iter().eq(0..100));
}

#[tokio::test]
async fn a_broadcast_reaches_everybody_but_one() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let mut clients = [server.client_on(0).await, server.client_on(1).await];
    let mut left_out = server.client_on(0).await;
    let fd = left_out.who().await.fd;
    assert_eq!(api.ask("POST", &format!("/v1/broadcast?except={fd}"), "all").await.status, 200);
    for client in &mut clients {
        assert_eq!(client.receive().await, "all");
    }
    assert_eq!(left_out.ask("echo mine").await, "echo mine");
}

#[tokio::test]
async fn connections_come_in_pages_by_their_numbers() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let mut clients: Vec<Client> = Vec::new();
    let mut fds = Vec::new();
    for index in 0..7 {
        let mut client = server.client_on(index % 2).await;
        fds.push(client.who().await.fd);
        clients.push(client);
    }
    fds.sort_unstable();
    server.has_connections(7).await;
    let (mut after, mut listed) = (0, Vec::new());
    loop {
        let page = api.get(&format!("/v1/connections?limit=3&after={after}")).await.json();
        let connections = page["connections"].as_array().unwrap();
        assert!(connections.len() <= 3);
        listed.extend(connections.iter().map(|connection| connection["fd"].as_u64().unwrap()));
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(listed, fds);
}

#[tokio::test]
async fn a_token_allows_what_its_scopes_name() {
    let mut entries = Vec::new();
    let mut tokens = Vec::new();
    for scope in ["read", "push", "read+push"] {
        let mut wsd = Command::new(stock_program());
        let name = scope.replace('+', "-");
        let made = command(wsd.args(["token", &name, "--scope", scope, "--json"])).await.ok();
        let made: Value = serde_json::from_str(&made).unwrap();
        entries.push(made["entry"].clone());
        tokens.push(made["token"].as_str().unwrap().to_owned());
    }
    let setup = Setup::testbed().set("api.listen", r#"["127.0.0.1:0"]"#);
    let server = setup.set("api.tokens", json!(entries)).start().await;
    let api = Api::of(&server).await;
    let mut client = server.client().await;
    let path = connection(client.who().await.fd);
    for (token, reads, pushes) in [(0, 200, 403), (1, 403, 200), (2, 200, 200)] {
        let api = api.with(&tokens[token]);
        assert_eq!(api.get(&path).await.status, reads);
        assert_eq!(api.ask("POST", &path, "x").await.status, pushes);
    }
    assert_eq!(api.get(&path).await.status, 401);
}

/// Pushes numbers one after the other, each until it is told what came of that one.
async fn count(api: Api, fd: u64, ends: Arc<AtomicBool>) -> u64 {
    let mut next = 0;
    while !ends.load(Ordering::Relaxed) {
        let reply = api.ask("POST", &connection(fd), next.to_string()).await;
        assert_eq!(reply.status, 200, "{next}: {reply:?}");
        next += 1;
    }
    next
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_done_twice_over_reloads() {
    let server = Setup::testbed().with_api().start().await;
    let api = Api::of(&server).await;
    let ends = Arc::new(AtomicBool::new(false));
    let mut counters = Vec::new();
    for slot in 0..2 {
        let mut client = server.client_on(slot).await;
        let fd = client.who().await.fd;
        let counted = tokio::spawn(count(api.clone(), fd, ends.clone()));
        counters.push((client, counted));
    }
    for _ in 0..5 {
        server.wsd(["reload"]).await.ok();
    }
    ends.store(true, Ordering::Relaxed);
    for (mut client, counted) in counters {
        let sent = counted.await.unwrap();
        assert!(sent > 0);
        for number in 0..sent {
            assert_eq!(client.receive().await, number.to_string());
        }
    }
}

/// Every block of `docs/api.md` that begins with `curl`, as it stands there.
fn examples() -> Vec<String> {
    let text = std::fs::read_to_string(repository().join("docs/api.md")).unwrap();
    let blocks = text.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix("sh\n").map(str::to_owned)).collect()
}

async fn shell(directory: &Path, script: &str, variables: &[(&str, &str)]) -> String {
    let mut sh = Command::new("sh");
    sh.args(["-ec", script]).current_dir(directory).stdin(Stdio::null());
    sh.envs(variables.iter().copied());
    let ran = command(&mut sh).await;
    assert_eq!(ran.code, Some(0), "{script}\n{ran:?}");
    ran.stdout
}

#[tokio::test]
async fn every_curl_of_the_document_works_as_it_stands() {
    let server: Server = Setup::testbed().with_api().start().await;
    let socket = server.path().join("api.sock");
    let examples = examples();
    assert!(examples.len() >= 8, "{examples:?}");
    let mut said = String::new();
    let mut bystanders = [server.client_on(0).await, server.client_on(1).await];
    for example in examples {
        // Each has a client of its own, as one example closes it.
        let mut client = server.client().await;
        let fd = client.who().await.fd.to_string();
        client.ask("join-confirmed me lobby caf\u{e9}").await;
        client.ask("bind me user-42").await;
        let socket = socket.display().to_string();
        let variables = [("API", socket.as_str()), ("FD", fd.as_str())];
        said.push_str(&shell(server.path(), &example, &variables).await);
        if example.contains("/v1/broadcast") {
            // What goes to every client is not to come to that of the next example.
            for bystander in &mut bystanders {
                bystander.receive().await;
            }
        }
    }
    assert!(said.contains("\"verdict\":\"queued\""), "{said}");
    assert!(said.contains("wsd_opened_total"), "{said}");
    let refused = said.lines().find(|line| line.contains("{\"error\":"));
    assert_eq!(refused, None, "{said}");
}
