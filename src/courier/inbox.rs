//! What has come from the engine and is not passed on yet: bounded, so that an engine that is
//! faster than the manager costs messages and never memory.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Bytes that may wait.
const BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a message costs besides its bytes.
const MESSAGE_COST: usize = 64;

/// Messages on their way to the manager.
#[derive(Default)]
pub struct Inbox {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
}

impl Inbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds it can leave it half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a message, or drops it and counts that. Never waits.
    pub fn put(&self, message: Vec<u8>) {
        let mut waiting = self.waiting();
        let cost = message.len() + MESSAGE_COST;
        if waiting.bytes + cost > BYTES_MAX && !waiting.messages.is_empty() {
            waiting.dropped += 1;
            return;
        }
        waiting.bytes += cost;
        waiting.messages.push_back(message);
        drop(waiting);
        self.wake.notify_one();
    }

    /// Waits for messages. All that are there.
    pub async fn take(&self) -> VecDeque<Vec<u8>> {
        loop {
            if let Some(messages) = self.try_take() {
                return messages;
            }
            self.wake.notified().await;
        }
    }

    /// All that are there, if there are any.
    pub fn try_take(&self) -> Option<VecDeque<Vec<u8>>> {
        let mut waiting = self.waiting();
        waiting.bytes = 0;
        Some(std::mem::take(&mut waiting.messages)).filter(|messages| !messages.is_empty())
    }

    /// How many were dropped so far.
    pub fn dropped(&self) -> u64 {
        self.waiting().dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_finds_no_room_is_dropped_and_counted_and_the_rest_stays_in_order() {
        let inbox = Inbox::default();
        for number in 0..20_u8 {
            inbox.put(vec![number; 1024 * 1024]);
        }
        let got = inbox.take().await;
        assert_eq!((got.len(), inbox.dropped()), (15, 5));
        assert!(got.iter().enumerate().all(|(place, it)| usize::from(it[0]) == place));
        inbox.put(vec![0; 2 * BYTES_MAX]);
        assert_eq!(inbox.take().await.len(), 1, "one alone is taken however long it is");
    }
}
