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

use super::Peers;
use crate::error::Result;
use crate::fd::{Slot, WorkerId};
use crate::ipc::link::{Lane, Link, Sent};
use crate::ipc::messages::{LinkId, Reach, WorkerToManager, WorkerToWorker};
use crate::ipc::packet::{Body, Frames, Packet};

/// Messages to the clients of a slot within a second before a link is asked for.
const MESSAGES_MIN: u32 = 32;
const SECOND_MS: u64 = 1000;
/// Milliseconds between two questions for the same link.
const ASK_AGAIN_MS: u64 = 100;
/// Milliseconds after a broadcast in which none is asked for.
const PAUSE_MS: u64 = 250;

/// The links of a worker to and from others.
#[derive(Default)]
pub(in crate::worker) struct Direct {
    /// By slot, as far as there was need.
    routes: RefCell<Vec<Route>>,
    /// Until when none is asked for, in monotonic milliseconds.
    paused_until: Cell<u64>,
    /// Those that lead here.
    pub peers: RefCell<BTreeMap<LinkId, Rc<Link>>>,
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

impl Peers {
    /// One more goes to a slot by the manager: asks for a link, if that is worth it.
    pub(in crate::worker) fn want_direct(&self, to: Slot) {
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
    pub(in crate::worker) fn go_direct(
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
    pub(in crate::worker) fn pause_direct(&self) {
        self.direct.paused_until.set(self.now_ms.get() + PAUSE_MS);
        self.go_indirect();
    }

    /// From now on all goes by the manager, behind what went directly.
    pub(in crate::worker) fn go_indirect(&self) {
        let slots = self.direct.routes.borrow().len();
        for slot in 0..slots {
            self.end_direct(Slot(slot as u8));
        }
    }

    /// The manager says to.
    pub(in crate::worker) fn told_indirect(&self, id: LinkId) {
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
