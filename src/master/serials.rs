//! Serials of clients, leased to workers in blocks, and never given out twice.
//!
//! Before a block is granted, the slot's next block is written to `runtime_dir/serials`. Should
//! that file be lost, the base comes from the clock: seconds since 2026, shifted left by 9. A
//! number could then repeat only if a slot had opened more than 512 connections a second on
//! average since it began, or the clock was set back. A block whose write failed is not granted,
//! and the next try is for the same block.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use crate::config::Config;
use crate::error::{Error, Result, Subject};
use crate::fd::{SERIAL_MAX, Slot};
use crate::ipc::messages::LEASE_SERIALS;
use crate::sys::clock;
use crate::sys::dir::Dir;

/// 2026-01-01T00:00:00Z in seconds since 1970.
const EPOCH_2026: u64 = 1_767_225_600;

/// What stands for a slot that has given out every serial.
const NEXT_MAX: u64 = SERIAL_MAX + 1;

/// The file in the runtime directory.
pub const FILE: &str = "serials";
/// Only root and the server's user have a use for it.
const FILE_MODE: u32 = 0o640;
/// Bytes of the file with all 256 slots, and air.
const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The leases of every slot.
pub struct Serials {
    dir: Dir,
    next: BTreeMap<u8, u64>,
    /// Whether a file said what was granted before.
    began_with_file: bool,
    /// Whether the greatest of file, engine and clock is the next: of a node of a cluster.
    takes_greatest: bool,
    /// Why the last write failed, if it did.
    trouble: Option<String>,
}

impl Serials {
    /// Reads what was granted before. A missing or damaged file starts from the clock.
    ///
    /// # Errors
    /// When there is a file and it cannot be read: what it says would be repeated.
    pub fn open(dir: Dir, config: &Config) -> Result<Serials> {
        let path = dir.path().join(FILE);
        let text = match dir.open(FILE, OFlag::O_RDONLY | OFlag::O_NONBLOCK, 0) {
            Err(Errno::ENOENT) => Ok(Vec::new()),
            Err(errno) => Err(errno.into()),
            Ok(file) => {
                let mut text = Vec::new();
                File::from(file).take(FILE_BYTES_MAX).read_to_end(&mut text).map(|_| text)
            }
        };
        let text = text.subject(|| format!("read {}", path.display()))?;
        let text = String::from_utf8(text).unwrap_or_default();
        let next = parse(&text);
        let began_with_file = !next.is_empty();
        let takes_greatest = config.node().is_some();
        Ok(Serials { dir, next, began_with_file, takes_greatest, trouble: None })
    }

    /// Takes over what the image before this one had granted, which knows better than the file:
    /// that may be gone meanwhile.
    pub fn adopt(dir: Dir, next: BTreeMap<u8, u64>, config: &Config) -> Serials {
        let (began_with_file, takes_greatest) = (true, config.node().is_some());
        Serials { dir, next, began_with_file, takes_greatest, trouble: None }
    }

    /// Goes on in another directory, since the old one is gone.
    ///
    /// # Errors
    /// When the file cannot be written there now; a lease tries again.
    pub fn move_to(&mut self, dir: Dir) -> Result<()> {
        self.dir = dir;
        self.write(&self.next.clone())
    }

    /// The engine of the cluster says how far this node has come.
    pub fn learn(&mut self, known: &[(u8, u64)]) {
        for (slot, next) in known {
            let known = self.next.entry(*slot).or_default();
            *known = (*known).max((*next).min(NEXT_MAX));
        }
    }

    /// The first serial of a block that nobody ever had.
    ///
    /// # Errors
    /// When the file cannot be written, or when the slot has no block left.
    pub fn lease(&mut self, slot: Slot) -> Result<u64> {
        self.lease_after(slot, clock_base(clock::unix_ms() / 1000))
    }

    fn lease_after(&mut self, slot: Slot, base: u64) -> Result<u64> {
        if self.takes_greatest && base <= NEXT_MAX - LEASE_SERIALS {
            self.learn(&[(slot.0, base)]);
        }
        let first = block(&self.next, slot, base);
        let first = first.ok_or_else(|| {
            Error::new(format!(
                "slot {slot} has given out all of its {SERIAL_MAX} numbers: stop the server and \
                 remove {}; numbers of clients that left long ago may then come again",
                self.dir.path().join(FILE).display()
            ))
        })?;
        let mut next = self.next.clone();
        next.insert(slot.0, first + LEASE_SERIALS);
        self.write(&next)?;
        self.next = next;
        Ok(first)
    }

    /// Whether it was known at the start what was granted before.
    pub fn began_with_file(&self) -> bool {
        self.began_with_file
    }

