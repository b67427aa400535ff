//! What the handler and the links to the processes have in common in one worker.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};

use super::codec::{Kind, NOTE, Packet, VERDICT};
use super::held::{Bodies, Outgoings};
use super::link::Pause;
use super::links::Links;
use super::memory::Memory;
use super::packets::{PLAIN, close_packet, request_body};
use super::pool::{Pin, Pool};
use super::settings::AppSettings;
use super::spawner::Spawner;
use crate::api::rooms::Belongings;
use crate::api::{Accept, Context, Handshake, HttpResponse, ProcessId, Refuse, Request, Verdict};
use crate::close::{Cause, Close};
use crate::fd::{Fd, Slot};
use crate::sys::address::network;

/// Commands kept for a client between ACCEPT and the 101; more are dropped, and logged.
const HELD_MAX: usize = 1024;
/// Bytes of commands kept for all of these clients.
const HELD_BYTES_MAX: usize = 32 << 20;
/// What a command that is kept takes besides its payload.
const HELD_COST: usize = 128;

/// Who waits for the answer to an event.
pub enum Answer {
    /// The handshake of that client.
    Handshake(u64, oneshot::Sender<Handshake>),
    /// A plain HTTP request.
    Response {
        /// `None` leaves the answer to the server.
        answer: oneshot::Sender<Option<HttpResponse>>,
        /// The process that answers though its event is done.
        owner: Option<ProcessId>,
    },
}

/// A client between its OPEN that waits for an answer and `on_open`.
#[derive(Default)]
pub struct Opening {
    /// Commands for it, carried out after the 101.
    pub held: Vec<Packet>,
    /// What they take.
    held_bytes: usize,
    /// It was let in, and what its process says from then on waits until it is open.
    pub pause: Option<Pause>,
    /// It left while the application made up its mind.
    pub gone: bool,
}

/// What became of a command that may be for a client that is not open yet.
pub enum Held {
    /// It is kept until the client is open.
    Kept,
    /// It is dropped, since too much waits for such clients.
    Full,
    /// The client is not one of those.
    Elsewhere(Packet),
}

/// One value for each worker.
pub struct Shared {
    pub settings: AppSettings,
    pub spawner: Rc<Spawner>,
    /// The places that this worker starts processes for, from its start on.
    pub places: OnceCell<Vec<u16>>,
    pub pool: RefCell<Pool>,
    pub links: Links,
    /// Wakes whoever waits for room in a queue, or for processes to be ready or idle.
    pub changed: Notify,
    pub answers: RefCell<HashMap<u32, Answer>>,
    pub outgoing: Outgoings,
    /// Bodies of requests that are held for the processes.
    pub bodies: Bodies,
    pub opening: RefCell<HashMap<u64, Opening>>,
    /// The wishes of the process that was ready last; `None` before the first.
    pub wants: Cell<Option<u8>>,
    /// Whether any process has asked to hear of presence.
    pub wants_presence: Cell<bool>,
    /// Whether any has asked to hear at the end of a client what the client had.
    pub wants_had: Cell<bool>,
    /// Whether the process that was ready last wants to hear of plain HTTP connections.
    pub wants_plain: Cell<bool>,
    /// Those connections that a process has heard of, with its place.
    pub plain: RefCell<HashMap<u64, u16>>,
    /// Memory of the processes, for the metrics.
    pub memory: Memory,
    begun: Instant,
}

impl Shared {
    pub fn new(settings: AppSettings) -> Shared {
        let pool = Pool::new(&settings);
        Shared {
            links: Links::default(),
            places: OnceCell::new(),
            pool: RefCell::new(pool),
            spawner: Rc::new(Spawner::new(settings.own_stdout)),
            settings,
            changed: Notify::new(),
            answers: RefCell::default(),
            outgoing: Outgoings::default(),
            bodies: Bodies::default(),
            opening: RefCell::default(),
            wants: Cell::new(None),
            wants_presence: Cell::new(false),
            wants_plain: Cell::new(false),
            wants_had: Cell::new(false),
            plain: RefCell::default(),
            memory: Memory::default(),
            begun: Instant::now(),
        }
    }

    /// Milliseconds of the pool's clock.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Whether no event is under way and no answer is owed.
    pub fn is_idle(&self) -> bool {
        self.pool.borrow().idle() && self.answers.borrow().is_empty() && self.outgoing.is_empty()
    }

