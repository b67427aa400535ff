//! A proxy before an engine that, when it is told to, keeps back what others publish and nothing
//! else: the connection is healthy, every command is answered, and no message comes any more.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tempfile::TempDir;

/// The proxy. Its threads end with the connections.
pub struct DeafProxy {
    directory: TempDir,
    is_deaf: Arc<AtomicBool>,
}

impl DeafProxy {
    /// Before the engine at a socket.
    pub fn start(engine: PathBuf) -> DeafProxy {
        let directory = tempfile::Builder::new().prefix("wsd-engine-").tempdir().unwrap();
        let listener = UnixListener::bind(DeafProxy::socket(directory.path())).unwrap();
        let is_deaf = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&is_deaf);
        thread::spawn(move || {
            for node in listener.incoming().flatten() {
                let Ok(engine) = UnixStream::connect(&engine) else { continue };
                let (from, to) = (node.try_clone().unwrap(), engine.try_clone().unwrap());
                thread::spawn(move || pass(from, to, std::mem::take));
                let is_deaf = Arc::clone(&shared);
                thread::spawn(move || {
                    pass(engine, node, |bytes| heard(bytes, is_deaf.load(Ordering::Relaxed)))
                });
            }
        });
        DeafProxy { directory, is_deaf }
    }

    fn socket(directory: &Path) -> PathBuf {
        directory.join("deaf.sock")
    }

    /// Its address, as `cluster.engine` takes it in TOML.
    pub fn address(&self) -> String {
        format!("\"unix:{}\"", DeafProxy::socket(self.directory.path()).display())
    }

    /// Keeps back what is published from here on, or does so no more.
    pub fn set_deaf(&self, is_deaf: bool) {
        self.is_deaf.store(is_deaf, Ordering::Relaxed);
    }
}

/// Passes bytes one way; `take` says what of those that wait goes on.
fn pass(mut from: UnixStream, mut to: UnixStream, take: impl Fn(&mut Vec<u8>) -> Vec<u8>) {
    let (mut waiting, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        waiting.extend_from_slice(&buffer[..count]);
        if to.write_all(&take(&mut waiting)).is_err() {
            break;
        }
    }
    // The other end learns that this one is gone.
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// The whole values at the beginning, without messages where the proxy is deaf.
fn heard(bytes: &mut Vec<u8>, is_deaf: bool) -> Vec<u8> {
    let (mut heard, mut used) = (Vec::new(), 0);
    while let Some(len) = value_len(&bytes[used..]) {
        let value = &bytes[used..used + len];
        let is_message = value.starts_with(b">3\r\n$7\r\nmessage\r\n");
        if !(is_deaf && is_message) {
            heard.extend_from_slice(value);
        }
        used += len;
    }
    bytes.drain(..used);
    heard
}

/// Bytes of the RESP3 value at the beginning, if it is whole.
fn value_len(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|two| two == b"\r\n")? + 2;
    let count = || std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse::<i64>().ok();
    let parts = match bytes[0] {
        b'$' | b'=' | b'!' => {
            let whole = line + usize::try_from(count()?).map_or(0, |len| len + 2);
            return (bytes.len() >= whole).then_some(whole);
        }
        b'*' | b'>' | b'~' => count()?,
        b'%' => 2 * count()?,
        _ => 0,
    };
    (0..parts.max(0)).try_fold(line, |used, _| Some(used + value_len(&bytes[used..])?))
}
