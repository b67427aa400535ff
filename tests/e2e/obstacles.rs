//! What a start would fail on is found by `check`, and told by `start` before anything is begun.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::harness::*;

/// Lines of a configuration, and what each complaint of them has to name.
const OBSTACLES: &[(&str, &[&str])] = &[
    ("user = \"no-such-user\"", &["user", "no-such-user"]),
    ("group = \"no-such-group\"", &["group", "no-such-group"]),
    ("app.user = \"no-such-user\"", &["app.user", "no-such-user"]),
    ("app.command = \"no-such-program x\"", &["app.command", "no-such-program", "PATH"]),
    ("app.command = \"./missing\"", &["app.command", "./missing"]),
    ("app.command = \"./plain\"", &["app.command", "./plain", "Permission denied", "chmod"]),
    ("app.command = \"./folder\"", &["app.command", "./folder is a directory"]),
    ("app.command = \"run\"", &["app.command", "run", "PATH"]),
    ("app.env.PATH = \"/nowhere\"\napp.command = \"sh\"", &["app.command", "sh", "/nowhere"]),
    ("app.cwd = \"missing\"\napp.command = \"sh\"", &["app.cwd", "missing", "is there"]),
    ("app.cwd = \"plain\"\napp.command = \"sh\"", &["app.cwd", "plain"]),
    ("pid_file = \"missing/wsd.pid\"", &["pid_file", "missing"]),
    ("listen = \"unix:missing/http.sock\"", &["listen", "missing"]),
    ("api.listen = \"unix:missing/api.sock\"", &["api.listen", "missing"]),
    ("log_file = \"wsd.toml\"", &["log_file", "wsd.toml", "the server's own"]),
    ("runtime_dir = \"rt\"\npid_file = \"rt/serials\"", &["pid_file", "the server's own"]),
    ("runtime_dir = \"rt\"\napi.listen = \"unix:rt/wsd.sock\"", &["api.listen", "own"]),
    ("log_file = \"plain/wsd.log\"", &["log_file", "plain", "no directory"]),
    ("runtime_dir = \"plain/run\"", &["runtime_dir", "plain", "no directory"]),
    ("app.command = \"./orphan x\"", &["app.command", "./orphan", "/no/such/interpreter"]),
    ("log_file = \"folder\"", &["log_file", "folder", "is a directory"]),
    ("pid_file = \"folder\"", &["pid_file", "folder", "is a directory"]),
    ("listen = \"unix:plain\"", &["listen", "plain", "no socket"]),
    ("listen = \"192.0.2.1:8000\"", &["listen", "192.0.2.1", "no interface"]),
    ("api.listen = \"unix:folder\"", &["api.listen", "folder", "no socket"]),
];

/// A directory with a program, a file that is none, and a directory.
fn area() -> TempDir {
    let area = tempfile::tempdir().unwrap();
    let (shell, none) = ("#!/bin/sh\n", "#! /no/such/interpreter -x\n");
    for (name, text, mode) in
        [("run", shell, 0o755), ("plain", shell, 0o644), ("orphan", none, 0o755)]
    {
        let path = area.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    }
    std::fs::create_dir(area.path().join("folder")).unwrap();
    area
}

async fn wsd(area: &Path, words: &[&str], text: &str) -> Ran {
    let file = area.join("wsd.toml");
    let own = ["runtime_dir", "listen"].into_iter().filter(|key| !text.contains(key));
    let own = own.map(|key| match key {
        "listen" => "listen = \"127.0.0.1:0\"\n".to_owned(),
        key => format!("{key} = \"{key}\"\n"),
    });
    let handler = if text.contains("app.command") { "handler = \"app\"\n" } else { "" };
    std::fs::write(&file, format!("{}{handler}{text}\n", own.collect::<String>())).unwrap();
    let mut wsd = Command::new(stock_program());
    command(wsd.args(words).arg("-c").arg(&file)).await
}

