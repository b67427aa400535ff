//! The service manager's end of sd_notify(3): a real datagram socket.

use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram;

use super::soon;

/// The socket that `NOTIFY_SOCKET` names.
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl NotifySocket {
    /// Binds one in `directory`.
    pub fn bind(directory: &Path) -> NotifySocket {
        let path = directory.join("notify");
        NotifySocket { socket: UnixDatagram::bind(&path).expect("bind"), path }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().expect("UTF-8")
    }

    /// The assignments of the next datagram.
    pub async fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let count = soon("a notification", self.socket.recv(&mut buffer)).await.expect("receive");
        let text = std::str::from_utf8(&buffer[..count]).expect("UTF-8");
        text.lines().map(str::to_owned).collect()
    }

    /// Reads until a datagram holds an assignment that starts with `wanted`, and returns it with
    /// everything that came before.
    pub async fn wait_for(&self, wanted: &str) -> (Vec<String>, Vec<Vec<String>>) {
        let mut before = Vec::new();
        loop {
            let datagram = self.next().await;
            if datagram.iter().any(|assignment| assignment.starts_with(wanted)) {
                return (datagram, before);
            }
            before.push(datagram);
        }
    }
}
