//! The name of a connection within its worker.

/// Names a connection for as long as it is in the table, and nobody else after.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::worker) struct Key {
    /// Its place in the slab, and in the registry.
    pub index: u32,
    /// Which use of that place this is.
    pub version: u32,
}

impl Key {
    /// As the epoll set carries it.
    pub fn to_u64(self) -> u64 {
        u64::from(self.version) << 32 | u64::from(self.index)
    }

    pub fn from_u64(data: u64) -> Key {
        Key { index: data as u32, version: (data >> 32) as u32 }
    }
}
