//! Scripts in the manner of public chat servers, games, dashboards and task queues. Each says in
//! its first comment what its clients do and hear; that is played on wsd and, where `TEST_SWOOLE`
//! names a swoole.so, on Swoole as well.
//!
//! A line is `CLIENT + PATH [cookie: VALUE]` (connects; `+2`: to the second port),
//! `CLIENT ! PATH STATUS` (is refused), `CLIENT > TEXT` (says), `CLIENT < TEXT` (hears next),
//! `CLIENT ~ TEXT` (hears, after others), `CLIENT x CODE [REASON]` (is closed), `CLIENT .` (is
//! closed, in Swoole without a close frame), `CLIENT -` (leaves), `GET PATH : STATUS BODY`,
//! `POST PATH FORM : STATUS BODY`, or `FILE LINE, LINE` (what the script wrote when it had ended).

use std::collections::HashMap;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;

use crate::harness::{Client, Closed, soon};
use crate::sites::{Script, free_port};
use crate::support::path;

struct Play<'a> {
    name: &'a str,
    script: Script,
    second: String,
    clients: HashMap<String, Client>,
    notes: &'a Path,
}

impl Play<'_> {
    async fn line(&mut self, line: &str) {
        let at = format!("{}: {line}", self.name);
        let (who, rest) = line.split_once(' ').unwrap();
        let (what, rest) = match who {
            "GET" | "POST" => (who, rest),
            _ => rest.split_once(' ').unwrap_or((rest, "")),
        };
        match what {
            "GET" | "POST" => self.request(what, rest, &at).await,
            "+2" => {
                let client = Client::connect(&self.second, rest).await;
                self.clients.insert(who.to_owned(), client);
            }
            "+" => {
                let (path, field) = rest.split_once(' ').unwrap_or((rest, ""));
                let cookie = field.strip_prefix("cookie: ").map(|value| ("cookie", value));
                let fields: Vec<_> = cookie.into_iter().collect();
                let client = Client::connect_with(&self.script.address, path, &fields).await;
                self.clients.insert(who.to_owned(), client.unwrap());
            }
            "!" => {
                let (path, status) = rest.split_once(' ').unwrap();
                match Client::connect_with(&self.script.address, path, &[]).await {
                    Err(Error::Http(answer)) => {
                        assert_eq!(answer.status().as_str(), status, "{at}")
                    }
                    other => panic!("{at}: {:?}", other.map(|_| "let in")),
                }
            }
            "-" => drop(self.clients.remove(who).unwrap().close(1000, "").await),
            _ => self.heard(who, what, rest, &at).await,
        }
    }

    async fn heard(&mut self, who: &str, what: &str, rest: &str, at: &str) {
        let client = self.clients.get_mut(who).unwrap();
        match what {
            ">" => client.send(rest).await,
            "<" => assert_eq!(client.receive().await, rest, "{at}"),
            "." => drop(self.clients.remove(who).unwrap().closed().await),
            "~" => while client.receive().await != rest {},
            "x" => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                let closed = self.clients.remove(who).unwrap().closed().await;
                let Closed::Frame(had, why) = closed else { panic!("{at}: {closed:?}") };
                assert_eq!(had.to_string(), code, "{at}");
                assert!(reason.is_empty() || why == reason, "{at}: {why}");
            }
            _ => panic!("{at}: no such line"),
        }
    }

    async fn request(&self, method: &str, line: &str, at: &str) {
        let (what, wanted) = line.split_once(" : ").unwrap();
        let (target, form) = what.split_once(' ').unwrap_or((what, ""));
        let kind = "content-type: application/x-www-form-urlencoded\r\n";
        let head =
            format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
        let body = format!("{kind}content-length: {}\r\n\r\n{form}", form.len());
        let mut stream = TcpStream::connect(&self.script.address).await.unwrap();
        stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(format!("{} {body}", &head[9..12]), wanted, "{at}");
    }

    /// Ends the script, and looks at what it has written.
    async fn end(self, files: &[&str]) {
        if files.is_empty() {
            return self.script.stop().await;
        }
        self.script.ended().await;
        for wanted in files {
            let written = std::fs::read_to_string(self.notes).unwrap();
            let mut written: Vec<&str> = written.lines().collect();
            let mut wanted: Vec<&str> = wanted.split(", ").collect();
            written.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(written, wanted, "{}", self.name);
        }
    }
}

/// Plays a script, with these arguments of PHP's.
async fn play(name: &str, arguments: &[&str]) {
    let script = path(&format!("tests/app/fixtures/plays/{name}.php"));
    let text = std::fs::read_to_string(&script).unwrap();
    let (files, lines): (Vec<&str>, Vec<&str>) = text
        .lines()
        .filter_map(|line| line.strip_prefix("//   "))
        .partition(|line| line.starts_with("FILE "));
    assert!(!lines.is_empty(), "{name} says nothing to play");
    let files: Vec<&str> = files.iter().filter_map(|line| line.strip_prefix("FILE ")).collect();
    let directory = tempfile::tempdir().unwrap();
    let notes = directory.path().join("notes");
    let words = [arguments, &[script.as_str()]].concat();
    let port = free_port().await.to_string();
    let env = [("NOTES", notes.to_str().unwrap()), ("PORT2", &port)];
    let script = Script::start_with(&words, &env).await;
    let second = format!("127.0.0.1:{port}");
    let mut play = Play { name, script, second, clients: HashMap::new(), notes: &notes };
    for line in lines {
        play.line(line).await;
    }
    play.end(&files).await;
}

/// On wsd, and on Swoole where a machine has it.
async fn play_on_both(name: &str) {
    play(name, &[]).await;
    if let Some(extension) = std::env::var_os("TEST_SWOOLE") {
        play(name, &["-d", &format!("extension={}", extension.display())]).await;
    }
}

macro_rules! plays {
    ($($name:ident)*) => { $(
        #[tokio::test]
        async fn $name() {
            play_on_both(stringify!($name)).await;
        }
    )* };
}

plays! {
    beside binary cookies dashboard doorbell errands game history jobs leavers lifecycle
    limits lines lobby online parallel pipes private progress push_api reminders rooms
    timers token two_doors visitors
}

#[tokio::test]
async fn a_pipe_needs_no_extension_of_php() {
    play("lines", &["-n"]).await;
}

#[test]
fn every_script_is_played() {
    let here = include_str!("plays.rs");
    let list = here.split("plays! {\n").nth(1).unwrap().split('}').next().unwrap();
    for file in std::fs::read_dir(path("tests/app/fixtures/plays")).unwrap() {
        let name = file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(list.split_whitespace().any(|played| played == name), "{name} is not played");
    }
}
