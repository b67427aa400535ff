//! The application in processes of its own, in any language: `docs/app-protocol.md`.
//!
//! `codec` and `pool` are pure. `link` owns the socket to one process, `commands` carries out
//! what comes from it, and this file is the handler that turns a worker's events into packets.
//! `spawner` asks the worker for processes, which the master starts.
//!
//! - processes: `attend` (from start to end), `process_queue` (one place of the pool), `links` (all
//!   links of a worker) with `shared` (what they have in common), `loss` and `suspects` (what a
//!   death means, and whose events processes died of), `output` and `tail` (what they print).
//! - what processes ask and answer: `rooms`, `replies` (to HTTP requests), `values`.
//! - bodies of HTTP requests: `request_body`, `bodies`, `held`.
//! - `settings`; what is told of processes: `status`, `report`, `memory`.

mod attend;
mod bodies;
pub mod codec;
mod commands;
mod held;
mod link;
mod links;
mod loss;
mod memory;
mod output;
mod packets;
pub mod pool;
mod process_queue;
mod replies;
mod report;
pub mod request_body;
mod rooms;
mod settings;
mod shared;
mod spawner;
mod status;
mod suspects;
mod tail;
mod values;

use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

pub use self::settings::{AppSettings, OnCrash};

use self::attend::{serve, sweep};
use self::codec::{COMPRESSED, HELD, Kind, Packet, TASK, USER, wants};
use self::packets::{FIRST, handshake_packet, http_body, request_body};
use self::shared::{Answer, Opening, OpeningGuard, RequestGuard, Shared};
use crate::api::rooms::PresenceEvent;
use crate::api::{
    Accept, Context, Flow, Frame, Handler, Handshake, HeldBody, HttpRequest, HttpResponse, Refuse,
    Request,
};
use crate::close::Close;
use crate::fd::{Fd, Slot};
use crate::sys::address::network;

/// How often timeouts and memory are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// For how long events may wait of which no process takes one before a balancer is told.
const STALLED_MS_MAX: u64 = 5000;

/// The handler that forwards everything to application processes.
pub struct AppHandler {
    shared: Rc<Shared>,
}

impl AppHandler {
    /// A handler with these settings; its processes start with the worker.
    pub fn new(settings: AppSettings) -> AppHandler {
        AppHandler { shared: Rc::new(Shared::new(settings)) }
    }
}

impl Handler for AppHandler {
    /// Ready when every place has a process that is ready.
    fn on_worker_start(&self, ctx: &Context) -> Flow {
        let shared = self.shared.clone();
        let (server, context) = (shared.clone(), ctx.clone());
        let serve = move |started| serve(&server, &context, started);
        let (slot, worker_num) = (ctx.worker().slot.0, ctx.worker_num());
        let settings = &shared.settings;
        let places: Vec<u16> = (0..settings.places())
            .filter(|place| settings.is_started_by(slot, worker_num, *place))
            .collect();
        let places = shared.places.get_or_init(|| places).clone();
        let (links, unfit) = (shared.clone(), shared.clone());
        let exited = move |id| links.links.get(id).iter().for_each(|link| link.exited());
        let unfit = move || unfit.changed.notify_waiters();
        let spawner = shared.spawner.clone();
        ctx.spawn(spawner::supervise(spawner, ctx.clone(), places, serve, exited, unfit));
        let swept = shared.clone();
        // Runs as long as the worker.
        let shown = ctx.clone();
        let _ = ctx.tick(SWEEP, move || {
            sweep(&swept);
            swept.show(&shown);
            report::report(&swept, &shown);
        });
        Flow::later(async move {
            until(&shared, |shared| shared.spawner.is_unfit() || shared.loading().is_empty())
                .await;
            if !shared.spawner.is_unfit() {
                shared.spawner.started();
            }
        })
    }

    fn health(&self) -> Result<(), String> {
        let shared = &self.shared;
        if let Some(why) = shared.spawner.unfit() {
            return Err(why);
        }
        if shared.spawner.is_starting() {
            return Err(shared.loads());
        }
        let stalled = shared.pool.borrow().stalled_ms(shared.now_ms());
        if stalled < STALLED_MS_MAX {
            return Ok(());
        }
        Err(format!("events wait, and no process has taken one for {} s", stalled / 1000))
    }

    /// Lets the processes finish what they have, then tells them to exit.
    fn on_worker_stop(&self, _ctx: &Context) -> Flow {
        let shared = self.shared.clone();
        Flow::later(async move {
            let idle = until(&shared, Shared::is_idle);
            if tokio::time::timeout(shared.settings.event_timeout, idle).await.is_err() {
                let events = shared.pool.borrow().events();
                tracing::warn!(events, "the application did not finish these events in time");
            }
            shared.spawner.stop();
            shared.links.all().iter().for_each(|link| link.shut_down(2));
            shared.spawner.printed().await;
        })
    }

