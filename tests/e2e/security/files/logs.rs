//! The log leads root nowhere, is read by no stranger, has a limit, and is whole after a full disk.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;

fn with_log(log: &Path) -> Setup {
    Setup::stock()
        .set("user", "\"nobody\"")
        .set("handler", "\"echo\"")
        .set("log_file", quoted(log))
}

#[tokio::test]
async fn a_link_in_the_place_of_the_log_leads_a_reopen_nowhere() {
    if !two_users("a_link_in_the_place_of_the_log_leads_a_reopen_nowhere") {
        return;
    }
    let area = Area::new();
    let (victim, theirs) = (area.victim(), area.theirs());
    let server = with_log(&theirs.join("wsd.log")).start().await;
    let written = fs::metadata(theirs.join("wsd.log")).unwrap();
    assert_eq!((written.uid(), written.mode() & 0o777), (area.uid(), 0o640));
    // A link to a file of root's, to one that is not there yet, a pipe, and a second name.
    let fresh = area.path("fresh");
    for put in [
        format!("ln -s {} wsd.log", victim.display()),
        format!("ln -s {} wsd.log", fresh.display()),
        "mkfifo wsd.log".to_owned(),
        "touch other; ln other wsd.log".to_owned(),
    ] {
        area.do_as_nobody(&format!("rm -f wsd.log; {put}")).await;
        server.wsd(["reopen"]).await.ok();
        server.wsd(["reload"]).await;
        unharmed(&victim);
        assert!(!fresh.exists(), "{put}");
        assert_eq!(fs::metadata(theirs.join("other")).map_or(0, |other| other.len()), 0);
    }
    // A log directory moved away, with another in its place.
    area.do_as_nobody("rm -f wsd.log; mkdir d; ln -s ../../victim d/wsd.log").await;
    server.wsd(["reopen"]).await.ok();
    until("a new log", async || theirs.join("wsd.log").exists().then_some(())).await;
    assert_eq!(fs::metadata(theirs.join("wsd.log")).unwrap().uid(), area.uid());
}

#[tokio::test]
async fn a_log_in_tmp_is_no_link_of_a_stranger() {
    if !two_users("a_log_in_tmp_is_no_link_of_a_stranger") {
        return;
    }
    let area = Area::new();
    let victim = area.victim();
    let log = PathBuf::from(format!("/tmp/wsd-test-{}.log", std::process::id()));
    area.do_as_nobody(&format!("ln -s {} {}", victim.display(), log.display())).await;
    for setup in [with_log(&log), Setup::stock().set("log_file", quoted(&log))] {
        let (_server, ran) = setup.try_start().await;
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.stderr.contains("is a link"), "{ran:?}");
        unharmed(&victim);
    }
    fs::remove_file(&log).unwrap();
}

/// What the standard error of a process leads to.
fn log_of(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/fd/2")).unwrap()
}

#[tokio::test]
async fn after_a_rotation_and_after_a_reload_with_another_log_every_process_writes_to_it() {
    let mut server = Setup::testbed().start().await;
    let all_write_to = async |server: &Server, log: &Path| {
        let what = format!("every process to write to {}", log.display());
        until(&what, async || {
            let ours = server.processes();
            ours.iter().all(|process| log_of(process.pid) == log).then_some(())
        })
        .await;
        assert!(server.processes().len() >= 4);
    };
    all_write_to(&server, &server.log_file()).await;
    // Rotated by somebody, and then a reload in the place of a reopen.
    fs::rename(server.log_file(), server.path().join("aside")).unwrap();
    server.wsd(["reload"]).await.ok();
    all_write_to(&server, &server.log_file()).await;
    // Another file.
    let other = server.path().join("other.log");
    server.configure("log_file", quoted(&other));
    let mut client = server.client().await;
    client.send("sleep 300").await;
    server.wsd(["reload"]).await.ok();
    all_write_to(&server, &other).await;
    client.receive().await;
    // One that cannot be opened changes nothing.
    server.configure("log_file", quoted(&server.path().join("run")));
    let ran = server.wsd(["reload"]).await;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    server.configure("log_file", quoted(&other));
    all_write_to(&server, &other).await;
}