    /// The slots with their next serials.
    pub fn next(&self) -> &BTreeMap<u8, u64> {
        &self.next
    }

    /// Why no numbers can be leased now, as a whole sentence.
    pub fn trouble(&self) -> Option<&String> {
        self.trouble.as_ref()
    }

    fn write(&mut self, next: &BTreeMap<u8, u64>) -> Result<()> {
        let written = self.dir.replace(FILE, render(next).as_bytes(), FILE_MODE);
        self.trouble = written.as_ref().err().map(|error| format!("no numbers to lease: {error}"));
        written
    }
}

/// The first serial of a slot's next block, `base` where nothing is known of the slot. `None` where
/// no block is left.
pub fn block(next: &BTreeMap<u8, u64>, slot: Slot, base: u64) -> Option<u64> {
    // The file wins while it is ahead; the clock where it was lost.
    let first = next.get(&slot.0).copied().unwrap_or(base);
    (first <= NEXT_MAX - LEASE_SERIALS).then_some(first)
}

/// The file.
pub fn render(next: &BTreeMap<u8, u64>) -> String {
    let mut text = String::from("# slot and its next serial; see docs/operations.md\n");
    for (slot, next) in next {
        text.push_str(&format!("{slot} {next}\n"));
    }
    text
}

/// What a file says, as far as that makes sense.
pub fn parse(text: &str) -> BTreeMap<u8, u64> {
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
    use std::fs;
    use std::path::Path;

    use super::*;

    fn at(path: &Path) -> Dir {
        Dir::adopt(fs::File::open(path).unwrap().into(), path)
    }

    fn open(path: &Path) -> Result<Serials> {
        Serials::open(at(path), &Config::default())
    }

    #[test]
    fn no_block_is_granted_twice_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let mut serials = open(dir.path()).unwrap();
        let first = serials.lease(Slot(1)).unwrap();
        assert_eq!(serials.lease(Slot(1)).unwrap(), first + LEASE_SERIALS);
        let mut again = open(dir.path()).unwrap();
        assert_eq!(again.lease(Slot(1)).unwrap(), first + 2 * LEASE_SERIALS);
    }

    #[test]
    fn no_number_is_given_twice_while_one_of_file_engine_and_clock_is_whole() {
        const MARGIN: u64 = 4 * LEASE_SERIALS;
        let dir = tempfile::tempdir().unwrap();
        let (mut engine, mut given) = (0, std::collections::BTreeSet::new());
        // A slow clock of a busy node, which has come far before.
        let mut clock = 1_000_u64;
        for restart in 0..60_u64 {
            // Two of the three are lost or set back, in turn; the engine is behind by what was
            // granted since it was told last at the most.
            let lost = restart % 3;
            if lost != 0 {
                let _ = fs::remove_file(dir.path().join("serials"));
            }
            let engine_says = if lost != 1 { engine / 2 } else { engine };
            let now = if lost != 2 { 1 } else { clock };
            let mut serials = open(dir.path()).unwrap();
            serials.takes_greatest = true;
            serials.learn(&[(3, engine_says)]);
            for _ in 0..=restart % 4 {
                let first = serials.lease_after(Slot(3), now).unwrap();
                assert!(given.insert(first), "{first} comes again, restart {restart}");
                let before = given.range(..first).next_back();
                assert!(before.is_none_or(|before| before + LEASE_SERIALS <= first));
                engine = engine.max(first + LEASE_SERIALS + MARGIN);
                // No worker is granted more than the clock counts, or the clock says nothing.
                clock = clock.max(first + LEASE_SERIALS);
            }
        }
        assert!(given.len() as u64 * LEASE_SERIALS > 1_000_000);
    }

    #[test]
    fn a_damaged_file_starts_from_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("serials"), "1 0\nnonsense\n2 99999999999999999999\n").unwrap();
        let first = open(dir.path()).unwrap().lease(Slot(1)).unwrap();
        assert!(first >= clock_base(EPOCH_2026 + 1));
    }

    #[test]
    fn a_block_that_could_not_be_written_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut serials = open(dir.path()).unwrap();
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
            let mut serials = open(dir.path()).unwrap();
            if start == last {
                assert_eq!(serials.lease(Slot(1)).unwrap(), last);
                assert!(crate::fd::Fd::new(0, Slot(1), last + LEASE_SERIALS - 1).is_some());
            }
            for mut serials in [serials, open(dir.path()).unwrap()] {
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
        assert!(open(dir.path()).is_err());
        fs::remove_dir(dir.path().join("serials")).unwrap();
        let mut serials =
            Serials::adopt(at(dir.path()), BTreeMap::from([(1, far)]), &Config::default());
        assert_eq!(serials.lease(Slot(1)).unwrap(), far);
    }
}
