//! Does what the reload decides, and tells it what happens.

use tokio::sync::{oneshot, watch};

use super::reload::{Action, Event, Limits, Reload};
use super::stragglers::Stragglers;
use crate::fd::WorkerId;
use crate::ipc::control::{ReloadReport, ReloadState, ReloadVerdict};
use crate::ipc::messages::{Generation, ManagerToMaster, MasterState};
use crate::manager::settings::Settings;
use crate::manager::status::count_reload;
use crate::manager::workers::BOOT_MS;
use crate::manager::{Exchange, Manager};
use crate::sys::clock::monotonic_ms;

/// For the master to check a new image and configuration.
const PREPARE_MS: u64 = 60_000;
/// What a handover may take besides `max_wait_time` for running handlers.
const HAND_OVER_GRACE_MS: u64 = 15_000;

/// A place to send the verdict to.
pub type Waiter = oneshot::Sender<ReloadVerdict>;

/// The reload that runs, and who waits for it or for the next.
pub struct Reloads {
    generation: Generation,
    /// The generation that serves by the master's word.
    committed: watch::Sender<Generation>,
    pub current: Option<Reload>,
    /// A generation our predecessor left unfinished.
    left_over: Option<(Generation, Option<u16>)>,
    next_settings: Option<Settings>,
    waiters: Vec<Waiter>,
    /// Who asked for an upgrade. Until it is known what runs, nobody knows whether it is one.
    upgrade_waiters: Vec<Waiter>,
    /// Who asked for an upgrade and waits for its failure.
    upgrading: Vec<oneshot::Sender<String>>,
    stragglers: Stragglers,
    /// Another was asked for while one runs.
    waiting: bool,
    next_waiters: Vec<Waiter>,
    last: Option<ReloadVerdict>,
}

impl Reloads {
    /// None yet; the master says which generation serves and whether one is pending.
    pub fn new(generation: Generation, pending: Option<Generation>) -> Reloads {
        Reloads {
            generation,
            committed: watch::channel(generation).0,
            current: None,
            left_over: pending.map(|generation| (generation, None)),
            next_settings: None,
            waiters: Vec::new(),
            upgrade_waiters: Vec::new(),
            upgrading: Vec::new(),
            stragglers: Stragglers::default(),
            waiting: false,
            next_waiters: Vec::new(),
            last: None,
        }
    }

    /// The generation that serves.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The generation that serves by the master's word, as it changes.
    pub fn committed(&self) -> watch::Receiver<Generation> {
        self.committed.subscribe()
    }

    /// What `status` says.
    pub fn report(&self) -> ReloadReport {
        let state = match (&self.current, self.left_over) {
            (Some(reload), _) => reload.state(),
            (None, Some(_)) => ReloadState::Spawning,
            (None, None) => ReloadState::Idle,
        };
        ReloadReport { state, waiting: self.waiting, last: self.last.clone() }
    }

    /// Keeps a failure that came from elsewhere for whoever asks.
    pub fn note_failure(&mut self, why: &str) {
        let verdict = ReloadVerdict {
            generation: self.generation,
            failure: Some(why.to_owned()),
            ..ReloadVerdict::default()
        };
        self.tell(verdict);
    }

    /// Whether connections move, or are about to.
    pub fn is_busy(&self) -> bool {
        self.current.is_some() || self.left_over.is_some()
    }

    /// Ends whatever runs or waits.
    pub fn cancel(&mut self, why: &str) {
        self.waiters.append(&mut self.next_waiters);
        self.waiting = false;
        self.left_over = None;
        self.current = None;
        if !self.waiters.is_empty() {
            self.note_failure(why);
        }
    }

    /// Says so if the upgrade fails that was asked for. Where it succeeds, this process ends.
    pub fn await_upgrade(&mut self, waiter: oneshot::Sender<String>) {
        self.upgrading.push(waiter);
    }

    /// The master could not upgrade.
    pub fn upgrade_failed(&mut self, why: &str) {
        tracing::error!(%why, "the upgrade failed");
        if self.upgrading.is_empty() {
            self.note_failure(why);
        }
        for waiter in self.upgrading.drain(..) {
            // A command that has given up waits no more.
            let _ = waiter.send(why.to_owned());
        }
    }

