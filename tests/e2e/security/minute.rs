//! A worker that was taken over, at full speed: `scripts/attack worker`.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use wsd::api::{Opcode, ProcessId, Verdict};
use wsd::fd::{Fd, Slot, WorkerId};
use wsd::ipc::messages::{Left, Origin, WorkerToManager, WorkerToMaster};
use wsd::ipc::packet::Packet;

use super::trust::{overwrite_in_memory, resident};
use crate::harness::*;

const MIB: i64 = 1 << 20;
const KINDS: u64 = 11;
/// How long one kind of attack goes on, or until its worker is replaced.
const BURST: Duration = Duration::from_secs(2);

/// Numbers that nobody chose.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn worker(&mut self) -> WorkerId {
        WorkerId { slot: Slot((self.roll() % 3) as u8), epoch: (self.roll() % 4) as u32 }
    }
}

/// Any message, well formed and out of place.
fn any(dice: &mut Dice) -> WorkerToManager {
    let (id, link, fd) = (dice.roll(), (1 << 32) + dice.roll() % 4, dice.roll() % (1 << 53));
    let (from, to) = (dice.worker(), Slot((dice.roll() % 3) as u8));
    let origin = if id % 2 == 0 { Origin::Control } else { Origin::Worker(from) };
    match dice.roll() % 17 {
        0 => WorkerToManager::Push { id, fd, opcode: Opcode::Text },
        1 => WorkerToManager::Close { id, fd, code: 1000 },
        2 => WorkerToManager::Info { id, fd },
        3 => WorkerToManager::List { id },
        4 => WorkerToManager::Verdict { origin, id, verdict: Verdict::Queued },
        5 => WorkerToManager::InfoAnswer { origin, id, info: None },
        6 => WorkerToManager::Alive(id),
        7 => WorkerToManager::WantDirect { to },
        8 => WorkerToManager::Through { link },
        9 => WorkerToManager::Indirect { link },
        10 => WorkerToManager::PeerEnded { link },
        11 => WorkerToManager::CanGive,
        12 => WorkerToManager::Gave { pass: link, left: Left::More },
        13 => WorkerToManager::Adopted { pass: link, fds: vec![fd] },
        14 => WorkerToManager::Gives { manager: 1, pass: link, fds: vec![fd] },
        15 => {
            WorkerToManager::Holds { manager: 1, pass: link, from, fds: vec![fd], answered: true }
        }
        _ => WorkerToManager::Drained,
    }
}

