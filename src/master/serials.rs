//! Serials of clients, leased to workers in blocks, and never given out twice.
//!
//! Before a block is granted, the slot's next block is written to `runtime_dir/serials`. Should
//! that file be lost, the base comes from the clock: seconds since 2026, shifted left by 9. A
//! number could then repeat only if a slot had opened more than 512 connections a second on
//! average since it began, or the clock was set back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Result, Subject};
use crate::fd::{SERIAL_MAX, Slot};
use crate::ipc::messages::LEASE_SERIALS;
use crate::sys::clock;

/// 2026-01-01T00:00:00Z in seconds since 1970.
const EPOCH_2026: u64 = 1_767_225_600;

/// The leases of every slot.
pub struct Serials {
    path: PathBuf,
    next: BTreeMap<u8, u64>,
}

impl Serials {
    /// Reads what was granted before. A missing or damaged file starts from the clock.
    pub fn open(runtime_dir: &Path) -> Serials {
        let path = runtime_dir.join("serials");
        let text = fs::read_to_string(&path).unwrap_or_default();
        Serials { path, next: parse(&text) }
    }

    /// The first serial of a block that nobody ever had.
    pub fn lease(&mut self, slot: Slot) -> Result<u64> {
        let base = clock_base(clock::unix_ms() / 1000);
        let known = self.next.get(&slot.0).copied();
        // The file wins while it is ahead; the clock where it was lost.
        let first = known.unwrap_or(base).clamp(1, SERIAL_MAX - LEASE_SERIALS);
        self.next.insert(slot.0, first + LEASE_SERIALS);
        self.write()?;
        Ok(first)
    }

    fn write(&self) -> Result<()> {
        let mut text = String::from("# slot and its next serial; see docs/operations.md\n");
        for (slot, next) in &self.next {
            text.push_str(&format!("{slot} {next}\n"));
        }
        let temporary = self.path.with_extension("new");
        let subject = || format!("write {}", self.path.display());
        fs::write(&temporary, text).subject(subject)?;
        fs::rename(&temporary, &self.path).subject(subject)
    }
}

fn parse(text: &str) -> BTreeMap<u8, u64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (slot, next) = line.split_once(' ')?;
            let next = next.parse().ok().filter(|next| (1..=SERIAL_MAX).contains(next))?;
            Some((slot.parse().ok()?, next))
        })
        .collect()
}

fn clock_base(unix_seconds: u64) -> u64 {
    (unix_seconds.saturating_sub(EPOCH_2026) << 9).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_block_is_granted_twice_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut serials = Serials::open(dir.path());
        let first = serials.lease(Slot(1)).unwrap();
        assert_eq!(serials.lease(Slot(1)).unwrap(), first + LEASE_SERIALS);
        let mut again = Serials::open(dir.path());
        assert_eq!(again.lease(Slot(1)).unwrap(), first + 2 * LEASE_SERIALS);
    }

    #[test]
    fn a_damaged_file_starts_from_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("serials"), "1 0\nnonsense\n2 99999999999999999999\n").unwrap();
        let first = Serials::open(dir.path()).lease(Slot(1)).unwrap();
        assert!(first >= clock_base(EPOCH_2026 + 1));
    }
}
