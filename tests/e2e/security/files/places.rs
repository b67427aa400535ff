//! What root believes, executes, opens and makes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

use super::*;

/// A server of root's whose workers are `nobody`'s.
fn with_user() -> Setup {
    Setup::stock().set("user", "\"nobody\"").set("handler", "\"echo\"").set("worker_num", 1)
}

#[tokio::test]
async fn a_runtime_directory_that_the_services_user_can_move_is_refused_with_the_cure() {
    if !two_users("a_runtime_directory_that_the_services_user_can_move_is_refused") {
        return;
    }
    let area = Area::new();
    let run = area.theirs().join("run");
    let (server, ran) = with_user().set("runtime_dir", quoted(&run)).try_start().await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let place = area.theirs().display().to_string();
    for part in ["runtime_dir", &place, "belongs to uid", "chown root", "unsafe_paths=true"] {
        assert!(ran.stderr.contains(part), "{part} in {ran:?}");
    }
    assert!(!run.exists(), "nothing was made there");
    server.is_gone().await;
}

#[tokio::test]
async fn a_runtime_directory_that_was_moved_away_leads_root_to_no_other_file() {
    if !two_users("a_runtime_directory_that_was_moved_away_leads_root_to_no_other_file") {
        return;
    }
    let area = Area::new();
    let victim = area.victim();
    let run = area.theirs().join("run");
    // As in a container that says that this is meant.
    let setup = with_user().env("WSD_UNSAFE_PATHS", "true").set("runtime_dir", quoted(&run));
    let server = setup.start().await;
    let before = server.serving(0, None).await.pid;
    let links = ["serials", "serials.new", ".serials.new", "wsd.pid", ".wsd.pid.new", "wsd.lock"];
    let links = links.map(|name| format!("ln -s {} run/{name};", victim.display())).concat();
    area.do_as_nobody(&format!("mv run away; mkdir run; {links}")).await;
    // A new worker needs numbers, which are written down first.
    kill(before, nix::sys::signal::Signal::SIGKILL);
    let away = area.theirs().join("away");
    until("another worker", async || {
        let status = server.control_in(&away, r#"{"cmd":"status"}"#).await?.pop()?;
        let pid = status["workers"][0]["pid"].as_i64()?;
        (pid != i64::from(before)).then_some(())
    })
    .await;
    until("the trouble in the log", async || {
        server.log().contains("goes on without its runtime directory").then_some(())
    })
    .await;
    unharmed(&victim);
    server.client().await.ask("still here").await;
}

#[tokio::test]
async fn a_file_that_root_believes_or_executes_has_to_be_roots() {
    if !two_users("a_file_that_root_believes_or_executes_has_to_be_roots") {
        return;
    }
    let area = Area::new();
    // The configuration file.
    let file = area.theirs().join("wsd.toml");
    let run = area.path("run");
    let text = format!(
        "user = \"nobody\"\nunsafe_paths = true\nlisten = [\"127.0.0.1:0\"]\nruntime_dir = {}\n",
        quoted(&run)
    );
    fs::write(&file, text).unwrap();
    area.give(&file);
    let name = file.display().to_string();
    let ran = wsd(&["start", "-d", "-c", &name]).await;
    assert_eq!(ran.code, Some(1), "the file itself cannot say so: {ran:?}");
    assert!(ran.stderr.contains("the configuration file: ") && ran.stderr.contains("belongs to"));
    // The program, at the start and at a reload and an upgrade.
    let mut server = Setup::own_testbed().set("user", "\"nobody\"").try_start().await.0;
    let program = server.path().join("testbed");
    server.wsd(["stop"]).await;
    area.give(&program);
    let ran = server.start_again().await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("the program: ") && ran.stderr.contains("belongs to uid"));
}

