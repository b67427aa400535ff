//! Commands ask and end the server that was meant, and nobody who pretends to be.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};

use nix::unistd::geteuid;
use tokio::net::UnixListener;

use super::*;

fn set(directory: &Path) -> String {
    format!("runtime_dir={}", directory.display())
}

const ANSWER: &str = r#"{"ok":true,"verdict":"queued"}"#;

#[tokio::test]
async fn roots_stop_ends_nothing_that_another_user_chose() {
    if !two_users("roots_stop_ends_nothing_that_another_user_chose") {
        return;
    }
    let (area, mut innocent) = (Area::new(), innocent());
    // In their own directory, and in one that they have made among the temporary files.
    for place in
        [area.theirs().join("run"), PathBuf::from(format!("/tmp/wsd-test-{}", area.uid()))]
    {
        let pid = innocent.id().unwrap();
        let mut pretender = Pretender::start(area.uid(), &place, pid, ANSWER).await;
        let ran = wsd(&["stop", "--set", &set(&place)]).await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("belongs to uid"), "{ran:?}");
        assert!(innocent.try_wait().unwrap().is_none(), "the innocent process was ended");
        assert!(pretender.lives());
        assert_eq!(pretender.heard(), "");
        drop(pretender);
        fs::remove_dir_all(&place).unwrap();
    }
}

#[tokio::test]
async fn a_stop_signals_who_listens_and_never_a_number_in_a_file() {
    // One user is enough: the lock names one process, and another one listens.
    let dir = tempfile::tempdir().unwrap();
    let (place, mut innocent) = (dir.path().join("run"), innocent());
    let me = geteuid().as_raw();
    let mut pretender = Pretender::start(me, &place, innocent.id().unwrap(), ANSWER).await;
    wsd(&["stop", "--set", &set(&place)]).await;
    assert!(innocent.try_wait().unwrap().is_none(), "the innocent process was ended");
    until("whoever listens to be signalled", async || (!pretender.lives()).then_some(())).await;
}

#[tokio::test]
async fn a_push_is_read_by_no_stranger() {
    if !two_users("a_push_is_read_by_no_stranger") {
        return;
    }
    let (area, innocent) = (Area::new(), innocent());
    let place = area.theirs().join("run");
    let pretender = Pretender::start(area.uid(), &place, innocent.id().unwrap(), ANSWER).await;
    let dir = set(&place);
    for words in [vec!["push", "5", "secret"], vec!["broadcast", "secret"], vec!["status"]] {
        let ran = wsd(&[&words[..], &["--set", &dir]].concat()).await;
        assert_eq!(ran.code, Some(1), "{words:?}: {ran:?}");
        assert!(ran.stderr.contains("belongs to uid"), "{words:?}: {ran:?}");
    }
    assert_eq!(pretender.heard(), "");
}

#[tokio::test]
async fn a_link_that_a_stranger_has_made_is_not_followed_to_another_server() {
    if !two_users("a_link_that_a_stranger_has_made_is_not_followed") {
        return;
    }
    let area = Area::new();
    let server = Setup::stock().start().await;
    let link = area.theirs().join("run");
    area.do_as_nobody(&format!("ln -s {} run", server.runtime().display())).await;
    let ran = wsd(&["stop", "--set", &set(&link)]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("is a link that uid"), "{ran:?}");
    server.client().await;
    // Root's own link is root's own will.
    symlink(server.runtime(), area.path("ours")).unwrap();
    wsd(&["stop", "--set", &set(&area.path("ours"))]).await.ok();
    server.is_gone().await;
}

