//! Upgrades: the master becomes another image in place, or stays what it is.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::{SIGCHLD, SIGHUP, SIGUSR1};
use tokio::process::Command;

use crate::harness::{Ran, Server, Setup, command, kill, stock_program};

fn program(server: &Server) -> PathBuf {
    server.path().join("testbed")
}

/// A manager that dies with the request takes it along: the command sees no new image, and asks the
/// next manager.
#[tokio::test]
async fn an_upgrade_whose_manager_dies_is_asked_for_again() {
    let (setup, point) = Setup::own_testbed().point();
    fs::write(&point, "manager-is-asked-to-upgrade kill").unwrap();
    let server = setup.start().await;
    let before = fs::metadata(format!("/proc/{}/exe", server.master().await)).unwrap().ino();
    reinstall(&server);
    upgrade(&server).await.ok();
    assert!(!point.exists(), "a manager died");
    let now = fs::metadata(format!("/proc/{}/exe", server.master().await)).unwrap().ino();
    assert_ne!(now, before);
}

/// The command is another program's: what is installed may not even run.
pub async fn upgrade(server: &Server) -> Ran {
    let mut wsd = Command::new(stock_program());
    command(wsd.arg("-c").arg(server.path().join("wsd.toml")).arg("upgrade")).await
}

/// Puts something else in the place of the program, as a package manager does: by a rename.
fn install(server: &Server, content: impl AsRef<[u8]>, mode: u32) {
    let new = server.path().join("new");
    fs::write(&new, content).unwrap();
    fs::set_permissions(&new, Permissions::from_mode(mode)).unwrap();
    fs::rename(new, program(server)).unwrap();
}

/// Installs the same program once more, which is another file each time, as every installation is.
pub fn reinstall(server: &Server) {
    let good = fs::read(program(server)).unwrap();
    install(server, good, 0o755);
}

/// Installs the testbed's next build, or again the one that was there first.
pub fn install_build(server: &Server, is_next: bool) {
    let next = env!("CARGO_BIN_EXE_testbed_next");
    let build = if is_next { next } else { env!("CARGO_BIN_EXE_testbed") };
    install(server, fs::read(build).unwrap(), 0o755);
}

#[tokio::test]
async fn an_upgrade_keeps_the_master_and_every_client() {
    let server = Setup::own_testbed().start().await;
    let mut clients = [server.client_on(0).await, server.client_on(1).await];
    let mut before = Vec::new();
    for client in &mut clients {
        before.push(client.who().await);
    }
    let (master, manager) = (server.master().await, server.manager().await);
    for _ in 0..3 {
        reinstall(&server);
        upgrade(&server).await.ok();
    }
    assert_eq!(server.master().await, master);
    assert_ne!(server.manager().await, manager);
    for (client, before) in clients.iter_mut().zip(before) {
        let now = client.who().await;
        assert_eq!(now.fd, before.fd);
        assert_ne!(now.pid, before.pid);
    }
}

#[tokio::test]
async fn a_bad_upgrade_changes_nothing_and_says_why() {
    let server = Setup::own_testbed().start().await;
    let mut client = server.client().await;
    let (who, master) = (client.who().await, server.master().await);
    let good = fs::read(program(&server)).unwrap();
    let bad: [(&[u8], u32, &str); 4] = [
        (&good, 0o644, "Permission denied"),
        (b"not a program", 0o755, "cannot be run"),
        (b"#!/bin/true\n", 0o755, "ended its rehearsal without a word"),
        (b"#!/bin/false\n", 0o755, "ended its rehearsal without a word"),
    ];
    for (content, mode, why) in bad {
        install(&server, content, mode);
        let ran = upgrade(&server).await;
        assert_eq!(ran.code, Some(1), "{why}: {ran:?}");
        assert!(ran.stderr.contains(why), "{why}: {ran:?}");
        assert_eq!(client.who().await, who);
    }
    install(&server, &good, 0o755);
    assert_eq!(server.master().await, master);
    upgrade(&server).await.ok();
    assert_eq!(client.who().await.fd, who.fd);
}

#[tokio::test]
async fn an_image_that_fails_after_its_exec_is_left_for_the_old_one() {
    let server = Setup::own_testbed().start().await;
    let mut client = server.client().await;
    let (who, master) = (client.who().await, server.master().await);
    for how in ["rehearsal exit", "rehearsal abort", "master exit", "master abort"] {
        fs::write(server.path().join("misbehave"), how).unwrap();
        let ran = upgrade(&server).await;
        assert_eq!(ran.code, Some(1), "{how}: {ran:?}");
        assert_eq!(client.who().await, who, "{how}");
        assert_eq!(server.master().await, master, "{how}");
    }
    upgrade(&server).await.ok();
    assert_eq!(client.who().await.fd, who.fd);
}

#[tokio::test]
async fn an_image_of_another_ipc_version_is_refused_by_name() {
    let server = Setup::own_testbed().start().await;
    let mut client = server.client().await;
    let (who, master) = (client.who().await, server.master().await);
    let told = [
        ("rehearsal", "speaks IPC version 200, this image"),
        ("probe", "(version 9.9.9) speaks IPC version 200, this server 1: use `wsd upgrade`"),
    ];
    for (role, why) in told {
        fs::write(server.path().join("misbehave"), format!("{role} other-ipc")).unwrap();
        let ran = match role {
            "probe" => server.wsd(["reload"]).await,
            _ => upgrade(&server).await,
        };
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains(why), "{ran:?}");
        assert_eq!(client.who().await, who, "{role}");
        assert_eq!(server.master().await, master, "{role}");
    }
    upgrade(&server).await.ok();
    assert_eq!(client.who().await.fd, who.fd);
}

