//! The end of a hold: all that waited goes through the same doors again.

use super::hold::{HeldMessage, Scope};
use crate::api::Verdict;
use crate::fd::WorkerId;
use crate::ipc::messages::Reach;
use crate::manager::Exchange;

impl Exchange {
    /// Ends the hold: all that waited goes through the same doors again. `ends` are those of the
    /// pass, and `arriving` have clients that they may not serve yet.
    pub fn release(&mut self, ends: &[WorkerId], arriving: &[(WorkerId, Vec<u64>)]) {
        let was_all = self.hold.scope == Scope::All;
        for item in self.hold.release() {
            match item {
                HeldMessage::One(address, routed, kept) => match kept.body() {
                    Ok(body) => self.deliver(address, routed, body),
                    Err(_) => self.refuse(routed, Verdict::Full),
                },
                HeldMessage::Wide { wide, had, body } => {
                    let is_whole = !matches!(wide.reach, Reach::Only(_));
                    let is_its = |id| is_whole && !had && wide.sender == Some(id);
                    let missed = arriving.iter().filter(|(id, _)| is_its(*id));
                    let missed: Vec<_> = missed.collect();
                    self.release_wide((!was_all).then_some(ends), wide, &missed, &body);
                }
            }
        }
        for worker in self.workers.iter_mut() {
            worker.tell_refused();
        }
    }
}
