//! How a message becomes bytes. The only file that knows bincode.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};

/// Bytes a message may have, its body and descriptors apart. A hostile length is refused before
/// anything is allocated for it.
const MESSAGE_BYTES_MAX: u64 = 1024 * 1024;

fn options(bytes_max: u64) -> impl Options {
    bincode::DefaultOptions::new()
        .with_fixint_encoding()
        .with_limit(bytes_max)
        .reject_trailing_bytes()
}

/// Appends a message to `out`; its length is the answer.
pub fn encode<T: Serialize>(message: &T, out: &mut Vec<u8>) -> Result<usize> {
    encode_within(MESSAGE_BYTES_MAX, message, out)
}

/// As [`encode`], for what travels as a body and may be larger.
pub fn encode_within<T: Serialize>(
    bytes_max: u64,
    message: &T,
    out: &mut Vec<u8>,
) -> Result<usize> {
    let start = out.len();
    match options(bytes_max).serialize_into(&mut *out, message) {
        Ok(()) => Ok(out.len() - start),
        Err(error) => {
            out.truncate(start);
            Err(Error::new(format!("cannot encode an IPC message: {error}")))
        }
    }
}

/// Reads a message that fills `bytes` exactly.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    decode_within(MESSAGE_BYTES_MAX, bytes)
}

/// As [`decode`], for what [`encode_within`] made.
pub fn decode_within<T: DeserializeOwned>(bytes_max: u64, bytes: &[u8]) -> Result<T> {
    options(bytes_max)
        .deserialize(bytes)
        .map_err(|error| Error::new(format!("not an IPC message of version 1: {error}")))
}
