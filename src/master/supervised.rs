//! A process of which the master always has one, as the manager is and the courier: asked for
//! signs of life, killed if it gives none, and started again when it has ended.

use std::os::fd::OwnedFd;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::child::Child;
use super::throttle::{Throttle, YOUNG_MS};
use super::{CHECK_MS, Master};
use crate::ipc::IPC_VERSION;
use crate::ipc::messages::Hello;

/// The shortest wait before a process is started that could not be.
const AGAIN_MS: u64 = 100;

/// What is due for a process.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// It has to be started.
    Start,
    /// It has to be asked for a sign of life, with this number.
    Check(u64),
}

/// The place of such a process.
pub struct Supervised {
    /// What the log calls it.
    name: &'static str,
    child: Option<Child>,
    /// How many were started, this one included.
    epoch: u32,
    /// Since when it serves.
    serves_since_ms: Option<u64>,
    /// Whether the living one is on its way out, for a new image's.
    replaced: bool,
    throttle: Throttle,
    start_at_ms: Option<u64>,
    checks: u64,
    next_check_ms: u64,
    answered_ms: u64,
}

impl Supervised {
    /// The place, empty: its first process is due at once.
    pub fn new(name: &'static str) -> Supervised {
        Supervised {
            name,
            child: None,
            epoch: 0,
            serves_since_ms: None,
            replaced: false,
            throttle: Throttle::default(),
            start_at_ms: None,
            checks: 0,
            next_check_ms: 0,
            answered_ms: 0,
        }
    }

    /// The place as the image before this one had it.
    pub fn adopt(
        name: &'static str,
        child: Option<Child>,
        epoch: u32,
        serves: bool,
        now: u64,
    ) -> Supervised {
        let serves_since_ms = serves.then_some(now);
        Supervised { child, epoch, serves_since_ms, answered_ms: now, ..Supervised::new(name) }
    }

    /// Its process, if it lives.
    pub fn child(&self) -> Option<&Child> {
        self.child.as_ref()
    }

    /// Its process, if it lives.
    pub fn child_mut(&mut self) -> Option<&mut Child> {
        self.child.as_mut()
    }

    /// How many were started, the living one included.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether this is its pid.
    pub fn is(&self, pid: Pid) -> bool {
        self.child.as_ref().is_some_and(|child| child.pid == pid)
    }

    /// Whether it serves.
    pub fn serves(&self) -> bool {
        self.serves_since_ms.is_some()
    }

    /// When it has to be looked at again.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let kill = self.child.as_ref().and_then(|child| child.kill_at_ms);
        let check = self.child.as_ref().map(|_| self.next_check_ms);
        [self.start_at_ms, kill, check].into_iter().flatten().min()
    }

    /// What is due. A process that has been silent for longer than `timeout_ms` is killed: with a
    /// core dump first, then without. Once the server stops, none is started.
    pub fn due(&mut self, now: u64, timeout_ms: u64, stopping: bool) -> Due {
        let Some(child) = &mut self.child else {
            if stopping {
                self.start_at_ms = None;
                return Due::Nothing;
            }
            let due = self.start_at_ms.unwrap_or(now) <= now;
            return if due { Due::Start } else { Due::Nothing };
        };
        child.kill_when_due(now);
        if now < self.next_check_ms {
            return Due::Nothing;
        }
        self.next_check_ms = now + CHECK_MS;
        if child.kill_at_ms.is_none() && now.saturating_sub(self.answered_ms) > timeout_ms {
            tracing::error!(timeout_ms, "the {} does not answer: killed", self.name);
            child.abort(now);
        }
        self.checks += 1;
        Due::Check(self.checks)
    }

    /// Begins to start one; the answer is its epoch.
    pub fn begin(&mut self) -> u32 {
        self.start_at_ms = None;
        self.epoch += 1;
        self.epoch
    }

    /// The one that was begun is there.
    pub fn started(&mut self, child: Child, now: u64) {
        tracing::info!(pid = child.pid.as_raw(), "{} started", self.name);
        self.child = Some(child);
        self.answered_ms = now;
        self.next_check_ms = now + CHECK_MS;
    }

    /// The one that was begun could not be started, and is to be tried again.
    pub fn not_started(&mut self, now: u64) {
        let delay = self.throttle.died(true).max(AGAIN_MS);
        self.start_at_ms = Some(now + delay);
    }

    /// It has said that it serves.
    pub fn serves_since(&mut self, now: u64) {
        self.serves_since_ms = Some(now);
    }

    /// It has said who it is. One that speaks another version is killed.
    pub fn hello(&self, hello: &Hello) {
        if hello.ipc_version != IPC_VERSION {
            let version = &hello.version;
            tracing::error!(version, "the {} speaks another IPC version: killed", self.name);
            self.kill();
        }
    }

    /// The next message that has arrived, which is a sign of life. A process that sends what is
    /// no message is killed.
    pub fn receive<T: DeserializeOwned>(&mut self, buffer: &mut [u8], now: u64) -> Option<T> {
        match self.child.as_mut()?.receive(buffer) {
            Ok(message) => {
                let (message, _) = message?;
                self.answered_ms = now;
                Some(message)
            }
            Err(error) => {
                tracing::error!(%error, "the {} broke the protocol: killed", self.name);
                self.kill();
                None
            }
        }
    }

    /// Sends it a message. Without a process the message is lost: the next one is told the whole
    /// state at its start.
    pub fn send<T: Serialize>(&mut self, message: &T, fds: Vec<OwnedFd>) {
        let Some(child) = &mut self.child else { return };
        if let Err(error) = child.send(message, fds) {
            tracing::warn!(%error, "a message to the {} was not sent", self.name);
        }
    }

    /// Kills it; another follows.
    pub fn kill(&self) {
        if let Some(child) = &self.child {
            child.signal(Signal::SIGKILL);
        }
    }

    /// The image is new, and the living process is on its way out for the next one's.
    pub fn replace(&mut self) -> Option<&mut Child> {
        self.replaced = self.child.is_some();
        self.child.as_mut()
    }

    /// It has ended; the answer is whether that was a death, and not an end that was wished for.
    pub fn ended(&mut self, how: &str, wished: bool, now: u64) -> bool {
        self.child = None;
        let served = self.serves_since_ms.take();
        if std::mem::take(&mut self.replaced) {
            self.start_at_ms = Some(now);
            tracing::info!(how, "the old image's {} ended", self.name);
            return false;
        }
        if wished {
            tracing::info!(how, "{} ended", self.name);
            return false;
        }
        tracing::error!(how, "{} died", self.name);
        let young = served.is_none_or(|since| now - since < YOUNG_MS);
        let delay = self.throttle.died(young);
        self.start_at_ms = Some(now + delay);
        true
    }
}

