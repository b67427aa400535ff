//! The manager: brings messages between workers, checks that workers live, conducts reloads and
//! answers control commands. One thread, and no state that its successor could not learn anew.
//!
//! It starts nothing and reaps nothing: it asks the master. Its life is [`run`]: boot, learn
//! who owns what (a successor asks the workers), serve until told to leave.
//!
//! - [`relay`]: a message finds its owner. [`moving`]: who moves, to whom, and when the route
//!   changes.
//! - [`packets`] is what workers say, and who does what is asked; [`worker_handle`] is what is
//!   said to one of them, [`workers`] to several. [`owners`]: how a successor learns of owners.
//! - [`liveness`] finds hung workers, [`ticks`] is the clock of everything; [`server_ticks`] says
//!   which worker runs a timer of the whole server.
//! - [`gathering`] is what control commands ask of rooms.
//! - [`cluster`] is the other nodes, where there are any.
//! - [`control`] serves the control socket to whom [`peers`] lets; [`status`], [`listing`] and
//!   [`slow`] are its longer answers.

mod cluster;
mod control;
mod gathering;
mod listing;
mod liveness;
mod moving;
mod owners;
mod packets;
mod peers;
mod relay;
mod server_ticks;
mod settings;
mod slow;
mod status;
mod ticks;
mod worker_handle;
mod workers;

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{JoinHandle, LocalSet, spawn_local};

use crate::config::Config;
use crate::error::{Error, Result, Subject};
use crate::fd::WorkerId;
use crate::ipc::link::Link;
use crate::ipc::master_link::MasterLink;
use crate::ipc::messages::{
    Hello, ManagerBoot, ManagerToMaster, MasterState, MasterToManager, WorkerRecord,
};
use crate::ipc::registry::Registry;
use crate::ipc::scoreboard::{Board, Row};
use crate::log;
use crate::sys::clock::monotonic_ms;
use crate::sys::{ending, process};

pub(crate) use peers::Peers;

use moving::mover::Reloads;
use moving::pass::Passes;
use relay::commands::Commands;
use relay::direct::Direct;
use relay::hold::{Hold, Scope};
use relay::interest::Interest;
use relay::presence::Presence;
use relay::router::Router;
use server_ticks::ServerTicks;
use settings::Settings;
use worker_handle::{Phase, WorkerHandle};
use workers::Workers;

/// How long workers have to leave by themselves once the master is dead.
const ORPHAN_GRACE: Duration = Duration::from_millis(1500);

/// Everything the manager knows.
pub(crate) struct Manager {
    exchange: Exchange,
    master: Rc<MasterLink>,
    epoch: u32,
    state: MasterState,
    server_ticks: ServerTicks,
    reloads: Reloads,
    control_clients: u64,
    /// How many of these are the application's.
    control_apps: u64,
    /// Who may command the server.
    peers: Peers,
    /// What answers on the control socket.
    control: Option<JoinHandle<()>>,
    stopping: bool,
    /// Whether the image is new and its workers are not.
    begin_with_reload: bool,
    /// Ourselves, for the tasks that an event starts.
    me: std::rc::Weak<RefCell<Manager>>,
}

/// All that a message needs to find its owner and to be answered: what is done in [`relay`],
/// [`cluster`], [`gathering`] and [`listing`]. Master and reload stand above it, in the manager.
struct Exchange {
    settings: Settings,
    scoreboard: Board,
    workers: Workers,
    router: Router,
    hold: Hold,
    passes: Passes,
    direct: Direct,
    interest: Interest,
    presence: Presence,
    /// The other nodes; `None` without `[cluster]`.
    cluster: Option<cluster::Cluster>,
    /// What this manager counts.
    row: Row,
    commands: Commands,
    /// Until when a successor waits for the workers to introduce themselves.
    owners_due_at: Option<u64>,
}

/// The manager as its tasks share it. None of them keeps it borrowed while it waits.
pub(crate) type Shared = Rc<RefCell<Manager>>;

/// The whole life of the manager process. `master` is the descriptor of the link to the master.
pub(crate) fn run(master: OwnedFd) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the manager cannot start its reactor");
            return ExitCode::FAILURE;
        }
    };
    match LocalSet::new().block_on(&runtime, live(master, become_manager)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the manager cannot go on");
            ExitCode::FAILURE
        }
    }
}