#[tokio::test]
async fn a_strangers_configuration_leads_root_to_no_server_and_no_password_to_its_engine() {
    if !two_users("a_strangers_configuration_leads_root_to_no_server") {
        return;
    }
    let area = Area::new();
    let server = Setup::stock().start().await;
    let engine = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    engine.set_nonblocking(true).unwrap();
    fs::write(area.path("secret"), "open-sesame\n").unwrap();
    let file = area.theirs().join("wsd.toml");
    let text = format!(
        "runtime_dir = {:?}\n[cluster]\nengine = \"redis://{}\"\nnode = 1\npassword_file = {:?}\n",
        server.runtime(),
        engine.local_addr().unwrap(),
        area.path("secret")
    );
    fs::write(&file, text).unwrap();
    area.give(&file);
    let file = file.display().to_string();
    for words in [&["stop"][..], &["status"], &["reload"], &["restart"], &["check", "--connect"]] {
        let ran = wsd(&[words, &["-c", &file]].concat()).await;
        assert_eq!(ran.code, Some(1), "{words:?}: {ran:?}");
        assert!(ran.stderr.contains("the configuration file: "), "{words:?}: {ran:?}");
    }
    assert!(engine.accept().is_err(), "somebody has connected to the stranger's engine");
    server.client().await;
    // A place that root names is root's will.
    wsd(&["status", "-c", &file, "--set", &set(&server.runtime())]).await.ok();
}

#[tokio::test]
async fn a_directory_or_socket_that_others_could_have_put_there_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    fs::DirBuilder::new().mode(0o777).create(&run).unwrap();
    mode(&run, 0o777);
    let _listener = UnixListener::bind(run.join("wsd.sock")).unwrap();
    let ran = wsd(&["status", "--set", &set(&run)]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("can be written by others"), "{ran:?}");
    mode(&run, 0o755);
    if !two_users("a_directory_or_socket_that_others_could_have_put_there, its second half") {
        return;
    }
    let area = Area::new();
    for name in ["wsd.sock", "wsd.lock"] {
        if name == "wsd.lock" {
            fs::write(run.join(name), "").unwrap();
        }
        area.give(&run.join(name));
        let ran = wsd(&["status", "--set", &set(&run)]).await;
        assert_eq!(ran.code, Some(1), "{name}: {ran:?}");
        assert!(ran.stderr.contains("belongs to uid"), "{name}: {ran:?}");
        chown(run.join(name), Some(0), Some(0)).unwrap();
    }
}

#[tokio::test]
async fn root_commands_a_server_of_another_user_where_only_root_can_have_made_its_directory() {
    if !two_users("root_commands_a_server_of_another_user") {
        return;
    }
    // As a unit with DynamicUser has it: below /run, by way of a link of root's.
    let area = Area::below(Path::new("/run"));
    let (run, log) = (area.path("link/run"), area.theirs().join("wsd.log"));
    symlink(area.dir.path(), area.path("link")).unwrap();
    fs::create_dir(area.path("run")).unwrap();
    area.give(&area.path("run"));
    let config = area.path("wsd.toml");
    let keys = format!(
        "runtime_dir = {}\nlog_file = {}\nlisten = [\"127.0.0.1:0\"]\nhandler = \"echo\"\n",
        quoted(&run),
        quoted(&log)
    );
    fs::write(&config, keys).unwrap();
    mode(&config, 0o644);
    // The program is where only root may look.
    let program = area.path("wsd");
    fs::copy(stock_program(), &program).unwrap();
    let name = config.display().to_string();
    let mut start = Command::new(&program);
    start.args(["start", "-d", "-c", &name]).current_dir("/");
    command(start.uid(area.uid()).gid(area.theirs.gid.as_raw())).await.ok();
    for word in ["status", "reload", "reopen", "connections"] {
        wsd(&[word, "-c", &name]).await.ok();
    }
    wsd(&["stop", "-c", &name]).await.ok();
    assert_eq!(wsd(&["stop", "-c", &name]).await.code, Some(3));
}

