//! What a worker may say to the master, whatever code runs in the worker by now. Pure.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ipc::messages::WorkerToMaster;

/// Messages of a worker within a second: far more than any needs, which says something only when
/// it starts, when its numbers are used up, and when its application processes come and go.
const MESSAGES_MAX: u32 = 1_000;
const SECOND_MS: u64 = 1_000;
/// Bytes of a worker's last words that are kept.
const FATAL_BYTES_MAX: usize = 4 * 1024;

/// What a worker has said so far.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProtocolState {
    hello: bool,
    ready: bool,
    /// Messages since then, on the monotonic clock.
    messages: u32,
    since_ms: u64,
}

impl ProtocolState {
    /// Takes note of a message. `closing_lost` is how many registries of dead workers the worker
    /// was given and has not answered for.
    ///
    /// # Errors
    /// When no worker says that now.
    pub fn check(
        &mut self,
        message: &WorkerToMaster,
        closing_lost: usize,
        now: u64,
    ) -> Result<()> {
        if now >= self.since_ms + SECOND_MS {
            (self.messages, self.since_ms) = (0, now);
        }
        self.messages += 1;
        if self.messages > MESSAGES_MAX {
            return wrong(format!("more than {MESSAGES_MAX} messages within a second"));
        }
        let first = match message {
            WorkerToMaster::Hello(_) => !std::mem::replace(&mut self.hello, true),
            WorkerToMaster::Ready => !std::mem::replace(&mut self.ready, true),
            WorkerToMaster::LostClosed if closing_lost == 0 => {
                return wrong("LostClosed, with no lost clients to close".to_owned());
            }
            _ => true,
        };
        if !first {
            return wrong(format!("{message:?} for the second time"));
        }
        if !self.hello {
            return wrong(format!("{message:?} before Hello"));
        }
        Ok(())
    }
}

/// So much of a worker's last words as is worth keeping.
pub fn last_words(mut why: String) -> String {
    why.truncate(why.floor_char_boundary(FATAL_BYTES_MAX));
    why
}

fn wrong(what: String) -> Result<()> {
    Err(Error::new(what))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ProcessId;
    use crate::ipc::messages::Hello;

    fn hello() -> WorkerToMaster {
        WorkerToMaster::Hello(Hello::ours())
    }

    #[test]
    fn each_step_of_a_life_is_told_once_and_in_its_order() {
        let mut state = ProtocolState::default();
        state.check(&WorkerToMaster::NeedLease, 0, 1).unwrap_err();
        state.check(&hello(), 0, 1).unwrap();
        state.check(&hello(), 0, 1).unwrap_err();
        state.check(&WorkerToMaster::Ready, 0, 1).unwrap();
        state.check(&WorkerToMaster::Ready, 0, 1).unwrap_err();
        state.check(&WorkerToMaster::LostClosed, 1, 1).unwrap();
        state.check(&WorkerToMaster::LostClosed, 0, 1).unwrap_err();
    }

    #[test]
    fn so_many_messages_a_second_and_no_more() {
        let mut state = ProtocolState { hello: true, ..ProtocolState::default() };
        let id = ProcessId { place: 0, epoch: 1 };
        for now in [1_000, 1_999, 2_000, 3_500] {
            let fresh = now != 1_999;
            let allowed = if fresh { MESSAGES_MAX } else { 0 };
            for _ in 0..allowed {
                state.check(&WorkerToMaster::KillApp { id }, 0, now).unwrap();
            }
            state.check(&WorkerToMaster::KillApp { id }, 0, now).unwrap_err();
        }
    }

    #[test]
    fn last_words_are_cut_between_letters() {
        let words = last_words("é".repeat(FATAL_BYTES_MAX));
        assert!(words.len() <= FATAL_BYTES_MAX && words.len() > FATAL_BYTES_MAX - 2);
        assert_eq!(last_words("why".to_owned()), "why");
    }
}
