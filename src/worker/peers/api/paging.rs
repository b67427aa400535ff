//! Which part of a list a request asks for.

use super::answer::Fault;
use super::query::Query;
use crate::fd::Fd;

/// Connections on a page unless told.
pub(super) const PAGE: u16 = 100;
/// Connections on a page at the most.
const PAGE_MAX: u16 = 1000;

/// Which part of a list is asked for.
pub(super) struct Paging {
    /// The number below the first.
    pub after: u64,
    /// How many at most.
    pub limit: u16,
}

impl Paging {
    pub fn of(query: &Query) -> Result<Paging, Fault> {
        let after = query.get("after", "a client number")?.unwrap_or(0);
        Ok(Paging { after, limit: Paging::limit(query)? })
    }

    pub fn limit(query: &Query) -> Result<u16, Fault> {
        let limit = query.get("limit", "a number from 1 to 1000")?.unwrap_or(PAGE);
        match (1..=PAGE_MAX).contains(&limit) {
            true => Ok(limit),
            false => {
                let right = format!("write a number from 1 to {PAGE_MAX}");
                Err(Fault::bad(format!("limit is {limit}; {right}")))
            }
        }
    }

    /// The `after` of the page behind one of so many, the last of which is this.
    pub fn next(&self, len: usize, last: Option<Fd>) -> Option<Fd> {
        last.filter(|_| len == usize::from(self.limit))
    }
}
