//! Rooms and users from applications in other languages, under the whole server.

use crate::daemon::app;
use crate::harness::*;
use crate::support::path;

async fn chat(language: &str, script: &str) {
    let script = path(script);
    let source = std::fs::read_to_string(&script).unwrap();
    let lines = source.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 30, "{lines} lines");
    let setup = app(&[language, &script]).set("worker_num", 4).set("app.processes", 2);
    let server = setup.start().await;
    all_of_eight_hear_each_whatever_dies(&server).await;
}

#[tokio::test]
async fn a_chat_in_php_reaches_all_of_eight_on_four_workers_of_two_processes() {
    chat("php", "tests/app/fixtures/rooms.php").await;
}

#[tokio::test]
async fn a_chat_in_python_reaches_all_of_eight_on_four_workers_of_two_processes() {
    chat("python3", "tests/app/fixtures/rooms.py").await;
}

#[tokio::test]
async fn a_chat_for_asyncio_reaches_all_of_eight_on_four_workers_of_two_processes() {
    chat("python3", "tests/app/fixtures/rooms_asyncio.py").await;
}

#[tokio::test]
async fn a_handler_for_asyncio_is_answered_also_while_its_process_is_to_be_replaced() {
    let setup = app(&["python3", &path("tests/app/fixtures/asks_asyncio.py")]);
    let server = setup.set("worker_num", 1).set("app.max_requests", 3).start().await;
    let mut slow = Client::connect(&server.address, "/").await;
    slow.send("slow").await;
    let mut quick = Client::connect(&server.address, "/").await;
    for _ in 0..4 {
        quick.send("quick").await;
        assert_eq!(quick.receive().await, "joined True");
    }
    assert_eq!(slow.receive().await, "joined True");
}

#[tokio::test]
async fn a_chat_by_gatewayworkers_verbs_reaches_all_of_eight_on_four_workers_of_two_processes() {
    let setup = app(&["php", &path("tests/app/fixtures/gateway.php")]);
    let server = setup.set("worker_num", 4).set("app.processes", 2).start().await;
    all_of_eight_hear_each_whatever_dies(&server).await;
}

/// Lists are in no order.
fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"))
}

/// What a verb answers, asked in an application process and, as artisan would, outside of it.
async fn both_ways(server: &Server, asker: &mut Client, verb: &str, arguments: &str) -> String {
    let script = format!(
        "require {:?}; use GatewayWorker\\Lib\\Gateway; \
         Gateway::$settings = ['runtime_dir' => {:?}]; \
         echo json_encode(Gateway::{verb}(...json_decode({arguments:?}, true)));",
        path("clients/php/autoload.php"),
        server.runtime().display().to_string(),
    );
    let outside = command(tokio::process::Command::new("php").arg("-r").arg(script)).await.ok();
    asker.send(format!("/ask {verb} {arguments}")).await;
    let inside = asker.receive().await;
    assert_eq!(json(&inside), json(&outside), "{verb}");
    inside
}

