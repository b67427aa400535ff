//! Packets between the processes: what is read of one, written again, is the same bytes; so no
//! two packets say the same. A body beside its packet is what its memfd holds, or an error. The
//! state of connections on their way comes back likewise, and an engine that is put back takes
//! whatever comes next.
//!
//! Input: the direction, flags, a packet (or, for the last direction, a batch of connections).

#![no_main]

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wsd::fuzzing::repack;
use wsd::ipc::{INLINE_BYTES_MAX, IPC_VERSION};
use wsd::ipc::messages::{
    ManagerToMaster, ManagerToWorker, MasterToManager, MasterToProbe, MasterToWorker,
    ProbeToMaster, WorkerToManager, WorkerToMaster, WorkerToWorker,
};
use wsd::ipc::packet::{Body, Frames, Packet};
use wsd::sys::memory::write_sealed;
use wsd::websocket::{Engine, Limits};
use wsd_fuzz::said::{codec, feed};

const HEADER_BYTES: usize = 8;
/// The shortest body that stands beside its packet.
const BESIDE: &[u8] = &[4; INLINE_BYTES_MAX + 1];
const LIMITS: Limits = Limits { message_bytes: 4096, fragments: 16 };

fuzz_target!(|input: &[u8]| {
    let [direction, flags, packet @ ..] = input else { return };
    match direction % 10 {
        0 => read::<MasterToWorker>(packet, *flags),
        1 => read::<WorkerToMaster>(packet, *flags),
        2 => read::<MasterToManager>(packet, *flags),
        3 => read::<ManagerToMaster>(packet, *flags),
        4 => read::<ManagerToWorker>(packet, *flags),
        5 => read::<WorkerToManager>(packet, *flags),
        6 => read::<MasterToProbe>(packet, *flags),
        7 => read::<ProbeToMaster>(packet, *flags),
        8 => travel(packet),
        _ => read::<WorkerToWorker>(packet, *flags),
    }
});

fn read<T: Serialize + DeserializeOwned>(packet: &[u8], flags: u8) {
    let Ok(mut frames) = Frames::new(packet) else {
        assert!(packet.len() < HEADER_BYTES || packet[0] != IPC_VERSION);
        return;
    };
    static SEALED: OnceLock<OwnedFd> = OnceLock::new();
    let sealed = SEALED.get_or_init(|| write_sealed("fuzz", BESIDE).unwrap());
    let memfd = || sealed.try_clone().unwrap();
    let mut fds: Vec<OwnedFd> = (0..flags % 4).map(|_| memfd()).collect();
    let mut again = Packet::new(frames.id);
    while let Ok(Some(received)) = frames.next::<T>(&mut fds) {
        match received.body {
            Body::Inline(body) => again.add(&received.message, body).unwrap(),
            Body::Beside(memfd, len) => {
                let copy = memfd.try_clone().unwrap();
                again.add_beside(&received.message, copy, len).unwrap();
                let bytes = Body::Beside(memfd, len).into_bytes();
                assert_eq!(bytes.is_ok(), len == BESIDE.len());
                assert!(bytes.is_ok_and(|bytes| bytes == BESIDE) || len != BESIDE.len());
            }
        }
    }
    assert!(packet[HEADER_BYTES..].starts_with(&again.bytes[HEADER_BYTES..]));
    assert_eq!([packet[0], packet[2]], [again.bytes[0], again.bytes[2]]);
    assert_eq!(packet[4..HEADER_BYTES], again.bytes[4..HEADER_BYTES]);
}

fn travel(batch: &[u8]) {
    let Ok((again, engines)) = repack(batch) else { return };
    assert_eq!(again, batch);
    for state in engines {
        let Ok(mut engine) = Engine::thaw(state.clone()) else { continue };
        assert_eq!(Engine::thaw(state.clone()).unwrap().freeze(), state);
        let (mut codec, mut out) = (codec(), Vec::new());
        feed(&mut engine, &batch[..batch.len().min(512)], &LIMITS, &mut codec, &mut out);
        Engine::thaw(engine.freeze()).unwrap();
    }
}
