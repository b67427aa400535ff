//! The worker as handlers see it: what they ask of it goes to a client here, or to the manager.

use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use bytes::Bytes;

use super::Peers;
use crate::api::rooms::{Belongings, Call, Change, Member, PresenceList, Publish, Tally, Topic};
use crate::api::{
    AppReport, Info, LocalFuture, Message, Opcode, Payload, ProcessEvent, ProcessId, ProcessState,
    Reactor, TaskError, Verdict,
};
use crate::close::{Cause, cut_reason};
use crate::fd::{Fd, Slot, WorkerId};
use crate::ipc::DATA_LANE_BYTES_MAX;
use crate::ipc::messages::{TICK_NAME_BYTES_MAX, WorkerToManager, WorkerToWorker};
use crate::ipc::scoreboard::{Counter, Histogram};
use crate::sys::clock;
use crate::worker::app::App;
use crate::worker::moving::deferred::DeferredSend;
use crate::worker::moving::route::Route;

/// What the clock that all processes read goes on by at once, at most (CONFIG_HZ is 100 or more).
/// Whoever asks so much after a tick is not early for anybody.
const CLOCK_STEP: Duration = Duration::from_millis(10);

/// The worker as handlers see it.
pub(in crate::worker) struct LocalHandle {
    peers: Weak<Peers>,
    /// Where nearly all pushes go, without the layers between.
    app: Weak<App>,
}

impl LocalHandle {
    pub fn new(peers: &Rc<Peers>) -> LocalHandle {
        LocalHandle { peers: Rc::downgrade(peers), app: Rc::downgrade(&peers.app) }
    }

    fn with<T>(&self, gone: T, f: impl FnOnce(&Rc<Peers>) -> T) -> T {
        match self.peers.upgrade() {
            Some(worker) => f(&worker),
            // A handler's context outlived its worker, which ends with the process.
            None => gone,
        }
    }
}

impl crate::api::Sealed for LocalHandle {}

impl Reactor for LocalHandle {
    fn worker(&self) -> WorkerId {
        self.with(WorkerId { slot: Slot(0), epoch: 0 }, |worker| worker.id)
    }

    fn worker_num(&self) -> u16 {
        self.with(0, |worker| worker.worker_num.get())
    }

    fn push(&self, fd: Fd, opcode: Opcode, data: &Payload<'_>) -> Verdict {
        let at_once = self.app.upgrade().and_then(|app| app.push_at_once(fd, opcode, data));
        at_once.unwrap_or_else(|| {
            self.with(Verdict::Gone, |worker| worker.push_anyhow(fd, opcode, data, 0))
        })
    }

    fn push_confirmed(&self, fd: Fd, message: Message<'_>) -> LocalFuture<Verdict> {
        self.with(ready(Verdict::Gone), |worker| {
            let question = worker.ask_verdict();
            match worker.push(fd, message.opcode, &message.data, question.id) {
                Verdict::Relayed => {
                    Box::pin(async move { question.answer().await.unwrap_or(Verdict::Unknown) })
                }
                verdict => ready(verdict),
            }
        })
    }

    fn broadcast(&self, message: Message<'_>, except: Option<Fd>) {
        self.with((), |worker| {
            // Refused only where the lane is full, which was counted.
            let _ = worker.broadcast_all(message, except);
        });
    }

    fn close(&self, fd: Fd, code: u16, reason: &str) -> Verdict {
        self.with(Verdict::Gone, |worker| match worker.route(fd) {
            Route::Here(key) => worker.close_here(key, code, reason, Cause::HandlerClosed),
            Route::Gone if worker.http.close(fd) => Verdict::Queued,
            Route::Gone => Verdict::Gone,
            Route::Arriving(pass) => {
                let reason = reason.to_owned();
                worker.defer(pass, DeferredSend::Close { fd, code, reason })
            }
            Route::Elsewhere => {
                let close = WorkerToWorker::Close { id: 0, fd: fd.as_u64(), code };
                worker.send_to_client(fd, close, cut_reason(reason).as_bytes())
            }
        })
    }

    fn close_confirmed(&self, fd: Fd, code: u16, reason: &str) -> LocalFuture<Verdict> {
        self.with(ready(Verdict::Gone), |worker| {
            let (worker, reason) = (Rc::clone(worker), reason.to_owned());
            Box::pin(async move { worker.close_told(fd, code, &reason).await })
        })
    }

    fn protect(&self, fd: Fd, on: bool) -> Verdict {
        self.with(Verdict::Gone, |worker| match worker.route(fd) {
            Route::Here(key) => worker.protect_here(key, on),
            Route::Gone => Verdict::Gone,
            Route::Arriving(pass) => worker.defer(pass, DeferredSend::Protect { fd, on }),
            Route::Elsewhere => {
                let protect = WorkerToWorker::Protect { id: 0, fd: fd.as_u64(), on };
                worker.send_to_client(fd, protect, &[])
            }
        })
    }

    fn change(&self, fd: Fd, change: Change) -> Verdict {
        self.with(Verdict::Gone, |worker| worker.change(fd, change, 0))
    }

    fn change_confirmed(&self, fd: Fd, change: Change) -> LocalFuture<Verdict> {
        self.with(ready(Verdict::Gone), |worker| worker.change_confirmed(fd, change))
    }

    fn belongings(&self, fd: Fd) -> Option<Belongings> {
        self.with(None, |worker| worker.belongings_here(fd))
    }

