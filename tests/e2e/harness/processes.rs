//! Processes as the kernel shows them.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// A process of a server under test.
#[derive(Debug, Clone)]
pub struct Process {
    pub pid: i32,
    /// Its name as `ps` shows it.
    pub name: String,
}

/// Every living process whose environment holds `mark`, whoever its parent is. The kernel shows
/// the environment of a worker to root alone; to others, its arguments name the configuration.
pub fn marked(mark: &str, config: &Path) -> Vec<Process> {
    let config = config.as_os_str().as_encoded_bytes();
    let entries = fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<Process> = pids
        .filter(|pid: &i32| {
            // A process may end between the list and the look; a zombie has no environment.
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let is_ours = line.starts_with(b"wsd: ");
            environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes())
                || is_ours && line.split(|byte| *byte == 0).any(|word| word == config)
        })
        .map(|pid| Process { pid, name: argument_zero(pid) })
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

fn argument_zero(pid: i32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let first = line.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(first).into_owned()
}

/// Sends a signal to a process, which has to be there.
pub fn kill(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal)
        .unwrap_or_else(|errno| panic!("{signal} to {pid}: {errno}"));
}

/// The state letter of proc(5); `None` where there is no such process.
pub fn stat_letter(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether the process runs; a zombie does not.
pub fn is_alive(pid: i32) -> bool {
    stat_letter(pid).is_some_and(|letter| !matches!(letter, 'Z' | 'X'))
}

/// What the descriptors of a process lead to.
pub fn open_descriptors(pid: i32) -> Vec<(i32, PathBuf)> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let mut open: Vec<(i32, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let number = entry.file_name().to_str()?.parse().ok()?;
            Some((number, fs::read_link(entry.path()).ok()?))
        })
        .collect();
    open.sort();
    open
}
