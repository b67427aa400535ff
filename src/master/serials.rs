//! Serials of clients, leased to workers in blocks, and never given out twice.
//!
//! Before a block is granted, the slot's next block is written to `runtime_dir/serials`. Should
//! that file be lost, the base comes from the clock: seconds since 2026, shifted left by 9. A
//! number could then repeat only if a slot had opened more than 512 connections a second on
//! average since it began, or the clock was set back. A block whose write failed is not granted,
//! and the next try is for the same block.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, Subject};
use crate::fd::{SERIAL_MAX, Slot};
use crate::ipc::messages::LEASE_SERIALS;
use crate::sys::clock;

/// 2026-01-01T00:00:00Z in seconds since 1970.
const EPOCH_2026: u64 = 1_767_225_600;

/// What stands for a slot that has given out every serial.
const NEXT_MAX: u64 = SERIAL_MAX + 1;

/// The leases of every slot.
pub struct Serials {
    path: PathBuf,
    next: BTreeMap<u8, u64>,
}

impl Serials {
    /// Reads what was granted before. A missing or damaged file starts from the clock.
    ///
    /// # Errors
    /// When there is a file and it cannot be read: what it says would be repeated.
    pub fn open(runtime_dir: &Path) -> Result<Serials> {
        let path = path_in(runtime_dir);
        let text = match fs::read(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io(format!("read {}", path.display()), error));
            }
            read => String::from_utf8(read.unwrap_or_default()).unwrap_or_default(),
        };
        Ok(Serials { path, next: parse(&text) })
    }

    /// Takes over what the image before this one had granted, which knows better than the file:
    /// that may be gone meanwhile.
    pub fn adopt(runtime_dir: &Path, next: BTreeMap<u8, u64>) -> Serials {
        Serials { path: path_in(runtime_dir), next }
    }

    /// The first serial of a block that nobody ever had.
    ///
    /// # Errors
    /// When the file cannot be written, or when the slot has no block left.
    pub fn lease(&mut self, slot: Slot) -> Result<u64> {
        let base = clock_base(clock::unix_ms() / 1000);
        // The file wins while it is ahead; the clock where it was lost.
        let first = self.next.get(&slot.0).copied().unwrap_or(base);
        if first > NEXT_MAX - LEASE_SERIALS {
            return Err(Error::new(format!(
                "slot {slot} has given out all of its {SERIAL_MAX} numbers: stop the server and \
                 remove {}; numbers of clients that left long ago may then come again",
                self.path.display()
            )));
        }
        let mut next = self.next.clone();
        next.insert(slot.0, first + LEASE_SERIALS);
        self.write(&next)?;
        self.next = next;
        Ok(first)
    }

    /// The slots with their next serials.
    pub fn next(&self) -> &BTreeMap<u8, u64> {
        &self.next
    }

    fn write(&self, next: &BTreeMap<u8, u64>) -> Result<()> {
        let mut text = String::from("# slot and its next serial; see docs/operations.md\n");
        for (slot, next) in next {
            text.push_str(&format!("{slot} {next}\n"));
        }
        let temporary = self.path.with_extension("new");
        let subject = || format!("write {}", self.path.display());
        fs::write(&temporary, text).subject(subject)?;
        fs::rename(&temporary, &self.path).subject(subject)
    }
}

fn path_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join("serials")
}

fn parse(text: &str) -> BTreeMap<u8, u64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (slot, next) = line.split_once(' ')?;
            let next: u64 = next.parse().ok().filter(|next| *next > 0)?;
            // More than there are means that none is left: to begin anew would repeat them.
            Some((slot.parse().ok()?, next.min(NEXT_MAX)))
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
        let mut serials = Serials::open(dir.path()).unwrap();
        let first = serials.lease(Slot(1)).unwrap();
        assert_eq!(serials.lease(Slot(1)).unwrap(), first + LEASE_SERIALS);
        let mut again = Serials::open(dir.path()).unwrap();
        assert_eq!(again.lease(Slot(1)).unwrap(), first + 2 * LEASE_SERIALS);
    }

    #[test]
    fn a_damaged_file_starts_from_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("serials"), "1 0\nnonsense\n2 99999999999999999999\n").unwrap();
        let first = Serials::open(dir.path()).unwrap().lease(Slot(1)).unwrap();
        assert!(first >= clock_base(EPOCH_2026 + 1));
    }

    #[test]
    fn a_block_that_could_not_be_written_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut serials = Serials::open(dir.path()).unwrap();
        let first = serials.lease(Slot(1)).unwrap();
        fs::remove_file(dir.path().join("serials")).unwrap();
        fs::create_dir(dir.path().join("serials")).unwrap();
        for _ in 0..3 {
            serials.lease(Slot(1)).unwrap_err();
        }
        fs::remove_dir(dir.path().join("serials")).unwrap();
        assert_eq!(serials.lease(Slot(1)).unwrap(), first + LEASE_SERIALS);
    }

    #[test]
    fn the_last_block_is_granted_once_and_the_end_is_told_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let last = NEXT_MAX - LEASE_SERIALS;
        for start in [last, last + 1, SERIAL_MAX, NEXT_MAX, NEXT_MAX + 1, u64::MAX] {
            fs::write(dir.path().join("serials"), format!("1 {start}\n")).unwrap();
            let mut serials = Serials::open(dir.path()).unwrap();
            if start == last {
                assert_eq!(serials.lease(Slot(1)).unwrap(), last);
                assert!(crate::fd::Fd::new(0, Slot(1), last + LEASE_SERIALS - 1).is_some());
            }
            for mut serials in [serials, Serials::open(dir.path()).unwrap()] {
                let error = serials.lease(Slot(1)).unwrap_err().to_string();
                assert!(error.contains("slot 1") && error.contains("remove"), "{error}");
                serials.lease(Slot(2)).unwrap();
                fs::write(dir.path().join("serials"), format!("1 {NEXT_MAX}\n")).unwrap();
            }
        }
    }

    #[test]
    fn an_upgrade_needs_no_file_and_a_start_believes_none_that_it_cannot_read() {
        let dir = tempfile::tempdir().unwrap();
        let far = clock_base(clock::unix_ms() / 1000) * 2;
        fs::create_dir(dir.path().join("serials")).unwrap();
        assert!(Serials::open(dir.path()).is_err());
        fs::remove_dir(dir.path().join("serials")).unwrap();
        let mut serials = Serials::adopt(dir.path(), BTreeMap::from([(1, far)]));
        assert_eq!(serials.lease(Slot(1)).unwrap(), far);
    }
}
