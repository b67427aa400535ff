//! The exit statuses of the command line: a contract, documented in `docs/operations.md`.

use std::process::ExitCode;

use crate::api::Verdict;
use crate::ipc::control::Answer;

/// With what the command line exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum ExitStatus {
    /// Done.
    Done = 0,
    /// Not done; the reason is on stderr.
    Failed = 1,
    /// The command line itself is wrong.
    Usage = 2,
    /// The server does not run.
    NotRunning = 3,
    /// The client is gone.
    Gone = 4,
    /// Nothing was queued: too much waits for the client, or the message is too big.
    Refused = 5,
    /// No answer came in time; it may have been done or not.
    TimedOut = 6,
}

impl ExitStatus {
    /// All, with what the manual says of each.
    pub(crate) const ALL: [(ExitStatus, &'static str); 7] = [
        (ExitStatus::Done, "done"),
        (ExitStatus::Failed, "not done; the reason is on stderr"),
        (ExitStatus::Usage, "the command line is wrong"),
        (ExitStatus::NotRunning, "the server does not run"),
        (ExitStatus::Gone, "the client is gone"),
        (ExitStatus::Refused, "nothing was queued: too much waits, or the message is too big"),
        (ExitStatus::TimedOut, "no answer came in time; the request may have been done or not"),
    ];

    /// The status that goes with an answer.
    pub(crate) fn of(answer: &Answer) -> ExitStatus {
        match (answer.ok, answer.verdict) {
            (true, _) => ExitStatus::Done,
            (false, Some(Verdict::Gone)) => ExitStatus::Gone,
            (false, Some(Verdict::Full | Verdict::TooBig)) => ExitStatus::Refused,
            (false, Some(Verdict::Unknown)) => ExitStatus::TimedOut,
            (false, _) => ExitStatus::Failed,
        }
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> ExitCode {
        ExitCode::from(status as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::{Fd, Slot};

    #[test]
    fn every_status_has_its_number_and_its_line_in_the_manual() {
        for (number, (status, _)) in ExitStatus::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, number);
        }
    }

    #[test]
    fn a_verdict_decides_the_status() {
        let fd = Fd::new(0, Slot(0), 1).unwrap();
        let status = |verdict| ExitStatus::of(&Answer::verdict(fd, verdict));
        assert_eq!(status(Verdict::Queued), ExitStatus::Done);
        assert_eq!(status(Verdict::Gone), ExitStatus::Gone);
        assert_eq!(status(Verdict::TooBig), ExitStatus::Refused);
        assert_eq!(status(Verdict::Full), ExitStatus::Refused);
        assert_eq!(status(Verdict::Unknown), ExitStatus::TimedOut);
        assert_eq!(ExitStatus::of(&Answer::failed("no")), ExitStatus::Failed);
    }
}