    fn tell(&mut self, verdict: ReloadVerdict) {
        for waiter in self.waiters.drain(..).chain(self.upgrade_waiters.drain(..)) {
            // A command that has given up waits no more.
            let _ = waiter.send(verdict.clone());
        }
        self.last = Some(verdict);
    }
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        prepare_ms: PREPARE_MS,
        boot_ms: BOOT_MS,
        hand_over_ms: settings.max_wait_ms + HAND_OVER_GRACE_MS,
    }
}

impl Manager {
    /// Reloads, now or after the one that runs. The verdict goes to `waiter`.
    pub fn request_reload(&mut self, waiter: Option<Waiter>) {
        if self.stopping {
            self.reloads.waiters.extend(waiter);
            self.reloads.note_failure("The server stops.");
        } else if self.reloads.is_busy() {
            self.reloads.waiting = true;
            self.reloads.next_waiters.extend(waiter);
        } else {
            self.reloads.waiters.extend(waiter);
            self.begin_reload();
        }
    }

    /// Sends the verdict of the reload that runs, or else of the last, or else of the next. Not of
    /// the next to who asked for an upgrade: the request may have died with our predecessor.
    pub fn await_reload(&mut self, waiter: Waiter, upgrade: bool) {
        match &self.reloads.last {
            Some(last) if !self.reloads.is_busy() => {
                // A command that has given up waits no more.
                let _ = waiter.send(last.clone());
            }
            _ => {
                let reloads = &mut self.reloads;
                if upgrade { &mut reloads.upgrade_waiters } else { &mut reloads.waiters }
                    .push(waiter);
                self.begin_awaited();
            }
        }
    }

    /// Who waits though nothing runs had asked a manager that died before it could begin.
    pub fn begin_awaited(&mut self) {
        if self.exchange.owners_due_at.is_some() {
            return;
        }
        let reloads = &mut self.reloads;
        if reloads.is_busy() {
            reloads.waiters.append(&mut reloads.upgrade_waiters);
        } else {
            // Their senders go, which says that none runs.
            reloads.upgrade_waiters.clear();
            if !reloads.waiters.is_empty() {
                self.request_reload(None);
            }
        }
    }

    fn begin_reload(&mut self) {
        tracing::info!(generation = self.reloads.generation, "a reload begins");
        let (limits, now) = (limits(&self.exchange.settings), monotonic_ms());
        let serving = self.reloads.generation;
        let old = self.exchange.workers.of_generation(|it| it == serving);
        let (reload, actions) = Reload::begin(old, limits, now);
        self.reloads.current = Some(reload);
        // Until something moves they have long ended.
        self.exchange.direct.end_all(&self.exchange.workers);
        self.act(actions);
    }

    /// The master is ready to spawn a new generation.
    pub fn on_prepared(&mut self, generation: Generation, config: &str, worker_num: u16) {
        match Settings::from_json(config) {
            Ok(settings) => self.reloads.next_settings = Some(settings),
            Err(error) => {
                // The master has resolved it with the same code: only a bug leads here.
                tracing::error!(%error, "the new configuration cannot be read");
            }
        }
        if let Some(left_over) = &mut self.reloads.left_over {
            *left_over = (generation, Some(worker_num));
            return;
        }
        self.reload_event(Event::Prepared { generation, worker_num });
    }

    /// The master says how it is.
    pub fn on_master_state(&mut self, state: MasterState) {
        self.reloads.committed.send_replace(state.generation);
        self.state = state;
    }

    /// Goes on with what our predecessor had begun, once we know who owns what.
    pub fn resume_reload(&mut self) {
        let Some((generation, worker_num)) = self.reloads.left_over.take() else { return };
        tracing::info!(generation, "going on with the reload of the last manager");
        let serving = self.reloads.generation;
        let old = self.exchange.workers.of_generation(|it| it == serving);
        let new = self.exchange.workers.of_generation(|it| it == generation);
        let limits = limits(&self.exchange.settings);
        let worker_num = worker_num.unwrap_or(self.state.worker_num);
        let now = monotonic_ms();
        let (reload, actions) = Reload::resume(generation, worker_num, old, new, limits, now);
        self.reloads.current = Some(reload);
        self.act(actions);
    }

    /// Tells the reload, if one runs, what has happened.
    pub fn reload_event(&mut self, event: Event) {
        let Some(reload) = &mut self.reloads.current else { return };
        let actions = reload.on(event, monotonic_ms());
        self.act(actions);
    }

