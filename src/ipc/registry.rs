//! The registry of open fds: one memfd per worker process, written by the worker, held by the
//! master, read by the manager and by the worker's replacement, so any of them may die.
//!
//! An entry is six words of shared memory, at the index of the connection in the worker's slab.
//! The state word is written last when a connection opens and first when it closes, so a reader
//! sees a whole entry or none. A verdict never comes from here: the registry may lag.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use crate::error::Result;
use crate::fd::Fd;
use crate::sys::memory::Shared;

/// Words in an entry: state and fd, opened, received, address high and low, port.
const ENTRY_WORDS: usize = 6;
const ENTRY_BYTES: usize = ENTRY_WORDS * 8;

/// The state of an entry, in the bits above the 53 of the fd.
const OPEN: u64 = 1 << 56;
const CLOSING: u64 = 2 << 56;
const STATE_MASK: u64 = 0xff << 56;

const FAMILY_UNIX: u64 = 0;
const FAMILY_V4: u64 = 1 << 16;
const FAMILY_V6: u64 = 2 << 16;

/// A worker's registry of open fds.
pub struct Registry {
    shared: Shared,
}

/// One open connection, as the registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The client.
    pub fd: Fd,
    /// `on_close` had begun when this was read.
    pub closing: bool,
    /// When it was opened, milliseconds since 1970.
    pub connected_at: u64,
    /// When bytes were last received, in milliseconds of the monotonic clock.
    pub received_at: u64,
    /// The other end; `None` for `unix:`.
    pub peer: Option<SocketAddr>,
}

impl Registry {
    /// Makes one with room for `entries` connections. Memory is used only for entries that were
    /// ever in use.
    pub fn create(entries: usize) -> Result<(Registry, OwnedFd)> {
        let (shared, memfd) = Shared::create("wsd-registry", entries.max(1) * ENTRY_BYTES)?;
        Ok((Registry { shared }, memfd))
    }

    /// Opens one that another process made.
    pub fn open(memfd: BorrowedFd<'_>) -> Result<Registry> {
        Ok(Registry { shared: Shared::open(memfd)? })
    }

    /// Opens one only to read it, which is what the manager does with those of workers that live.
    /// To change an entry ends this process.
    pub fn view(memfd: BorrowedFd<'_>) -> Result<Registry> {
        Ok(Registry { shared: Shared::view(memfd)? })
    }

    /// How many entries there is room for.
    pub fn capacity(&self) -> usize {
        self.shared.words().len() / ENTRY_WORDS
    }

    /// Writes an entry. An index beyond the capacity is not recorded.
    pub fn opened(&self, index: usize, entry: &Entry) {
        let Some(words) = self.words(index) else { return };
        let (high, low, port) = pack(entry.peer);
        words[0].store(0, Release);
        words[1].store(entry.connected_at, Relaxed);
        words[2].store(entry.received_at, Relaxed);
        words[3].store(high, Relaxed);
        words[4].store(low, Relaxed);
        words[5].store(port, Relaxed);
        words[0].store(entry.fd.as_u64() | OPEN, Release);
    }

    /// Notes that bytes were received. Cheap: one store.
    pub fn received(&self, index: usize, now_ms: u64) {
        if let Some(words) = self.words(index) {
            words[2].store(now_ms, Relaxed);
        }
    }

    /// Notes that `on_close` is about to run: a replacement must not run it again.
    pub fn closing(&self, index: usize) {
        if let Some(words) = self.words(index) {
            let fd = words[0].load(Relaxed) & !STATE_MASK;
            words[0].store(fd | CLOSING, Release);
        }
    }

    /// As [`closing`](Self::closing), for the entry of a dead process, which several may look
    /// after at once: true for the one that is to run `on_close`.
    pub fn claim(&self, index: usize, fd: Fd) -> bool {
        let (open, closing) = (fd.as_u64() | OPEN, fd.as_u64() | CLOSING);
        self.words(index)
            .is_some_and(|words| words[0].compare_exchange(open, closing, AcqRel, Relaxed).is_ok())
    }

    /// Removes an entry: `on_close` is done, or the connection lives in another process.
    pub fn closed(&self, index: usize) {
        if let Some(words) = self.words(index) {
            words[0].store(0, Release);
        }
    }