    /// Whether the application asked for that kind of event, as far as is known.
    pub fn wanted(&self, bit: u8) -> bool {
        self.wants.get().is_none_or(|wants| wants & bit != 0)
    }

    /// Queues an event whether there is room or not, and wakes the link.
    pub fn queue(&self, place: u16, packet: Packet) -> u32 {
        let id = self.pool.borrow_mut().queue(place, packet);
        self.wake(place);
        id
    }

    /// Lets the process of that place see what is queued for it.
    pub fn wake(&self, place: u16) {
        self.links.wake(place);
    }

    /// Lets every process see what is queued for it.
    pub fn wake_all(&self) {
        (0..self.settings.places()).for_each(|place| self.wake(place));
    }

    /// The place of a client; one is found for a client that has none.
    pub fn place_of(&self, fd: u64) -> u16 {
        let pool = self.pool.borrow();
        pool.pinned(fd).map_or_else(|| pool.choose(None), |pin| pin.place)
    }

    /// Queues an event of a client if there is room.
    pub fn offer(&self, fd: u64, packet: Packet) -> Result<u32, Packet> {
        let place = self.place_of(fd);
        if !self.pool.borrow().has_room(place) {
            return Err(packet);
        }
        Ok(self.queue(place, packet))
    }

    /// Waits for room and queues an event of a client.
    pub async fn queue_later(&self, fd: u64, mut packet: Packet) -> u32 {
        loop {
            let changed = self.changed.notified();
            match self.offer(fd, packet) {
                Ok(id) => return id,
                Err(back) => packet = back,
            }
            changed.await;
        }
    }

    /// Pins a new client to the place with the fewest.
    pub fn pin(&self, request: &Request, kept: &[u8]) {
        let mut pool = self.pool.borrow_mut();
        let address = request.client.or(request.peer.map(|peer| peer.ip())).map(network);
        let place = pool.choose_for_client(address);
        let pin = Pin {
            place,
            address,
            request: request_body(request, Some(&self.settings.keep_headers)).as_ref().into(),
            kept: kept.into(),
            deaths: 0,
        };
        pool.pin(request.fd.as_u64(), pin);
    }

    /// Tells the application that a client is gone, and what the client had.
    pub fn client_closed(&self, fd: u64, close: &Close, had: Option<&Belongings>) {
        let place = self.place_of(fd);
        self.pool.borrow_mut().unpin(fd);
        self.queue(place, close_packet(fd, close, had));
    }

    /// Tells the application that a plain HTTP connection has ended of which a process has heard.
    pub fn plain_closed(&self, fd: u64) {
        let place = self.plain.borrow_mut().remove(&fd);
        if let Some(place) = place {
            self.queue(place, Packet { flags: PLAIN, fd, ..Packet::new(Kind::Close) });
        }
    }

    /// Keeps a command for a client that is not open yet: as many bytes as may wait for a client
    /// that is, and at least one command.
    pub fn hold(&self, packet: Packet) -> Held {
        let mut opening = self.opening.borrow_mut();
        if !opening.contains_key(&packet.fd) {
            return Held::Elsewhere(packet);
        }
        let weight = packet.body.len() + HELD_COST;
        let of_all: usize = opening.values().map(|client| client.held_bytes).sum();
        let Some(client) = opening.get_mut(&packet.fd) else { return Held::Elsewhere(packet) };
        let fits = client.held.is_empty() || client.held_bytes + weight <= self.settings.held_max;
        if client.held.len() >= HELD_MAX || !fits || of_all + weight > HELD_BYTES_MAX {
            tracing::warn!(fd = packet.fd, "too many commands for a client that is not open yet");
            return Held::Full;
        }
        client.held_bytes += weight;
        // A copy: what was read with it would be kept as well. Its sender is told now.
        let (flags, body) = (packet.flags & !VERDICT, Bytes::copy_from_slice(&packet.body));
        client.held.push(Packet { flags, body, ..packet });
        Held::Kept
    }

    /// A client was let in and has left before it was open.
    pub fn never_opened(&self, fd: u64) {
        let opening = self.opening.borrow_mut().remove(&fd);
        self.client_closed(fd, &Close::because(Cause::ClientVanished), None);
        drop(opening); // Its process goes on.
    }

    /// Keeps a client out.
    pub fn refuse(&self, id: u32, refuse: Refuse) {
        let answer = self.answers.borrow_mut().remove(&id);
        if let Some(Answer::Handshake(fd, answer)) = answer {
            self.opening.borrow_mut().remove(&fd);
            self.pool.borrow_mut().unpin(fd);
            // The client may have left; it is out either way.
            let _ = answer.send(Err(refuse));
        }
    }