    /// A connection moves when its process has finished its events.
    fn on_drain(&self, _ctx: &Context, fd: Fd) -> Flow {
        let fd = fd.as_u64();
        if !self.shared.pool.borrow().is_busy(fd) {
            return Flow::default();
        }
        let shared = self.shared.clone();
        Flow::later(async move {
            until(&shared, |shared| !shared.pool.borrow().is_busy(fd)).await;
        })
    }

    fn on_handshake(&self, _ctx: &Context, request: &Rc<Request>) -> Flow<Handshake> {
        if !self.shared.wanted(wants::HANDSHAKE) {
            return Flow::Ready(Ok(Accept::default()));
        }
        let (shared, request) = (self.shared.clone(), request.clone());
        Flow::later(handshake(shared, request))
    }

    fn on_open(&self, ctx: &Context, request: Rc<Request>) -> Flow {
        let shared = &self.shared;
        let fd = request.fd.as_u64();
        if let Some(opening) = shared.opening.borrow_mut().remove(&fd) {
            // It was let in by the process it is pinned to, which sent these commands since.
            let process = shared.pool.borrow().process(shared.place_of(fd));
            if let Some(link) = process.and_then(|id| shared.links.get(id)) {
                for packet in opening.held {
                    if let Err(broken) = commands::about_client(&link, ctx, packet) {
                        tracing::warn!(fd, %broken, "a command for a new client was dropped");
                    }
                }
            }
            drop(opening.pause); // Its process goes on.
            return Flow::default();
        }
        shared.pin(&request, &[]);
        let packet = Packet { fd, body: request_body(&request, None), ..Packet::new(Kind::Open) };
        self.offer(fd, packet)
    }

    fn on_message(&self, _ctx: &Context, frame: Frame<'_>) -> Flow {
        let fd = frame.fd.as_u64();
        let code = frame.opcode as u16;
        let flags = if frame.compressed { COMPRESSED } else { 0 };
        self.offer(
            fd,
            Packet { flags, code, fd, body: frame.data.into(), ..Packet::new(Kind::Message) },
        )
    }

    fn on_close(&self, ctx: &Context, fd: Fd, close: Close) -> Flow {
        let is_wanted = self.shared.wants_had.get();
        let had = if is_wanted { ctx.reactor().belongings(fd) } else { None };
        self.shared.client_closed(fd.as_u64(), &close, had.as_ref());
        Flow::default()
    }

    fn body_in_memory_max(&self) -> usize {
        bodies::IN_MEMORY_BYTES_MAX
    }

    fn on_request(&self, _ctx: &Context, http: HttpRequest) -> Flow<Option<HttpResponse>> {
        if !self.shared.wanted(wants::REQUEST) {
            return Flow::Ready(None);
        }
        let shared = &self.shared;
        let fd = http.fd.map_or(0, Fd::as_u64);
        let flags = if http.held.is_some() { HELD } else { 0 };
        let packet = Packet { flags, fd, body: http_body(&http), ..Packet::new(Kind::Request) };
        let address = http.client.or(http.peer.map(|peer| peer.ip())).map(network);
        // Most requests have room at once, and need no future with all that waiting takes.
        match queue_request(shared, address, (packet, http.held)) {
            Ok((answer, guard)) => Flow::later(async move {
                let _guard = guard;
                answer.await.unwrap_or_default()
            }),
            Err(request) => {
                let shared = shared.clone();
                Flow::later(async move {
                    let deadline = shared.settings.event_timeout;
                    let queued = queue_request_later(&shared, address, request);
                    let Ok((answer, _guard)) = tokio::time::timeout(deadline, queued).await else {
                        let mut response = HttpResponse::default();
                        *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
                        return Some(response);
                    };
                    answer.await.unwrap_or_default()
                })
            }
        }
    }

    fn on_disconnect(&self, _ctx: &Context, fd: Fd) -> Flow {
        self.shared.plain_closed(fd.as_u64());
        Flow::default()
    }

    fn takes_control_frames(&self) -> bool {
        self.shared.wants.get().is_some_and(|wants| wants & wants::CONTROL != 0)
    }

    fn process_of(&self, fd: Fd) -> Option<u16> {
        Some(self.shared.place_of(fd.as_u64()))
    }

    /// As in Swoole, 413 is all that an application's client hears of a body that is too long.
    fn explains(&self, status: u16) -> bool {
        status != 413
    }

    fn is_websocket_path(&self, path: &str) -> bool {
        // The application says what its paths are, by answering or not.
        !self.shared.wanted(wants::REQUEST) && matches!(path, "/" | "/ws")
    }

    fn on_presence(&self, _ctx: &Context, event: PresenceEvent) -> Flow {
        rooms::tell_presence(&self.shared, &event);
        Flow::default()
    }