/// Boot, serve, leave. `prepare` is what only a process of its own does first.
pub(crate) async fn live(
    master: OwnedFd,
    prepare: impl FnOnce(&ManagerBoot) -> Result<Peers>,
) -> Result<()> {
    let link = Rc::new(MasterLink::new(master)?);
    let Some((MasterToManager::Boot(boot), fds)) = link.receive().await? else {
        return Err(Error::new("the first packet of the master is not Boot"));
    };
    link.send(&ManagerToMaster::Hello(Hello::ours()));
    let [control, page] = <[OwnedFd; 2]>::try_from(fds)
        .map_err(|fds| Error::new(format!("Boot came with {} descriptors", fds.len())))?;
    let row = Row::take(page.as_fd())?;
    let peers = prepare(&boot)?;
    let manager = Manager::boot(Rc::clone(&link), &boot, row, peers)?;
    manager.borrow_mut().serve_control(control)?;
    spawn_local(ticks::run(Rc::clone(&manager)));
    link.send(&ManagerToMaster::Ready);
    tracing::info!(epoch = boot.epoch, "the manager serves");
    let left = follow_master(&manager, &link).await;
    match left {
        Ok(true) => {
            cluster::part(&manager).await;
            link.flushed().await;
            Ok(())
        }
        // Whether it ended or broke: without a master nobody may go on.
        Ok(false) | Err(_) => {
            end_orphans(&manager).await;
            left.map(|_| ())
        }
    }
}

/// Becomes a child as any other: rights, signals, log. The answer is who may command the server,
/// which is told by what this process was before.
fn become_manager(boot: &ManagerBoot) -> Result<Peers> {
    let config: Config = serde_json::from_str(&boot.config)
        .map_err(|error| Error::new(format!("cannot read the configuration: {error}")))?;
    let master = nix::unistd::getppid();
    process::ignore_master_signals()?;
    ending::before_the_master();
    let peers = Peers::of(&config)?;
    config.manager_rights().take()?;
    process::die_with_parent(master)?;
    log::init("manager", config.log_level, config.log_format, log::Output::Queued)?;
    Ok(peers)
}

/// Does what the master says, until it says to leave (true) or is gone (false).
async fn follow_master(manager: &Shared, link: &MasterLink) -> Result<bool> {
    while let Some((message, fds)) = link.receive().await? {
        if let MasterToManager::Leave = message {
            return Ok(true);
        }
        manager.borrow_mut().on_master(message, fds)?;
    }
    Ok(false)
}

/// The master is dead. The workers know it too, and leave; those that have not are killed.
async fn end_orphans(manager: &Shared) {
    tracing::error!("the master is gone: the server ends");
    let links: Vec<(i32, Rc<Link>)> = {
        let manager = manager.borrow();
        manager.exchange.workers.iter().map(|w| (w.record.pid, Rc::clone(&w.link))).collect()
    };
    tokio::time::sleep(ORPHAN_GRACE).await;
    for (pid, link) in links {
        // Only the worker holds the other end, so while that is open its pid is its own.
        if !link.peer_is_gone() {
            let pid = nix::unistd::Pid::from_raw(pid);
            let killed = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            tracing::warn!(worker = %link.id(), %pid, ?killed, "killed a worker without master");
        }
    }
}

impl Exchange {
    /// Of a manager that begins now.
    fn new(boot: &ManagerBoot, settings: Settings, row: Row) -> Exchange {
        let cluster = settings.node.map(|node| cluster::Cluster::new(node, boot.epoch));
        let mut interest = Interest::new(boot.epoch);
        if cluster.is_some() {
            interest.watch();
        }
        let node = settings.node.unwrap_or(0);
        let is_successor = boot.epoch > 1 || boot.begin_with_reload;
        let scope = if is_successor { Scope::All } else { Scope::Open };
        Exchange {
            settings,
            scoreboard: Board::new(boot.departed.clone()),
            workers: Workers::default(),
            router: Router::new(boot.state.worker_num, node),
            hold: Hold::new(scope),
            passes: Passes::new(boot.epoch, !is_successor),
            direct: Direct::new(boot.epoch),
            interest,
            presence: Presence::default(),
            cluster,
            row,
            commands: Commands::new(boot.epoch),
            owners_due_at: is_successor.then(|| monotonic_ms() + owners::WAIT_MS),
        }
    }
}

impl Manager {
    fn boot(master: Rc<MasterLink>, boot: &ManagerBoot, row: Row, peers: Peers) -> Result<Shared> {
        let exchange = Exchange::new(boot, Settings::from_json(&boot.config)?, row);
        Ok(Rc::new_cyclic(|me| {
            RefCell::new(Manager {
                exchange,
                master,
                epoch: boot.epoch,
                state: boot.state.clone(),
                server_ticks: ServerTicks::new(monotonic_ms()),
                reloads: Reloads::new(boot.generation, boot.pending),
                control_clients: 0,
                control_apps: 0,
                peers,
                control: None,
                stopping: false,
                begin_with_reload: boot.begin_with_reload,
                me: me.clone(),
            })
        }))
    }

