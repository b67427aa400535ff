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
