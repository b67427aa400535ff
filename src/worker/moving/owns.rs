//! Telling the manager which clients are ours.

use super::Moving;
use crate::fd::Fd;
use crate::ipc::messages::WorkerToManager;
use crate::ipc::transit::{Held, Introduction};
use crate::worker::clients::connection::Stage;

impl Moving {
    /// Says which clients are ours that came from elsewhere: the manager knows from the master
    /// which numbers we hand out.
    pub(in crate::worker) fn say_owns(&self, manager: u32) {
        let numbers: Vec<u64> = {
            let (table, serials) = (self.table.borrow(), self.serials.borrow());
            let here = table.iter().filter(|(_, it)| it.stage != Stage::Ended && !it.arriving);
            let named = here.filter_map(|(_, it)| it.fd);
            named.filter(|fd| !serials.is_ours(*fd)).map(Fd::as_u64).collect()
        };
        let ranges = ranges(numbers);
        // A message is at most 64 KiB.
        const RANGES_MAX: usize = 2048;
        for part in ranges.chunks(RANGES_MAX) {
            let ranges = part.to_vec();
            self.say_in_order(&WorkerToManager::Owns { manager, ranges, last: false });
        }
        self.say_in_order(&WorkerToManager::Owns { manager, ranges: Vec::new(), last: true });
    }

    /// Says which passes a manager that died has left with us.
    pub(in crate::worker) fn say_passes(&self, manager: u32) {
        let Introduction { gives, holds } = self.transit.borrow_mut().introduce();
        if let Some((pass, fds)) = gives {
            self.say_in_order(&WorkerToManager::Gives { manager, pass, fds });
        }
        for Held { pass, from, fds, answered } in holds {
            self.say_in_order(&WorkerToManager::Holds { manager, pass, from, fds, answered });
        }
    }
}

/// Numbers as ranges in ascending order: the manager ends a worker that tells them otherwise.
fn ranges(mut numbers: Vec<u64>) -> Vec<(u64, u64)> {
    numbers.sort_unstable();
    numbers.dedup();
    let follows = |a: &u64, b: &u64| *b == *a + 1;
    numbers.chunk_by(follows).filter_map(|run| Some((*run.first()?, *run.last()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consecutive_numbers_are_one_range_and_ranges_ascend() {
        assert_eq!(ranges(vec![9, 2, 3, 10, 7, 1, 7]), [(1, 3), (7, 7), (9, 10)]);
        assert_eq!(ranges(vec![]), []);
    }
}