    fn on_master(&mut self, message: MasterToManager, fds: Vec<OwnedFd>) -> Result<()> {
        use moving::reload::Event;
        match message {
            MasterToManager::Boot(_) => return Err(Error::new("the master sent Boot twice")),
            MasterToManager::LivenessCheck(number) => {
                log::tell_rest();
                self.master.send(&ManagerToMaster::Alive(number));
            }
            MasterToManager::Attach(record) => self.attach(record, fds)?,
            MasterToManager::Leased { id, first, last } => {
                self.exchange.router.leased(id, first, last)
            }
            MasterToManager::WorkerReady(id) => {
                self.exchange.workers.ready(id);
                self.reload_event(Event::Ready(id));
            }
            MasterToManager::Exited { id, how, respawn_ms, last } => {
                self.exchange.scoreboard.ended(id, &last);
                self.on_exited(id, how, respawn_ms);
            }
            MasterToManager::Prepared { generation, config, worker_num } => {
                self.on_prepared(generation, &config, worker_num);
            }
            MasterToManager::PrepareFailed { why } => self.reload_event(Event::PrepareFailed(why)),
            MasterToManager::SpawnFailed { slot, why } => {
                self.reload_event(Event::SpawnFailed { slot, why });
            }
            MasterToManager::ReloadRequested => self.request_reload(None),
            MasterToManager::State(state) => self.on_master_state(state),
            MasterToManager::Stopping(mode) => self.on_stopping(mode),
            MasterToManager::Reopen => {
                if let Some(log) = fds.first() {
                    process::take_log(log.as_fd(), self.exchange.settings.daemonize)?;
                }
            }
            MasterToManager::Leave => {}
            MasterToManager::UpgradeFailed { why } => self.reloads.upgrade_failed(&why),
            MasterToManager::Courier { epoch, id } => self.on_courier(epoch, id, fds)?,
            MasterToManager::Control => {
                let socket = fds.into_iter().next();
                let missing = || Error::new("Control came without a socket");
                self.serve_control(socket.ok_or_else(missing)?)?;
            }
        }
        Ok(())
    }

    /// Answers on this control socket from here on, and on no other.
    fn serve_control(&mut self, socket: OwnedFd) -> Result<()> {
        let listener = tokio::net::UnixListener::from_std(socket.into())
            .subject(|| "watch the control socket".to_owned())?;
        let Some(me) = self.me.upgrade() else { return Ok(()) };
        let before = self.control.replace(spawn_local(control::serve(me, listener, self.peers)));
        if let Some(before) = before {
            before.abort();
        }
        Ok(())
    }

    fn attach(&mut self, record: WorkerRecord, fds: Vec<OwnedFd>) -> Result<()> {
        let [link, registry, page] = <[OwnedFd; 3]>::try_from(fds)
            .map_err(|fds| Error::new(format!("Attach came with {} descriptors", fds.len())))?;
        let (id, generation) = (record.id, record.generation);
        let link = Link::new(link, id)?;
        let registry = Registry::view(registry.as_fd())?;
        self.exchange.scoreboard.opened(id, page.as_fd())?;
        let mut worker = WorkerHandle::new(record, link, registry, monotonic_ms());
        if let Some(me) = self.me.upgrade() {
            let link = Rc::clone(&worker.link);
            worker.own_task(spawn_local(async move {
                let error = link.flush_forever().await;
                tracing::debug!(worker = %link.id(), %error, "the link is gone");
            }));
            worker.own_task(spawn_local(packets::read(
                me,
                Rc::clone(&worker.link),
                Rc::clone(&worker.lists),
            )));
        }
        worker.who_are_you(self.epoch);
        if generation < self.reloads.generation() {
            let until = monotonic_ms() + self.exchange.settings.drain_ms();
            worker.phase = Phase::Draining { until };
        }
        if let Some(cluster) = &self.exchange.cluster {
            cluster.tell_engine_to(&worker);
        }
        self.exchange.workers.insert(worker);
        let serves = self.exchange.router.serving_here(id.slot);
        let replaces = generation == self.reloads.generation()
            && serves.is_none_or(|serving| serving.epoch < id.epoch);
        if replaces || serves.is_none() {
            self.exchange.router.serve(id);
        }
        self.exchange.deliver_to_slots();
        self.reload_event(moving::reload::Event::Attached { id, generation });
        Ok(())
    }

    fn on_exited(&mut self, id: WorkerId, how: String, respawn_ms: Option<u64>) {
        tracing::info!(worker = %id, %how, respawn_ms, "a worker ended");
        // What it still said before it ended counts.
        self.drain_link(id);
        self.exchange.workers.remove(id);
        self.exchange.router.forget(id);
        self.exchange.interest.forget(id);
        if self.exchange.router.serving_here(id.slot).is_none()
            && let Some(successor) = self.exchange.workers.newest_ready(id.slot)
        {
            self.exchange.router.serve(successor);
        }
        let steps = self.exchange.passes.exited(id);
        self.carry_out(steps);
        self.resolve_passes();
        self.reload_event(moving::reload::Event::Exited { id, how });
        self.forget_direct(id);
        self.exchange.forget_presence(id);
        self.check_owners_known();
    }

    fn on_stopping(&mut self, mode: crate::ipc::messages::StopMode) {
        tracing::info!(?mode, "the server stops");
        self.stopping = true;
        self.reloads.cancel("The server stops.");
        // A pass that is under way ends by itself.
        self.exchange.passes.cancel_next();
    }
}
