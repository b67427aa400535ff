//! What comes on a channel of a cluster, which whoever can reach the engine may write: it is an
//! error, or an envelope that is written again as the same bytes.
//!
//! Input: an envelope.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsd::ipc::cluster::envelope::{read, write};

/// The place of the byte that means nothing yet.
const RESERVED: usize = 5;

fuzz_target!(|data: &[u8]| {
    let Ok((from, message, body)) = read(data) else { return };
    let mut again = write(from, &message, body).expect("what was read can be written");
    again[RESERVED] = data[RESERVED];
    assert_eq!(again, data);
});