#[tokio::test]
async fn check_finds_what_start_would_fail_on_and_start_tells_the_same() {
    let area = area();
    for (text, named) in OBSTACLES {
        let checked = wsd(area.path(), &["check"], text).await;
        let started = wsd(area.path(), &["start", "-d"], text).await;
        assert_eq!((checked.code, started.code), (Some(1), Some(1)), "{text}: {checked:?}");
        assert_eq!(checked.stderr, started.stderr, "{text}");
        let names_all = named.iter().all(|name| checked.stderr.contains(name));
        assert!(names_all, "{text}: {}", checked.stderr);
        assert!(!area.path().join("runtime_dir").exists(), "{text}: something was begun");
        let json = wsd(area.path(), &["check", "--json"], text).await;
        let said: Value = serde_json::from_str(&json.stdout).unwrap();
        assert_eq!((json.code, &said["ok"]), (Some(1), &Value::Bool(false)), "{text}: {said}");
        let told = said["errors"][0]["text"].as_str().unwrap();
        assert!(named.iter().all(|name| told.contains(name)), "{text}: {said}");
    }
}

#[tokio::test]
async fn a_user_that_does_not_exist_is_told_of_the_key_that_names_it() {
    let area = area();
    let ran = wsd(area.path(), &["check"], "user = \"no-such-user\"").await;
    assert!(ran.stderr.contains("user = \"no-such-user\""), "{ran:?}");
    assert!(!ran.stderr.contains("app.user"), "{ran:?}");
}

#[tokio::test]
async fn check_takes_what_a_start_finds() {
    let area = area();
    let path = format!("app.env.PATH = \"{}:/bin\"", area.path().display());
    for text in ["app.command = \"./run\"", &format!("{path}\napp.command = \"run\"")] {
        let checked = wsd(area.path(), &["check"], text).await;
        assert_eq!(checked.code, Some(0), "{text}: {checked:?}");
    }
    let json = wsd(area.path(), &["check", "--json"], "worker_num = 3").await.ok();
    let said: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&said["ok"], &said["config"]["worker_num"]), (&Value::Bool(true), &3.into()));
}

#[tokio::test]
async fn a_program_that_the_applications_user_may_not_execute_is_found() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let area = area();
    std::fs::set_permissions(area.path(), Permissions::from_mode(0o711)).unwrap();
    let run = area.path().join("run");
    std::fs::set_permissions(&run, Permissions::from_mode(0o700)).unwrap();
    let text = "user = \"nobody\"\napp.command = \"./run\"";
    let ran = wsd(area.path(), &["check"], text).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("./run cannot be executed: Permission denied"), "{ran:?}");
    std::fs::set_permissions(&run, Permissions::from_mode(0o755)).unwrap();
    wsd(area.path(), &["check"], text).await.ok();
}

#[tokio::test]
async fn check_tells_the_faults_of_a_bad_file_as_json_too() {
    let area = area();
    let ran = wsd(area.path(), &["check", "--json"], "workers = 2\nbacklog = \"many\"").await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let said: Value = serde_json::from_str(&ran.stdout).unwrap();
    let errors = said["errors"].as_array().unwrap();
    assert_eq!((said["ok"].as_bool(), errors.len()), (Some(false), 2), "{said:#}");
    assert!(errors[0]["place"].as_str().unwrap().contains("wsd.toml:"), "{said:#}");
    assert_eq!(errors[0]["key"], "workers");
    assert!(errors[0]["right"].as_str().unwrap().contains("worker_num"), "{said:#}");
    assert!(ran.stderr.contains("workers"), "people are told as well: {ran:?}");
}

#[tokio::test]
async fn a_restart_that_would_fail_stops_nothing() {
    let mut server = Setup::stock().start().await;
    let master = server.master().await;
    server.configure("handler", "\"app\"");
    server.configure("app.command", "\"no-such-program\"");
    let ran = server.wsd(["restart", "-d"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("no-such-program"), "{ran:?}");
    assert_eq!(server.master().await, master);
}
