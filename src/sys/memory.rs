//! Memory that several processes share.

use std::ffi::CString;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;
use nix::unistd::{ftruncate, write};

use crate::error::{Error, Result, Subject};
use crate::sys::process;

/// A shared mapping, seen as words that any process may read or write at any time.
pub struct Shared {
    start: NonNull<AtomicU64>,
    words: usize,
}

impl Shared {
    /// Makes a memfd of `bytes` (rounded up to words), all zero and of fixed size, and maps it.
    pub fn create(name: &str, bytes: usize) -> Result<(Shared, OwnedFd)> {
        let memfd = memfd(name)?;
        let bytes = bytes.next_multiple_of(8);
        ftruncate(&memfd, bytes as i64).subject(|| format!("size {name}"))?;
        // Without the seals another holder could shrink it under us, and a read would be SIGBUS.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
        fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals)).subject(|| format!("seal {name}"))?;
        Ok((Shared::open(memfd.as_fd())?, memfd))
    }

    /// Maps a memfd that another process made with [`create`](Self::create).
    pub fn open(memfd: BorrowedFd<'_>) -> Result<Shared> {
        Shared::map(memfd, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
    }

    /// As [`open`](Self::open), only to read: a store ends this process.
    pub fn view(memfd: BorrowedFd<'_>) -> Result<Shared> {
        Shared::map(memfd, ProtFlags::PROT_READ)
    }

    fn map(memfd: BorrowedFd<'_>, access: ProtFlags) -> Result<Shared> {
        let seals = fcntl(memfd, FcntlArg::F_GET_SEALS).subject(|| "read seals".to_owned())?;
        if seals & SealFlag::F_SEAL_SHRINK.bits() == 0 {
            return Err(Error::new("shared memory that could shrink is refused"));
        }
        let stat = fstat(memfd).subject(|| "stat shared memory".to_owned())?;
        let bytes = usize::try_from(stat.st_size).unwrap_or(0);
        let length = NonZeroUsize::new(bytes).ok_or_else(|| Error::new("empty shared memory"))?;
        // SAFETY: a new shared mapping at an address of the kernel's choice; it is sealed
        // against shrinking, so all of it stays backed while it is mapped.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, memfd, 0) }
            .subject(|| "map shared memory".to_owned())?;
        Ok(Shared { start: start.cast(), words: bytes / 8 })
    }

    /// The memory.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `words` long and lives as long as self; any bits
        // are a valid AtomicU64, and every access by every process is atomic.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `open` made, and `words` lends it no longer than self.
        // There is nothing to do about an error.
        let _ = unsafe { munmap(self.start.cast(), self.words * 8) };
    }
}

/// Seals memory against every writer but those who have it mapped for writing already: no
/// descriptor of it writes any more, and none can be mapped for that.
pub fn seal_for_others(memfd: BorrowedFd<'_>) -> Result<()> {
    let seals = SealFlag::F_SEAL_FUTURE_WRITE | SealFlag::F_SEAL_SEAL;
    fcntl(memfd, FcntlArg::F_ADD_SEALS(seals))
        .map(drop)
        .subject(|| "seal shared memory (needs Linux 5.1)".to_owned())
}

/// An empty memfd, to be written by whoever holds it.
pub fn open_memfd(name: &str) -> Result<OwnedFd> {
    memfd(name)
}

fn memfd(name: &str) -> Result<OwnedFd> {
    let c_name = CString::new(name).map_err(|_| Error::new("a memfd's name has a NUL"))?;
    let memfd =
        memfd_create(c_name.as_c_str(), MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
            .subject(|| format!("memfd_create {name}"))?;
    // Above the numbers that `process::reserve` and `process::place` take: one that a master makes
    // before these are reserved would be written over by them.
    process::duplicate_number(memfd.as_raw_fd())
}

/// Puts bytes into a memfd that nobody can change any more.
pub fn write_sealed(name: &str, mut bytes: &[u8]) -> Result<OwnedFd> {
    let memfd = memfd(name)?;
    while !bytes.is_empty() {
        let written = write(&memfd, bytes).subject(|| format!("write {name}"))?;
        bytes = &bytes[written..];
    }
    let seals = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals)).subject(|| format!("seal {name}"))?;
    Ok(memfd)
}

/// Whether a descriptor is what [`write_sealed`] makes of `len` bytes: memory that cannot change
/// any more.
///
/// # Errors
/// When it is anything else: a file, a pipe, or memory that somebody may still write or cut off.
pub fn check_sealed(memfd: BorrowedFd<'_>, len: usize) -> Result<()> {
    let sealed = fcntl(memfd, FcntlArg::F_GET_SEALS).map(SealFlag::from_bits_retain);
    let wanted = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    if !sealed.is_ok_and(|seals| seals.contains(wanted)) {
        return Err(Error::new("a body beside its packet is not sealed memory"));
    }
    let stat = fstat(memfd).subject(|| "stat a sealed memfd".to_owned())?;
    if usize::try_from(stat.st_size) != Ok(len) {
        return Err(Error::new("a sealed memfd has another length than its packet says"));
    }
    Ok(())
}

/// Reads all of a memfd made by [`write_sealed`], however long it is.
pub fn read_sealed_whole(memfd: OwnedFd) -> Result<Bytes> {
    let stat = fstat(&memfd).subject(|| "stat a sealed memfd".to_owned())?;
    read_sealed(memfd, usize::try_from(stat.st_size).unwrap_or(0))
}

/// Reads the `len` bytes of a memfd made by [`write_sealed`].
pub fn read_sealed(memfd: OwnedFd, len: usize) -> Result<Bytes> {
    check_sealed(memfd.as_fd(), len)?;
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        let read = nix::sys::uio::pread(&memfd, &mut bytes[done..], done as i64)
            .subject(|| "read a sealed memfd".to_owned())?;
        if read == 0 {
            return Err(Error::new("a sealed memfd ends early"));
        }
        done += read;
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::Relaxed;

    #[test]
    fn two_mappings_show_the_same_words() {
        let (ours, memfd) = Shared::create("test", 20).unwrap();
        let theirs = Shared::open(memfd.as_fd()).unwrap();
        assert_eq!(ours.words().len(), 3);
        ours.words()[2].store(7, Relaxed);
        assert_eq!(theirs.words()[2].load(Relaxed), 7);
    }

    #[test]
    fn a_sealed_memfd_gives_its_bytes_and_takes_no_more() {
        let memfd = write_sealed("test", b"hello").unwrap();
        assert!(write(&memfd, b"x").is_err());
        assert_eq!(read_sealed(memfd, 5).unwrap(), "hello");
        assert!(read_sealed(write_sealed("test", b"hello").unwrap(), 6).is_err());
    }

    #[test]
    fn what_is_not_sealed_memory_is_not_read() {
        let open = memfd("test").unwrap();
        write(&open, b"hello").unwrap();
        assert!(read_sealed(open, 5).is_err());
        let (shared, memfd) = Shared::create("test", 8).unwrap();
        drop(shared);
        assert!(read_sealed(memfd, 8).is_err());
        // A read of this would not come back before somebody writes.
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(read_sealed(reader.into(), 0).is_err());
        assert!(read_sealed(std::fs::File::open("/dev/zero").unwrap().into(), 0).is_err());
    }
}
