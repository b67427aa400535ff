//! Every connection of this worker: by its place in the slab, and by its global number.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::chunked_slab::ChunkedSlab;
use super::connection::Connection;
use super::key::Key;
use crate::fd::Fd;

/// The table.
#[derive(Default)]
pub(in crate::worker) struct Table {
    slab: ChunkedSlab<Connection>,
    by_fd: HashMap<Fd, Key, BuildHasherDefault<FdHasher>>,
    versions: u32,
    /// Who was asked for last: a handler mostly answers whom it was called about.
    recent: Cell<Option<(Fd, Key)>>,
}

impl Table {
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// Puts in what `make` makes of its key.
    pub fn insert(&mut self, make: impl FnOnce(Key) -> Connection) -> Key {
        // The version of a listener's key is 0, so a connection's never is.
        self.versions = self.versions.wrapping_add(1).max(1);
        let version = self.versions;
        let index = self.slab.insert(|index| make(Key { index: index as u32, version }));
        Key { index: index as u32, version }
    }

    #[inline]
    pub fn get(&self, key: Key) -> Option<&Connection> {
        self.slab.get(key.index as usize).filter(|connection| connection.version == key.version)
    }

    #[inline]
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Connection> {
        let connection = self.slab.get_mut(key.index as usize)?;
        (connection.version == key.version).then_some(connection)
    }

    /// The connection at a place where there is one.
    #[inline]
    pub fn entry(&self, index: u32) -> (Key, &Connection) {
        let connection = &self.slab[index as usize];
        (Key { index, version: connection.version }, connection)
    }

    /// The connection at a place where there is one.
    #[inline]
    pub fn entry_mut(&mut self, index: u32) -> (Key, &mut Connection) {
        let connection = &mut self.slab[index as usize];
        (Key { index, version: connection.version }, connection)
    }

    pub fn remove(&mut self, key: Key) -> Option<Connection> {
        self.get(key)?;
        self.slab.remove(key.index as usize)
    }

    /// Makes a number lead to a connection.
    pub fn name(&mut self, fd: Fd, key: Key) {
        self.recent.take();
        self.by_fd.insert(fd, key);
    }

    /// Makes a number lead nowhere.
    pub fn unname(&mut self, fd: Fd) {
        self.recent.take();
        self.by_fd.remove(&fd);
    }

    #[inline]
    pub fn find(&self, fd: Fd) -> Option<Key> {
        if let Some((recent, key)) = self.recent.get()
            && recent == fd
        {
            return Some(key);
        }
        let key = self.by_fd.get(&fd).copied()?;
        self.recent.set(Some((fd, key)));
        Some(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = (Key, &Connection)> {
        self.slab.iter().map(|(index, connection)| {
            (Key { index: index as u32, version: connection.version }, connection)
        })
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut Connection)> {
        self.slab.iter_mut().map(|(index, connection)| {
            (Key { index: index as u32, version: connection.version }, connection)
        })
    }

    /// Everyone, for work that needs the table again for each.
    pub fn keys(&self) -> Vec<Key> {
        self.iter().map(|(key, _)| key).collect()
    }

    /// Gives memory back after a crowd has left.
    pub fn shrink(&mut self) {
        self.slab.shrink();
        self.by_fd.shrink_to_fit();
    }
}

/// Numbers are handed out by us, so nobody can choose them to collide.
#[derive(Default)]
pub(in crate::worker) struct FdHasher(u64);

impl Hasher for FdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio spreads consecutive numbers over the high bits, which the map uses.
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}