    fn publish(&self, publish: Publish) -> Verdict {
        self.with(Verdict::Gone, |worker| worker.publish(publish, None))
    }

    fn publish_confirmed(&self, publish: Publish) -> LocalFuture<Result<Tally, Verdict>> {
        self.with(ready(Err(Verdict::Gone)), |worker| worker.publish_confirmed(publish))
    }

    fn count(&self, call: Call, reason: &str) -> LocalFuture<Tally> {
        self.with(ready(Tally::default()), |worker| worker.count_all(call, reason))
    }

    fn presence(&self, room: Topic) -> LocalFuture<Result<PresenceList, Verdict>> {
        self.with(ready(Err(Verdict::Unknown)), |worker| worker.presence(room))
    }

    fn publish_here(&self, publish: Publish) -> Tally {
        self.with(Tally::default(), |worker| worker.publish_to_own(publish))
    }

    fn members(&self, topic: Topic) -> LocalFuture<Vec<Member>> {
        self.with(ready(Vec::new()), |worker| worker.members_everywhere(topic))
    }

    fn info(&self, fd: Fd) -> LocalFuture<Option<Info>> {
        self.with(ready(None), |worker| match worker.route(fd) {
            Route::Here(_) | Route::Arriving(_) | Route::Gone => ready(worker.info_here(fd)),
            Route::Elsewhere => {
                let question = worker.ask_info();
                let ask = WorkerToWorker::Info { id: question.id, fd: fd.as_u64() };
                match worker.send_to_client(fd, ask, &[]) {
                    Verdict::Relayed => Box::pin(async move { question.answer().await.flatten() }),
                    _ => ready(None),
                }
            }
        })
    }

    fn connections(&self) -> LocalFuture<Vec<Info>> {
        self.with(ready(Vec::new()), |worker| {
            let question = worker.ask_list();
            worker.say(&WorkerToManager::List { id: question.id });
            Box::pin(async move { question.answer().await.unwrap_or_default() })
        })
    }

    fn send_to_worker(&self, to: Slot, data: Bytes) -> Verdict {
        self.with(Verdict::Gone, |worker| {
            if u16::from(to.0) >= worker.worker_num.get() {
                return Verdict::Gone;
            }
            if data.len() > DATA_LANE_BYTES_MAX {
                return Verdict::TooBig;
            }
            worker.relay(&WorkerToManager::WorkerMessage { to, acts: false }, &data)
        })
    }

    fn send_to_sibling(&self, data: Bytes) {
        self.with((), |worker| {
            let to = worker.slot();
            // Refused only where the lane is full, which was counted.
            let _ = worker.relay(&WorkerToManager::WorkerMessage { to, acts: true }, &data);
        });
    }

    fn is_giving(&self) -> bool {
        self.with(false, |worker| worker.is_giving())
    }

    fn queue_room(&self, fd: Fd) -> Option<usize> {
        self.with(None, |worker| worker.room(fd))
    }

    fn server_tick(&self, name: &str, period: Duration) -> LocalFuture<Option<u64>> {
        let (me, name) = (self.peers.clone(), name.to_owned());
        if name.len() > TICK_NAME_BYTES_MAX {
            tracing::error!(bytes = name.len(), "a timer's name is too long: it never runs");
            return Box::pin(std::future::pending());
        }
        let period_ms = u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1);
        let to_next = period_ms - clock::monotonic_ms() % period_ms;
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(to_next) + CLOCK_STEP).await;
            let question = {
                let worker = me.upgrade()?;
                let question = worker.ask_tick();
                let due = WorkerToManager::TickDue { id: question.id, name, period_ms };
                worker.say(&due);
                question
            };
            // Without a manager nobody answers, and the next tick is another question.
            tokio::time::timeout(period, question.answer()).await.ok()??
        })
    }

    fn spawn(&self, future: LocalFuture<()>) {
        tokio::task::spawn_local(future);
    }

    fn task(&self, job: Box<dyn FnOnce() + Send>) -> Result<(), TaskError> {
        self.with(Err(TaskError::Full), |worker| worker.jobs.run(job))
    }

    fn start_process(&self, id: ProcessId, descriptors: Vec<OwnedFd>) {
        self.with((), |worker| worker.start_process(id, descriptors));
    }

    fn kill_process(&self, id: ProcessId) {
        self.with((), |worker| worker.kill_process(id));
    }

    fn show_process(&self, place: u16, state: Option<ProcessState>) {
        self.with((), |worker| worker.show_process(place, state));
    }

    fn report_app(&self, report: AppReport) {
        self.with((), |worker| match report {
            AppReport::Finished { events, took } => {
                worker.add(Counter::AppEvents, u64::from(events));
                for _ in 0..events {
                    worker.board.row.measure(Histogram::AppEvent, took / events);
                }
            }
            AppReport::Now { busy, events, memory_bytes } => {
                worker.board.row.set(Counter::AppBusy, busy);
                worker.board.row.set(Counter::AppWaiting, events);
                worker.board.row.set(Counter::AppMemory, memory_bytes);
            }
        });
    }

    fn process_event(&self) -> LocalFuture<ProcessEvent> {
        match self.peers.upgrade() {
            Some(worker) => Box::pin(worker.app.clone().process_event()),
            None => Box::pin(std::future::pending()),
        }
    }
}

fn ready<T: 'static>(value: T) -> LocalFuture<T> {
    Box::pin(std::future::ready(value))
}
