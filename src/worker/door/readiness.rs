//! What the master tells of the whole server, and whether balancers are to send clients here.

use std::cell::RefCell;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::Door;
use crate::ipc::scoreboard::{Fact, Figures, SummaryPage};
use crate::worker::base::phase::Phase;

/// How long the next image of the master may take to show its summary.
const SUMMARY_PATIENCE: Duration = Duration::from_secs(5);

/// The page of the master.
#[derive(Default)]
pub(in crate::worker) struct Summary {
    page: RefCell<Option<SummaryPage>>,
    came: Notify,
}

impl Summary {
    /// Reads this summary from here on.
    pub fn read_from(&self, page: SummaryPage) {
        self.page.replace(Some(page));
        self.came.notify_waiters();
    }

    /// Whether the server drains.
    pub fn is_draining(&self) -> bool {
        self.fact(Fact::Draining).is_some_and(|draining| draining > 0)
    }

    /// A fact as the master told it last.
    pub fn fact(&self, fact: Fact) -> Option<u64> {
        self.page.borrow().as_ref().map(|page| page.fact(fact))
    }

    /// What all processes count, as the master tells; `None` where no master tells it any more.
    /// While one image of the master takes over from another, the other's summary is waited for.
    pub async fn figures(&self) -> Option<Figures> {
        let wait = async {
            loop {
                let came = self.came.notified();
                let figures = self.page.borrow().as_ref().and_then(SummaryPage::figures);
                if let Some(figures) = figures {
                    return figures;
                }
                // The page may be whole in a moment, or good again where an upgrade has failed.
                let _ = timeout(Duration::from_millis(2), came).await;
            }
        };
        timeout(SUMMARY_PATIENCE, wait).await.ok()
    }
}

impl Door {
    /// Whether the server can take a client more, or why not.
    pub(in crate::worker) fn readiness(&self) -> Result<(), String> {
        // A master that has told nothing yet has nothing against it.
        let fact = |fact, otherwise| self.summary.fact(fact).unwrap_or(otherwise);
        if fact(Fact::Started, 1) == 0 {
            return Err("starting".to_owned());
        }
        if fact(Fact::Draining, 0) == 1 {
            return Err("draining".to_owned());
        }
        if self.phase.get() == Phase::Leaving {
            return Err("stopping".to_owned());
        }
        let limit = self.settings.config.max_connection as u64;
        let others = self.board.others.borrow().clients(limit);
        if limit > 0 && self.board.row.clients().saturating_add(others) >= limit {
            return Err("over capacity: max_connection is reached".to_owned());
        }
        self.handler.health()
    }
}
