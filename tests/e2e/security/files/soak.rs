//! The runtime directory's file system fails for half a minute in the midst of 200,000 handshakes.
//! `scripts/soak runtime_file_system` runs it and shows the figures.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::logs::Disk;
use super::*;

/// As many as are done around each fault, and how long that lasts. `SOAK_HANDSHAKES` and
/// `SOAK_SECONDS` name others.
const HANDSHAKES: u64 = 200_000;
const FAULT_SECONDS: u64 = 30;
const CLIENTS: usize = 16;
/// The one file of the directory that the master has open for writing.
const LOCK_FILE: &str = "wsd.lock";
/// Within this time of the cause's end all has to be as before.
const BACK: Duration = Duration::from_secs(2);

/// Handshakes, one after the other, from many clients at once.
struct Load {
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(address: &str) -> Load {
        let (done, failed) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let task = |_| {
            let (address, done, failed) = (address.to_owned(), done.clone(), failed.clone());
            tokio::spawn(async move {
                loop {
                    let mut raw = Raw::connect(&address).await;
                    raw.send(handshake(&address, "")).await;
                    let ok = raw.head().await.starts_with("HTTP/1.1 101 ");
                    let count = if ok { &done } else { &failed };
                    count.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        Load { tasks: (0..CLIENTS).map(task).collect(), done, failed }
    }

    fn so_far(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.failed.load(Ordering::Relaxed))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Whether the directory takes no new names, also from root.
fn set_immutable(directory: &Path, on: bool) {
    let flag = if on { "+i" } else { "-i" };
    let ran = std::process::Command::new("chattr").arg(flag).arg(directory).status().unwrap();
    assert!(ran.success(), "chattr {flag}");
}

fn begin(fault: &str, disk: &Disk, run: &Path) {
    match fault {
        "full" => disk.fill(),
        "unwritable" => set_immutable(run, true),
        "read-only" => disk.set_read_only(true),
        "deleted and unwritable" => {
            fs::remove_dir_all(run).unwrap();
            set_immutable(disk.path(), true);
        }
        // A file where the directory was.
        _ => {
            fs::remove_dir_all(run).unwrap();
            fs::write(run, "").unwrap();
        }
    }
}

fn end(fault: &str, disk: &Disk, run: &Path) {
    match fault {
        "full" => disk.empty(),
        "unwritable" => set_immutable(run, false),
        "read-only" => disk.set_read_only(false),
        "deleted and unwritable" => set_immutable(disk.path(), false),
        _ => fs::remove_file(run).unwrap(),
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

async fn endure(fault: &str) {
    let seconds = Duration::from_secs(number("SOAK_SECONDS", FAULT_SECONDS));
    let handshakes = number("SOAK_HANDSHAKES", HANDSHAKES);
    let area = Area::new();
    let disk = Disk::mount(area.path("disk"), "size=1m");
    let run = disk.path().join("run");
    if fault == "read-only" {
        disk.borrow(&run.join(LOCK_FILE), &area.path("lock"));
        mode(&run, 0o750);
    }
    // The bystander does not read for a minute, so it would answer no ping.
    let setup = Setup::testbed().set("runtime_dir", quoted(&run)).set("ping_interval", 0);
    let server = setup.start().await;
    let mut bystander = server.client().await;
    let master = server.master().await;
    let load = Load::start(&server.address);
    let until_done = async |count: u64| {
        while load.so_far().0 < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    until_done(handshakes / 10).await;
    let before = load.so_far();
    begin(fault, &disk, &run);
    tokio::time::sleep(seconds).await;
    let during = load.so_far();
    assert_eq!(bystander.ask("echo still here").await, "echo still here", "{fault}");
    end(fault, &disk, &run);
    let over = Instant::now();
    // Back: every command, a reload, and no handshake that fails any more.
    until("an answer", async || (server.wsd(["status"]).await.code == Some(0)).then_some(()))
        .await;
    let answered = over.elapsed();
    let mut last_failed = load.so_far().1;
    let mut good = Instant::now();
    while good.elapsed() < Duration::from_millis(500) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if load.so_far().1 != last_failed {
            (last_failed, good) = (load.so_far().1, Instant::now());
        }
    }
    let served = good.saturating_duration_since(over);
    let reload = server.wsd(["reload"]).await;
    let reloaded = over.elapsed();
    assert_eq!(reload.code, Some(0), "{fault}: {reload:?}\n{}", server.log());
    until_done(handshakes).await;
    let all = load.so_far();
    assert_eq!(server.master().await, master);
    println!(
        "{fault}, {seconds:?}: {} handshakes during it, {} refused; commands answer after \
         {answered:?}, none is refused after {served:?}, a reload is done after {reloaded:?}; \
         {} handshakes in all, {} refused",
        during.0 - before.0,
        during.1 - before.1,
        all.0,
        all.1
    );
    assert!(answered < BACK && served < BACK, "{fault}: {answered:?} {served:?}");
    drop(load);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes five minutes and root; scripts/soak"]
async fn the_runtime_file_system_fails_in_the_midst_of_200_000_handshakes() {
    if !two_users("the_runtime_file_system_fails (it mounts a disk)") {
        return;
    }
    for fault in ["full", "unwritable", "read-only", "deleted", "deleted and unwritable"] {
        endure(fault).await;
    }
}
