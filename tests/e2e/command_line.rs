//! The command line as a contract: what it prints for scripts, and how it exits.

use serde_json::Value;

use crate::harness::*;

/// What a command prints with `--json`.
async fn printed(server: &Server, command: &str) -> Value {
    let text = server.wsd([command, "--json"]).await.ok();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

#[tokio::test]
async fn status_tells_what_scripts_rely_on() {
    let server = Setup::testbed().start().await;
    let _client = server.client_on(1).await;
    server.has_connections(1).await;
    let status = printed(&server, "status").await;
    for key in ["master_pid", "manager_pid", "connections"] {
        assert!(status[key].is_u64(), "{key} in {status:#}");
    }
    assert!(status["counters"].is_object(), "{status:#}");
    assert_eq!(status["listen"][0], server.address.as_str());
    let workers = status["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 2);
    for (slot, worker) in workers.iter().enumerate() {
        assert_eq!(worker["slot"], slot);
        assert_eq!(worker["state"], "serving");
        assert_eq!(worker["connections"], slot);
        assert!(worker["pid"].is_u64() && worker["epoch"].is_u64(), "{worker:#}");
    }
    let shown = server.wsd(["status"]).await.ok();
    for pid in server.processes().iter().map(|process| process.pid.to_string()) {
        assert!(shown.contains(&pid), "{pid} is not in\n{shown}");
    }
    assert!(shown.contains(&server.address), "{shown}");
}

#[tokio::test]
async fn connections_lists_every_client() {
    let server = Setup::testbed().start().await;
    assert_eq!(printed(&server, "connections").await, Value::Array(Vec::new()));
    let mut one = server.client_on(0).await;
    let mut other = server.client_on(1).await;
    server.has_connections(2).await;
    let connections = printed(&server, "connections").await;
    let connections = connections.as_array().unwrap();
    assert_eq!(connections.len(), 2);
    for who in [one.who().await, other.who().await] {
        let listed = connections.iter().find(|listed| listed["fd"] == who.fd).unwrap();
        assert_eq!(listed["worker"], who.slot);
        assert!(listed["peer"].as_str().unwrap().starts_with("127.0.0.1:"), "{listed}");
        assert!(listed["connected_at"].as_u64().unwrap() > 1_700_000_000_000, "{listed}");
        assert!(listed["idle_ms"].is_u64(), "{listed}");
        assert!(server.wsd(["connections"]).await.ok().contains(&who.fd.to_string()));
    }
}

#[tokio::test]
async fn push_broadcast_and_close_reach_clients_from_the_shell() {
    let server = Setup::testbed().start().await;
    for slot in 0..2 {
        let mut client = server.client_on(slot).await;
        let fd = client.who().await.fd.to_string();
        server.wsd(["push", &fd, "from the shell ✓"]).await.ok();
        assert_eq!(client.receive().await, "from the shell ✓");
        server.wsd(["broadcast", "to all"]).await.ok();
        assert_eq!(client.receive().await, "to all");
        server.wsd(["close", &fd, "--code", "4001", "--reason", "see you"]).await.ok();
        assert_eq!(client.closed().await, Closed::Frame(4001, "see you".to_owned()));
        drop(client);
        server.has_connections(0).await;
        for words in [vec!["push", &fd, "late"], vec!["close", &fd]] {
            let ran = server.wsd(&words).await;
            assert_ne!(ran.code, Some(0), "{words:?}");
            assert!(ran.stderr.contains(&fd), "{ran:?}");
        }
    }
    for wrong in ["0", "-1", "+7", "007", "nonsense", "18446744073709551615"] {
        let ran = server.wsd(["push", wrong, "x"]).await;
        assert_ne!(ran.code, Some(0), "{wrong}");
        assert!(!ran.stderr.is_empty(), "{wrong}");
    }
}

#[tokio::test]
async fn where_nothing_runs_every_command_says_so() {
    let server = Setup::stock().start().await;
    server.wsd(["stop"]).await.ok();
    for words in [
        vec!["status"],
        vec!["connections"],
        vec!["reload"],
        vec!["push", "1", "x"],
        vec!["broadcast", "x"],
        vec!["close", "1"],
        vec!["stop"],
    ] {
        let ran = server.wsd(&words).await;
        assert_ne!(ran.code, Some(0), "{words:?}");
        assert!(!ran.stderr.is_empty(), "{words:?}: {ran:?}");
    }
}

#[tokio::test]
async fn help_names_every_command_and_the_exit_codes_are_told() {
    let server = Setup::stock().start().await;
    let help = server.wsd(["--help"]).await.ok();
    for name in [
        "start",
        "stop",
        "restart",
        "reload",
        "status",
        "connections",
        "push",
        "broadcast",
        "close",
    ] {
        assert!(help.contains(&format!("  {name} ")), "{name} is not in\n{help}");
        assert!(!server.wsd([name, "--help"]).await.ok().is_empty());
    }
    let unknown = server.wsd(["dance"]).await;
    assert_eq!(unknown.code, Some(2), "{unknown:?}");
}

#[tokio::test]
async fn a_command_given_while_the_manager_is_away_waits_for_the_next_one() {
    let server = Setup::stock().start().await;
    for _ in 0..5 {
        kill(server.manager().await, nix::sys::signal::SIGKILL);
        // Nothing in between: this command meets the gap.
        server.wsd(["status"]).await.ok();
    }
}

#[tokio::test]
async fn drain_and_reopen_print_json_to_whoever_asks_for_it() {
    let server = Setup::testbed().start().await;
    let _client = server.client().await;
    assert_eq!(printed(&server, "reopen").await["ok"], true);
    for undo in [false, true] {
        let words: &[&str] =
            if undo { &["drain", "--undo", "--json"] } else { &["drain", "--json"] };
        let text = server.wsd(words).await.ok();
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&told["ok"], &told["draining"]), (&true.into(), &(!undo).into()), "{text}");
    }
}

