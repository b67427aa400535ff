//! The server's processes, where it runs on this machine: what they cost in CPU and memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::target::{Address, Target};

/// The process tree of the server under test.
pub struct Server {
    roots: BTreeSet<i32>,
}

impl Server {
    /// The tree below `pid`.
    pub fn of_pid(pid: i32) -> Option<Server> {
        fs::exists(format!("/proc/{pid}")).ok()?.then(|| Server { roots: BTreeSet::from([pid]) })
    }

    /// The tree of whoever listens at the target. `None`: not here, or not ours to look into.
    pub fn find(target: &Target) -> Option<Server> {
        let inodes = match &target.address {
            Address::Tcp(address) => {
                let local = address.ip().is_loopback() || is_own(address.ip());
                listening(local.then_some(address.port())?)
            }
            Address::Unix(path) => {
                let table = fs::read_to_string("/proc/net/unix").ok()?;
                let path = fs::canonicalize(path).ok()?;
                let lines = table.lines().filter(|line| line.ends_with(&*path.to_string_lossy()));
                lines.filter_map(|line| line.split_whitespace().nth(6)?.parse().ok()).collect()
            }
        };
        let parents = parents();
        let holders: BTreeSet<i32> =
            parents.keys().copied().filter(|pid| holds(*pid, &inodes)).collect();
        // A master holds the listeners of its workers. Of those who hold one, the top ones count.
        let is_root = |pid: &i32| parents.get(pid).is_none_or(|parent| !holders.contains(parent));
        let roots: BTreeSet<i32> = holders.iter().copied().filter(is_root).collect();
        (!roots.is_empty()).then_some(Server { roots })
    }

    /// The processes of now: they may come and go.
    pub fn pids(&self) -> Vec<i32> {
        let parents = parents();
        let mut tree = self.roots.clone();
        loop {
            let children = parents
                .iter()
                .filter(|(pid, parent)| tree.contains(parent) && !tree.contains(pid));
            let children: Vec<i32> = children.map(|(pid, _)| *pid).collect();
            if children.is_empty() {
                return tree.into_iter().collect();
            }
            tree.extend(children);
        }
    }

    /// Seconds of CPU since the processes began, user and system, to the nanosecond: the ticks
    /// of `/proc/pid/stat` are too coarse for a short run.
    pub fn cpu(&self) -> f64 {
        let each = self.pids().into_iter().filter_map(|pid| {
            let clock = clock_getcpuclockid(Pid::from_raw(pid)).ok()?;
            Some(Duration::from(clock_gettime(clock).ok()?).as_secs_f64())
        });
        each.sum()
    }

    /// Bytes of memory of all processes, what they share counted once (PSS). `None` where the
    /// kernel does not let us look.
    pub fn memory(&self) -> Option<u64> {
        let all: Vec<u64> = self.pids().into_iter().filter_map(pss).collect();
        (!all.is_empty()).then(|| all.into_iter().sum())
    }

    /// `wsd 1234 and 3 more`.
    pub fn name(&self) -> String {
        let pids = self.pids();
        let Some(first) = pids.first() else { return "gone".to_owned() };
        let comm = fs::read_to_string(format!("/proc/{first}/comm")).unwrap_or_default();
        match pids.len() {
            1 => format!("{} {first}", comm.trim()),
            n => format!("{} {first} and {} more", comm.trim(), n - 1),
        }
    }
}

/// Seconds of CPU of this process.
pub fn own_cpu() -> f64 {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike;
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else { return 0.0 };
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    micros as f64 / 1e6
}

/// The fields of `/proc/pid/stat` after the name, which may hold anything.
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    Some(fields.split(' ').map(str::to_owned).collect())
}

fn parents() -> BTreeMap<i32, i32> {
    let Ok(all) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?.get(1)?.parse().ok()?))).collect()
}

fn pss(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

fn is_own(ip: IpAddr) -> bool {
    // An address can be bound only where it is one's own.
    std::net::UdpSocket::bind((ip, 0)).is_ok()
}

/// The inodes of the TCP sockets that listen on a port.
fn listening(port: u16) -> BTreeSet<u64> {
    const LISTEN: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let suffix = format!(":{port:04X}");
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        (local.ends_with(&suffix) && *state == LISTEN).then(|| inode.parse().ok())?
    };
    tables.iter().flatten().flat_map(|table| table.lines()).filter_map(of_line).collect()
}

fn holds(pid: i32, inodes: &BTreeSet<u64>) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok()).any(|link| {
        let name = link.to_string_lossy();
        let inode = name.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode| inodes.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::Extras;

    #[test]
    fn whoever_listens_is_found_with_cpu_and_memory() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let target = Target::parse(&address, &Extras::default()).unwrap();
        let server = Server::find(&target).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(server.pids().contains(&own));
        assert!(server.memory().unwrap() > 0);
        drop(listener);
        assert!(Server::find(&target).is_none());
    }
}
