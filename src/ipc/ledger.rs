//! The ledger of a crash-proof worker: one memfd beside its registry, from which its replacement
//! learns which clients were *calm* when it died, and what it needs to go on with them.
//!
//! A record is two words at the index of the connection in the worker's slab: its number and
//! whether it is calm; its descriptor and the negotiated extension. Apart from these, so that they
//! stay close together, stands a cell with the kept request, written once when the connection
//! opens. What the worker does for each message is two plain stores to the first word.

use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::error::{Error, Result};
use crate::fd::Fd;
use crate::sys::memory::Shared;

/// Words before the first record: whether it has settled, how many records there are, the layout,
/// how many were ever in use, the descriptor of the link to the manager and one.
const HEADER_WORDS: usize = 8;
/// The layout described here; a ledger outlives the image that made it.
const LAYOUT: u64 = 1;
const RECORD_WORDS: usize = 2;
/// Words of a cell: 1 KiB, of which the first is the length of the request.
const CELL_WORDS: usize = 128;
/// The longest request that fits.
pub const KEPT_BYTES_MAX: usize = (CELL_WORDS - 1) * 8;

/// In a record's first word, above the 53 bits of the number.
const CALM: u64 = 1 << 63;

/// A worker's ledger.
pub struct Ledger {
    shared: Shared,
    entries: usize,
}

/// What is known of a calm connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Calm {
    /// Its descriptor in the table of the dead worker.
    pub raw_fd: RawFd,
    /// The extension, as the worker wrote it.
    pub extension: u32,
    /// The kept request.
    pub kept: Vec<u8>,
}

impl Ledger {
    /// Makes one with room for `entries` connections. Memory is used only for those that were
    /// ever in use.
    pub fn create(entries: usize) -> Result<(Ledger, OwnedFd)> {
        let entries = entries.max(1);
        let words = HEADER_WORDS + entries * (RECORD_WORDS + CELL_WORDS);
        let (shared, memfd) = Shared::create("wsd-ledger", words * 8)?;
        shared.words()[1].store(entries as u64, Release);
        shared.words()[2].store(LAYOUT, Release);
        Ok((Ledger { shared, entries }, memfd))
    }

    /// Opens one that another process made.
    pub fn open(memfd: BorrowedFd<'_>) -> Result<Ledger> {
        let shared = Shared::open(memfd)?;
        let word = |at: usize| shared.words().get(at).map_or(0, |word| word.load(Acquire));
        if word(2) != LAYOUT {
            return Err(Error::new("a ledger of another layout"));
        }
        let entries = word(1) as usize;
        let words = entries
            .checked_mul(RECORD_WORDS + CELL_WORDS)
            .and_then(|words| words.checked_add(HEADER_WORDS));
        if words.is_none_or(|words| words > shared.words().len()) {
            return Err(Error::new("a ledger is shorter than it says"));
        }
        Ok(Ledger { shared, entries })
    }

    /// The worker has all that it took over from dead ones; what they had marked as taken is its
    /// own. One store, so that it was before a kill or was not.
    pub fn settle(&self) {
        self.shared.words()[0].store(1, Release);
    }

    /// Whether it came that far.
    pub fn has_settled(&self) -> bool {
        self.shared.words()[0].load(Acquire) != 0
    }

    /// Writes down the descriptor of the link to the manager.
    pub fn set_link(&self, raw_fd: RawFd) {
        self.shared.words()[4].store(raw_fd as u64 + 1, Release);
    }

    /// The descriptor of the link to the manager: what a dead worker had not read is still there.
    pub fn link(&self) -> Option<RawFd> {
        let number = self.shared.words()[4].load(Acquire).checked_sub(1)?;
        RawFd::try_from(number).ok()
    }

    /// Writes down a connection, which is not calm. False, and nothing is written, where its
    /// request or its index does not fit.
    pub fn opened(
        &self,
        index: usize,
        fd: Fd,
        raw_fd: RawFd,
        extension: u32,
        kept: &[u8],
    ) -> bool {
        let (Some(record), Some(cell)) = (self.record(index), self.cell(index)) else {
            return false;
        };
        if kept.len() > KEPT_BYTES_MAX {
            return false;
        }
        record[0].store(0, Release);
        let used = &self.shared.words()[3];
        used.store(used.load(Relaxed).max(index as u64 + 1), Relaxed);
        cell[0].store(kept.len() as u64, Relaxed);
        for (word, bytes) in cell[1..].iter().zip(kept.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            word.store(u64::from_le_bytes(whole), Relaxed);
        }
        record[1].store(u64::from(raw_fd as u32) | u64::from(extension) << 32, Relaxed);
        record[0].store(fd.as_u64(), Release);
        true
    }

