//! What processes hold in memory.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use crate::sys::usage::Usage;

/// Memory of the processes as it was looked at last: one process each time, so that many cost no
/// turn more than one does.
#[derive(Default)]
pub struct Memory {
    bytes: RefCell<HashMap<u32, u64>>,
    turn: Cell<usize>,
}

impl Memory {
    /// Looks at the next process; the answer is what all of them hold.
    pub fn look(&self, pids: &[u32]) -> u64 {
        let mut bytes = self.bytes.borrow_mut();
        bytes.retain(|pid, _| pids.contains(pid));
        let turn = self.turn.replace(self.turn.get().wrapping_add(1));
        // One that is not known yet comes first.
        let new = pids.iter().find(|pid| !bytes.contains_key(pid));
        let next = new.or_else(|| pids.get(turn % pids.len().max(1)));
        if let Some(pid) = next {
            bytes.insert(*pid, resident_bytes(*pid).unwrap_or(0));
        }
        bytes.values().sum()
    }
}

/// What a process holds in memory; `None` when it is gone.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    Usage::of(i32::try_from(pid).ok()?).map(|usage| usage.memory_bytes)
}
