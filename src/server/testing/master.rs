//! The real master's part, as far as threads need one.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{JoinHandle, spawn};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::task::LocalSet;

use crate::config::Config;
use crate::error::{Error, Result, Subject};
use crate::fd::{Slot, WorkerId};
use crate::ipc::codec;
use crate::ipc::messages::{
    LEASE_SERIALS, Listener, ManagerBoot, ManagerToMaster, MasterState, MasterToManager,
    MasterToWorker, Purpose, StopMode, WorkerBoot, WorkerRecord, WorkerToMaster,
};
use crate::ipc::registry::Registry;
use crate::ipc::scoreboard::{Row, Totals};
use crate::manager::{self, Peers};
use crate::server::Server;
use crate::sys::packet;
use crate::worker;

/// Bytes of the largest message of a worker or of the manager to the master.
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Connections of each worker.
const CONNECTIONS_MAX: usize = 4096;

/// What a test's master keeps of a worker.
struct Hand {
    id: WorkerId,
    link: OwnedFd,
    thread: Option<JoinHandle<Result<()>>>,
    ready: bool,
    leases: u64,
}

/// The real master's part, as far as threads need one.
pub(super) struct Master {
    manager: OwnedFd,
    manager_thread: Option<JoinHandle<Result<()>>>,
    workers: Vec<Hand>,
    address: SocketAddr,
}

impl Master {
    /// Starts the manager.
    pub(super) fn new(config: &Config, address: SocketAddr) -> Result<Master> {
        let (manager, theirs) = packet::pair()?;
        let peers = Peers::of(config)?;
        let manager_thread =
            spawn(move || in_a_runtime(manager::live(theirs, move |_| Ok(peers))));
        let boot = MasterToManager::Boot(ManagerBoot {
            epoch: 1,
            config: as_json(config)?,
            generation: 1,
            pending: None,
            begin_with_reload: false,
            state: MasterState { worker_num: slots(config), ..MasterState::default() },
            departed: Totals::default(),
        });
        tell(&manager, &boot, &[control_socket()?.as_fd(), Row::create()?.as_fd()])?;
        let manager_thread = Some(manager_thread);
        Ok(Master { manager, manager_thread, workers: Vec::new(), address })
    }

    pub(super) fn start_worker(
        &mut self,
        slot: Slot,
        config: &Config,
        listener: &TcpListener,
        make: Arc<impl Fn() -> Server + Send + Sync + 'static>,
    ) -> Result<()> {
        let id = WorkerId { slot, epoch: 1 };
        let (link, theirs) = packet::pair()?;
        let (to_manager, to_worker) = packet::pair()?;
        let (_, registry) = Registry::create(CONNECTIONS_MAX)?;
        let page = Row::create()?;
        let address = self.address.to_string();
        let boot = MasterToWorker::Boot(WorkerBoot {
            id,
            generation: 1,
            config: as_json(config)?,
            worker_num: slots(config),
            departed: Totals::default(),
            pages: 0,
            lease: 1,
            listeners: vec![Listener {
                entry: address.clone(),
                address,
                purpose: Purpose::Clients,
            }],
        });
        let fds = [to_worker.as_fd(), page.as_fd(), registry.as_fd(), listener.as_fd()];
        tell(&link, &boot, &fds)?;
        let record = WorkerRecord {
            id,
            generation: 1,
            pid: std::process::id().cast_signed(),
            ready: false,
        };
        let fds = [to_manager.as_fd(), registry.as_fd(), page.as_fd()];
        tell(&self.manager, &MasterToManager::Attach(record), &fds)?;
        let thread = spawn(move || {
            worker::live(theirs, |_| Ok(()), |config, _| Ok(make().into_handler(config)))
        });
        let hand = Hand { id, link, thread: Some(thread), ready: false, leases: 0 };
        self.workers.push(hand);
        self.lease(self.workers.len() - 1)
    }

    /// Tells the manager of the block of numbers that a worker has or is about to get.
    fn lease(&mut self, index: usize) -> Result<()> {
        let Hand { id, leases, .. } = &mut self.workers[index];
        let first = 1 + *leases * LEASE_SERIALS;
        *leases += 1;
        let leased = MasterToManager::Leased { id: *id, first, last: first + LEASE_SERIALS - 1 };
        tell(&self.manager, &leased, &[])
    }

    /// Serves the workers and the manager until the test stops it or one of them fails.
    pub(super) fn serve(
        mut self,
        stopped: &OwnedFd,
        ready: &std::sync::mpsc::Sender<()>,
    ) -> Result<()> {
        let served = self.hear_all(stopped, ready);
        let ended = self.end();
        served.and(ended)
    }

