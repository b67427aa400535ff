//! What processes cost, as the kernel counts it.

use std::fmt;
use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// Processor time of all threads of a process, to the nanosecond.
pub fn processor_time(pid: i32) -> Duration {
    let clock = clock_getcpuclockid(Pid::from_raw(pid)).expect("its clock");
    clock_gettime(clock).expect("its time").into()
}

/// A size in `/proc/pid/FILE`, which has it in KiB; in bytes.
pub fn memory(pid: i32, file: &str, name: &str) -> i64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    let kib: i64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap();
    kib << 10
}

/// What some processes cost from a moment on. Memory is what is resident and no file's: pages of
/// the program are the page cache's, and there once for all who run it.
pub struct Costs(Vec<Before>);

struct Before {
    pid: i32,
    processor: Duration,
    resident: i64,
    files: i64,
}

/// Processor time, and by how many bytes memory grew: what of it is left, and the most it was.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub processor: Duration,
    pub left: i64,
    pub peak: i64,
}

impl Costs {
    pub fn from_now(pids: impl IntoIterator<Item = i32>) -> Costs {
        let before = |pid| {
            // From here on the peak is a new one: proc_pid_clear_refs(5).
            fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("forget the peak");
            Before {
                pid,
                processor: processor_time(pid),
                resident: resident(pid),
                files: files(pid),
            }
        };
        Costs(pids.into_iter().map(before).collect())
    }

    pub fn so_far(&self) -> Cost {
        let sum = |of: &dyn Fn(&Before) -> i64| self.0.iter().map(of).sum();
        Cost {
            processor: self.0.iter().map(|it| processor_time(it.pid) - it.processor).sum(),
            left: sum(&|it| it.grown_to(resident(it.pid))),
            peak: sum(&|it| it.grown_to(memory(it.pid, "status", "VmHWM"))),
        }
    }
}

impl Before {
    fn grown_to(&self, resident: i64) -> i64 {
        resident - self.resident - (files(self.pid) - self.files)
    }
}

/// The sum over all mappings is exact; what `status` says may be some pages behind.
fn resident(pid: i32) -> i64 {
    memory(pid, "smaps_rollup", "Rss")
}

fn files(pid: i32) -> i64 {
    memory(pid, "status", "RssFile")
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (left, peak) = (self.left >> 10, self.peak >> 10);
        write!(f, "{:.1?} of processor, {left} KiB, at most {peak} KiB", self.processor)
    }
}
