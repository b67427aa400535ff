//! Clients of a killed worker that may live on: until its replacement stands ready to take them
//! over, what is sent to them waits here, bounded, for each dead worker by itself. After that it
//! goes to the replacement's link, which that reads when it has taken them over and not before.

use std::collections::BTreeMap;

use super::Manager;
use super::hold::{Hold, Item, Kept};
use super::reload::Event;
use crate::api::{Opcode, Verdict};
use crate::fd::WorkerId;

/// What waits, by dead worker.
#[derive(Debug, Default)]
pub struct Orphans {
    holds: BTreeMap<WorkerId, Hold>,
}

impl Orphans {
    /// Whether this worker's clients may live on.
    pub fn has(&self, dead: WorkerId) -> bool {
        self.holds.contains_key(&dead)
    }

    /// How many such workers there are.
    pub fn count(&self) -> usize {
        self.holds.len()
    }

    /// Where what is sent to this worker's clients waits, if it does.
    pub fn hold(&mut self, dead: WorkerId) -> Option<&mut Hold> {
        if self.holds.is_empty() { None } else { self.holds.get_mut(&dead) }
    }

    /// Keeps a broadcast for the clients of each but its sender; the answer is for how many there
    /// was no room.
    pub fn broadcast(
        &mut self,
        sender: Option<WorkerId>,
        opcode: Opcode,
        except: u64,
        kept: &Kept,
    ) -> u64 {
        let mut refused = 0;
        for (dead, hold) in &mut self.holds {
            if sender == Some(*dead) {
                continue;
            }
            let added = kept.again().is_ok_and(|body| {
                let len = body.len();
                let item = Item::All { opcode, except, sender, adopted: 0, body };
                hold.add(item, len).is_ok()
            });
            refused += u64::from(!added);
        }
        refused
    }
}

impl Manager {
    /// A worker was killed whose clients may live on.
    pub fn on_orphaned(&mut self, dead: WorkerId) {
        tracing::info!(worker = %dead, "holding what is sent to the clients of a dead worker");
        self.orphans.holds.entry(dead).or_default();
        if self.router.serving_here(dead.slot).is_none() {
            // A new manager has not known it.
            self.router.serve(dead);
        }
    }

    /// Its replacement is there.
    pub fn on_inherits(&mut self, heir: WorkerId, from: WorkerId) {
        if let Some(worker) = self.workers.get_mut(heir) {
            worker.inherits = true;
        }
        self.router.hand_over(from, heir, Vec::new());
        self.reload_event(Event::Inherits(heir));
        self.release_orphans(from, Some(heir));
    }

    /// There will be none.
    pub fn on_disowned(&mut self, dead: WorkerId) {
        if self.workers.get(dead).is_none() {
            self.forget(dead);
        }
        self.release_orphans(dead, None);
    }

    fn release_orphans(&mut self, dead: WorkerId, heir: Option<WorkerId>) {
        let Some(mut hold) = self.orphans.holds.remove(&dead) else { return };
        for item in hold.release() {
            match item {
                Item::One(address, errand, kept) => match kept.body() {
                    Ok(body) => self.deliver(address, errand, body),
                    Err(_) => self.refuse(errand, Verdict::Full),
                },
                // It is not in a handover: it is not ready.
                Item::All { opcode, except, body, .. } => {
                    self.broadcast_to(heir.as_slice(), opcode, except, |_| body.body());
                }
            }
        }
        for worker in self.workers.iter_mut() {
            worker.tell_refused();
        }
    }
}
