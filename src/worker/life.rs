//! The life of a worker, from its first packet to its exit.

use std::cell::Cell;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use tokio::io::Interest;
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

use super::app::App;
use super::base::Base;
use super::base::board::Board;
use super::base::phase::Phase;
use super::base::settings::Settings;
use super::boot::{self, Boot};
use super::clients::Clients;
use super::door::Door;
use super::leave::Leaving;
use super::links;
use super::moving::Moving;
use super::peers::Peers;
use super::peers::local_handle::LocalHandle;
use super::{Worker, reactor, wheel};
use crate::api::{Context, Handler};
use crate::config::Config;
use crate::error::{Error, Result, Subject};
use crate::fd::WorkerId;
use crate::ipc::link::Link;
use crate::ipc::master_link::MasterLink;
use crate::ipc::messages::{Listener, WorkerToMaster};
use crate::ipc::registry::Registry;
use crate::log::{self, Output};
use crate::sys::watch::watch;
use crate::sys::{clock, ending, process};

/// A start that lasts longer is told of, and looked at so often.
const SLOW_START: Duration = Duration::from_secs(1);
/// How long the exit waits for the log's writer.
const LOG_FLUSH_TIME: Duration = Duration::from_millis(200);

/// Serves as a worker until the master says to leave, or is gone.
///
/// `master` is the link to the master, whose first packet is `Boot`. `privileged` is then given
/// the resolved configuration while the worker has the master's rights, and `make` makes the
/// handler when it has its own.
pub(crate) fn run(
    master: OwnedFd,
    privileged: impl FnOnce(&Config) -> Result<()>,
    make: impl FnOnce(&Config) -> Rc<dyn Handler>,
) -> ExitCode {
    let parent = nix::unistd::getppid();
    let prepare = |config: &Config| {
        process::ignore_master_signals()?;
        ending::before_the_master();
        privileged(config)?;
        config.worker_rights().take()?;
        // Behind the change of user, which disarms it.
        process::die_with_parent(parent)
    };
    let served = live(master, prepare, |config, id| {
        let role = format!("worker {}", id.slot);
        log::init(&role, config.log_level, config.log_format, Output::Queued)?;
        Ok(make(config))
    });
    log::flush(LOG_FLUSH_TIME);
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Lives a worker's life in whatever thread this is. `prepare` is what only a process of its own
/// does, once its descriptors are there. An error is logged, and told to the master.
pub(crate) fn live(
    master: OwnedFd,
    prepare: impl FnOnce(&Config) -> Result<()>,
    make: impl FnOnce(&Config, WorkerId) -> Result<Rc<dyn Handler>>,
) -> Result<()> {
    let boot = boot::receive(master)?;
    let master = boot.master.try_clone();
    prepare(&boot.config).and_then(|()| serve_booted(boot, make)).inspect_err(|error| {
        tracing::error!(%error, "the worker cannot serve");
        if let Ok(master) = master {
            tell_fatal(master, error.to_string());
        }
    })
}

/// The master logs it too; if even this fails, our own log has it.
fn tell_fatal(master: OwnedFd, why: String) {
    let mut bytes = Vec::new();
    if crate::ipc::codec::encode(&WorkerToMaster::Fatal { why }, &mut bytes).is_ok() {
        let _ = crate::sys::packet::send(master.as_fd(), &bytes, &[]);
    }
}

fn serve_booted(
    boot: Boot,
    make: impl FnOnce(&Config, WorkerId) -> Result<Rc<dyn Handler>>,
) -> Result<()> {
    let handler = make(&boot.config, boot.is.id)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .subject(|| "start the runtime".to_owned())?;
    let local = LocalSet::new();
    local.block_on(&runtime, serve(boot, handler))
}

async fn serve(mut boot: Boot, handler: Rc<dyn Handler>) -> Result<()> {
    let listeners = std::mem::take(&mut boot.listeners);
    let (worker, watched) = build(boot, handler)?;
    let context = Context::new(Rc::new(LocalHandle::new(&worker.peers)));
    // It is new, so nothing is there yet.
    let _ = worker.context.set(context);
    let tasks = [
        spawn_local(links::read_master(worker.clone())),
        spawn_local(links::read_manager(worker.clone())),
        spawn_local(links::write_manager(worker.clone())),
        spawn_local(wheel::turn_wheel(worker.clone())),
    ];
    let served = start_and_serve(&worker, watched, listeners).await;
    for task in tasks {
        task.abort();
    }
    served
}

async fn start_and_serve(
    worker: &Rc<Worker>,
    watched: tokio::io::unix::AsyncFd<OwnedFd>,
    listeners: Vec<(Listener, OwnedFd)>,
) -> Result<()> {
    let handler = worker.handler.clone();
    let started = worker.call_alone("on_worker_start", |context| handler.on_worker_start(context));
    tokio::select! {
        started = started => {
            started.map_err(|_| Error::new("on_worker_start panicked"))?;
            handler.health().map_err(Error::new)?;
        }
        () = worker.leaving() => {}
        () = tell_waits(worker) => {}
    }
    worker.listen(worker.slot(), listeners)?;
    if worker.phase.get() == Phase::Starting {
        worker.enter(Phase::Serving);
        worker.set_accepting(true)?;
        worker.master.send(&WorkerToMaster::Ready);
    }
    // As a task of its own it follows the tasks that wake it; as the one that the runtime waits
    // for, each time only behind a look at what else is ready.
    let reactor = worker.clone();
    match spawn_local(async move { reactor::run(&reactor, watched).await }).await {
        Ok(served) => served,
        Err(died) => match died.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(died) => Err(Error::new(format!("the reactor was ended: {died}"))),
        },
    }
}

