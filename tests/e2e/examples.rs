//! The programs of `examples/` do what they say.

use nix::sys::signal::Signal;
use serde_json::Value;

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

/// Eight clients on four workers, before and after a reload, and after the deaths of a worker,
/// whose clients come back, and of the manager.
#[tokio::test]
async fn the_chat_of_rooms_reaches_all_of_eight_on_four_workers_whatever_dies() {
    let source = include_str!("../../examples/rooms.rs");
    assert!(source.lines().count() <= 41);
    let server = Setup::example("rooms").set("worker_num", 4).start().await;
    all_of_eight_hear_each_whatever_dies(&server).await;
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

#[tokio::test]
async fn who_a_token_belongs_to_is_known_after_a_reload_and_after_a_kill() {
    let setup = Setup::example("token");
    let tokens = setup.path().join("tokens");
    std::fs::write(&tokens, "t0k3n Ada\nother Bob\n").unwrap();
    let server = setup.env("TOKENS", &tokens.display().to_string()).start().await;
    let stranger = Client::connect_with(&server.address, "/?token=x", &[]).await;
    assert!(stranger.err().unwrap().to_string().contains("401"));

    let mut client = Client::connect(&server.address, "/?token=t0k3n").await;
    assert_eq!(client.receive().await, "hello, Ada");
    assert_eq!(client.ask("hi").await, "Ada says hi");

    server.wsd(["reload"]).await.ok();
    assert_eq!(client.ask("hi again").await, "Ada says hi again");

    for slot in 0..2 {
        kill(server.serving(slot, None).await.pid, Signal::SIGKILL);
    }
    assert_eq!(client.closed().await, Closed::Abruptly);
    let mut client = until("a worker to let Ada in again", async || {
        Client::connect_with(&server.address, "/?token=t0k3n", &[]).await.ok()
    })
    .await;
    assert_eq!(client.receive().await, "hello, Ada");
}

/// The numbers of the ticks that a client hears, up to and with the one that `last` is true of.
async fn ticks(client: &mut Client, mut last: impl FnMut(u64) -> bool) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let text = client.receive().await;
        let Some(number) = text.strip_prefix("tick ") else { continue };
        numbers.push(number.parse().unwrap());
        if last(numbers[numbers.len() - 1]) {
            return numbers;
        }
    }
}

#[tokio::test]
async fn the_ticker_tells_each_second_once_through_a_reload_and_a_kill() {
    let server = Setup::example("ticker").start().await;
    let (mut client, fd) = client_of_worker_1(&server).await;
    let first = ticks(&mut client, |_| true).await[0];

    server.wsd(["reload"]).await.ok();
    let killed = server.serving(0, None).await.pid;
    kill(killed, Signal::SIGKILL);
    server.serving(0, Some(killed)).await;
    let heard = ticks(&mut client, |number| number > first + 3).await;
    assert!(heard.is_sorted_by(|before, next| before < next), "told twice: {first}, {heard:?}");

    assert_eq!(post(&server, "/news", "the kettle is on").await, 202);
    while client.receive().await != "the kettle is on" {}
    assert_eq!(post(&server, &format!("/clients/{fd}"), "for you").await, 200);
    while client.receive().await != "for you" {}
    assert_eq!(post(&server, "/clients/1", "for nobody").await, 404);
    assert_eq!(post(&server, "/elsewhere", "").await, 404);
}

/// A client of the ticker that the worker of slot 1 serves, and its number.
async fn client_of_worker_1(server: &Server) -> (Client, String) {
    until("a client on that worker", async || {
        let mut client = server.client().await;
        let greeting = until("the greeting", async || {
            client.receive().await.strip_prefix("you are ").map(str::to_owned)
        });
        let fd = greeting.await;
        let known = server.connections().await;
        let is_there = |it: &Value| it["fd"].as_u64() == fd.parse().ok() && it["worker"] == 1;
        known.iter().any(is_there).then_some((client, fd))
    })
    .await
}

/// Posts a text; the answer is the status.
async fn post(server: &Server, path: &str, text: &str) -> u16 {
    let mut raw = Raw::connect(&server.address).await;
    let head = format!("POST {path} HTTP/1.1\r\nhost: {}\r\n", server.address);
    raw.send(format!("{head}content-length: {}\r\n\r\n{text}", text.len())).await;
    raw.head().await.split(' ').nth(1).unwrap().parse().unwrap()
}
