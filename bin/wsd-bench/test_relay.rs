//! The floor under a push to another worker: a bare relay of packets through a third process.
//!
//! A packet goes from us to a process that only passes on (where a server has its manager), from
//! there to another (the other worker), and back. Two of these three hops are what a push through
//! a relay cannot do without. Run it on the server's core: `taskset -c 0 wsd-bench -t relay`.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::cli::Cli;
use crate::fault::Fault;
use crate::report::{Report, duration, size};
use crate::stats::Stats;

/// Tells a process of ours that it is a hop.
pub const HOP: &str = "--relay-hop";
const PACKET_MAX: usize = 64 << 10;

/// Passes on from stdin to stdout until the other end is gone.
pub fn hop() -> std::io::Result<()> {
    use std::os::fd::AsFd;
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut packet = vec![0; PACKET_MAX];
    loop {
        match nix::unistd::read(stdin.as_fd(), &mut packet)? {
            0 => return Ok(()),
            len => nix::unistd::write(stdout.as_fd(), &packet[..len])?,
        };
    }
}

/// Sends one packet after the other around.
pub fn measure(cli: &Cli) -> Result<Report, Fault> {
    let bytes = cli.size().clamp(1, PACKET_MAX);
    let (to_manager, manager_in) = pair()?;
    let (manager_out, worker_in) = pair()?;
    let (worker_out, back) = pair()?;
    let hops = [start(manager_in, manager_out)?, start(worker_in, worker_out)?];
    // Only the calls matter: read and write keep the packets of a SEQPACKET socket whole.
    let (mut to_manager, mut back) = (UnixStream::from(to_manager), UnixStream::from(back));
    back.set_read_timeout(Some(cli.timeout))?;
    let (payload, mut packet) = (vec![b'x'; bytes], vec![0; PACKET_MAX]);
    let mut stats = Stats::default();
    let since = Instant::now();
    let warm = cli.duration / 10;
    while since.elapsed() < cli.duration + warm {
        stats.recording = since.elapsed() >= warm;
        let sent = Instant::now();
        to_manager.write_all(&payload)?;
        if back.read(&mut packet)? != bytes {
            return Err(Fault::server("a hop of the relay was lost"));
        }
        stats.latency(two_thirds(sent.elapsed()));
    }
    // Each hop ends at the end of its input.
    drop(to_manager);
    for mut hop in hops {
        hop.wait()?;
    }
    let mut report = Report::default();
    let p50 = stats.histogram.value_at_quantile(0.5);
    report.line(
        "relay",
        format!("two SEQPACKET hops by way of a third process, {}", size(bytes as f64)),
    );
    report.figure("test", "relay");
    report.figure("size", bytes);
    report.figure("relay_p50_us", p50 as f64 / 1e3);
    report.line("two hops", format!("p50 {}", duration(p50)));
    report.latency("latency", "latency_us", &stats.histogram);
    Ok(report)
}

/// The time of the two hops that a push takes, of the three around.
fn two_thirds(around: Duration) -> u64 {
    u64::try_from(around.as_nanos() * 2 / 3).unwrap_or(u64::MAX)
}

fn pair() -> Result<(OwnedFd, OwnedFd), Fault> {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    Ok(socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC)?)
}

fn start(input: OwnedFd, output: OwnedFd) -> Result<Child, Fault> {
    let program = std::env::current_exe()?;
    let (input, output) = (Stdio::from(input), Stdio::from(output));
    Ok(Command::new(program).arg(HOP).stdin(input).stdout(output).spawn()?)
}