    /// How many indices may have a record: beyond, nothing was ever in use.
    pub fn used(&self) -> usize {
        (self.shared.words()[3].load(Acquire) as usize).min(self.entries)
    }

    /// Nothing of it is half read, unsent or under way.
    #[inline]
    pub fn calm(&self, index: usize, fd: Fd) {
        self.mark(index, fd.as_u64() | CALM);
    }

    /// Something may be from now on.
    #[inline]
    pub fn stir(&self, index: usize, fd: Fd) {
        self.mark(index, fd.as_u64());
    }

    /// It has ended, or is about to move: its descriptor is not its own any more.
    pub fn forget(&self, index: usize) {
        self.mark(index, 0);
    }

    /// What is known of this connection of a dead worker, if it was calm.
    pub fn find(&self, index: usize, fd: Fd) -> Option<Calm> {
        let (record, cell) = (self.record(index)?, self.cell(index)?);
        if record[0].load(Acquire) != fd.as_u64() | CALM {
            return None;
        }
        let len = usize::try_from(cell[0].load(Relaxed)).ok().filter(|n| *n <= KEPT_BYTES_MAX)?;
        let words = cell[1..=len.div_ceil(8)].iter();
        let mut kept: Vec<u8> = words.flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        kept.truncate(len);
        let rest = record[1].load(Relaxed);
        Some(Calm { raw_fd: rest as u32 as RawFd, extension: (rest >> 32) as u32, kept })
    }

    #[inline]
    fn mark(&self, index: usize, word: u64) {
        if let Some(record) = self.record(index) {
            record[0].store(word, Release);
        }
    }

    #[inline]
    fn record(&self, index: usize) -> Option<&[AtomicU64]> {
        let start = HEADER_WORDS + index.checked_mul(RECORD_WORDS)?;
        (index < self.entries).then(|| &self.shared.words()[start..start + RECORD_WORDS])
    }

    fn cell(&self, index: usize) -> Option<&[AtomicU64]> {
        let before = HEADER_WORDS + self.entries * RECORD_WORDS;
        let start = before + index.checked_mul(CELL_WORDS)?;
        (index < self.entries).then(|| &self.shared.words()[start..start + CELL_WORDS])
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::fd::Slot;

    fn fd(serial: u64) -> Fd {
        Fd::new(63, Slot(255), serial).unwrap()
    }

    #[test]
    fn another_process_finds_who_is_calm_and_nobody_else() {
        let (ledger, memfd) = Ledger::create(10).unwrap();
        let reader = Ledger::open(memfd.as_fd()).unwrap();
        for index in [0, 9] {
            let kept = vec![7; index * 3 + 1];
            assert!(ledger.opened(index, fd(1), 70_000, 0x1_0f0f, &kept));
            assert_eq!(reader.find(index, fd(1)), None);
            assert_eq!(reader.used(), index + 1);
            ledger.calm(index, fd(1));
            let calm = Calm { raw_fd: 70_000, extension: 0x1_0f0f, kept };
            assert_eq!(reader.find(index, fd(1)), Some(calm));
            assert_eq!(reader.find(index, fd(2)), None);
            ledger.stir(index, fd(1));
            assert_eq!(reader.find(index, fd(1)), None);
            ledger.calm(index, fd(1));
            ledger.forget(index);
            assert_eq!(reader.find(index, fd(1)), None);
        }
    }

    #[test]
    fn what_does_not_fit_is_never_calm() {
        let (ledger, _memfd) = Ledger::create(2).unwrap();
        assert!(ledger.opened(1, fd(1), 3, 0, &[1; KEPT_BYTES_MAX]));
        assert!(!ledger.opened(1, fd(2), 3, 0, &[1; KEPT_BYTES_MAX + 1]));
        assert!(!ledger.opened(2, fd(2), 3, 0, &[]));
        ledger.calm(usize::MAX, fd(2));
        assert_eq!(ledger.find(2, fd(2)), None);
    }

    #[test]
    fn whether_it_has_settled_is_known_to_others() {
        let (ledger, memfd) = Ledger::create(1).unwrap();
        let reader = Ledger::open(memfd.as_fd()).unwrap();
        assert!(!reader.has_settled());
        ledger.settle();
        assert!(reader.has_settled());
        assert_eq!(reader.link(), None);
        ledger.set_link(7);
        assert_eq!(reader.link(), Some(7));
        let (short, memfd) = Shared::create("short", 64).unwrap();
        assert!(Ledger::open(memfd.as_fd()).is_err());
        short.words()[1].store(1, Relaxed);
        short.words()[2].store(LAYOUT, Relaxed);
        assert!(Ledger::open(memfd.as_fd()).is_err());
    }
}
