//! Direct links: pushes to the clients of another worker that need not go by the manager.
//!
//! A worker that sends much to one slot asks the manager for a link to its worker. The path of a
//! message changes then, and may not let one overtake another; `docs/ipc.md` has the whole
//! story. As the sender: what goes directly comes after all that went by the manager, because the
//! receiver is given its end behind that; and what goes by the manager again comes after all that
//! went directly, because the receiver is told to take that first. There are no direct links
//! while connections move, and a broadcast, which is for all, ends those of its sender.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::task::{JoinHandle, spawn_local};

use super::Worker;
use super::links::is_cut;
use crate::error::{Error, Result};
use crate::fd::{Slot, WorkerId};
use crate::ipc::PACKET_BYTES_MAX;
use crate::ipc::link::{Arrival, Lane, Link, Sent};
use crate::ipc::messages::{LinkId, Reach, WorkerToManager, WorkerToWorker};
use crate::ipc::packet::{Body, Frames, Packet};

/// Messages to the clients of a slot within a second before a link is asked for.
const MESSAGES_MIN: u32 = 32;
const SECOND_MS: u64 = 1000;
/// Milliseconds between two questions for the same link.
const ASK_AGAIN_MS: u64 = 100;
/// Milliseconds after a broadcast in which none is asked for.
const PAUSE_MS: u64 = 250;
/// More packets than the kernel queues.
const QUEUED_MAX: usize = 1024;

/// The links of a worker to and from others.
#[derive(Default)]
pub(super) struct Direct {
    /// By slot, as far as there was need.
    routes: RefCell<Vec<Route>>,
    /// Until when none is asked for, in monotonic milliseconds.
    paused_until: Cell<u64>,
    /// Those that lead here.
    peers: RefCell<BTreeMap<LinkId, Rc<Link>>>,
}

/// The route to the clients of a slot.
#[derive(Default)]
struct Route {
    /// Messages that went by the manager since then, in monotonic milliseconds.
    messages: u32,
    since: u64,
    /// When a link may be asked for again.
    ask_at: u64,
    direct: Option<Outgoing>,
}

/// The sending end of a direct link.
struct Outgoing {
    id: LinkId,
    to: WorkerId,
    link: Rc<Link>,
    /// Whether the other end is where it should be. Until then nothing is given to the kernel:
    /// it would be lost with a manager that dies before it has passed the other end on.
    welcome: Cell<bool>,
    task: JoinHandle<()>,
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Direct {
    /// Sends to the clients of a slot, if there is a direct route.
    #[inline]
    pub fn send(&self, to: Slot, message: &WorkerToWorker, body: &[u8]) -> Option<Result<Sent>> {
        let routes = self.routes.borrow();
        let route = routes.get(usize::from(to.0))?.direct.as_ref()?;
        Some(route.link.send(Lane::Data, message, Body::Inline(body), Vec::new()))
    }

    /// Sends to all to whom there is a direct route. The answer is who they are, and how many of
    /// them were refused.
    pub fn send_to_each(&self, message: &WorkerToWorker, body: &[u8]) -> (Vec<WorkerId>, u32) {
        let (mut sent, mut refused) = (Vec::new(), 0);
        self.each(|route| {
            let queued = route.link.send(Lane::Data, message, Body::Inline(body), Vec::new());
            refused += u32::from(!matches!(queued, Ok(Sent::Queued)));
            sent.push(route.to);
        });
        (sent, refused)
    }

    /// What is queued goes at [`end_turn`](Self::end_turn).
    pub fn begin_turn(&self) {
        self.each(|route| route.link.begin_turn());
    }

    /// Sends what is queued.
    pub fn end_turn(&self) {
        self.each(Outgoing::send_queued);
    }

    fn each(&self, f: impl FnMut(&Outgoing)) {
        self.routes.borrow().iter().filter_map(|route| route.direct.as_ref()).for_each(f);
    }

    /// The route to a slot, to change.
    fn route_to(&self, to: Slot) -> RefMut<'_, Route> {
        let index = usize::from(to.0);
        let mut routes = self.routes.borrow_mut();
        if routes.len() <= index {
            routes.resize_with(index + 1, Route::default);
        }
        RefMut::map(routes, |routes| &mut routes[index])
    }

