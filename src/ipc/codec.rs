//! How a message becomes bytes. The only file that knows bincode.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Bytes a message may have, its body and descriptors apart. A hostile length is refused before
/// anything is allocated for it.
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;

fn options() -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(MESSAGE_BYTES_MAX)
        .reject_trailing_bytes()
}

/// Appends a message to `out`; its length is the answer.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<usize> {
    let start = out.len();
    match options().serialize_into(&mut *out, message) {
        Ok(()) => Ok(out.len() - start),
        Err(error) => {
            out.truncate(start);
            Err(Error::new(format!("cannot encode an IPC message: {error}")))
        }
    }
}

/// Reads a message that fills `bytes` exactly.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    options()
        .deserialize(bytes)
        .map_err(|error| Error::new(format!("not an IPC message of version 1: {error}")))
}