    /// An event that asked for an answer is over without one.
    pub fn unanswered(&self, id: u32, status: u16) {
        if matches!(self.answers.borrow().get(&id), Some(Answer::Handshake(..))) {
            return self.refuse(id, Refuse::new(status, ""));
        }
        if let Some(Answer::Response { answer, .. }) = self.answers.borrow_mut().remove(&id) {
            let mut response = HttpResponse::default();
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
            let _ = answer.send(Some(response));
        }
    }

    /// Events are not wanted by the application that is there now, and were dropped: there is room
    /// for others.
    pub fn unwanted(&self, ids: &[u32]) {
        for id in ids {
            match self.answers.borrow_mut().remove(id) {
                Some(Answer::Handshake(_, answer)) => drop(answer.send(Ok(Accept::default()))),
                Some(Answer::Response { answer, .. }) => drop(answer.send(None)),
                None => {}
            }
        }
        if !ids.is_empty() {
            self.changed.notify_waiters();
        }
    }

    /// The place of the process for a message between applications.
    pub fn place_of_pipe(&self, to: u8, number: u64) -> Option<u16> {
        let started = self.places.get().map_or(&[][..], |places| places);
        self.pool.borrow().place_of_pipe(to, number, started)
    }

    /// Hands over what an application process of `from` sent to this worker.
    pub fn pipe(&self, from: Slot, to: u8, number: u64, body: &[u8]) -> Verdict {
        let Some(place) = self.place_of_pipe(to, number) else { return Verdict::Gone };
        let is_note = to & NOTE != 0;
        let reader = self.pool.borrow().process(place).filter(|_| is_note);
        let link = reader.and_then(|id| self.links.get(id));
        let has_room = match &link {
            Some(link) => link.takes_notes(),
            // A process that starts gets a note as an event.
            None if is_note => self.pool.borrow().has_room(place),
            None => self.pool.borrow().has_room_for_pipe(place),
        };
        if !has_room {
            return Verdict::Full;
        }
        // A copy: what was read with it would be kept as well.
        let (code, body) = (from.0.into(), Bytes::copy_from_slice(body));
        let packet = Packet { code, fd: number, body, ..Packet::new(Kind::Pipe) };
        match link {
            Some(link) => link.answer(Packet { kind: Kind::Note, ..packet }),
            None => drop(self.queue(place, packet)),
        }
        Verdict::Queued
    }

    /// A process that stood by may have got a place.
    pub fn placed(&self, id: Option<ProcessId>) {
        if let Some(link) = id.and_then(|id| self.links.get(id)) {
            link.place();
        }
    }

    /// Lets a process that another one takes over from finish and exit.
    pub fn relieve(&self, id: ProcessId) {
        if let Some(link) = self.links.get(id) {
            link.shut_down(1);
        }
    }

    /// Closes a client since its application failed.
    pub fn close_failed(&self, ctx: &Context, fd: u64) {
        self.close(ctx, fd, Cause::AppFailed.code(), "the application failed");
    }

    /// Closes a client that may be gone already.
    pub fn close(&self, ctx: &Context, fd: u64, code: u16, reason: &str) {
        if let Ok(fd) = Fd::try_from(fd) {
            let _ = ctx.close(fd, code, reason);
        }
    }
}

/// Forgets a handshake whose client left before the answer came.
pub struct OpeningGuard {
    pub shared: Rc<Shared>,
    pub fd: u64,
    /// The application will answer.
    pub queued: bool,
    pub answered: bool,
}

impl Drop for OpeningGuard {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let mut opening = self.shared.opening.borrow_mut();
        if !self.queued {
            opening.remove(&self.fd);
            self.shared.pool.borrow_mut().unpin(self.fd);
        } else if let Some(opening) = opening.get_mut(&self.fd) {
            opening.gone = true;
        }
    }
}

/// Forgets a request whose client left before the answer came: one that still waits is not
/// handled any more.
pub struct RequestGuard {
    pub shared: Rc<Shared>,
    pub id: u32,
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        if self.shared.answers.borrow_mut().remove(&self.id).is_some()
            && self.shared.pool.borrow_mut().withdraw(self.id)
        {
            self.shared.changed.notify_waiters();
        }
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