    /// The slot that a link leads to.
    fn slot_of(&self, id: LinkId) -> Option<Slot> {
        let mut found = None;
        self.each(|route| found = found.or((route.id == id).then_some(route.to.slot)));
        found
    }
}

impl Outgoing {
    fn send_queued(&self) {
        if self.welcome.get() {
            self.link.end_turn();
        }
    }
}

// As the sender.
impl Worker {
    /// One more goes to a slot by the manager: asks for a link, if that is worth it.
    pub(super) fn want_direct(&self, to: Slot) {
        if to == self.slot() {
            return;
        }
        let mut route = self.direct.route_to(to);
        let now = self.now_ms.get();
        if now >= route.since + SECOND_MS {
            (route.messages, route.since) = (0, now);
        }
        route.messages = route.messages.saturating_add(1);
        let may_ask = now >= route.ask_at && now >= self.direct.paused_until.get();
        if may_ask && route.messages >= MESSAGES_MIN {
            route.ask_at = now + ASK_AGAIN_MS;
            self.say_in_order(&WorkerToManager::WantDirect { to });
        }
    }

    /// The manager has made a link.
    pub(super) fn go_direct(
        self: &Rc<Self>,
        id: LinkId,
        to: WorkerId,
        socket: OwnedFd,
    ) -> Result<()> {
        let link = Rc::new(Link::new(socket, self.id)?);
        self.end_direct(to.slot);
        link.begin_turn();
        self.say_in_order(&WorkerToManager::Through { link: id });
        let task = spawn_local(self.clone().mind_outgoing(id, link.clone()));
        let route = Outgoing { id, to, link, welcome: Cell::new(false), task };
        self.direct.route_to(to.slot).direct = Some(route);
        tracing::debug!(%to, "sending directly");
        Ok(())
    }

    /// Flushes a direct link, and waits for its other end to come and to go.
    async fn mind_outgoing(self: Rc<Self>, id: LinkId, link: Rc<Link>) {
        let welcomed_and_left = async {
            let mut buffer = vec![0; 256];
            while let Ok(Some(_)) = link.receive(&mut buffer).await {
                self.direct.each(|route| {
                    if route.id == id {
                        route.welcome.set(true);
                        route.send_queued();
                    }
                });
            }
        };
        tokio::select! {
            _ = link.flush_forever() => {}
            () = welcomed_and_left => {}
        }
        if let Some(slot) = self.direct.slot_of(id) {
            self.end_direct(slot);
        }
    }

    /// A broadcast goes by the manager, and so does for a while what is behind it.
    pub(super) fn pause_direct(&self) {
        self.direct.paused_until.set(self.now_ms.get() + PAUSE_MS);
        self.go_indirect();
    }

    /// From now on all goes by the manager, behind what went directly.
    pub(super) fn go_indirect(&self) {
        let slots = self.direct.routes.borrow().len();
        for slot in 0..slots {
            self.end_direct(Slot(slot as u8));
        }
    }

    /// The manager says to.
    pub(super) fn told_indirect(&self, id: LinkId) {
        match self.direct.slot_of(id) {
            Some(slot) => self.end_direct(slot),
            // It did not come up. The manager counts on an answer.
            None => self.say_in_order(&WorkerToManager::Indirect { link: id }),
        }
    }

    fn end_direct(&self, slot: Slot) {
        let route = self.direct.route_to(slot).direct.take();
        let Some(route) = route else { return };
        tracing::debug!(to = %route.to, "sending by the manager");
        route.send_queued();
        self.say_in_order(&WorkerToManager::Indirect { link: route.id });
        for packet in route.link.take_unsent() {
            if let Err(error) = self.send_by_manager(route.to, packet) {
                tracing::error!(to = %route.to, %error, "a message is lost");
            }
        }
    }

