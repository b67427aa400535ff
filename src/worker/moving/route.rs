//! Where a client is, as far as this worker knows.

use super::Moving;
use crate::fd::Fd;
use crate::ipc::messages::PassId;
use crate::worker::base::phase::Phase;
use crate::worker::clients::key::Key;

/// Where a client is, as far as this worker knows.
pub(in crate::worker) enum Route {
    Here(Key),
    /// Here, by this pass, and not ours yet.
    Arriving(PassId),
    /// With another worker, or nowhere.
    Elsewhere,
    /// It was ours and is no more.
    Gone,
}

impl Moving {
    #[inline]
    pub(in crate::worker) fn route(&self, fd: Fd) -> Route {
        let table = self.table.borrow();
        match table.find(fd) {
            Some(key) if table.get(key).is_some_and(|it| it.arriving) => {
                self.transit.borrow().defers(fd.as_u64()).map_or(Route::Elsewhere, Route::Arriving)
            }
            Some(key) => Route::Here(key),
            // Once connections were handed over, a number of ours may live elsewhere.
            None if self.phase.get() == Phase::HandedOver => Route::Elsewhere,
            None if self.serials.borrow().is_ours(fd) => Route::Gone,
            None => Route::Elsewhere,
        }
    }

    /// Whether clients are being given to a newer process.
    pub(in crate::worker) fn is_giving(&self) -> bool {
        matches!(self.phase.get(), Phase::HandedOver | Phase::Leaving)
    }
}
