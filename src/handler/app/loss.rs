//! What the death of a process means for the events it was sent. Pure.
//!
//! An event is tried again once, and only where nothing of it has reached the worker: what a
//! process did before it died is done, and nothing is done twice.

use std::collections::VecDeque;

use super::codec::{AGAIN, Kind, Packet, TOGETHER, wants};
use super::process_queue::{Event, Process};
use crate::api::ProcessId;

/// What the death of a process leaves to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loss {
    /// Events given up: their clients or HTTP requests are told of a failure.
    pub dropped: Vec<Packet>,
    /// Clients to close with 1011.
    pub close: Vec<u64>,
    /// Clients on whose events two processes died, to close with 1008.
    pub deadly: Vec<u64>,
    /// How many events will be sent again.
    pub again: usize,
    /// The process that had stood by and has the place now.
    pub placed: Option<ProcessId>,
}

/// The events of a dead process, sorted.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    /// To be sent again, oldest first.
    pub again: VecDeque<Event>,
    /// Given up.
    pub dropped: Vec<Event>,
    /// The client of the event that the process died on, where that event is certain.
    pub blamed: Option<u64>,
}

/// Sorts the events that a dead process was sent. `hung` says that the process was ended for not
/// finishing its oldest event.
pub(super) fn sort(process: Process, hung: bool) -> Sorted {
    let mut sent = process.sent;
    if process.ended {
        return sort_unbegun(sent, process.untaken);
    }
    if process.wants & wants::IN_ORDER == 0 {
        return sort_all(sent, hung, process.reached);
    }
    let mut sorted = Sorted::default();
    let Some(mut oldest) = sent.pop_front() else { return sorted };
    oldest.tries += 1;
    let goes_on =
        |event: &Event| event.packet.kind == Kind::Request && event.packet.flags & TOGETHER != 0;
    let mut together = goes_on(&oldest);
    let over = hung || process.reached || oldest.packet.kind == Kind::Request;
    // Quick events are gathered, and DONE of the first of them comes with all that they sent. So
    // where nothing was sent, the process may have died on any of them.
    let certain = over || sent.is_empty();
    if certain {
        sorted.blamed = oldest.packet.client();
    } else {
        // A request is not gathered with others, and what stands behind it was not begun.
        let gathered = sent.iter_mut().take_while(|event| event.packet.kind != Kind::Request);
        gathered.for_each(suspect);
    }
    if over || oldest.tries > 1 {
        sorted.dropped.push(oldest);
    } else {
        oldest.packet.flags |= AGAIN;
        sent.push_front(oldest);
    }
    // What is answered together may have been begun, and a request is never tried twice.
    while together && sent.front().is_some_and(|next| next.packet.kind == Kind::Request) {
        let Some(next) = sent.pop_front() else { break };
        together = goes_on(&next);
        sorted.dropped.push(next);
    }
    sorted.again = sent;
    sorted
}

/// Of a process that said that it began none of them. Where it could not even take the next one in,
/// that one goes alone the next time, so that a second such end is nobody else's doing.
fn sort_unbegun(mut sent: VecDeque<Event>, untaken: bool) -> Sorted {
    let mut dropped = Vec::new();
    if let Some(next) = sent.front_mut().filter(|_| untaken) {
        next.tries += 1;
        if next.tries > 1 {
            dropped.extend(sent.pop_front());
        }
    }
    Sorted { again: sent, dropped, blamed: None }
}

/// Of a process that handles many events at a time, each may have been begun.
fn sort_all(sent: VecDeque<Event>, hung: bool, reached: bool) -> Sorted {
    let mut sorted = Sorted::default();
    for (index, mut event) in sent.into_iter().enumerate() {
        suspect(&mut event);
        let over = reached || event.packet.kind == Kind::Request || (hung && index == 0);
        if over || event.tries > 1 {
            sorted.dropped.push(event);
        } else {
            sorted.again.push_back(event);
        }
    }
    sorted
}

fn suspect(event: &mut Event) {
    event.tries += 1;
    event.packet.flags |= AGAIN;
}
