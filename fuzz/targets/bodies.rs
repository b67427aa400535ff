//! Bodies in memory beside a packet: one is taken if the memory is sealed and as long as the frame
//! tells, and is then what the memory holds; anything else is an error.
//!
//! Input: what to seal, whether the frame lies about the length, by how much, and the bytes.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::uio::pwrite;
use nix::unistd::ftruncate;
use wsd::api::Opcode;
use wsd::fd::{Slot, WorkerId};
use wsd::ipc::INLINE_BYTES_MAX;
use wsd::ipc::messages::WorkerToManager;
use wsd::ipc::packet::{Frames, Packet};
use wsd::sys::memory::open_memfd;

const ID: WorkerId = WorkerId { slot: Slot(0), epoch: 1 };

fuzz_target!(|input: &[u8]| {
    let [seals, size, lie, bytes @ ..] = input else { return };
    let len = usize::from(*size % 3) * INLINE_BYTES_MAX + bytes.len();
    let lie = usize::from(*lie % 3);
    let memfd = open_memfd("fuzz").unwrap();
    ftruncate(&memfd, len as i64).unwrap();
    pwrite(&memfd, bytes, 0).unwrap();
    let all = [
        SealFlag::F_SEAL_SHRINK,
        SealFlag::F_SEAL_GROW,
        SealFlag::F_SEAL_WRITE,
        SealFlag::F_SEAL_SEAL,
    ];
    let chosen = all.into_iter().enumerate().filter(|(bit, _)| seals >> bit & 1 == 1);
    let chosen: SealFlag = chosen.map(|(_, seal)| seal).collect();
    fcntl(&memfd, FcntlArg::F_ADD_SEALS(chosen)).unwrap();
    let push = WorkerToManager::Push { id: 0, fd: 1, opcode: Opcode::Binary };
    let mut packet = Packet::new(ID);
    packet.add_beside(&push, memfd, len + lie).unwrap();
    let mut frames = Frames::new(&packet.bytes).unwrap();
    let frame = frames.next::<WorkerToManager>(&mut packet.fds);
    let sealed = seals & 0b111 == 0b111;
    assert_eq!(frame.is_ok(), sealed && lie == 0 && len > INLINE_BYTES_MAX);
    if let Ok(frame) = frame {
        let body = frame.unwrap().body.into_bytes().unwrap();
        assert!(body.len() == len && body.starts_with(bytes));
        assert!(body[bytes.len()..].iter().all(|byte| *byte == 0));
    }
});
