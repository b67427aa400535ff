//! The rights of the processes that live for a moment: the probe of a reload and the rehearsal of
//! an upgrade, which read a configuration that may be root's alone.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::User;

use super::rights::is_root;
use crate::harness::*;

/// What `/proc/PID/status` of a child of that name says, as often as it can be read.
fn watch(master: i32, name: &str, over: &AtomicBool) -> Vec<String> {
    let mut seen = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let children = format!("/proc/{master}/task/{master}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        let named = children.split_whitespace().find(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.starts_with(name.as_bytes())
        });
        let Some(pid) = named else { continue };
        let Ok(status) = File::open(format!("/proc/{pid}/status")) else { continue };
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = status.read_at(&mut buffer, 0) {
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text.contains("\nState:\tZ") {
                break;
            }
            seen.push(text);
        }
    }
    seen
}

/// Whether a process is `user` without capabilities, and can get none.
fn has_given_up(status: &str, user: &User) -> bool {
    let is = |name: &str, wanted: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.is_some_and(|line| line.split_whitespace().all(|word| word == wanted))
    };
    let sets = ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
    is("Uid:", &user.uid.to_string())
        && is("Gid:", &user.gid.to_string())
        && is("NoNewPrivs:", "1")
        && sets.iter().all(|set| is(set, "0000000000000000"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_and_a_rehearsal_give_their_rights_up_too() {
    if !is_root() {
        return;
    }
    let nobody = User::from_name("nobody").unwrap().unwrap();
    let server = Setup::testbed().set("user", r#""nobody""#).start().await;
    let master = server.master().await;
    for (command, name) in [("reload", "wsd: probe"), ("upgrade", "wsd: rehearsal")] {
        // Such a process is gone a moment after it has given its rights up, which may be missed.
        until(name, async || {
            let over = Arc::new(AtomicBool::new(false));
            let watched = over.clone();
            let watch = tokio::task::spawn_blocking(move || watch(master, name, &watched));
            server.wsd([command]).await.ok();
            over.store(true, Ordering::Relaxed);
            let seen = watch.await.unwrap();
            seen.iter().any(|status| has_given_up(status, &nobody)).then_some(())
        })
        .await;
    }
}
