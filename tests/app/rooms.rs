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
