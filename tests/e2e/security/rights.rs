//! The user, the groups and the capabilities of every process of a server, as the kernel has them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};

use tokio::io::AsyncReadExt;

use crate::harness::*;

/// Whose rights the workers of these tests take.
const NOBODY: &str = "nobody";

/// Whether the tests may change users at all. Where they may not, they say so and prove nothing.
pub fn is_root() -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("skipped: only root can give up root's rights");
    }
    root
}

/// What `/proc/PID/status` has of a process.
struct Status(BTreeMap<String, String>);

impl Status {
    fn of(process: &Process) -> Status {
        let text = fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("a process");
        let pairs = text.lines().filter_map(|line| line.split_once(':'));
        Status(pairs.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect())
    }

    fn numbers(&self, name: &str) -> Vec<u32> {
        let words = self.0[name].split_whitespace();
        words.map(|word| word.parse().expect("a number")).collect()
    }

    fn set(&self, name: &str) -> u64 {
        u64::from_str_radix(&self.0[name], 16).expect("a set")
    }
}

/// What every process but the master is expected to be.
#[derive(Clone)]
struct Expected {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    capabilities: u64,
}

impl Expected {
    fn user(name: &str) -> Expected {
        let user = User::from_name(name).expect("users").expect("that user");
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        let name = std::ffi::CString::new(name).unwrap();
        let groups = nix::unistd::getgrouplist(&name, user.gid).expect("its groups");
        let mut groups: Vec<u32> = groups.into_iter().map(|gid| gid.as_raw()).collect();
        groups.sort_unstable();
        Expected { uid, gid, groups, capabilities: 0 }
    }

    fn holds_of(&self, process: &Process) {
        let status = Status::of(process);
        assert_eq!(status.numbers("Uid"), vec![self.uid; 4], "{process:?}");
        assert_eq!(status.numbers("Gid"), vec![self.gid; 4], "{process:?}");
        assert_eq!(status.numbers("Groups"), self.groups, "{process:?}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(status.set(set), self.capabilities, "{set} of {process:?}");
        }
        assert_eq!(status.numbers("NoNewPrivs"), [1], "{process:?}");
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.pid)).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        let core: Vec<&str> = core.split_whitespace().skip(4).take(2).collect();
        assert_eq!(core, ["0", "0"], "{process:?}");
        // The kernel gives the files of what may not be dumped to root. A program that was
        // executed is another one, whose owner it is; an application is that.
        if process.name.starts_with("wsd: ") {
            let owner = fs::metadata(format!("/proc/{}/environ", process.pid)).unwrap().uid();
            assert_eq!(owner, 0, "{process:?} may be dumped");
        }
    }
}

/// Looks at every process of a server but its master, and returns how many there are of each name.
fn looked_at(server: &Server, expected: &Expected) -> BTreeMap<String, usize> {
    let mut names = BTreeMap::new();
    for process in server.processes() {
        let name = process.name.split(' ').take(2).collect::<Vec<_>>().join(" ");
        if name != "wsd: master" {
            expected.holds_of(&process);
        }
        *names.entry(name).or_default() += 1;
    }
    names
}

fn names(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
}

const BUILT_IN: [(&str, usize); 3] = [("wsd: manager", 1), ("wsd: master", 1), ("wsd: worker", 2)];

fn as_nobody(setup: Setup) -> Setup {
    setup.set("user", format!("{NOBODY:?}"))
}