/// Tells the master what a start waits for that takes a while. Never ends.
async fn tell_waits(worker: &Rc<Worker>) {
    let mut told = String::new();
    loop {
        tokio::time::sleep(SLOW_START).await;
        let waits = worker.handler.health().err();
        let what = waits.unwrap_or_else(|| "on_worker_start has not ended".to_owned());
        if what != told {
            worker.master.send(&WorkerToMaster::Waits { what: what.clone() });
            told = what;
        }
    }
}

fn build(
    boot: Boot,
    handler: Rc<dyn Handler>,
) -> Result<(Rc<Worker>, tokio::io::unix::AsyncFd<OwnedFd>)> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)
        .subject(|| "create an epoll set".to_owned())?;
    let watched = epoll
        .0
        .try_clone()
        .and_then(|epoll| watch(epoll, Interest::READABLE))
        .subject(|| "watch the epoll set".to_owned())?;
    let pace = handler.pace();
    let mut settings = Settings::new(boot.config);
    settings.close_slow &= !pace.skips_slow;
    let now_ms = clock::monotonic_ms();
    let registry = Registry::open(boot.registry.as_fd())?;
    let base = Base {
        id: boot.is.id,
        worker_num: Cell::new(boot.is.worker_num),
        engine_away: Cell::new(settings.in_cluster),
        phase: Cell::new(Phase::Starting),
        changed: Notify::new(),
        stop_http: tokio::sync::watch::channel(false).0,
        now_ms: Cell::new(now_ms),
        board: Board::new(&boot.page, boot.is.departed, &boot.pages)?,
        link: Link::new(boot.link, boot.is.id)?,
        master: MasterLink::new(boot.master)?,
        settings,
    };
    let clients = Clients::new(base, epoll, registry);
    let app = App::new(clients, handler, pace);
    let door = Door::new(Rc::new(app), boot.is.lease);
    let peers = Peers::new(Rc::new(Moving::new(Rc::new(door))));
    let worker = Worker { peers: Rc::new(peers), leaving: Leaving::default() };
    Ok((Rc::new(worker), watched))
}
