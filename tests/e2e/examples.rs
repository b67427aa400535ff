//! The programs of `examples/` do what they say.

use crate::harness::*;

#[tokio::test]
async fn the_tutorials_server_greets_and_answers() {
    let source = include_str!("../../examples/tutorial.rs");
    assert!(source.lines().count() <= 20);
    let server = Setup::example("tutorial").start().await;
    let mut client = server.client().await;
    assert_eq!(client.receive().await, "hello, welcome\n");
    assert_eq!(client.ask("hello").await, "this is server");
    assert_eq!(client.ask("again").await, "this is server");
    client.close(1000, "").await;
    server.has_connections(0).await;
}

#[tokio::test]
async fn another_worker_answers_knowing_nothing_but_the_number() {
    let server = Setup::example("push_from_another_worker").start().await;
    let mut client = server.client().await;
    let answer = client.ask("hello").await;
    let known = ["worker 1 answers for worker 0: hello", "worker 0 answers for worker 1: hello"];
    assert!(known.contains(&answer.as_str()), "{answer}");
}

/// A program built on the crate is a daemon like the stock one.
#[tokio::test]
async fn any_program_has_the_whole_command_line() {
    let server = Setup::example("tutorial").start().await;
    let mut client = server.client().await;
    client.receive().await;
    let fd = server.connections().await[0]["fd"].to_string();
    server.wsd(["push", &fd, "from the shell"]).await.ok();
    assert_eq!(client.receive().await, "from the shell");
    server.wsd(["reload"]).await.ok();
    server.wsd(["stop"]).await.ok();
}