    /// Every entry in use.
    #[cfg(any(test, fuzzing))]
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        (0..self.capacity()).filter_map(|index| self.entry(index))
    }

    /// The entry at `index`, if it is in use.
    pub fn entry(&self, index: usize) -> Option<Entry> {
        let words = self.words(index)?;
        let state = words[0].load(Acquire);
        let fd = Fd::try_from(state & !STATE_MASK).ok()?;
        let peer = [3, 4, 5].map(|word: usize| words[word].load(Relaxed));
        let entry = Entry {
            fd,
            closing: state & STATE_MASK == CLOSING,
            connected_at: words[1].load(Relaxed),
            received_at: words[2].load(Relaxed),
            peer: unpack(peer),
        };
        // The writer may have replaced the entry meanwhile; then the next look will find it.
        (words[0].load(Acquire) & !STATE_MASK == fd.as_u64()).then_some(entry)
    }

    fn words(&self, index: usize) -> Option<&[std::sync::atomic::AtomicU64]> {
        let start = index.checked_mul(ENTRY_WORDS)?;
        self.shared.words().get(start..start + ENTRY_WORDS)
    }
}

fn pack(peer: Option<SocketAddr>) -> (u64, u64, u64) {
    let Some(peer) = peer else { return (0, 0, FAMILY_UNIX) };
    let (bits, family) = match peer.ip() {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), FAMILY_V4),
        IpAddr::V6(ip) => (u128::from(ip), FAMILY_V6),
    };
    ((bits >> 64) as u64, bits as u64, u64::from(peer.port()) | family)
}

fn unpack([high, low, port]: [u64; 3]) -> Option<SocketAddr> {
    let ip = match port & !0xffff {
        FAMILY_V4 => IpAddr::from((low as u32).to_be_bytes()),
        FAMILY_V6 => IpAddr::from(Ipv6Addr::from(u128::from(high) << 64 | u128::from(low))),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;
    use std::os::fd::AsFd;

    fn entry(serial: u64, peer: &str) -> Entry {
        Entry {
            fd: Fd::new(1, Slot(2), serial).unwrap(),
            closing: false,
            connected_at: 5,
            received_at: 6,
            peer: peer.parse().ok(),
        }
    }

    #[test]
    fn another_process_reads_what_was_written() {
        let (registry, memfd) = Registry::create(100).unwrap();
        let reader = Registry::open(memfd.as_fd()).unwrap();
        let entries =
            [entry(1, "1.2.3.4:80"), entry(2, "[fe80::1]:65535"), entry(3, "a unix socket")];
        for (index, entry) in entries.iter().enumerate() {
            registry.opened(index * 7, entry);
        }
        assert_eq!(reader.entries().collect::<Vec<_>>(), entries);
        registry.received(0, 99);
        assert_eq!(reader.entry(0).unwrap().received_at, 99);
    }

    #[test]
    fn a_registry_of_the_first_version_is_read_and_written() {
        let golden = crate::ipc::golden::lines(include_str!("../../tests/golden/registry-1"));
        let bytes = &golden["registry"];
        let (shared, memfd) = Shared::create("golden", bytes.len()).unwrap();
        for (word, bytes) in shared.words().iter().zip(bytes.chunks_exact(8)) {
            word.store(u64::from_le_bytes(bytes.try_into().unwrap()), Relaxed);
        }
        let registry = Registry::open(memfd.as_fd()).unwrap();
        let closing = Entry { closing: true, ..entry(2, "[fe80::1]:65535") };
        let entries = [entry(1, "1.2.3.4:80"), closing, entry(3, "a unix socket")];
        assert_eq!(registry.entries().collect::<Vec<_>>(), entries);

        let (ours, _) = Registry::create(4).unwrap();
        for (index, entry) in [0, 1, 3].into_iter().zip(&entries) {
            ours.opened(index, entry);
        }
        ours.closing(1);
        let ours: Vec<u8> =
            ours.shared.words().iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        assert_eq!(data_encoding::HEXLOWER.encode(&ours), data_encoding::HEXLOWER.encode(bytes));
    }

    #[test]
    fn a_closing_entry_is_told_and_a_closed_one_is_gone() {
        let (registry, memfd) = Registry::create(2).unwrap();
        let reader = Registry::open(memfd.as_fd()).unwrap();
        registry.opened(1, &entry(9, "1.2.3.4:80"));
        registry.closing(1);
        assert!(reader.entry(1).unwrap().closing);
        registry.closed(1);
        assert_eq!(reader.entries().count(), 0);
    }

    #[test]
    fn one_alone_claims_a_dead_workers_client() {
        let (registry, memfd) = Registry::create(2).unwrap();
        let other = Registry::open(memfd.as_fd()).unwrap();
        let (dead, next) = (entry(9, "1.2.3.4:80"), entry(10, "1.2.3.4:80"));
        registry.opened(1, &dead);
        assert!(!other.claim(1, next.fd));
        assert!(other.claim(1, dead.fd));
        assert!(!registry.claim(1, dead.fd));
    }

    #[test]
    fn an_index_beyond_the_capacity_is_ignored() {
        let (registry, _memfd) = Registry::create(1).unwrap();
        registry.opened(1_000_000, &entry(1, ""));
        registry.opened(usize::MAX, &entry(1, ""));
        assert_eq!(registry.entries().count(), 0);
    }
}
