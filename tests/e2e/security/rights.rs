//! The user, the groups and the capabilities of every process of a server, as the kernel has them.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::Signal;
use nix::unistd::{Uid, User};

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
            use std::os::unix::fs::MetadataExt;
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
fn application() -> Setup {
    let php = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/app/fixtures/native.php");
    Setup::stock()
        .set("handler", r#""app""#)
        .set("app.command", format!("{:?}", ["php", php]))
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