#[tokio::test]
async fn what_a_server_says_cannot_drive_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("run");
    let nasty = r"\x1b]0;a\x07\x9b31m\u202eb";
    let manager = serde_json::json!({
        "epoch": 1, "relayed": 0, "refused": 0, "gone": 0, "held_bytes": 0, "control_clients": 0,
    });
    // All that any command shows, in one answer.
    let status = serde_json::json!({
        "ok": true, "version": "NASTY", "listen": ["NASTY"], "master_pid": 1, "manager_pid": 1,
        "started_at": 1, "uptime_ms": 1, "generation": 1, "worker_num": 1, "connections": 1,
        "workers": [], "counters": {"NASTY": 1}, "reload": {"state": "idle"}, "throttled": [],
        "troubles": ["NASTY"], "restarts": {"workers": 0, "managers": 0}, "manager": manager,
        "slots": [{"slot": 0, "to": 0, "moved": 0, "stayed": 0, "failed": "NASTY"}],
        "took_ms": 1, "fd": 5, "worker": 0, "peer": "NASTY", "connected_at": 1, "idle_ms": 1,
        "bytes_in": 1, "bytes_out": 1,
    })
    .to_string();
    let refusal = r#"{"ok":false,"error":"NASTY"}"#;
    let item = r#"{"fd":5,"worker":0,"epoch":1,"peer":"NASTY","connected_at":1,"idle_ms":1}"#;
    let list = format!("{item}\\n{}", r#"{"ok":true,"count":1}"#);
    let me = geteuid().as_raw();
    // Escapes of JSON where JSON wants them; what JSON lets through stands as it is.
    let escaped = nasty.replace(r"\x1b", r"\\u001b").replace(r"\x07", r"\\u0007");
    for answer in [status.as_str(), refusal, "NASTY", &list] {
        let answer = answer.replace("NASTY", &escaped);
        let pretender = Pretender::start(me, &place, std::process::id(), &answer).await;
        for words in [
            vec!["status"],
            vec!["connections"],
            vec!["info", "5"],
            vec!["push", "5", "x"],
            vec!["broadcast", "x"],
            vec!["close", "5"],
            vec!["reload"],
            vec!["reopen"],
            vec!["upgrade"],
        ] {
            for json in [vec![], vec!["--json"]] {
                let ran = wsd(&[&words[..], &json[..], &["--set", &set(&place)]].concat()).await;
                let said = format!("{}{}", ran.stdout, ran.stderr);
                let odd = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
                assert!(!said.contains(odd), "{words:?} {json:?} with {answer}: {said:?}");
            }
        }
        drop(pretender);
        fs::remove_dir_all(&place).unwrap();
    }
}

#[tokio::test]
async fn a_configuration_that_cannot_be_read_never_means_another_server() {
    let server = Setup::stock().start().await;
    // What the commands would find without the file.
    let found = server.runtime().display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    let name = file.display().to_string();
    for (text, place) in [
        ("worker_num = 2\nruntime_dir = \n", ":2:"),
        ("x = \"\n", ":1:"),
        ("runtime_dir = 7\n", ":1:"),
        ("runtimedir = \"/nowhere\"\n", ":1:"),
        ("[app]\nruntime_dir = \"/nowhere\"\n", ":2:"),
        ("\u{0}", ":1:"),
    ] {
        fs::write(&file, text).unwrap();
        for word in ["stop", "reload", "status", "reopen", "upgrade", "connections"] {
            let mut program = Command::new(stock_program());
            program.args([word, "-c", &name]).env("WSD_RUNTIME_DIR", &found);
            let ran = command(&mut program).await;
            assert_eq!(ran.code, Some(1), "{word} with {text:?}: {ran:?}");
            assert!(ran.stderr.contains(&format!("{name}{place}")), "{text:?}: {ran:?}");
        }
    }
    for missing in ["/nowhere/c.toml", "/"] {
        let mut program = Command::new(stock_program());
        program.args(["stop", "-c", missing]).env("WSD_RUNTIME_DIR", &found);
        let ran = command(&mut program).await;
        assert_eq!(ran.code, Some(1), "{missing}: {ran:?}");
    }
    server.client().await;
}