#[tokio::test]
async fn gatewayworkers_verbs_answer_alike_in_the_application_and_outside_of_it() {
    let setup = app(&["php", &path("tests/app/fixtures/gateway.php")]);
    let server = setup.set("worker_num", 2).set("app.processes", 2).start().await;
    let asker = &mut Client::connect(&server.address, "/?name=asker").await;
    let mut ann = Client::connect(&server.address, "/?name=ann").await;
    ann.send("/join lobby").await;
    assert_eq!(ann.receive().await, "lobby * ann is here");
    let found = both_ways(&server, asker, "getClientIdByUid", r#"["ann"]"#).await;
    let fd = found.trim_matches(['[', ']']).to_owned();
    for (verb, arguments, answer) in [
        ("isOnline", "[ANN]", "1"),
        ("isOnline", "[7]", "0"),
        ("isUidOnline", r#"["ann"]"#, "1"),
        ("isUidOnline", r#"["bob"]"#, "0"),
        ("getUidByClientId", "[ANN]", r#""ann""#),
        ("getUidByClientId", "[7]", "null"),
        ("getClientIdListByGroup", r#"["lobby"]"#, r#"{"ANN":ANN}"#),
        ("getClientIdListByGroup", r#"["nobody's"]"#, "[]"),
        ("getClientCountByGroup", r#"["lobby"]"#, "1"),
        ("getUidListByGroup", r#"["lobby"]"#, r#"{"ann":"ann"}"#),
        ("getAllClientCount", "[]", "2"),
        ("getAllUidList", "[]", r#"{"asker":"asker","ann":"ann"}"#),
        ("setSession", r#"[ANN, {"seat": 7, "at": {"x": 1}}]"#, "true"),
        ("updateSession", r#"[ANN, {"at": {"y": 2}}]"#, "true"),
        ("getSession", "[ANN]", r#"{"seat":7,"at":{"x":1,"y":2}}"#),
        ("getSession", "[7]", "null"),
        ("updateSession", "[7, []]", "false"),
        ("getClientSessionsByGroup", r#"["lobby"]"#, r#"{"ANN":{"seat":7,"at":{"x":1,"y":2}}}"#),
        ("getAllClientSessions", r#"["nobody's"]"#, "[]"),
        ("joinGroup", r#"[ANN, "second"]"#, "true"),
        ("unbindUid", r#"[ANN, "bob"]"#, "false"),
        ("bindUid", r#"[ANN, "anna"]"#, "true"),
        ("getUidByClientId", "[ANN]", r#""anna""#),
    ] {
        let arguments = arguments.replace("ANN", &fd);
        let said = both_ways(&server, asker, verb, &arguments).await;
        assert_eq!(json(&said), json(&answer.replace("ANN", &fd)), "{verb} {arguments}");
    }
    for (verb, arguments) in [
        ("sendToClient", r#"[ANN, "hello"]"#),
        ("sendToUid", r#"[["anna", "nobody"], "hello"]"#),
        ("sendToGroup", r#"[["lobby", "second"], "hello"]"#),
        ("sendToGroup", r#"["lobby", "hello", [7, 8]]"#),
        // GatewayWorker's `$raw`.
        ("sendToGroup", r#"["lobby", "hello", null, false]"#),
        ("sendToAll", r#"["hello", [ANN]]"#),
        ("sendToAll", r#"["hello", null, [ASKER, 7]]"#),
    ] {
        let asker_fd = both_ways(&server, asker, "getClientIdByUid", r#"["asker"]"#).await;
        let asker_fd = asker_fd.trim_matches(['[', ']']);
        let arguments = arguments.replace("ANN", &fd).replace("ASKER", asker_fd);
        both_ways(&server, asker, verb, &arguments).await;
        assert_eq!([ann.receive().await, ann.receive().await], ["hello", "hello"], "{verb}");
        // And not once more.
        both_ways(&server, asker, "sendToClient", &format!(r#"[{fd}, "next"]"#)).await;
        assert_eq!([ann.receive().await, ann.receive().await], ["next"; 2], "{verb}");
    }
    // Who is left out hears nothing.
    both_ways(&server, asker, "sendToGroup", &format!(r#"["lobby", "not for you", [{fd}]]"#))
        .await;
    both_ways(&server, asker, "ungroup", r#"["lobby"]"#).await;
    both_ways(&server, asker, "sendToGroup", r#"["lobby", "nor this"]"#).await;
    asker.send(format!(r#"/ask closeClient [{fd}, "good bye"]"#)).await;
    assert_eq!(asker.receive().await, "true");
    assert_eq!(ann.receive().await, "good bye");
    assert_eq!(ann.closed().await, Closed::Frame(1000, String::new()));
    assert_eq!(both_ways(&server, asker, "closeClient", &format!("[{fd}]")).await, "false");
}

#[tokio::test]
async fn a_message_to_more_groups_than_one_publish_names_reaches_a_member_of_several_once() {
    let setup = app(&["php", &path("tests/app/fixtures/gateway.php")]);
    let server = setup.set("worker_num", 2).start().await;
    let asker = &mut Client::connect(&server.address, "/?name=asker").await;
    let mut ann = Client::connect(&server.address, "/?name=ann").await;
    for group in ["first", "last"] {
        ann.send(format!("/join {group}")).await;
        assert_eq!(ann.receive().await, format!("{group} * ann is here"));
    }
    let between: String = (0..128).map(|n| format!("\"{n}\",")).collect();
    let groups = format!(r#"["first",{between}"last"]"#);
    for text in ["hello", "next"] {
        both_ways(&server, asker, "sendToGroup", &format!(r#"[{groups}, "{text}"]"#)).await;
        assert_eq!([ann.receive().await, ann.receive().await], [text; 2]);
    }
}

#[tokio::test]
async fn a_publish_to_more_rooms_than_it_may_name_is_an_error_in_python() {
    let script = "import sys; sys.path.insert(0, sys.argv[1]); import wsd_app; \
                  wsd_app.App().publish(['room'] * 129, b'')";
    let directory = path("clients/python");
    let mut python = tokio::process::Command::new("python3");
    let ran = command(python.args(["-c", script, &directory])).await;
    assert!(ran.stderr.ends_with("ValueError: name 1 to 128 rooms\n"), "{ran:?}");
}

#[tokio::test]
async fn a_publish_to_a_name_that_nobody_can_have_is_refused_in_php() {
    let script = "require $argv[1]; $app = new Wsd\\App(); $long = str_repeat('x', 256); \
                  $named = [$app->publish(\"\\xff\", ''), $app->publish(['room', $long], ''), \
                            $app->pushUid($long, '')]; \
                  exit($named === [false, false, false] ? 0 : 1);";
    let mut php = tokio::process::Command::new("php");
    command(php.args(["-r", script, &path("clients/php/autoload.php")])).await.ok();
}

/// A handler that nobody calls lets everybody in, where it was to decide about handshakes.
#[tokio::test]
async fn a_handler_of_an_event_that_does_not_exist_is_an_error_in_python() {
    for (module, event) in [("wsd_app", "mesage"), ("wsd_asyncio", "request")] {
        let script = format!(
            "import sys; sys.path.insert(0, sys.argv[1]); import {module}; \
             {module}.App().on({event:?})"
        );
        let mut python = tokio::process::Command::new("python3");
        let ran = command(python.args(["-c", &script, &path("clients/python")])).await;
        let error = format!("ValueError: there is no event '{event}' here, only start, ");
        assert!(ran.stderr.contains(&error), "{ran:?}");
    }
}

#[tokio::test]
async fn what_is_published_at_an_opening_finds_who_joined_in_the_handshake() {
    let server = app(&["php", &path("tests/app/fixtures/let_in.php")]).start().await;
    for round in 0..5 {
        let mut client = Client::connect(&server.address, &format!("/{round}")).await;
        assert_eq!(client.receive().await, "here", "{round}");
    }
}

#[tokio::test]
async fn an_application_is_told_what_of_a_client_that_is_not_open_yet_is_not_kept() {
    let server = app(&["python3", &path("tests/app/fixtures/eager.py")]).start().await;
    let mut client = Client::connect(&server.address, "/").await;
    client.send("what was done?").await;
    assert_eq!(client.receive().await, "1024 1024");
}

/// What the process sends behind its decision waits until the client is open, or is known to have
/// left.
#[tokio::test]
async fn a_client_that_leaves_while_an_application_decides_keeps_nobody_waiting() {
    let setup = app(&["python3", &path("tests/app/fixtures/undecided_asyncio.py")]);
    let server = setup.set("app.processes", 1).start().await;
    let mut first = Client::connect(&server.address, "/").await;
    for _ in 0..3 {
        let mut leaver = Raw::connect(&server.address).await;
        leaver.send(handshake(&server.address, "X-Waits: 1\r\n")).await;
        assert_eq!(first.receive().await, "asked");
        drop(leaver);
        first.send("let it in").await;
        assert_eq!(first.receive().await, "client_vanished");
    }
}

/// By the names of the server in a queue worker, which asks over the control socket.
#[tokio::test]
async fn what_presence_shows_may_be_given_from_outside_of_the_application() {
    let setup = app(&["php", &path("tests/app/fixtures/presence.php")]);
    let server = setup.set("worker_num", 2).start().await;
    let mut ann = Client::connect(&server.address, "/?name=ann").await;
    assert_eq!(ann.receive().await, "came ann of ann");
    let script = format!(
        "require {:?}; \
         $server = new class {{ \
             use Wsd\\RoomsOf; \
             public function wsdRooms(): Wsd\\Control {{ \
                 return new Wsd\\Control(['runtime_dir' => {:?}]); \
             }} \
         }}; \
         $fd = $server->wsdRooms()->connectionsOf('ann')[0]['fd']; \
         exit($server->join($fd, 'presence-b', ['of' => 'outside']) ? 0 : 1);",
        path("clients/php/autoload.php"),
        server.runtime().display().to_string(),
    );
    command(tokio::process::Command::new("php").arg("-r").arg(script)).await.ok();
    assert_eq!(ann.receive().await, "came ann of outside");
}

/// Each is told of those who come after it and of those who leave, once, on both workers.
#[tokio::test]
async fn applications_hear_who_comes_and_who_leaves() {
    for (language, script) in
        [("php", "presence.php"), ("python3", "presence.py"), ("python3", "presence_asyncio.py")]
    {
        let script = path(&format!("tests/app/fixtures/{script}"));
        let setup = app(&[language, &script]).set("worker_num", 2).set("app.processes", 2);
        let server = setup.start().await;
        let enter =
            async |name: &str| Client::connect(&server.address, &format!("/?name={name}")).await;
        let mut ann = enter("ann").await;
        assert_eq!(ann.receive().await, "came ann of ann", "{language}");
        for round in 0..4 {
            let name = format!("bob{round}");
            let mut bob = enter(&name).await;
            let came = format!("came {name} of {name}");
            // Of the one before its own worker may hear only now.
            while bob.receive().await != came {}
            assert_eq!(ann.receive().await, came);
            drop(bob);
            assert_eq!(ann.receive().await, format!("left {name} of {name}"));
        }
    }
}

#[tokio::test]
async fn at_the_end_of_a_client_an_application_reads_what_the_client_had() {
    for (language, script) in
        [("php", "parting.php"), ("python3", "parting.py"), ("python3", "parting_asyncio.py")]
    {
        let script = path(&format!("tests/app/fixtures/{script}"));
        let server = app(&[language, &script]).start().await;
        let mut watcher = Client::connect(&server.address, "/").await;
        assert_eq!(watcher.ask("watch").await, "done");
        let mut ann = Client::connect(&server.address, "/").await;
        assert_eq!(ann.ask("settle").await, "done");
        let stranger = Client::connect(&server.address, "/").await;
        ann.close(1000, "bye").await;
        let told = r#"["ann", ["lobby", "second"], {"seat": 7}, "bye", null]"#;
        assert_eq!(json(&watcher.receive().await), json(told), "{script}");
        stranger.close(1000, "").await;
        let told = r#"[null, [], null, "", null]"#;
        assert_eq!(json(&watcher.receive().await), json(told), "{script}");
    }
}
