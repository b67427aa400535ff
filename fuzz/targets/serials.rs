//! The file of serials: whatever it says, no serial is granted twice, none beyond the last, and
//! what is written is read again as it was.
//!
//! Input: the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use wsd::fd::{SERIAL_MAX, Slot};
use wsd::fuzzing::serials;
use wsd::ipc::messages::LEASE_SERIALS;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let mut next = serials::parse(&text);
    assert_eq!(serials::parse(&serials::render(&next)), next);
    for slot in [0, 1, 255] {
        let mut last = 0;
        for _ in 0..3 {
            let before = next.get(&slot).copied();
            let Some(first) = serials::block(&next, Slot(slot), 1) else {
                assert!(before.unwrap_or(1) > SERIAL_MAX + 1 - LEASE_SERIALS);
                break;
            };
            assert!(first > last && before.is_none_or(|before| before == first));
            last = first + LEASE_SERIALS - 1;
            assert!(last <= SERIAL_MAX);
            next.insert(slot, last + 1);
            assert_eq!(serials::parse(&serials::render(&next)), next);
        }
    }
});