#[tokio::test]
async fn words_that_would_do_nothing_are_refused_with_what_to_write() {
    let server = Setup::testbed().start().await;
    let long = "x".repeat(256);
    let refused: [(&[&str], i32, &str); 10] = [
        (&["push", "--uid", "u"], 2, "push --uid UID TEXT"),
        (&["push", "--uid", "u", "5", "x"], 2, "no FD"),
        (&["push", "5"], 2, "push FD TEXT"),
        (&["push", "5", "x", "y"], 2, "Usage: wsd push"),
        (&["reload", "--set", "worker_num=3"], 2, "--set worker_num: "),
        (&["upgrade", "--set", "app.env.DB=hush"], 2, "--set app.env.DB: "),
        (&["members", &long], 5, "at most 255 bytes"),
        (&["publish", &long, "x"], 5, "at most 255 bytes"),
        (&["push", "--uid", &long, "x"], 5, "at most 255 bytes"),
        (&["connections", "--room", &long], 5, "at most 255 bytes"),
    ];
    for (words, code, said) in refused {
        let ran = server.wsd(words).await;
        assert_eq!(ran.code, Some(code), "{words:?}: {ran:?}");
        assert!(ran.stderr.contains(said) && !ran.stderr.contains("hush"), "{words:?}: {ran:?}");
    }
    assert_eq!(server.workers().await.len(), 2);
}

/// Runs `connect` with these lines as its standard input.
async fn connect(url: &str, more: &[&str], input: &str) -> Ran {
    connect_with(&[], url, more, input).await
}

async fn connect_with(
    environment: &[(&str, &std::path::Path)],
    url: &str,
    more: &[&str],
    input: &str,
) -> Ran {
    use tokio::io::AsyncWriteExt;
    let mut connect = tokio::process::Command::new(crate::harness::stock_program());
    connect.args(["connect", url]).args(more).kill_on_drop(true);
    connect.envs(environment.iter().copied());
    let pipe = std::process::Stdio::piped;
    let mut child = connect.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).await.unwrap();
    let output = crate::harness::soon("connect to end", child.wait_with_output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test]
async fn connect_sends_a_pipe_and_shows_what_comes() {
    let server = Setup::stock().set("handler", r#""echo""#).start().await;
    let url = format!("ws://{}/", server.address);
    let ran = connect(&url, &[], "one\ntwo\n").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert_eq!(ran.stdout, "connected\none\ntwo\nclosed with 1000 \n");
    let ran = connect(&url, &["--json", "--binary"], "x\n").await;
    let lines: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["type"], "open");
    assert_eq!(lines[1], serde_json::json!({ "type": "binary", "base64": "eA==" }));
    assert_eq!((&lines[2]["type"], &lines[2]["code"]), (&"close".into(), &1000.into()));
    let refused = connect(&format!("ws://{}/", "127.0.0.1:1"), &[], "").await;
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("127.0.0.1:1: "), "{refused:?}");
    assert_eq!(connect("http://127.0.0.1/", &[], "").await.code, Some(2));
}

#[tokio::test]
async fn connect_speaks_tls_to_who_has_a_certificate_that_is_trusted() {
    let server = Setup::stock().set("handler", r#""echo""#).start().await;
    let nginx = crate::proxy::Nginx::with_tls(server.path(), &server.address).await;
    let url = format!("wss://localhost:{}/", nginx.address.rsplit(':').next().unwrap());
    let stranger = connect(&url, &[], "one\n").await;
    assert_eq!(stranger.code, Some(1), "{stranger:?}");
    assert!(stranger.stderr.contains("certificate"), "{stranger:?}");
    let trusted = server.path().join("fullchain.pem");
    let ran = connect_with(&[("SSL_CERT_FILE", &trusted)], &url, &[], "one\n").await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "connected\none\nclosed with 1000 \n"));
}