    /// An old worker has something to give: the next round of what moves now, or what follows.
    pub fn on_can_give(&mut self, id: WorkerId) {
        if self.reloads.current.as_ref().is_some_and(|reload| reload.is_from(id)) {
            // Where the handover waits for direct links to end, it has not been told to begin.
            if !self.exchange.direct.holds_up_handover() {
                self.reload_event(Event::CanGive { from: id });
            }
        } else {
            self.reloads.stragglers.can_give(id);
            self.follow();
        }
    }

    /// Moves what had stayed behind, one old worker after the other, while nothing else moves.
    pub fn follow(&mut self) {
        if self.reloads.is_busy() || self.stopping || self.exchange.owners_due_at.is_some() {
            return;
        }
        let now = monotonic_ms();
        let Exchange { workers, router, settings, .. } = &self.exchange;
        let pair = self.reloads.stragglers.take_pair(workers, router, now);
        let Some((from, to)) = pair else { return };
        let (reload, actions) = Reload::follow(from, to, limits(settings), now);
        self.reloads.current = Some(reload);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            tracing::debug!(?action, "reload");
            match action {
                Action::Prepare => self.master.send(&ManagerToMaster::Prepare),
                Action::Spawn(slot) => self.master.send(&ManagerToMaster::Spawn(slot)),
                Action::Abort => self.master.send(&ManagerToMaster::Abort),
                Action::Commit { worker_num } => self.commit(worker_num),
                Action::HandOver { from, to } => self.exchange.hand_over(from, to),
                Action::Give { from, to } => {
                    let steps = self.exchange.passes.begin(from, to);
                    self.carry_out(steps);
                }
                Action::Flip { from, to, stay } => {
                    self.exchange.router.hand_over(from, to, stay);
                    self.exchange.router.serve(to);
                }
                Action::Kill(id) => self.master.send(&ManagerToMaster::KillHung(id)),
                Action::Drain(id) => self.exchange.workers.drain(id, &self.exchange.settings),
                Action::Finished(verdict) => self.finish(verdict),
            }
        }
    }

    fn commit(&mut self, worker_num: u16) {
        self.master.send(&ManagerToMaster::Commit);
        if let Some(settings) = self.reloads.next_settings.take() {
            let before = self.exchange.settings.clone();
            self.exchange.settings.follow(settings);
            self.exchange.begin_new_presence(&before);
        }
        // The master will say the same; whoever asks for the status meanwhile is told already.
        self.state.worker_num = worker_num;
        self.exchange.router.resize(worker_num);
        for worker in self.exchange.workers.iter() {
            worker.worker_num(worker_num);
        }
        // New slots had nobody to take over from.
        let serving = self.reloads.generation;
        for (id, _) in self.exchange.workers.of_generation(|it| it > serving) {
            self.exchange.router.serve(id);
        }
    }

    fn finish(&mut self, verdict: ReloadVerdict) {
        self.exchange.passes.cancel_next();
        match self.reloads.current.take() {
            Some(reload) if reload.follows() => {
                self.reloads.stragglers.followed(&reload, &verdict, monotonic_ms())
            }
            _ => self.reloaded(verdict),
        }
        if std::mem::take(&mut self.reloads.waiting) && !self.stopping {
            self.reloads.waiters = std::mem::take(&mut self.reloads.next_waiters);
            self.begin_reload();
        } else {
            self.begin_awaited();
            self.follow();
        }
    }

    fn reloaded(&mut self, mut verdict: ReloadVerdict) {
        self.reloads.next_settings = None;
        if verdict.failure.is_some() {
            verdict.generation = self.reloads.generation;
        }
        self.reloads.generation = verdict.generation;
        self.state.generation = verdict.generation;
        let (failure, took_ms) = (verdict.failure.as_deref(), verdict.took_ms);
        tracing::info!(generation = verdict.generation, failure, took_ms, "the reload is over");
        count_reload(&self.exchange.row, &verdict);
        for id in self.exchange.workers.take_oldest(verdict.generation) {
            tracing::warn!(worker = %id, "too many old generations linger");
            self.master.send(&ManagerToMaster::Kill(id));
        }
        self.reloads.tell(verdict);
    }
}