/// The server with an application process for each worker.
pub fn application() -> Setup {
    let php = repository().join("tests/app/fixtures/native.php").display().to_string();
    Setup::stock()
        .set("handler", r#""app""#)
        .set("app.command", format!("{:?}", ["php", &php]))
        .set("app.cwd", r#""/""#)
}

#[tokio::test]
async fn every_process_but_the_master_has_the_rights_of_user_in_every_mode() {
    if !is_root() {
        return;
    }
    let nobody = Expected::user(NOBODY);
    for handler in ["chat", "echo"] {
        let setup = Setup::stock().set("handler", format!("{handler:?}"));
        let server = as_nobody(setup).start().await;
        let _client = server.client().await;
        assert_eq!(looked_at(&server, &nobody), names(&BUILT_IN), "{handler}");
    }
    let server = as_nobody(application()).start().await;
    let mut client = server.client().await;
    assert!(client.receive().await.starts_with("welcome / "));
    let with_apps = [&BUILT_IN[..], &[(r"php", 2)]].concat();
    until("both application processes", async || {
        let count = server.processes().iter().filter(|it| it.name == "php").count();
        (count == 2).then_some(())
    })
    .await;
    let mut seen = looked_at(&server, &nobody);
    let php = seen.keys().find(|name| name.starts_with("php")).cloned().expect("php");
    let count = seen.remove(&php).unwrap();
    seen.insert("php".to_owned(), count);
    assert_eq!(seen, names(&with_apps));
}

#[tokio::test]
async fn application_processes_have_the_rights_of_app_user() {
    if !is_root() {
        return;
    }
    let server = as_nobody(application()).set("app.user", r#""daemon""#).start().await;
    let apps = until("both application processes", async || {
        let apps = server.processes().into_iter().filter(|process| process.name == "php");
        let apps: Vec<_> = apps.collect();
        (apps.len() == 2).then_some(apps)
    })
    .await;
    apps.iter().for_each(|app| Expected::user("daemon").holds_of(app));
    let others = server.processes().into_iter().filter(|process| process.name != "php");
    let others: Vec<_> = others.filter(|process| process.name != "wsd: master").collect();
    others.iter().for_each(|process| Expected::user(NOBODY).holds_of(process));
    let mut client = server.client().await;
    assert!(client.receive().await.starts_with("welcome / "));
    // And the server can end what is another user's.
    let killed = apps[0].pid;
    kill(killed, Signal::SIGSTOP);
    server.wsd(["stop"]).await.ok();
    assert!(!is_alive(killed));
}

#[tokio::test]
async fn a_group_alone_and_root_by_name_leave_no_capability_either() {
    if !is_root() {
        return;
    }
    let group = User::from_name(NOBODY).unwrap().expect("nobody").gid;
    let name = nix::unistd::Group::from_gid(group).unwrap().expect("its group").name;
    let gid = group.as_raw();
    let expected = Expected { uid: 0, gid, groups: vec![gid], capabilities: 0 };
    let server = Setup::stock().set("group", format!("{name:?}")).set("user", r#""""#);
    assert_eq!(looked_at(&server.start().await, &expected), names(&BUILT_IN));
    let server = Setup::stock().set("user", r#""root""#).start().await;
    assert_eq!(looked_at(&server, &Expected::user("root")), names(&BUILT_IN));
}

#[tokio::test]
async fn reload_upgrade_and_respawn_bring_no_right_back() {
    if !is_root() {
        return;
    }
    let nobody = Expected::user(NOBODY);
    let server = as_nobody(Setup::testbed()).start().await;
    let mut client = server.client().await;
    let looked_at_all = async || {
        until("two workers alone", async || {
            let workers = server.processes();
            let count = workers.iter().filter(|it| it.name.starts_with("wsd: worker")).count();
            (count == 2 && workers.len() == 4).then_some(())
        })
        .await;
        assert_eq!(looked_at(&server, &nobody), names(&BUILT_IN));
    };
    looked_at_all().await;
    server.wsd(["reload"]).await.ok();
    looked_at_all().await;
    server.wsd(["upgrade"]).await.ok();
    looked_at_all().await;
    let who = client.who().await;
    let other = server.serving(1 - who.slot, None).await;
    kill(other.pid, Signal::SIGKILL);
    server.serving(other.slot, Some(other.pid)).await;
    looked_at_all().await;
    let manager = server.manager().await;
    kill(manager, Signal::SIGKILL);
    until("another manager", async || (server.manager().await != manager).then_some(())).await;
    looked_at_all().await;
    assert_eq!(client.who().await, who);
}

#[tokio::test]
async fn capabilities_that_are_named_are_kept_by_workers_and_no_others() {
    if !is_root() {
        return;
    }
    let server = as_nobody(Setup::stock().set("capabilities", r#"["CAP_NET_RAW"]"#)).start().await;
    let (worker, manager) =
        (Expected { capabilities: 1 << 13, ..Expected::user(NOBODY) }, Expected::user(NOBODY));
    for process in server.processes() {
        match process.name.as_str() {
            "wsd: master" => {}
            "wsd: manager" => manager.holds_of(&process),
            _ => worker.holds_of(&process),
        }
    }
}

#[tokio::test]
async fn a_user_that_is_not_there_refuses_the_start_by_the_name_of_the_key() {
    for key in ["user", "group", "app.user", "app.group"] {
        let (server, ran) = Setup::stock().set(key, r#""no-such-one""#).try_start().await;
        assert_ne!(ran.code, Some(0), "{key}: {ran:?}");
        assert!(ran.stderr.contains(&format!(r#"{key} = "no-such-one": "#)), "{key}: {ran:?}");
        let check = server.wsd(["check"]).await;
        assert_ne!(check.code, Some(0), "{key}: {check:?}");
        server.is_gone().await;
    }
}

#[tokio::test]
async fn started_as_root_without_user_it_warns_and_with_user_root_it_does_not() {
    if !is_root() {
        return;
    }
    let warning = "started as root without `user`";
    let (server, ran) = Setup::stock().set("user", r#""""#).try_start().await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains(warning), "{ran:?}");
    assert!(server.log().contains(warning), "{}", server.log());
    let (server, ran) = Setup::stock().set("user", r#""root""#).try_start().await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!ran.stderr.contains(warning) && !server.log().contains(warning), "{ran:?}");
}

/// Also the processes of a reload and of an upgrade that serve nobody read it before they have the
/// rights of another user.
#[tokio::test]
async fn what_root_alone_may_read_is_read_before_the_rights_are_given_up_and_not_after() {
    if !is_root() {
        return;
    }
    let setup = as_nobody(Setup::testbed());
    let secret = setup.path().join("secret");
    fs::write(&secret, "hush").unwrap();
    let secret = setup.env("TESTBED_SECRET", secret.to_str().unwrap());
    let server = secret.start().await;
    for file in ["secret", "wsd.toml"] {
        fs::set_permissions(server.path().join(file), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let wanted = r#"secret Some("hush") Err(PermissionDenied)"#;
    for command in ["reload", "upgrade"] {
        assert_eq!(server.client().await.ask("secret").await, wanted);
        server.wsd([command]).await.ok();
    }
    assert_eq!(server.client().await.ask("secret").await, wanted);
}

#[tokio::test]
async fn a_worker_whose_privileged_hook_fails_or_leaves_a_thread_does_not_start() {
    for (fault, why) in [("secret", "told to fail"), ("thread", "a thread was started before")] {
        let setup = Setup::testbed();
        let secret = setup.path().join("secret");
        fs::write(&secret, "hush").unwrap();
        let setup = setup.env("TESTBED_SECRET", secret.to_str().unwrap());
        let (server, ran) = setup.env("TESTBED_FAIL", fault).try_start().await;
        assert_ne!(ran.code, Some(0), "{fault}: {ran:?}");
        assert!(ran.stderr.contains(why), "{fault}: {ran:?}");
        server.is_gone().await;
    }
}

#[tokio::test]
async fn whoever_may_not_change_users_is_refused_by_the_name_of_the_key() {
    if !is_root() {
        return;
    }
    for key in ["user", "app.user", "app.group"] {
        let setup = Setup::stock().set("user", r#""""#).started_by(NOBODY);
        let (server, ran) = setup.set(key, r#""daemon""#).try_start().await;
        assert_ne!(ran.code, Some(0), "{key}: {ran:?}");
        let wanted = format!(r#"{key} = "daemon": this process has no right to change"#);
        assert!(ran.stderr.contains(&wanted), "{key}: {ran:?}");
        server.is_gone().await;
    }
    // Its own name takes no right.
    let server = Setup::stock().started_by(NOBODY).set("user", format!("{NOBODY:?}"));
    let server = server.start().await;
    let uid = User::from_name(NOBODY).unwrap().expect("nobody").uid.as_raw();
    for process in server.processes() {
        let status = Status::of(&process);
        assert_eq!(status.numbers("Uid"), vec![uid; 4], "{process:?}");
        assert_eq!(status.set("CapPrm"), 0, "{process:?}");
    }
}

#[tokio::test]
async fn the_application_may_push_ask_and_close_and_not_stop_reload_or_upgrade() {
    if !is_root() {
        return;
    }
    let server = Setup::testbed().set("app.user", format!("{NOBODY:?}")).start().await;
    let mut client = server.client().await;
    let fd = client.who().await.fd.to_string();
    server.wsd_as(NOBODY, ["push", &fd, "from the application"]).await.ok();
    assert_eq!(client.receive().await, "from the application");
    for allowed in [vec!["status"], vec!["connections"], vec!["info", &fd]] {
        server.wsd_as(NOBODY, allowed).await.ok();
    }
    let master = server.master().await;
    for refused in ["reload", "upgrade", "reopen"] {
        let ran = server.wsd_as(NOBODY, [refused]).await;
        assert_ne!(ran.code, Some(0), "{refused}: {ran:?}");
        assert!(ran.stderr.contains("may push, ask and close"), "{refused}: {ran:?}");
    }
    let stop = server.wsd_as(NOBODY, ["stop"]).await;
    assert_ne!(stop.code, Some(0), "{stop:?}");
    let other = server.wsd_as("daemon", ["push", &fd, "from a stranger"]).await;
    assert_ne!(other.code, Some(0), "{other:?}");
    assert_eq!(server.master().await, master);
    server.wsd_as(NOBODY, ["close", &fd]).await.ok();
    assert!(matches!(client.closed().await, Closed::Frame(1000, _)));
}

/// Takes every connection of the control socket that can be had, says so, and keeps them.
const TAKE_ALL: &str = r#"
import socket, sys, time
taken = []
for _ in range(300):
    taken.append(socket.socket(socket.AF_UNIX))
    taken[-1].connect(sys.argv[1])
taken[0].sendall(b'{"cmd":"ping"}\n')
assert b'"ok":true' in taken[0].recv(4096)
print("taken", flush=True)
time.sleep(600)
"#;

#[tokio::test]
async fn an_application_that_takes_every_control_connection_leaves_the_owner_in_command() {
    if !is_root() {
        return;
    }
    let server = Setup::testbed().set("app.user", format!("{NOBODY:?}")).start().await;
    let nobody = User::from_name(NOBODY).unwrap().unwrap();
    let mut taker = tokio::process::Command::new("python3");
    taker.args(["-c", TAKE_ALL]).arg(server.runtime().join("wsd.sock")).kill_on_drop(true);
    taker.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw()).stdout(Stdio::piped());
    let mut taker = taker.spawn().unwrap();
    // Whoever closes this end ends the taker when its line comes in two parts.
    let (mut said, mut stdout) = ([0; 6], taker.stdout.take().unwrap());
    soon("the taker", stdout.read_exact(&mut said)).await.unwrap();
    let refused = server.wsd_as(NOBODY, ["status"]).await;
    assert!(taker.try_wait().unwrap().is_none(), "the taker has ended");
    assert!(refused.stderr.contains("too many control connections"), "{refused:?}");
    server.wsd(["status"]).await.ok();
    server.wsd(["reload"]).await.ok();
    server.wsd(["stop"]).await.ok();
}

#[tokio::test]
async fn the_kernel_ends_every_other_process_before_the_master() {
    let server = application().start().await;
    until("both application processes", async || {
        let count = server.processes().iter().filter(|it| it.name == "php").count();
        (count == 2).then_some(())
    })
    .await;
    let score = |pid| -> i32 {
        let text = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
        text.trim().parse().unwrap()
    };
    let master = server.master().await;
    for process in server.processes().into_iter().filter(|process| process.pid != master) {
        assert!(score(process.pid) > score(master), "{process:?}");
    }
}

#[tokio::test]
async fn variables_of_the_application_stand_in_nobodys_arguments() {
    let (mut server, ran) = application().try_start().await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    server.wsd(["stop"]).await.ok();
    let secrets = ["--set", "app.env.ONE=open-sesame", r#"--set=app.env={ TWO = "abracadabra" }"#];
    let mut start = server.starter();
    start.env("WSD_APP_ENV", r#"{ THREE = "hocus-pocus" }"#);
    command(start.args(secrets).args(["start", "-d"])).await.ok();
    let environment = async || {
        let apps = server.processes().into_iter().filter(|process| process.name == "php");
        let texts = apps.map(|app| fs::read(format!("/proc/{}/environ", app.pid)));
        let texts: Vec<_> = texts.filter_map(Result::ok).collect();
        let has = |text: &Vec<u8>, value: &[u8]| text.windows(value.len()).any(|it| it == value);
        let both = |text: &&Vec<u8>| has(text, b"open-sesame") && has(text, b"abracadabra");
        (texts.iter().filter(both).count() == 2).then_some(())
    };
    for command in ["reload", "upgrade"] {
        until("the applications to have them", environment).await;
        for process in server.processes() {
            let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap();
            let line = String::from_utf8_lossy(&line);
            let told = line.contains("open-sesame") || line.contains("abracadabra");
            assert!(!told, "{process:?}: {line}");
            if process.name != "php" && process.pid != server.master().await {
                let variables = fs::read(format!("/proc/{}/environ", process.pid)).unwrap();
                let variables = String::from_utf8_lossy(&variables);
                assert!(!variables.contains("hocus-pocus"), "{process:?}: {variables}");
            }
        }
        server.wsd([command]).await.ok();
    }
    server.address = server.status().await["listen"][0].as_str().unwrap().to_owned();
    let _client = server.client().await;
}

/// An application that starts a program in its own group and one in a group of its own.
const PARENT: &str = r#"
exec("sleep 600 >/dev/null 2>&1 &");
exec("setsid sleep 601 >/dev/null 2>&1 &");
require $argv[1];
"#;

fn with_children() -> Setup {
    let php = repository().join("tests/app/fixtures/native.php").display().to_string();
    application().set("app.command", format!("{:?}", ["php", "-r", PARENT, &php]))
}

async fn has_started(server: &Server) -> Vec<Process> {
    until("what the applications start", async || {
        let of = server.processes().into_iter().filter(|process| process.name == "sleep");
        let of: Vec<_> = of.collect();
        (of.len() == 4).then_some(of)
    })
    .await
}

#[tokio::test]
async fn what_an_application_starts_ends_with_the_server() {
    let server = with_children().start().await;
    has_started(&server).await;
    server.wsd(["stop"]).await.ok();
    let left = server.processes();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn what_an_application_starts_in_its_group_ends_with_a_killed_master() {
    let server = with_children().start().await;
    let started = has_started(&server).await;
    kill(server.master().await, Signal::SIGKILL);
    until("all but what has a group of its own to end", async || {
        (server.processes().len() <= 2).then_some(())
    })
    .await;
    // Nobody is left who knows of these.
    for process in started.into_iter().filter(|process| is_alive(process.pid)) {
        kill(process.pid, Signal::SIGKILL);
    }
}

/// A file in place of /etc/group, for this server alone, makes nobody a member of another group.
#[tokio::test]
async fn user_brings_its_further_groups() {
    if !is_root() {
        return;
    }
    let (mut server, ran) = as_nobody(Setup::stock()).try_start().await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    server.wsd(["stop"]).await.ok();
    let groups = server.path().join("group");
    let text = fs::read_to_string("/etc/group").unwrap();
    fs::write(&groups, format!("{text}wsd-first:x:4001:nobody\nwsd-other:x:4002:daemon\n"))
        .unwrap();
    let start = server.starter();
    let mut shell = tokio::process::Command::new("unshare");
    shell.args(["--mount", "sh", "-c", r#"mount --bind "$0" /etc/group && exec "$@" start -d"#]);
    shell.arg(&groups).arg(start.as_std().get_program()).args(start.as_std().get_args());
    shell.envs(start.as_std().get_envs().filter_map(|(name, value)| Some((name, value?))));
    command(&mut shell).await.ok();
    let mut nobody = Expected::user(NOBODY);
    nobody.groups.insert(0, 4001);
    assert_eq!(looked_at(&server, &nobody), names(&BUILT_IN));
    server.address = server.status().await["listen"][0].as_str().unwrap().to_owned();
}

/// Has more descriptors on their way to nobody than 512, as the same user, until it is dropped.
async fn descriptors_under_way(user: &User) -> tokio::process::Child {
    const SEND: &str = "
import array, os, socket, sys
null = array.array('i', [os.open('/dev/null', os.O_RDONLY)] * 250)
pairs = [socket.socketpair() for _ in range(3)]
for one, _ in pairs:
    one.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, null)])
print('sent', flush=True)
sys.stdin.read()
";
    let mut sender = tokio::process::Command::new("setpriv");
    sender.arg(format!("--reuid={}", user.uid)).arg(format!("--regid={}", user.gid));
    sender.args(["--clear-groups", "python3", "-c", SEND]).env("PATH", "/usr/bin:/bin");
    sender.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut sender = sender.spawn().expect("setpriv");
    let mut said = [0; 5];
    let mut output = sender.stdout.take().expect("its output");
    soon("descriptors to be under way", output.read_exact(&mut said)).await.expect("read");
    sender
}

/// Root is not counted; other users may have no more descriptors on their way between processes
/// than one process may have open.
#[tokio::test]
async fn connections_move_as_soon_as_the_kernel_lets_their_descriptors_go() {
    if !is_root() {
        return;
    }
    const USER: &str = "daemon";
    let user = User::from_name(USER).unwrap().expect("a user");
    let setup = Setup::testbed().set("user", format!("{USER:?}")).descriptors(512);
    let server = setup.start().await;
    let mut clients: Vec<Client> = join_all((0..400).map(|_| server.client())).await;
    let mut known = Vec::new();
    for client in &mut clients {
        known.push(client.who().await.fd);
    }
    let sender = descriptors_under_way(&user).await;
    let reloaded = server.wsd(["reload"]);
    let waits = "a link waits";
    let released = async {
        until("the kernel to refuse", async || server.log().contains(waits).then_some(())).await;
        drop(sender);
    };
    let (ran, ()) = tokio::join!(reloaded, released);
    ran.ok();
    let workers: Vec<i32> = server.workers().await.into_iter().map(|worker| worker.pid).collect();
    for (client, fd) in clients.iter_mut().zip(known) {
        let who = client.who().await;
        assert_eq!(who.fd, fd);
        assert!(workers.contains(&who.pid), "{who:?} is not of {workers:?}");
    }
}