    fn hear_all(&mut self, stopped: &OwnedFd, ready: &std::sync::mpsc::Sender<()>) -> Result<()> {
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        loop {
            let links = self.workers.iter().map(|worker| worker.link.as_fd());
            let all = [stopped.as_fd(), self.manager.as_fd()].into_iter().chain(links);
            let mut polled: Vec<_> = all.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            match poll(&mut polled, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(Error::io("wait for the workers of a test", errno)),
            }
            let came: Vec<bool> = polled.iter().map(|fd| fd.any().unwrap_or(false)).collect();
            if came[0] {
                return Ok(());
            }
            if came[1] {
                self.hear_manager(&mut buffer)?;
            }
            for index in came[2..].iter().enumerate().filter(|(_, came)| **came).map(|(i, _)| i) {
                self.hear_worker(index, &mut buffer)?;
            }
            if self.workers.iter().all(|worker| worker.ready) {
                // Whoever waited for it has heard it once.
                let _ = ready.send(());
            }
        }
    }

    fn hear_manager(&mut self, buffer: &mut [u8]) -> Result<()> {
        match hear(&self.manager, buffer)? {
            Some(ManagerToMaster::Prepare) => {
                let why = "a server within a test is not reloaded".to_owned();
                tell(&self.manager, &MasterToManager::PrepareFailed { why }, &[])
            }
            Some(ManagerToMaster::KillHung(id)) => {
                Err(Error::new(format!("worker {id} does not answer")))
            }
            // All else is about processes.
            _ => Ok(()),
        }
    }

    fn hear_worker(&mut self, index: usize, buffer: &mut [u8]) -> Result<()> {
        let Hand { id, link, ready, .. } = &mut self.workers[index];
        match hear(link, buffer)? {
            Some(WorkerToMaster::Ready) => {
                *ready = true;
                tell(&self.manager, &MasterToManager::WorkerReady(*id), &[])
            }
            Some(WorkerToMaster::NeedLease) => {
                let first = 1 + self.workers[index].leases * LEASE_SERIALS;
                self.lease(index)?;
                tell(&self.workers[index].link, &MasterToWorker::Lease { first }, &[])
            }
            Some(WorkerToMaster::Fatal { why }) => Err(Error::new(why)),
            Some(WorkerToMaster::StartApp { id }) => {
                let how = "a server within a test starts no processes".to_owned();
                tell(link, &MasterToWorker::AppExited { id, how }, &[])
            }
            Some(
                WorkerToMaster::Hello(_)
                | WorkerToMaster::LostClosed
                | WorkerToMaster::KillApp { .. }
                | WorkerToMaster::Waits { .. },
            ) => Ok(()),
            None => Err(Error::new(format!("worker {id} has ended"))),
        }
    }

    fn end(&mut self) -> Result<()> {
        let mut ended = Ok(());
        for worker in &mut self.workers {
            // A worker that has ended is what is wanted.
            let _ = tell(&worker.link, &MasterToWorker::Stop(StopMode::Graceful), &[]);
        }
        for worker in &mut self.workers {
            ended = ended.and(joined(worker.thread.take(), "a worker"));
        }
        let _ = tell(&self.manager, &MasterToManager::Leave, &[]);
        ended.and(joined(self.manager_thread.take(), "the manager"))
    }
}

fn joined(thread: Option<JoinHandle<Result<()>>>, who: &str) -> Result<()> {
    let Some(thread) = thread else { return Ok(()) };
    thread.join().unwrap_or_else(|_| Err(Error::new(format!("{who} of a test panicked"))))
}

fn in_a_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.subject(|| "start the manager's runtime".to_owned())?;
    LocalSet::new().block_on(&runtime, work)
}

/// How many slots there are: at most 16, so it fits.
fn slots(config: &Config) -> u16 {
    u16::try_from(config.worker_num).unwrap_or(u16::MAX)
}

fn as_json(config: &Config) -> Result<String> {
    serde_json::to_string(config)
        .map_err(|error| Error::new(format!("cannot write the configuration: {error}")))
}

/// A socket for a control protocol that nobody speaks: without a path in the file system.
fn control_socket() -> Result<OwnedFd> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("wsd-testing-{}-{number}", std::process::id());
    let subject = || "make a control socket".to_owned();
    let address = UnixAddress::from_abstract_name(name).subject(subject)?;
    let listener = UnixListener::bind_addr(&address).subject(subject)?;
    listener.set_nonblocking(true).subject(subject)?;
    Ok(listener.into())
}

fn tell(link: &OwnedFd, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let mut bytes = Vec::new();
    codec::encode(message, &mut bytes)?;
    packet::send(link.as_fd(), &bytes, fds)
        .map_err(|errno| Error::io("tell a process of a test", errno))
}

/// The next message; `None` where the other end is closed.
fn hear<T: DeserializeOwned>(link: &OwnedFd, buffer: &mut [u8]) -> Result<Option<T>> {
    match packet::receive(link.as_fd(), buffer) {
        Ok(got) if got.len > 0 => codec::decode(&buffer[..got.len]).map(Some),
        Ok(_) => Ok(None),
        Err(errno) => Err(Error::io("hear a process of a test", errno)),
    }
}
