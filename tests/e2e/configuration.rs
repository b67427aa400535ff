//! Configurations that are wrong: told all at once, by `check`, without binding anything.

use std::path::Path;

use tokio::process::Command;

use crate::harness::*;

/// A wrong file, and what the complaint has to name.
const BROKEN: &[(&str, &[&str])] = &[
    ("worker_nmu = 2", &["worker_nmu", "worker_num"]),
    ("heartbeat_idel_time = 5", &["heartbeat_idel_time", "heartbeat_idle_time"]),
    ("worker_num = \"many\"", &["worker_num"]),
    ("worker_num = -1", &["worker_num"]),
    ("worker_num = 257", &["worker_num", "256"]),
    ("worker_num = 2.5", &["worker_num"]),
    ("handler = \"chess\"", &["handler", "chat"]),
    ("listen = \"127.0.0.1:99999\"", &["listen"]),
    ("listen = \"127.0.0.1\"", &["listen"]),
    ("listen = \"unix:\"", &["listen"]),
    ("listen = []", &["listen"]),
    ("listen = [\"127.0.0.1:80\", \"127.0.0.1:80\"]", &["listen"]),
    ("log_level = \"inof\"", &["log_level", "info"]),
    ("log_format = \"xml\"", &["log_format", "json"]),
    ("buffer_policy = \"keep\"", &["buffer_policy", "close"]),
    ("package_max_length = \"2 parsecs\"", &["package_max_length"]),
    ("package_max_length = 0", &["package_max_length"]),
    ("handshake_timeout = \"soon\"", &["handshake_timeout"]),
    ("handshake_timeout = 0", &["handshake_timeout"]),
    ("ping_interval = -5", &["ping_interval"]),
    ("allowed_origins = [\"example.com\"]", &["allowed_origins"]),
    ("allowed_origins = [\"https://example.com/path\"]", &["allowed_origins"]),
    ("trusted_proxies = [\"10.0.0.0/33\"]", &["trusted_proxies"]),
    ("trusted_proxies = [\"proxy.example\"]", &["trusted_proxies"]),
    ("subprotocols = [\"two words\"]", &["subprotocols"]),
    ("daemonize = \"perhaps\"", &["daemonize"]),
    ("backlog = 0", &["backlog"]),
    ("worker_num = 1\nworker_num = 2", &["wsd.toml:2", "duplicate"]),
    ("worker_num", &["wsd.toml:1"]),
    ("= 5", &["wsd.toml:1"]),
    ("[app]\ncomand = \"php\"", &["comand", "command"]),
    ("[ap]\ncommand = \"php\"", &["ap"]),
    ("handler = \"app\"", &["command"]),
];

async fn check(directory: &Path, text: impl AsRef<[u8]>) -> Ran {
    let file = directory.join("wsd.toml");
    std::fs::write(&file, text).unwrap();
    let mut wsd = Command::new(stock_program());
    command(wsd.args(["check", "-c"]).arg(&file)).await
}

#[tokio::test]
async fn check_names_the_fault_its_line_and_what_would_be_right() {
    assert!(BROKEN.len() >= 20);
    let directory = tempfile::tempdir().unwrap();
    let mut faults = Vec::new();
    for (text, named) in BROKEN {
        let ran = check(directory.path(), text).await;
        let said = format!("{}{}", ran.stdout, ran.stderr);
        let names_all = named.iter().all(|name| said.contains(name));
        if ran.code == Some(0) || !names_all || !said.contains("wsd.toml") {
            faults.push(format!("{text:?}: {:?} and {said:?}", ran.code));
        }
    }
    let ran = check(directory.path(), b"worker_num = 2 # \xff").await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn check_tells_every_fault_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let text: Vec<&str> = ["worker_nmu = 2", "worker_num = 300", "log_level = \"inof\""].into();
    let ran = check(directory.path(), text.join("\n")).await;
    for line in 1..=3 {
        assert!(ran.stderr.contains(&format!("wsd.toml:{line}:")), "{ran:?}");
    }
}

#[tokio::test]
async fn check_binds_nothing_and_takes_a_good_file() {
    let server = Setup::stock().start().await;
    let directory = tempfile::tempdir().unwrap();
    // In use, which `check` neither notices nor disturbs.
    let text = format!("listen = {:?}\n", server.address);
    check(directory.path(), text).await.ok();
    let shipped = repository().join("etc/wsd.toml");
    check(directory.path(), std::fs::read(shipped).unwrap()).await.ok();
    check(directory.path(), "").await.ok();
    server.status().await;
}

#[tokio::test]
async fn a_wrong_override_is_named_by_where_it_was_given() {
    let mut wsd = Command::new(stock_program());
    wsd.args(["check", "--set", "worker_num=none"]).env("WSD_LOG_LEVLE", "info");
    let ran = command(&mut wsd).await;
    assert_ne!(ran.code, Some(0));
    for name in ["--set worker_num", "WSD_LOG_LEVLE"] {
        assert!(ran.stderr.contains(name), "{ran:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let mut wsd = Command::new(stock_program());
    let ran = command(wsd.args(["check", "-c", "/nowhere/wsd.toml"])).await;
    assert_ne!(ran.code, Some(0));
    assert!(ran.stderr.contains("/nowhere/wsd.toml"), "{ran:?}");
}

#[tokio::test]
async fn later_sources_win_over_earlier_ones() {
    let setup = Setup::stock().set("worker_num", 1).env("WSD_WORKER_NUM", "2");
    let server = setup.start().await;
    assert_eq!(server.workers().await.len(), 2);
    server.wsd(["stop"]).await.ok();
    let mut start = server.starter();
    command(start.args(["start", "-d", "--set", "worker_num=3"])).await.ok();
    assert_eq!(server.workers().await.len(), 3);
}