    fn send_by_manager(&self, to: WorkerId, mut packet: Packet) -> Result<()> {
        let mut frames = Frames::new(&packet.bytes)?;
        while let Some(frame) = frames.next::<WorkerToWorker>(&mut packet.fds)? {
            let message = frame.message.by_manager(Reach::Only(to));
            self.link.insist(&message, frame.body, Vec::new())?;
        }
        Ok(())
    }
}

// As the receiver.
impl Worker {
    /// A manager is new to this worker, and is told who sends to us.
    pub(super) fn introduce_peers(self: &Rc<Self>) {
        // It knows nothing of those we send to.
        self.go_indirect();
        let peers = self.direct.peers.borrow();
        let from: Vec<_> = peers.iter().map(|(&id, link)| (id, link.id())).collect();
        drop(peers);
        for (id, _) in &from {
            // Its sender may have said to a manager that died that it goes by that.
            self.take_rest(*id);
        }
        self.say(&WorkerToManager::Peers { from });
    }

    /// Another worker sends to us directly, and all that it sent before was taken.
    pub(super) fn on_peer(
        self: &Rc<Self>,
        id: LinkId,
        from: WorkerId,
        socket: OwnedFd,
    ) -> Result<()> {
        let link = Rc::new(Link::new(socket, from)?);
        // An empty frame: that it comes is all it says.
        link.control(&())?;
        link.end_turn();
        self.direct.peers.borrow_mut().insert(id, link.clone());
        let worker = self.clone();
        spawn_local(async move {
            let take = |packet: &[u8], fds: &mut _| worker.peer_packet(&link, packet, fds);
            if let Err(error) = worker.read_link(&link, take).await {
                tracing::error!(%from, %error, "a direct link cannot be read");
            }
            worker.peer_ended(id);
        });
        Ok(())
    }

    fn peer_packet(
        self: &Rc<Self>,
        link: &Link,
        packet: &[u8],
        fds: &mut Vec<OwnedFd>,
    ) -> Result<()> {
        let mut frames = Frames::new(packet)?;
        if frames.id != link.id() {
            return Err(Error::new(format!("it is from {}", frames.id)));
        }
        while let Some(frame) = frames.next::<WorkerToWorker>(fds)? {
            self.manager_says(frame.message.passed_on_for(link.id()), frame.body, fds)?;
        }
        Ok(())
    }

    /// What its sender sends from here on comes by the manager.
    pub(super) fn peer_left(self: &Rc<Self>, id: LinkId) {
        self.take_rest(id);
        if !self.peer_ended(id) {
            // It did not come up, or has ended by itself. The manager counts on an answer.
            self.say_in_order(&WorkerToManager::PeerEnded { link: id });
        }
    }

    /// Takes what has been sent so far. Who goes on sending meanwhile is not followed for ever.
    fn take_rest(self: &Rc<Self>, id: LinkId) {
        let Some(link) = self.direct.peers.borrow().get(&id).cloned() else { return };
        let mut buffer = vec![0; PACKET_BYTES_MAX * 2];
        for _ in 0..QUEUED_MAX {
            let taken = match link.try_receive(&mut buffer) {
                Ok(Some(Arrival { len, mut fds, .. })) => {
                    self.peer_packet(&link, &buffer[..len], &mut fds)
                }
                Ok(None) => return,
                Err(error) if is_cut(&error) => Err(error),
                Err(_) => return,
            };
            if let Err(error) = taken {
                return tracing::error!(from = %link.id(), %error, "a direct link is not read");
            }
        }
    }

    fn peer_ended(&self, id: LinkId) -> bool {
        let was_there = self.direct.peers.borrow_mut().remove(&id).is_some();
        if was_there {
            self.say_in_order(&WorkerToManager::PeerEnded { link: id });
        }
        was_there
    }
}
