//! The same script on wsd and on the swoole extension: what it prints and what its clients hear
//! has to be the same.
//!
//! The extension is none of what the tests install. `TEST_SWOOLE` names it, for example
//! /usr/lib/php/20220829/swoole.so; without it only wsd's half is run.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Client, Closed, soon};
use crate::sites::Script;
use crate::support::path;

#[tokio::test]
async fn a_script_does_on_wsd_what_it_does_on_swoole() {
    let script = path("tests/app/fixtures/transcript.php");
    let ours = play(&[&script]).await;
    assert!(ours.iter().any(|line| line.contains(r##"["close frame","#2",1000,"see you",8]"##)));
    let Some(extension) = std::env::var_os("TEST_SWOOLE") else {
        eprintln!("TEST_SWOOLE names no swoole.so: not compared with Swoole itself");
        return;
    };
    let load = format!("extension={}", extension.display());
    let theirs = play(&["-d", &load, &script]).await;
    let both: Vec<_> = ours.iter().zip(&theirs).filter(|(our, their)| our != their).collect();
    assert!(both.is_empty() && ours.len() == theirs.len(), "wsd, Swoole: {both:#?}\n{theirs:#?}");
}

/// Runs the script, does the same things to it each time, and tells what was printed and heard.
async fn play(arguments: &[&str]) -> Vec<String> {
    let mut script = Script::start(arguments).await;
    let address = script.address.clone();
    let mut told = Vec::new();
    let own = [("cookie", "a=1; b=%41"), ("x-own", "mine")];
    let mut first = Client::connect_with(&address, "/a%20b?x=1&y[]=2", &own).await.unwrap();
    for words in [
        "echo 你好",
        "binary",
        "empty",
        "frame",
        "pieces",
        "info",
        "list",
        "count",
        "wire hi",
        "timers",
    ] {
        ask(&mut first, words, &mut told).await;
    }
    for _ in ["after", "tick 1", "tick 2"] {
        told.push(hear(&mut first).await);
    }
    ask(&mut first, "remember", &mut told).await;
    let mut second = Client::connect(&address, "/").await;
    for words in ["list", "last second", "known"] {
        ask(&mut second, words, &mut told).await;
    }
    told.push(hear(&mut first).await);
    first.send_message(Message::binary(vec![0, 159])).await.unwrap();
    told.push(hear(&mut first).await);
    ask(&mut first, &format!("echo {}", "x".repeat(70_000)), &mut told).await;
    told.push(post(&address).await);
    first.send("bye so long").await;
    told.push(format!("{:?}", first.closed().await));
    // From here on it is known to be gone.
    let mut printed = until_closed(&mut script).await;
    for words in ["gone", "known", "list", "count"] {
        ask(&mut second, words, &mut told).await;
    }
    // Swoole repeats the reason in its answer, which nobody needs.
    let ended = second.close(1000, "see you").await;
    assert!(matches!(ended, Closed::Frame(1000, _)), "{ended:?}");
    printed.extend(until_closed(&mut script).await);
    script.stop().await;
    printed.into_iter().chain(told).collect()
}

/// Sends words; everything that comes back up to "done" is told.
async fn ask(client: &mut Client, words: &str, told: &mut Vec<String>) {
    client.send(words).await;
    loop {
        match hear(client).await {
            end if end == "done" => break,
            other => {
                assert!(told.len() < 1000, "{words}: {told:#?}");
                told.push(other);
            }
        }
    }
    told.push(format!("that was {}", words.split(' ').next().unwrap_or_default()));
}

async fn hear(client: &mut Client) -> String {
    match client.next().await {
        Ok(Message::Text(text)) => text.to_string(),
        other => format!("{other:?}"),
    }
}

/// What the script prints up to the end of a connection.
async fn until_closed(script: &mut Script) -> Vec<String> {
    let mut printed: Vec<String> = Vec::new();
    while printed.last().is_none_or(|line| !line.starts_with(r#"["close","#)) {
        printed.push(script.line().await);
    }
    printed
}

/// A form that is posted to the same port: status, own header and body of the answer.
async fn post(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "POST /form?q=1 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
                   content-length: 10\r\n\
                   content-type: application/x-www-form-urlencoded\r\n\r\na=1&b=%20c";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
    let lower = answer.to_lowercase();
    let own = lower.lines().find(|line| line.starts_with("x-own"));
    format!("{:?} {own:?} {:?}", lower.get(..12), answer.split("\r\n\r\n").nth(1))
}
