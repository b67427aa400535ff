//! A whole server within one process, for the tests of programs: its workers and its manager are
//! threads, and a small master gives them what the real one gives.
//!
//! There is no reload, no control over signals and no process of an application: what needs
//! processes of its own is tested with the real program.
//!
//! [`master`] is that master, [`client`] the other side.

mod client;
mod master;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

pub use client::{ClientError, TestClient};

use super::Server;
use crate::config::Config;
use crate::error::{Error, Result, Subject};
use crate::fd::Slot;
use crate::sys::packet;
use master::Master;

/// How long a worker has to be ready, and to leave.
const PATIENCE: Duration = Duration::from_secs(20);
/// Workers of one server.
const WORKERS_MAX: u8 = 16;

/// A server in this process, on a port of its own.
///
/// ```no_run
/// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
/// fn chat() -> wsd::Server {
///     wsd::Server::new().on_message(|ctx, frame| ctx.broadcast(frame))
/// }
///
/// let server = wsd::testing::TestServer::start(2, chat)?;
/// let mut ada = server.connect("/").await?;
/// let mut bob = server.connect("/").await?;
/// ada.send("hello").await?;
/// assert_eq!(bob.receive().await?, "hello");
/// server.stop()?;
/// # Ok(())
/// # }
/// ```
///
/// Dropping the server stops it, too.
pub struct TestServer {
    address: SocketAddr,
    stop: OwnedFd,
    master: Option<JoinHandle<Result<()>>>,
}

impl TestServer {
    /// Starts `workers` workers (1 to 16) of the server that `make` describes, and waits until
    /// each serves. `make` is called once in each worker's thread. What the server listens on is
    /// replaced by a free port of 127.0.0.1; neither a file nor the environment is read.
    ///
    /// # Errors
    /// What kept a worker from serving, such as a panic of `on_worker_start`.
    pub fn start(
        workers: u8,
        make: impl Fn() -> Server + Send + Sync + 'static,
    ) -> Result<TestServer> {
        if !(1..=WORKERS_MAX).contains(&workers) {
            return Err(Error::new(format!("a server of a test has 1 to {WORKERS_MAX} workers")));
        }
        let config = Config { worker_num: usize::from(workers), ..make().base };
        let listener = TcpListener::bind("127.0.0.1:0").subject(|| "listen".to_owned())?;
        listener.set_nonblocking(true).subject(|| "listen".to_owned())?;
        let address = listener.local_addr().subject(|| "ask for the port".to_owned())?;
        let (stop, stopped) = packet::pair()?;
        let mut master = Master::new(&config, address)?;
        let make = Arc::new(make);
        for slot in 0..workers {
            master.start_worker(Slot(slot), &config, &listener, make.clone())?;
        }
        let (ready, is_ready) = std::sync::mpsc::channel();
        let master = spawn(move || master.serve(&stopped, &ready));
        let server = TestServer { address, stop, master: Some(master) };
        match is_ready.recv_timeout(PATIENCE) {
            Ok(()) => Ok(server),
            Err(_) => Err(match server.stop() {
                Err(error) => error,
                Ok(()) => Error::new("a worker was not ready in time"),
            }),
        }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a WebSocket. `target` is path and query, such as `/ws?token=x`.
    ///
    /// # Errors
    /// What keeps the connection from opening; for a refused handshake, its answer.
    pub async fn connect(&self, target: &str) -> std::result::Result<TestClient, ClientError> {
        let url = format!("ws://{}{target}", self.address);
        let (socket, _) = tokio_tungstenite::connect_async(url).await?;
        Ok(TestClient(socket))
    }

    /// Stops the server: clients get 1001, `on_close` and `on_worker_stop` run.
    ///
    /// # Errors
    /// Why a worker or the manager could not go on.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(master) = self.master.take() else { return Ok(()) };
        // A master that has ended hears nothing, and needs to hear nothing.
        let _ = packet::send(self.stop.as_fd(), b"stop", &[]);
        master.join().unwrap_or_else(|_| Err(Error::new("the master of a test panicked")))
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        // Whoever wants to know calls `stop`.
        let _ = self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Accept, Context};

    fn greeter() -> Server {
        Server::new()
            .on_handshake(|_, request| match request.query_param("name") {
                Some(name) => Ok(Accept::new().extension(name)),
                None => Err(crate::api::Refuse::new(401, "who?")),
            })
            .on_open(|ctx, request| {
                let name = request.extension::<String>().cloned().unwrap_or_default();
                ctx.push(request.fd, format!("hello, {name}"));
            })
            .on_message(|ctx, frame| ctx.broadcast(frame))
    }

    #[tokio::test]
    async fn clients_of_two_workers_hear_a_broadcast() {
        let server = TestServer::start(2, greeter).unwrap();
        let mut clients = Vec::new();
        for number in 0..8 {
            let mut client = server.connect(&format!("/?name={number}")).await.unwrap();
            assert_eq!(client.receive().await.unwrap(), format!("hello, {number}"));
            clients.push(client);
        }
        clients[0].send("to all").await.unwrap();
        for client in &mut clients {
            assert_eq!(client.receive().await.unwrap(), "to all");
        }
        let refused = server.connect("/").await;
        assert!(matches!(refused, Err(ClientError::Http(answer)) if answer.status() == 401));
        server.stop().unwrap();
        let close = clients[0].closed().await.unwrap().unwrap();
        assert_eq!(u16::from(close.code), 1001);
    }

    #[test]
    fn a_start_that_panics_says_so() {
        fn fail(_: Context) {
            panic!("no database");
        }
        let start = || Server::new().on_worker_start(fail);
        let error = TestServer::start(1, start).err().expect("it must not start");
        assert_eq!(error.to_string(), "on_worker_start panicked");
    }
}
