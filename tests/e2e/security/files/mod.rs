//! Another user of the machine, the service's own among them, leads root nowhere: by files in
//! places that this user may write to, and by pretending to be the server.
//!
//! Two users are needed, so that most of these tests need root, and say so where they have not
//! got it. The other user is `nobody`.

mod cleaned;
mod clients;
mod commands;
mod logs;
mod places;
mod soak;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::unistd::{Uid, User};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::harness::*;

/// Whether two users can be had; says so where not.
fn two_users(test: &str) -> bool {
    let root = Uid::effective().is_root();
    if !root {
        eprintln!("{test}: skipped, since only root can be two users");
    }
    root
}

/// A directory that everybody may look into, with one in it that belongs to `nobody`.
struct Area {
    dir: TempDir,
    theirs: User,
}

impl Area {
    fn new() -> Area {
        Area::below(Path::new("/tmp"))
    }

    fn below(parent: &Path) -> Area {
        let dir = tempfile::Builder::new().prefix("wsd-files-").tempdir_in(parent).unwrap();
        let theirs = User::from_name("nobody").unwrap().expect("the user nobody");
        mode(dir.path(), 0o755);
        fs::create_dir(dir.path().join("theirs")).unwrap();
        let area = Area { dir, theirs };
        area.give(&area.theirs());
        area
    }

    /// A path that only root may write to.
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory of `nobody`.
    fn theirs(&self) -> PathBuf {
        self.path("theirs")
    }

    /// Gives a file to `nobody`.
    fn give(&self, path: &Path) {
        chown(path, Some(self.uid()), Some(self.theirs.gid.as_raw())).unwrap();
    }

    fn uid(&self) -> u32 {
        self.theirs.uid.as_raw()
    }

    /// A file of root's that nobody else may read, with a known content.
    fn victim(&self) -> PathBuf {
        let path = self.path("victim");
        fs::write(&path, "precious").unwrap();
        mode(&path, 0o600);
        path
    }

    /// What `nobody` does in a shell, in their directory.
    async fn do_as_nobody(&self, script: &str) {
        let mut shell = Command::new("sh");
        shell.args(["-ec", script]).current_dir(self.theirs());
        let ran = command(shell.uid(self.uid()).gid(self.theirs.gid.as_raw())).await;
        assert_eq!(ran.code, Some(0), "{script}: {ran:?}");
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// That the victim is as it was.
fn unharmed(victim: &Path) {
    let metadata = fs::metadata(victim).unwrap();
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o600, 0));
}

fn quoted(path: &Path) -> String {
    format!("{:?}", path.display().to_string())
}

/// Somebody who pretends to be the server of a directory: a lock that names another process, and
/// a socket on which every request gets the same answer. What is asked is kept.
struct Pretender {
    child: Child,
    heard: PathBuf,
}

const PRETEND: &str = r#"
import fcntl, json, os, socket, sys
directory, pid, started, answer = sys.argv[1:]
os.makedirs(directory, mode=0o755, exist_ok=True)
os.chdir(directory)
lock = open("wsd.lock", "w+")
json.dump({"pid": int(pid), "started": int(started)}, lock)
lock.flush()
fcntl.lockf(lock, fcntl.LOCK_EX)
listener = socket.socket(socket.AF_UNIX)
listener.bind("wsd.sock")
listener.listen()
heard = open("heard", "ab", buffering=0)
print("ready", flush=True)
while True:
    peer, _ = listener.accept()
    try:
        heard.write(peer.recv(65536))
        peer.sendall(answer.encode("latin-1").decode("unicode_escape").encode() + b"\n")
    except OSError:
        pass  # Whoever asked did not wait for the answer.
    peer.close()
"#;

impl Pretender {
    /// Begins as that user, with a lock that names `pid`.
    async fn start(uid: u32, directory: &Path, pid: u32, answer: &str) -> Pretender {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let started = stat.rsplit_once(") ").unwrap().1.split(' ').nth(19).unwrap().to_owned();
        let mut python = Command::new("python3");
        python.args(["-c", PRETEND]).arg(directory).args([&pid.to_string(), &started, answer]);
        python.uid(uid).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = python.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = soon("the pretender", lines.next_line()).await.unwrap();
        assert_eq!(line.as_deref(), Some("ready"));
        Pretender { child, heard: directory.join("heard") }
    }

    fn heard(&self) -> String {
        fs::read_to_string(&self.heard).unwrap()
    }

    fn lives(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

/// Any process of the test's user that nobody asked to end.
fn innocent() -> Child {
    Command::new("sleep").arg("600").kill_on_drop(true).spawn().unwrap()
}

/// A command of the stock program with these words.
async fn wsd(words: &[&str]) -> Ran {
    command(Command::new(stock_program()).args(words)).await
}
