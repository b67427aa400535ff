//! What a process takes of the machine, as the kernel counts it.

use std::fs;

use nix::unistd::{SysconfVar, sysconf};

/// What a process takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes, pages of files and shared ones included.
    pub memory_bytes: u64,
    /// Processor time of all its threads so far, in milliseconds.
    pub cpu_ms: u64,
}

impl Usage {
    /// Of the process with that pid; `None` when it is gone.
    pub fn of(pid: i32) -> Option<Usage> {
        let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let ticks = ticks(&stat)?;
        let setting = |name| sysconf(name).ok().flatten().and_then(|n| u64::try_from(n).ok());
        let page = setting(SysconfVar::PAGE_SIZE).unwrap_or(4096);
        let second = setting(SysconfVar::CLK_TCK).unwrap_or(100).max(1);
        Some(Usage {
            memory_bytes: pages.saturating_mul(page),
            cpu_ms: ticks.saturating_mul(1000) / second,
        })
    }
}

/// Fields 14 and 15 of `stat` (proc(5)). The name, in parentheses, may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, behind) = stat.rsplit_once(')')?;
    let mut fields = behind.split_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some(user.parse::<u64>().ok()?.saturating_add(system.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_behind_whatever_the_name_is() {
        let stat = "7 (a) b ()) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 1 0 5 0 0";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(ticks("7 (a) S 1"), None);
    }

    #[test]
    fn this_process_takes_something_and_no_process_takes_nothing() {
        let own = Usage::of(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.memory_bytes > 1 << 16);
        assert_eq!(Usage::of(-1), None);
    }
}