#[tokio::test]
async fn a_reload_and_an_upgrade_execute_nothing_that_another_user_can_change() {
    if !two_users("a_reload_and_an_upgrade_execute_nothing_that_another_user_can_change") {
        return;
    }
    let area = Area::new();
    let program = area.path("wsd");
    fs::copy(stock_program(), &program).unwrap();
    let server = with_user().run_by(&program).start().await;
    let before = server.serving(0, None).await.pid;
    area.give(&program);
    for word in ["reload", "upgrade"] {
        let ran = server.wsd([word]).await;
        assert_eq!(ran.code, Some(1), "{word}: {ran:?}");
        assert!(ran.stderr.contains("the program: "), "{word}: {ran:?}");
    }
    assert_eq!(server.serving(0, None).await.pid, before);
    chown(&program, Some(0), Some(0)).unwrap();
    server.wsd(["reload"]).await.ok();
}

#[tokio::test]
async fn without_a_user_a_place_of_somebody_elses_is_a_warning() {
    if !two_users("without_a_user_a_place_of_somebody_elses_is_a_warning") {
        return;
    }
    let area = Area::new();
    let program = area.path("wsd");
    fs::copy(stock_program(), &program).unwrap();
    area.give(&program);
    let (server, ran) = Setup::stock().run_by(&program).try_start().await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("the program: "), "{ran:?}");
    assert!(server.log().contains("the program: "), "{}", server.log());
}

#[tokio::test]
async fn pid_file_log_and_socket_in_a_directory_of_another_are_made_with_that_ones_rights() {
    if !two_users("pid_file_log_and_socket_in_a_directory_of_another") {
        return;
    }
    let area = Area::new();
    let (victim, theirs) = (area.victim(), area.theirs());
    // A pid file replaces a link, and nothing is written where it leads.
    symlink(&victim, theirs.join("wsd.pid")).unwrap();
    symlink(&victim, theirs.join(".wsd.pid.new")).unwrap();
    let socket = theirs.join("http.sock");
    let server = with_user()
        .set("pid_file", quoted(&theirs.join("wsd.pid")))
        .set("log_file", quoted(&theirs.join("wsd.log")))
        .set("listen", format!("[\"127.0.0.1:0\", \"unix:{}\"]", socket.display()))
        .start()
        .await;
    unharmed(&victim);
    for (name, mode) in [("wsd.pid", 0o644), ("wsd.log", 0o640), ("http.sock", 0o666)] {
        let metadata = fs::symlink_metadata(theirs.join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.mode() & 0o777), (area.uid(), mode), "{name}");
    }
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    let pid = fs::read_to_string(theirs.join("wsd.pid")).unwrap();
    assert_eq!(pid, format!("{}\n", server.master().await));
    // What is put in their place is not removed by root either.
    let moved =
        "rm wsd.pid http.sock; mkdir d; ln -s ../victim wsd.pid; ln -s ../victim http.sock";
    area.do_as_nobody(moved).await;
    server.wsd(["stop"]).await.ok();
    unharmed(&victim);
    assert!(theirs.join("http.sock").is_symlink());
}

#[tokio::test]
async fn a_link_at_the_path_of_a_socket_is_refused_and_its_target_left_alone() {
    let area = tempfile::tempdir().unwrap();
    let victim = area.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    let path = area.path().join("http.sock");
    symlink(&victim, &path).unwrap();
    let listen = format!("[\"unix:{}\"]", path.display());
    let (_server, ran) = Setup::stock().set("listen", listen).try_start().await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("is no socket"), "{ran:?}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[tokio::test]
async fn what_a_daemon_makes_has_the_modes_it_is_meant_to_have() {
    // Whatever the umask of whoever starts it.
    let umask = ["sh", "-c", "umask 0; exec \"$@\"", "sh"];
    let server = Setup::stock().under(&umask).start().await;
    let status = fs::read_to_string(format!("/proc/{}/status", server.master().await)).unwrap();
    assert!(status.lines().any(|line| line == "Umask:\t0027"), "{status}");
    let files = [
        ("run", 0o750),
        ("run/wsd.sock", 0o600),
        ("run/wsd.lock", 0o600),
        ("run/serials", 0o640),
        ("run/wsd.pid", 0o644),
        ("wsd.log", 0o640),
    ];
    let are = files.map(|(name, _)| {
        let metadata = fs::symlink_metadata(server.path().join(name)).expect(name);
        (name, metadata.mode() & 0o777)
    });
    assert_eq!(are, files);
}