impl Master {
    /// The manager and the courier, if they live.
    pub(super) fn supervised(&self) -> impl Iterator<Item = &Child> {
        let places = [&self.manager.process, &self.courier.process];
        places.into_iter().filter_map(Supervised::child)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;
    use crate::sys::packet;

    const TIMEOUT_MS: u64 = 5_000;

    #[test]
    fn one_that_is_silent_is_killed_and_one_that_answers_is_only_asked() {
        let mut process = Command::new("sleep").arg("600").spawn().unwrap();
        let (ours, theirs) = packet::pair().unwrap();
        let pid = Pid::from_raw(process.id() as i32);
        let mut place = Supervised::new("manager");
        assert_eq!(place.due(7, TIMEOUT_MS, false), Due::Start);
        assert_eq!(place.begin(), 1);
        place.started(Child::adopt(pid, 7, ours), 7);
        let mut other_end = Child::adopt(pid, 7, theirs);
        let mut buffer = [0; 64];
        assert_eq!(place.due(8, TIMEOUT_MS, false), Due::Nothing);
        for number in 1..20 {
            let now = 7 + number * CHECK_MS;
            other_end.send(&number, Vec::new()).unwrap();
            assert_eq!(place.receive(&mut buffer, now), Some(number));
            assert_eq!(place.due(now, TIMEOUT_MS, false), Due::Check(number));
            assert_eq!(place.next_deadline_ms(), Some(now + CHECK_MS));
        }
        assert!(process.try_wait().unwrap().is_none(), "killed though it answered");
        assert_eq!(place.due(40_000, TIMEOUT_MS, false), Due::Check(20));
        assert_eq!(process.wait().unwrap().signal(), Some(Signal::SIGABRT as i32));
    }

    #[test]
    fn one_that_served_is_replaced_at_once_and_one_that_did_not_waits_longer_each_time() {
        let mut place = Supervised::new("courier");
        let mut dies = |serves: bool, now: u64| {
            place.begin();
            if serves {
                place.serves_since(now - YOUNG_MS);
            }
            assert!(place.ended("exit status 1", false, now));
            place.next_deadline_ms().unwrap() - now
        };
        assert_eq!([5_000, 6_000, 7_000].map(|now| dies(false, now)), [0, 100, 200]);
        assert_eq!(dies(true, 8_000), 0);
        place.begin();
        assert!(!place.ended("exit status 0", true, 9_000));
        place.begin();
        assert!(place.ended("signal SIGKILL", false, 10_000));
        assert_eq!(place.due(10_001, TIMEOUT_MS, true), Due::Nothing);
        assert_eq!(place.next_deadline_ms(), None, "a deadline that has passed spins the master");
    }
}