/// One kind of attack until its time is over, or the links are gone. How many packets were taken.
fn attack(kind: u64, worker: &Stolen, pid: i32, dice: &mut Dice) -> u64 {
    let until = Instant::now() + BURST;
    let nobody = Fd::new(0, Slot(0), 1 << 38).unwrap().as_u64();
    let null = std::fs::File::open("/dev/null").unwrap();
    let many: Vec<BorrowedFd<'_>> = vec![null.as_fd(); 253];
    let app = |dice: &mut Dice| ProcessId {
        place: (dice.roll() % 4) as u16,
        epoch: (dice.roll() % 1000) as u32,
    };
    let mut taken = 0;
    while Instant::now() < until {
        let many_of = |message: WorkerToManager| worker.packet(&message, b"", 1_000).bytes;
        let (bytes, fds): (Vec<u8>, &[BorrowedFd<'_>]) = match kind {
            0 => (many_of(WorkerToManager::Push { id: 1, fd: nobody, opcode: Opcode::Text }), &[]),
            1 => (many_of(WorkerToManager::List { id: 1 }), &[]),
            2 => {
                let ranges = (0..2_000).map(|_| (dice.roll() >> 11, dice.roll() >> 11)).collect();
                let owns = WorkerToManager::Owns { manager: 1, ranges, last: false };
                (worker.packet(&owns, b"", 1).bytes, &[])
            }
            3 => ((0..100 + dice.roll() % 60_000).map(|_| dice.roll() as u8).collect(), &[]),
            4 => (many_of(WorkerToManager::Alive(1)), &many),
            5 => {
                let origin = Origin::Worker(WorkerId { slot: Slot(1), epoch: 1 });
                let verdict = Verdict::Queued;
                (many_of(WorkerToManager::Verdict { origin, id: 1, verdict }), &[])
            }
            6 => {
                let mut packet = Packet::new(worker.id);
                for _ in 0..500 {
                    packet.add(&any(dice), b"").unwrap();
                }
                (packet.bytes, &many[..3])
            }
            7 => {
                taken += u64::from(overwrite_in_memory(pid) > 0);
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
            8 | 9 => {
                let id = app(dice);
                let sent = match kind {
                    8 => worker.try_tell_master(&WorkerToMaster::StartApp { id }, &many[..2]),
                    _ => worker.try_tell_master(&WorkerToMaster::KillApp { id }, &many),
                };
                match sent {
                    Ok(()) => taken += 1,
                    Err(nix::errno::Errno::EAGAIN) => std::thread::yield_now(),
                    Err(_) => return taken,
                }
                continue;
            }
            _ => {
                let mut bytes = worker.packet(&WorkerToManager::Drained, b"", 100).bytes;
                let at = dice.roll() as usize % bytes.len();
                bytes[at] ^= 1 << (dice.roll() % 8);
                (bytes, &[])
            }
        };
        match worker.to_manager(&bytes, fds) {
            Ok(()) => taken += 1,
            Err(nix::errno::Errno::EAGAIN) => std::thread::yield_now(),
            Err(_) => return taken,
        }
    }
    taken
}

/// The worker of slot 0 as it is now.
async fn current(server: &Server) -> Option<(i32, u32)> {
    let status = server.status().await;
    let worker = status["workers"].as_array()?.iter().find(|worker| {
        worker["slot"] == 0 && (worker["state"] == "serving" || worker["state"] == "hung")
    })?;
    Some((worker["pid"].as_i64()? as i32, worker["epoch"].as_u64()? as u32))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures; scripts/attack worker"]
async fn a_worker_that_was_taken_over_does_what_it_likes() {
    let seconds = std::env::var("ATTACK_SECONDS").ok().and_then(|it| it.parse().ok());
    let end = Instant::now() + Duration::from_secs(seconds.unwrap_or(60));
    let server = Setup::testbed().set("max_connection", 1_000).start().await;
    let (other, master) = (server.serving(1, None).await.pid, server.master().await);
    let manager = server.manager().await;
    let mut honest = server.client_on(1).await;
    let (mut worst_status, mut worst_echo) = (Duration::ZERO, Duration::ZERO);
    let (mut peaks, mut taken, mut replaced, mut kind) = ([0, 0], [0; KINDS as usize], 0, 0);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    while Instant::now() < end {
        let Some((pid, epoch)) = current(&server).await else { continue };
        let Some(worker) = Stolen::try_from(0, epoch, pid) else { continue };
        let mut own = Dice(dice.roll());
        let burst = tokio::task::spawn_blocking(move || attack(kind, &worker, pid, &mut own));
        while !burst.is_finished() {
            let began = Instant::now();
            server.status().await;
            worst_status = worst_status.max(began.elapsed());
            let began = Instant::now();
            honest.who().await;
            worst_echo = worst_echo.max(began.elapsed());
            for (peak, pid) in peaks.iter_mut().zip([master, manager]) {
                *peak = resident(pid).max(*peak);
            }
        }
        taken[kind as usize] += burst.await.unwrap();
        replaced += u32::from(current(&server).await.is_none_or(|now| now.0 != pid));
        kind = (kind + 1) % KINDS;
    }
    let began = Instant::now();
    kill(master, Signal::SIGTERM);
    until("TERM to be heard", async || server.log().contains("stopping").then_some(())).await;
    println!("packets taken of each kind: {taken:?}; the worker was replaced {replaced} times");
    println!("status took at most {worst_status:?}, an honest client's echo {worst_echo:?}");
    println!("TERM was heard after {:?}", began.elapsed());
    println!("the master had at most {} KiB, the manager {} KiB", peaks[0] >> 10, peaks[1] >> 10);
    assert!(peaks.iter().all(|peak| *peak < 64 * MIB), "{peaks:?}");
    assert!(replaced > 0 && is_alive(other));
    server.is_gone().await;
}
