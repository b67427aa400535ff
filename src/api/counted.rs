//! For tests of what would cost too much if it compared each with each.

use std::cell::Cell;
use std::hash::{Hash, Hasher};

/// A key that counts how often it is compared with another.
#[derive(Debug, Clone, Copy)]
pub struct Counted<'a>(pub u32, pub &'a Cell<u32>);

impl PartialEq for Counted<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.1.set(self.1.get() + 1);
        self.0 == other.0
    }
}

impl Eq for Counted<'_> {}

impl Hash for Counted<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