#[tokio::test]
async fn a_bad_configuration_at_an_upgrade_changes_nothing() {
    let server = Setup::own_testbed().start().await;
    let mut client = server.client().await;
    let (who, master) = (client.who().await, server.master().await);
    let file = server.path().join("wsd.toml");
    let good = fs::read_to_string(&file).unwrap();
    let bad = [
        ("handshakes_max = 0.5", "handshakes_max: is 0.5"),
        ("worker_mun = 3", "worker_mun: there is no such key; did you mean \"worker_num\"?"),
        ("pid_file = \"elsewhere\"", "pid_file cannot change on upgrade"),
    ];
    for (line, why) in bad {
        fs::write(&file, format!("{good}{line}\n")).unwrap();
        let ran = upgrade(&server).await;
        assert_eq!(ran.code, Some(1), "{line}: {ran:?}");
        assert!(ran.stderr.contains(why), "{line}: {ran:?}");
        assert_eq!(client.who().await, who, "{line}");
        assert_eq!(server.master().await, master, "{line}");
    }
    fs::write(&file, &good).unwrap();
    upgrade(&server).await.ok();
    assert_eq!(client.who().await.fd, who.fd);
}

/// Everything that may be wrong with an image or a configuration at an upgrade: what is installed
/// or written, and what is said of it.
const BAD: [(Bad, &str); 11] = [
    (Bad::Mode(0o644), "Permission denied"),
    (Bad::Program("not a program"), "cannot be run"),
    (Bad::Program("#!/bin/true\n"), "ended its rehearsal without a word"),
    (Bad::Build("rehearsal exit"), "ended its rehearsal without a word"),
    (Bad::Build("rehearsal abort"), "ended its rehearsal without a word"),
    (Bad::Build("rehearsal hang"), "did not finish its rehearsal in time"),
    (Bad::Build("rehearsal other-ipc"), "speaks IPC version 200"),
    (Bad::Build("master exit"), "died, or did not adopt the server"),
    (Bad::Build("master abort"), "died, or did not adopt the server"),
    (Bad::Build("master hang"), "died, or did not adopt the server"),
    (Bad::Line("worker_mun = 3"), "did you mean \"worker_num\"?"),
];

#[derive(Clone, Copy)]
enum Bad {
    /// The good program with another mode.
    Mode(u32),
    Program(&'static str),
    /// A build that misbehaves; see the testbed.
    Build(&'static str),
    /// A line more in the configuration.
    Line(&'static str),
}

#[tokio::test]
#[ignore = "waits for deadlines of ten seconds; scripts/soak"]
async fn bad_upgrades_twenty_of_twenty_leave_the_old_image_serving() {
    let server = Setup::own_testbed().start().await;
    let mut client = server.client().await;
    let (who, master) = (client.who().await, server.master().await);
    let good = fs::read(program(&server)).unwrap();
    let file = server.path().join("wsd.toml");
    let keys = fs::read_to_string(&file).unwrap();
    for (round, (bad, why)) in BAD.into_iter().cycle().take(2 * BAD.len()).enumerate() {
        match bad {
            Bad::Mode(mode) => install(&server, &good, mode),
            Bad::Program(content) => install(&server, content, 0o755),
            Bad::Build(how) => fs::write(server.path().join("misbehave"), how).unwrap(),
            Bad::Line(line) => fs::write(&file, format!("{keys}{line}\n")).unwrap(),
        }
        let ran = upgrade(&server).await;
        assert_eq!(ran.code, Some(1), "round {round}: {ran:?}");
        assert!(ran.stderr.contains(why), "round {round}: {ran:?}");
        assert_eq!(client.who().await, who, "round {round}");
        assert_eq!(server.master().await, master, "round {round}");
        fs::write(&file, &keys).unwrap();
        install(&server, &good, 0o755);
    }
    upgrade(&server).await.ok();
    assert_eq!(client.who().await.fd, who.fd);
    println!("{} bad upgrades: all refused by name, nothing changed", 2 * BAD.len());
}

#[tokio::test]
#[ignore = "takes minutes; scripts/soak"]
async fn a_hundred_upgrades_under_a_stream_of_signals() {
    let server = Setup::own_testbed().start().await;
    let mut clients = [server.client_on(0).await, server.client_on(1).await];
    let mut fds = Vec::new();
    for client in &mut clients {
        fds.push(client.who().await.fd);
    }
    let master = server.master().await;
    let good = fs::read(program(&server)).unwrap();
    let mut sent = 0;
    let stream = async {
        // A reload is asked for as often as an upgrade; what says nothing comes far more often.
        for signal in [SIGCHLD, SIGCHLD, SIGCHLD, SIGHUP, SIGCHLD, SIGCHLD, SIGCHLD, SIGUSR1]
            .into_iter()
            .cycle()
        {
            kill(master, signal);
            sent += 1;
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    let (mut done, mut refused) = (0, 0);
    let upgrades = async {
        while done < 100 {
            install(&server, &good, 0o755);
            let ran = upgrade(&server).await;
            let busy = "no upgrade now: a reload or an upgrade is under way";
            match ran.code {
                Some(0) => done += 1,
                Some(1) if ran.stderr.contains(busy) => refused += 1,
                _ => panic!("after {done}: {ran:?}"),
            }
            for (client, fd) in clients.iter_mut().zip(&fds) {
                assert_eq!(client.who().await.fd, *fd);
            }
        }
    };
    tokio::select! {
        () = stream => unreachable!("it has no end"),
        () = upgrades => {}
    }
    assert_eq!(server.master().await, master);
    println!("100 upgrades under {sent} signals; {refused} came during a reload and were refused");
}
