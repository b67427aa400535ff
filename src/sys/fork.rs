//! A child that is forked to answer one question and ends with it, so that the child can give up
//! rights that its parent needs.

use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork};

use crate::error::{Result, Subject};

/// What the child says. Only for a process with one thread. A child that panics says nothing.
///
/// # Errors
/// Where no child can be made or heard.
pub fn ask_child(say: impl FnOnce() -> String) -> Result<String> {
    let (mut reader, mut writer) = std::io::pipe().subject(|| "pipe".to_owned())?;
    // SAFETY: the caller has one thread, so the child's memory is whole.
    match unsafe { fork() }.subject(|| "fork".to_owned())? {
        ForkResult::Parent { child } => {
            drop(writer);
            let mut said = String::new();
            let read = reader.read_to_string(&mut said).subject(|| "hear a child".to_owned());
            // Whatever became of the child, nothing of it is left.
            let _ = waitpid(child, None);
            read.map(|_| said)
        }
        ForkResult::Child => {
            drop(reader);
            let said = catch_unwind(AssertUnwindSafe(say)).unwrap_or_default();
            // A parent that is gone hears nothing.
            let _ = writer.write_all(said.as_bytes());
            // SAFETY: ends this process at once; what the parent does at its exit is not the
            // child's to do.
            unsafe { libc::_exit(0) }
        }
    }
}
