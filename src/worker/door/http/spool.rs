//! Long bodies on their way to a handler that does not want them in memory: they are written to a
//! file as they come.

use std::any::Any;
use std::cell::Cell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use crate::api::{Context, HeldBody};

/// Where bodies wait, and what they take there.
pub struct Disk {
    directory: PathBuf,
    limit: u64,
    used: Cell<u64>,
}

impl Disk {
    /// A directory in which the bodies of a worker may take `limit` bytes together.
    pub fn new(directory: PathBuf, limit: u64) -> Rc<Disk> {
        Rc::new(Disk { directory, limit, used: Cell::new(0) })
    }
}

/// What one body takes, given back when it is gone.
struct Room {
    disk: Rc<Disk>,
    bytes: Cell<u64>,
}

impl Room {
    fn take(&self, bytes: u64) -> bool {
        let used = self.disk.used.get() + bytes;
        if used > self.disk.limit {
            return false;
        }
        self.disk.used.set(used);
        self.bytes.set(self.bytes.get() + bytes);
        true
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.disk.used.set(self.disk.used.get() - self.bytes.get());
    }
}

/// There is no room on the disk, or the disk does not work.
pub(super) struct NoRoom;

/// A body that is being written to a file. The file is made with its first bytes.
pub struct Spool {
    context: Context,
    memory_max: usize,
    room: Rc<Room>,
    file: Option<Arc<File>>,
    length: u64,
}

impl Spool {
    /// For a body of which at most `memory_max` bytes are to be in memory.
    pub fn new(context: Context, disk: &Rc<Disk>, memory_max: usize) -> Spool {
        let room = Rc::new(Room { disk: disk.clone(), bytes: Cell::new(0) });
        Spool { context, memory_max, room, file: None, length: 0 }
    }

    /// How many bytes are to be in memory at the most.
    pub(super) fn memory_max(&self) -> usize {
        self.memory_max
    }

    /// Whether something was written.
    pub(super) fn has_begun(&self) -> bool {
        self.file.is_some()
    }

    /// Writes a part, on a task thread, and gives its buffer back.
    pub(super) async fn write(&mut self, mut part: Vec<u8>) -> Result<Vec<u8>, NoRoom> {
        if !self.room.take(part.len() as u64) {
            tracing::warn!(limit = self.room.disk.limit, "bodies take upload_tmp_max");
            return Err(NoRoom);
        }
        let (file, at) = (self.file.clone(), self.length);
        let directory = self.room.disk.directory.clone();
        self.length += part.len() as u64;
        let write = move || -> io::Result<(Arc<File>, Vec<u8>)> {
            let file = match file {
                Some(file) => file,
                None => Arc::new(tempfile::tempfile_in(directory)?),
            };
            file.write_all_at(&part, at)?;
            part.clear();
            Ok((file, part))
        };
        match self.context.task(write).await {
            Ok(Ok((file, part))) => {
                self.file = Some(file);
                Ok(part)
            }
            Ok(Err(error)) => {
                let directory = self.room.disk.directory.display();
                tracing::error!(%error, %directory, "a body cannot be written to upload_tmp_dir");
                Err(NoRoom)
            }
            Err(error) => {
                tracing::warn!(%error, "a body is not written");
                Err(NoRoom)
            }
        }
    }

    /// The body, where something of it was written.
    pub(super) fn finish(self) -> Option<HeldBody> {
        let room: Rc<dyn Any> = self.room;
        Some(HeldBody::new(self.file?, self.length, room))
    }
}