#[tokio::test]
async fn the_program_writes_its_manual_and_its_completions() {
    let directory = tempfile::tempdir().unwrap();
    let mut wsd = tokio::process::Command::new(crate::harness::stock_program());
    let ran = crate::harness::command(wsd.arg("manual").arg(directory.path())).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for page in ["wsd.1", "wsd-start.1", "wsd-connect.1"] {
        assert!(directory.path().join(page).is_file(), "{page}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let mut wsd = tokio::process::Command::new(crate::harness::stock_program());
        let text = crate::harness::command(wsd.args(["completions", shell])).await.ok();
        assert!(text.contains("connections"), "{shell}");
    }
}

#[tokio::test]
async fn rooms_and_users_are_reached_from_the_command_line() {
    let server = Setup::testbed().start().await;
    let (mut one, mut other) = (server.client_on(0).await, server.client_on(1).await);
    let (one_is, other_is) = (one.who().await.fd, other.who().await.fd);
    for client in [&mut one, &mut other] {
        client.ask("join-confirmed me lobby").await;
    }
    other.ask("bind me ann").await;
    server.has_connections(2).await;
    let rooms = serde_json::json!([{"room": "lobby", "members": 2}]);
    assert_eq!(printed(&server, "rooms").await, rooms);
    assert!(server.wsd(["rooms"]).await.ok().contains("1 room"));
    let members = server.wsd(["members", "lobby", "--json"]).await.ok();
    let members: Value = serde_json::from_str(&members).unwrap();
    let listed: Vec<&Value> = members.as_array().unwrap().iter().collect();
    for (fd, uid) in [(one_is, Value::Null), (other_is, "ann".into())] {
        assert!(listed.contains(&&serde_json::json!({"fd": fd, "uid": uid})), "{members}");
    }
    assert_eq!(server.wsd(["publish", "lobby", "hello"]).await.ok(), "queued for 2\n");
    for client in [&mut one, &mut other] {
        assert_eq!(client.receive().await, "hello");
    }
    assert_eq!(server.wsd(["publish", "nowhere", "hello"]).await.ok(), "nobody is there\n");
    let tally = server.wsd(["publish", "lobby", "again", "--json"]).await.ok();
    let tally: Value = serde_json::from_str(&tally).unwrap();
    assert_eq!((&tally["queued"], &tally["workers"]), (&2.into(), &2.into()), "{tally}");
    assert_eq!(one.receive().await, "again");
    assert_eq!(other.receive().await, "again");
    assert_eq!(server.wsd(["push", "--uid", "ann", "to you"]).await.ok(), "queued for 1\n");
    assert_eq!(other.receive().await, "to you");
    let nobody = server.wsd(["push", "--uid", "bob", "to you"]).await;
    assert_eq!(nobody.code, Some(4), "{nobody:?}");
    assert!(nobody.stderr.contains("user bob has no connection"), "{nobody:?}");
    let listed = server.wsd(["connections", "--room", "lobby", "--json"]).await.ok();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 2, "{listed}");
    let listed = server.wsd(["connections", "--uid", "ann", "--json"]).await.ok();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    assert_eq!((&listed[0]["fd"], &listed[0]["uid"]), (&other_is.into(), &"ann".into()));
    assert!(server.wsd(["connections"]).await.ok().contains("ann"));
    let fd = other_is.to_string();
    assert!(server.wsd(["info", &fd]).await.ok().contains("lobby"));
    let wrong = server.wsd(["push", "someone", "hello"]).await;
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("no client's number"), "{wrong:?}");
}

#[tokio::test]
async fn a_message_for_many_that_is_too_long_is_told_as_that_and_not_as_done() {
    let setup = Setup::testbed().set("package_max_length", 1000);
    let server = setup.set("buffer_output_size", 1000).start().await;
    let mut client = server.client().await;
    client.ask("join-confirmed me lobby").await;
    client.ask("bind-confirmed me ann").await;
    let long: &str = &"x".repeat(1001);
    for words in [
        vec!["broadcast", long],
        vec!["publish", "lobby", long],
        vec!["publish", "nowhere", long],
        vec!["push", "--uid", "ann", long],
    ] {
        let ran = server.wsd(words).await;
        assert_eq!(ran.code, Some(5), "{ran:?}");
        assert!(ran.stderr.contains("larger than a message may be"), "{ran:?}");
    }
    assert_eq!(server.wsd(["publish", "lobby", &long[1..]]).await.ok(), "queued for 1\n");
    assert_eq!(client.receive().await, &long[1..]);
}