#[tokio::test]
async fn a_log_that_has_grown_to_its_limit_is_put_aside() {
    let server = Setup::stock().set("log_size_max", "\"1MiB\"").start().await;
    let filler = "x".repeat(4000) + "\n";
    let text = filler.repeat(300);
    let mut file = fs::OpenOptions::new().append(true).open(server.log_file()).unwrap();
    std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
    let old = server.path().join("wsd.log.old");
    until("the old log", async || old.exists().then_some(())).await;
    until("the new log", async || server.log().contains("reopened").then_some(())).await;
    assert!(fs::metadata(&old).unwrap().len() > 1 << 20);
    until("every process to write to the new one", async || {
        let ours = server.processes();
        ours.iter().all(|process| log_of(process.pid) == server.log_file()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn refusals_without_end_are_some_lines_a_second_and_a_count() {
    let server = Setup::stock().set("worker_num", 1).start().await;
    for _ in 0..300 {
        let mut raw = Raw::connect(&server.address).await;
        raw.send("GET / HTTP/9.9\r\n\r\n").await;
        raw.rest().await;
    }
    let told = until("the count", async || {
        let log = server.log();
        let counted = log.lines().filter(|line| line.contains("which were not logged"));
        let count = |line: &str| {
            let (_, rest) = line.split_once("count=")?;
            rest.split(' ').next()?.parse::<usize>().ok()
        };
        let shown = log.lines().filter(|line| line.contains(": refused status=")).count();
        let rest: usize = counted.filter_map(count).sum();
        (shown + rest == 300).then_some((shown, rest))
    })
    .await;
    assert!(told.0 < 300 && told.1 > 0, "{told:?}");
}

/// A small file system of its own that is gone with the value.
pub struct Disk(PathBuf);

impl Disk {
    pub fn mount(path: PathBuf, options: &str) -> Disk {
        fs::create_dir(&path).unwrap();
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "wsd-test"]).arg(&path);
        assert!(mount.status().unwrap().success());
        Disk(path)
    }

    /// Takes all the room there is.
    pub fn fill(&self) {
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        for size in [65536, 4096, 512, 64, 1] {
            while std::io::Write::write_all(&mut file, &vec![b'x'; size]).is_ok() {}
        }
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes it read-only, which the kernel refuses while a file of it is open for writing.
    pub fn set_read_only(&self, on: bool) {
        let options = if on { "remount,ro" } else { "remount,rw" };
        let mut mount = std::process::Command::new("mount");
        assert!(mount.args(["-o", options]).arg(&self.0).status().unwrap().success());
    }

    /// Has a file of this file system be one of another, which may be open for writing.
    pub fn borrow(&self, file: &Path, from: &Path) {
        for path in [file, from] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
            mode(path, 0o600);
        }
        let mut mount = std::process::Command::new("mount");
        assert!(mount.arg("--bind").args([from, file]).status().unwrap().success());
    }

    pub fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The last descriptor in it may be open for a moment still.
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn after_a_full_disk_every_line_begins_at_its_beginning() {
    if !two_users("after_a_full_disk_every_line_begins_at_its_beginning (it mounts a disk)") {
        return;
    }
    let area = Area::new();
    let disk = Disk::mount(area.path("disk"), "size=1m");
    let log = disk.0.join("wsd.log");
    let server = Setup::testbed().set("log_file", quoted(&log)).start().await;
    for _ in 0..5 {
        disk.fill();
        // Whatever was cut off stands there; here it is made certain, and by another process.
        let size = fs::metadata(&log).unwrap().len();
        fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(size - 7).unwrap();
        for slot in 0..2 {
            kill(server.serving(slot, None).await.pid, nix::sys::signal::Signal::SIGKILL);
        }
        for slot in 0..2 {
            server.serving(slot, None).await;
        }
        disk.empty();
        server.wsd(["reload"]).await.ok();
    }
    let text = fs::read_to_string(&log).unwrap();
    for line in text.lines().filter(|line| !line.is_empty()) {
        // Twice the time in one line would be two lines glued.
        let times = line.matches("Z INFO ").count() + line.matches("Z ERROR ").count();
        // A disk that is full takes a part of a line, as little as a byte.
        let begins = line.starts_with("20") || "20".starts_with(line);
        assert!(begins && times <= 1, "{line}");
    }
    drop(server);
}
