//! What a process asks and others answer: how much of it may be open at once.

use std::rc::Rc;

use super::link::Link;

/// Questions of a process that may be open at once; while there are so many, the process is not
/// read. Fewer than a manager answers before it has to hear from the worker again.
const QUESTIONS_MAX: usize = 64;

/// A question of a process, open until this is dropped.
pub struct Question(Rc<Link>);

impl Drop for Question {
    fn drop(&mut self) {
        let open = self.0.questions.get();
        self.0.questions.set(open - 1);
        if open == QUESTIONS_MAX {
            self.0.wake.notify_one();
        }
    }
}

impl Link {
    /// Whether the process may ask more.
    pub fn may_ask(&self) -> bool {
        self.questions.get() < QUESTIONS_MAX
    }

    /// The process asks what others answer.
    pub fn question(self: &Rc<Self>) -> Question {
        self.questions.set(self.questions.get() + 1);
        Question(self.clone())
    }
}
