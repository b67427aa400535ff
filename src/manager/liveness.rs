//! Liveness checks: a worker that does not answer within `worker_timeout` is hung.
//!
//! Pure; the clock is passed in. One check is under way at a time, so a worker that is stopped
//! does not find a heap of them.

/// The checks of one worker.
#[derive(Debug, Default)]
pub struct Liveness {
    sent: u64,
    /// When the check that is under way was sent.
    since_ms: Option<u64>,
    told: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LivenessStep {
    /// Send the check of this number.
    Send(u64),
    /// The last one is still under way.
    Wait,
    /// It is hung. Told once.
    Hung,
}

impl Liveness {
    /// A second has passed.
    pub fn tick(&mut self, now_ms: u64, timeout_ms: u64) -> LivenessStep {
        match self.since_ms {
            None => {
                self.sent += 1;
                self.since_ms = Some(now_ms);
                LivenessStep::Send(self.sent)
            }
            Some(since) if !self.told && now_ms.saturating_sub(since) >= timeout_ms => {
                self.told = true;
                LivenessStep::Hung
            }
            Some(_) => LivenessStep::Wait,
        }
    }

    /// The worker has answered.
    pub fn answered(&mut self, number: u64) {
        if number == self.sent {
            self.since_ms = None;
        }
    }

    /// We ourselves were late: whatever has not answered gets its time anew.
    pub fn forgive(&mut self, now_ms: u64) {
        if let Some(since) = &mut self.since_ms {
            *since = now_ms;
        }
    }

    /// How long the answer has been waited for, in milliseconds.
    pub fn silent_ms(&self, now_ms: u64) -> u64 {
        self.since_ms.map_or(0, |since| now_ms.saturating_sub(since))
    }

    /// Whether it was told to be hung.
    pub fn is_hung(&self) -> bool {
        self.told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_check_at_a_time_and_the_next_after_its_answer() {
        let mut liveness = Liveness::default();
        assert_eq!(liveness.tick(0, 10_000), LivenessStep::Send(1));
        assert_eq!(liveness.tick(1_000, 10_000), LivenessStep::Wait);
        assert_eq!(liveness.silent_ms(1_000), 1_000);
        liveness.answered(1);
        assert_eq!(liveness.tick(2_000, 10_000), LivenessStep::Send(2));
    }

    #[test]
    fn a_silent_worker_is_told_once() {
        let mut liveness = Liveness::default();
        assert_eq!(liveness.tick(0, 10_000), LivenessStep::Send(1));
        assert_eq!(liveness.tick(9_999, 10_000), LivenessStep::Wait);
        assert_eq!(liveness.tick(10_000, 10_000), LivenessStep::Hung);
        assert_eq!(liveness.tick(11_000, 10_000), LivenessStep::Wait);
    }

    #[test]
    fn an_answer_to_an_older_check_is_none() {
        let mut liveness = Liveness::default();
        let _ = liveness.tick(0, 10_000);
        liveness.answered(0);
        assert_eq!(liveness.tick(10_000, 10_000), LivenessStep::Hung);
    }

    #[test]
    fn our_own_lateness_is_nobodys_fault() {
        let mut liveness = Liveness::default();
        let _ = liveness.tick(0, 10_000);
        liveness.forgive(60_000);
        assert_eq!(liveness.tick(61_000, 10_000), LivenessStep::Wait);
        assert_eq!(liveness.tick(70_000, 10_000), LivenessStep::Hung);
    }
}