    fn on_worker_message(&self, ctx: &Context, from: Slot, data: Bytes) -> Flow {
        match commands::unpack_pipe(data) {
            // A task is done once: by the process that stays.
            Some((to, ..)) if to & (TASK | USER) != 0 && ctx.is_giving() => {}
            Some((to, number, body)) => {
                let verdict = self.shared.pipe(from, to, number, &body);
                if !verdict.is_ok() {
                    tracing::warn!(%from, %verdict, "a message for a process was dropped");
                }
            }
            None => tracing::warn!(%from, "a message of another worker is too short"),
        }
        Flow::default()
    }

    fn freeze(&self, _ctx: &Context, fd: Fd) -> Option<Bytes> {
        let pin = self.shared.pool.borrow_mut().unpin(fd.as_u64())?;
        (!pin.kept.is_empty()).then(|| Bytes::from(pin.kept.into_vec()))
    }

    fn on_attach(&self, _ctx: &Context, request: Rc<Request>, frozen: Option<Bytes>) -> Flow {
        let shared = &self.shared;
        let fd = request.fd.as_u64();
        shared.pin(&request, &frozen.unwrap_or_default());
        if shared.wanted(wants::ATTACH) {
            let packet = shared.pool.borrow_mut().attach_packet(fd);
            shared.queue(shared.place_of(fd), packet);
        }
        Flow::default()
    }
}

impl AppHandler {
    /// Queues an event of a client. Where its queue is full, the flow is pending until there is
    /// room, and meanwhile the worker does not read that client.
    fn offer(&self, fd: u64, packet: Packet) -> Flow {
        match self.shared.offer(fd, packet) {
            Ok(_) => Flow::default(),
            Err(packet) => {
                let shared = self.shared.clone();
                Flow::later(async move {
                    shared.queue_later(fd, packet).await;
                })
            }
        }
    }
}

async fn handshake(shared: Rc<Shared>, request: Rc<Request>) -> Handshake {
    let fd = request.fd.as_u64();
    shared.pin(&request, &[]);
    shared.opening.borrow_mut().insert(fd, Opening::default());
    let mut guard = OpeningGuard { shared: shared.clone(), fd, queued: false, answered: false };
    let (sender, receiver) = oneshot::channel();
    let queued = shared.queue_later(fd, handshake_packet(&request));
    let Ok(id) = tokio::time::timeout(shared.settings.event_timeout, queued).await else {
        return Err(Refuse::new(503, "The application is busy.\n"));
    };
    // The event leaves when the link runs, which is not before this future waits.
    guard.queued = true;
    shared.answers.borrow_mut().insert(id, Answer::Handshake(fd, sender));
    let answer = receiver.await;
    guard.answered = true;
    answer.unwrap_or_else(|_| Err(Refuse::new(503, "The application failed.\n")))
}

/// A request for the application, with the body that the worker holds for it.
type ToQueue = (Packet, Option<HeldBody>);

/// A request that was queued, until it is answered.
type Queued = (oneshot::Receiver<Option<HttpResponse>>, RequestGuard);

/// Queues a request where its process has room; else the request comes back.
fn queue_request(
    shared: &Rc<Shared>,
    address: Option<IpAddr>,
    (mut packet, held): ToQueue,
) -> Result<Queued, ToQueue> {
    let place = shared.pool.borrow().choose(address);
    if !shared.pool.borrow().has_room(place) {
        return Err((packet, held));
    }
    if shared.wants_plain.get()
        && packet.fd != 0
        && let Entry::Vacant(unheard) = shared.plain.borrow_mut().entry(packet.fd)
    {
        unheard.insert(place);
        packet.flags |= FIRST;
    }
    let id = shared.pool.borrow_mut().queue_of(address, place, packet);
    let (sender, receiver) = oneshot::channel();
    let answer = Answer::Response { answer: sender, owner: None };
    shared.answers.borrow_mut().insert(id, answer);
    if let Some(held) = held {
        shared.bodies.insert(id, held);
    }
    shared.wake(place);
    Ok((receiver, RequestGuard { shared: shared.clone(), id }))
}

/// Queues a request once its process has room.
async fn queue_request_later(
    shared: &Rc<Shared>,
    address: Option<IpAddr>,
    mut request: ToQueue,
) -> Queued {
    loop {
        let changed = shared.changed.notified();
        match queue_request(shared, address, request) {
            Ok(queued) => return queued,
            Err(waits) => request = waits,
        }
        changed.await;
    }
}

/// Waits until something is so; it is looked at whenever something changes.
async fn until(shared: &Shared, is_so: impl Fn(&Shared) -> bool) {
    loop {
        let changed = shared.changed.notified();
        if is_so(shared) {
            return;
        }
        changed.await;
    }
}
