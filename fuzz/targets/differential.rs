//! What we accept, tungstenite accepts alike. Input: the bytes of a client.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|wire: &[u8]| wsd_fuzz::oracle::compare(wire));
