//! A long body of a request, in a file.

use std::any::Any;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

/// A body that is too long for memory: a file without a name, which is gone with the last of these
/// values.
#[derive(Debug, Clone)]
pub struct HeldBody {
    file: Arc<File>,
    length: u64,
    /// Given back when the body is gone.
    _room: Rc<dyn Any>,
}

impl HeldBody {
    /// A body of `length` bytes at the beginning of a file. `room` is dropped with the body.
    pub fn new(file: Arc<File>, length: u64, room: Rc<dyn Any>) -> HeldBody {
        HeldBody { file, length, _room: room }
    }

    /// Its bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// What reads at most `most` bytes from `offset` on; fewer at the end, where nothing is left.
    /// It blocks on the disk, so run it by [`Context::task`].
    ///
    /// [`Context::task`]: super::Context::task
    pub fn reader(
        &self,
        offset: u64,
        most: usize,
    ) -> impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static {
        let file = self.file.clone();
        let left = self.length.saturating_sub(offset);
        let most = usize::try_from(left).map_or(most, |left| most.min(left));
        move || {
            let mut part = vec![0; most];
            file.read_exact_at(&mut part, offset)?;
            Ok(part)
        }
    }
}
