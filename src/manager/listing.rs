//! Lists of open connections, from the registries, a part at a time.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::timeout;

use super::Exchange;
use super::relay::hold::Scope;
use crate::api::Info;
use crate::fd::WorkerId;
use crate::ipc::control::Connection;
use crate::ipc::link::{Lane, Link};
use crate::ipc::messages::{ManagerToWorker, RequestId};
use crate::ipc::packet::Body;
use crate::ipc::registry::{Entry, Registry};
use crate::sys::clock::monotonic_ms;

/// Connections in one part of a list: well below a frame's 65,535 bytes.
const PART: usize = 256;
/// Connections on one page.
const PAGE_MAX: usize = 1000;
/// Entries that are looked at in one go.
const LOOK: usize = 4096;
/// Lists for one worker that are under way or wait.
const WAITING_MAX: usize = 1024;
/// For a worker to take a part.
const PATIENCE: Duration = Duration::from_secs(5);

/// Which connections are listed.
#[derive(Debug, Clone, Copy)]
pub enum Page {
    /// Every one.
    All,
    /// Those with the smallest numbers above one, at most so many.
    Above {
        /// The number below the first.
        after: u64,
        /// How many.
        limit: usize,
    },
}

/// A list under way.
pub struct Listing {
    registries: Vec<(WorkerId, Rc<Registry>)>,
    /// The next registry and the next entry of it.
    at: (usize, usize),
    /// While connections move, one may stand in two registries for a moment.
    seen: Option<HashSet<u64>>,
}

impl Exchange {
    /// Begins a list of every open connection.
    pub fn listing(&self) -> Listing {
        let workers: Vec<_> = self.workers.iter().collect();
        let two_share_a_slot =
            workers.windows(2).any(|pair| pair[0].id().slot == pair[1].id().slot);
        let moving = two_share_a_slot || self.hold.scope != Scope::Open;
        let registries =
            workers.iter().map(|worker| (worker.id(), Rc::clone(&worker.registry))).collect();
        Listing { registries, at: (0, 0), seen: moving.then(HashSet::new) }
    }

    /// Answers a worker's question for connections.
    pub fn list(&mut self, asker: WorkerId, id: RequestId, page: Page) {
        // Each that is under way or waits holds on to what allows it. Who asks for more in one go
        // learns from the deadline of the question that nobody knows.
        let few = |worker: &&super::worker_handle::WorkerHandle| {
            Rc::strong_count(&worker.lists) <= WAITING_MAX
        };
        if let Some(worker) = self.workers.get(asker).filter(few) {
            let (listing, link) = (self.listing(), Rc::clone(&worker.link));
            let lists = Rc::clone(&worker.lists);
            spawn_local(async move {
                // Nobody closes it.
                let _turn = lists.acquire().await;
                match page {
                    Page::All => answer(listing, link, id).await,
                    Page::Above { after, limit } => {
                        answer_page(listing, link, id, after, limit.min(PAGE_MAX)).await;
                    }
                }
            });
        }
    }
}

impl Listing {
    /// Some connections, or none of those that were looked at; `None` at the end.
    pub fn next_part(&mut self) -> Option<Vec<(WorkerId, Entry)>> {
        let (id, registry) = self.registries.get(self.at.0)?;
        let end = (self.at.1 + LOOK).min(registry.capacity());
        let mut part = Vec::new();
        let mut index = self.at.1;
        while index < end && part.len() < PART {
            let entry = registry.entry(index).filter(|entry| !entry.closing);
            let new = |entry: &Entry| match &mut self.seen {
                Some(seen) => seen.insert(entry.fd.as_u64()),
                None => true,
            };
            part.extend(entry.filter(new).map(|entry| (*id, entry)));
            index += 1;
        }
        self.at =
            if index < registry.capacity() { (self.at.0, index) } else { (self.at.0 + 1, 0) };
        Some(part)
    }
}

/// The other end, as it is shown.
fn peer(entry: &Entry) -> String {
    entry.peer.map_or_else(|| "unix:".to_owned(), |peer| peer.to_string())
}

/// A connection as `connections` shows it.
pub fn connection(id: WorkerId, entry: &Entry, now: u64) -> Connection {
    Connection {
        fd: entry.fd,
        worker: id.slot,
        epoch: Some(id.epoch),
        peer: peer(entry),
        connected_at: entry.connected_at,
        idle_ms: now.saturating_sub(entry.received_at),
        uid: None,
    }
}

/// A connection as handlers see it in a list. Registries count no bytes; `info` does.
fn info(id: WorkerId, entry: &Entry, now: u64) -> Info {
    Info {
        fd: entry.fd,
        worker: id.slot,
        peer: peer(entry),
        client: entry.peer.map(|peer| peer.ip()),
        connected_at: entry.connected_at,
        idle_ms: now.saturating_sub(entry.received_at),
        ..Info::new(entry.fd, id.slot)
    }
}

/// A page needs all of the list to be looked at, since no registry is sorted, and memory for no
/// more than the page.
async fn answer_page(
    mut listing: Listing,
    link: Rc<Link>,
    id: RequestId,
    after: u64,
    limit: usize,
) {
    let mut page: BTreeMap<u64, (WorkerId, Entry)> = BTreeMap::new();
    while let Some(part) = listing.next_part() {
        for (of, entry) in part {
            let fd = entry.fd.as_u64();
            let fits = page.len() < limit || page.last_key_value().is_some_and(|(k, _)| fd < *k);
            if fd > after && fits {
                page.insert(fd, (of, entry));
                if page.len() > limit {
                    page.pop_last();
                }
            }
        }
        tokio::task::yield_now().await;
    }
    let now = monotonic_ms();
    let page: Vec<Info> = page.values().map(|(of, entry)| info(*of, entry, now)).collect();
    let mut parts = page.chunks(PART).peekable();
    loop {
        let part = parts.next().unwrap_or_default().to_vec();
        let last = parts.peek().is_none();
        let message = ManagerToWorker::ListAnswer { id, part, last };
        let sent = link.send(Lane::Data, &message, Body::Inline(&[]), Vec::new());
        if last || sent.is_err() {
            return;
        }
    }
}

async fn answer(mut listing: Listing, link: Rc<Link>, id: RequestId) {
    let now = monotonic_ms();
    loop {
        let part = listing.next_part();
        let last = part.is_none();
        let part: Vec<Info> =
            part.unwrap_or_default().iter().map(|(id, entry)| info(*id, entry, now)).collect();
        if !last && part.is_empty() {
            tokio::task::yield_now().await;
            continue;
        }
        // Each part waits until the one before is with the kernel, so a list never fills a lane.
        let flushed = timeout(PATIENCE, link.flush()).await;
        let message = ManagerToWorker::ListAnswer { id, part, last };
        let sent = link.send(Lane::Data, &message, Body::Inline(&[]), Vec::new());
        if last || sent.is_err() || !matches!(flushed, Ok(Ok(()))) {
            return;
        }
    }
}
