//! What goes to the engine, in the order in which the manager said it. While the engine is away
//! nothing waits here: what comes is answered at once.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::Notify;

use super::engine::Message;
use crate::api::rooms::Topic;

/// Bytes beyond which no more is read of the manager, whose lane to here is full then.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// What an item costs besides its bytes.
const ITEM_COST: usize = 128;
/// Messages that go to the engine together, and their bytes.
const BATCH_MAX: usize = 512;
const BATCH_BYTES_MAX: usize = 512 * 1024;

/// One thing to do.
#[derive(Debug)]
pub enum Item {
    /// Publish a message.
    Publish(Publish),
    /// Subscribe to what these are published on, and say so under a number; 0: say nothing.
    Subscribe(Vec<Topic>, u64),
    /// Unsubscribe.
    Unsubscribe(Vec<Topic>),
    /// Say by a subscription that this session has subscribed to everything.
    Whole,
    /// Have the engine keep which numbers of clients were given.
    Raise,
    /// Unsubscribe from everything, and say so.
    Part,
}

/// A message on its way out.
#[derive(Debug)]
pub struct Publish {
    /// What and where.
    pub message: Message,
    /// Whether this session may be subscribed to it, by which topic.
    pub own: Own,
    /// To be told how many nodes it goes to; 0: not.
    pub id: u64,
}

/// Whether a session hears what it publishes itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// Never: it is another node's channel.
    No,
    /// Always.
    Yes,
    /// If it has subscribed to this.
    Topic(Topic),
}

/// What the engine is to do next.
#[derive(Debug)]
pub enum Batch {
    /// Publish these.
    Publish(Vec<Publish>),
    /// Anything else.
    Other(Item),
}

/// The queue.
#[derive(Default)]
pub struct Queue {
    items: RefCell<VecDeque<Item>>,
    bytes: Cell<usize>,
    wake: Notify,
    emptier: Notify,
}

impl Item {
    fn cost(&self) -> usize {
        let topics =
            |topics: &[Topic]| topics.iter().map(|it| it.as_str().len() + ITEM_COST).sum();
        match self {
            Item::Publish(publish) => publish.message.payload.len() + ITEM_COST,
            Item::Subscribe(joined, _) => topics(joined),
            Item::Unsubscribe(left) => topics(left),
            Item::Whole | Item::Raise | Item::Part => 0,
        }
    }
}

impl Queue {
    /// Adds something at the end.
    pub fn add(&self, item: Item) {
        self.bytes.set(self.bytes.get() + item.cost());
        self.items.borrow_mut().push_back(item);
        self.wake.notify_one();
    }

    /// Waits until there is room.
    pub async fn room(&self) {
        loop {
            let emptier = self.emptier.notified();
            if self.bytes.get() < BYTES_MAX {
                return;
            }
            emptier.await;
        }
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.items.borrow().is_empty()
    }

    /// Waits for something to do. Safe to cancel.
    pub async fn next(&self) -> Batch {
        loop {
            if let Some(batch) = self.take() {
                return batch;
            }
            self.wake.notified().await;
        }
    }

    /// The next thing to do: messages that follow each other go together.
    fn take(&self) -> Option<Batch> {
        let mut items = self.items.borrow_mut();
        let (mut publishes, mut bytes) = (Vec::new(), 0);
        while publishes.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
            match items.pop_front() {
                Some(Item::Publish(publish)) => {
                    bytes += publish.message.payload.len();
                    self.took(publish, &mut publishes);
                }
                Some(other) if publishes.is_empty() => {
                    self.bytes.set(self.bytes.get() - other.cost());
                    self.emptier.notify_waiters();
                    return Some(Batch::Other(other));
                }
                Some(other) => {
                    items.push_front(other);
                    break;
                }
                None => break,
            }
        }
        self.emptier.notify_waiters();
        (!publishes.is_empty()).then_some(Batch::Publish(publishes))
    }

    fn took(&self, publish: Publish, publishes: &mut Vec<Publish>) {
        self.bytes.set(self.bytes.get() - publish.message.payload.len() - ITEM_COST);
        publishes.push(publish);
    }

    /// Takes everything back.
    pub fn drain(&self) -> Vec<Item> {
        self.bytes.set(0);
        self.emptier.notify_waiters();
        self.items.borrow_mut().drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(number: u8) -> Item {
        let message = Message { channel: "c".to_owned(), payload: vec![number] };
        Item::Publish(Publish { message, own: Own::No, id: 0 })
    }

    #[tokio::test]
    async fn messages_go_together_and_nothing_overtakes() {
        let queue = Queue::default();
        for item in [publish(1), publish(2), Item::Subscribe(vec![], 7), publish(3)] {
            queue.add(item);
        }
        let Batch::Publish(batch) = queue.next().await else { panic!("no messages") };
        let payloads = batch.iter().map(|it| it.message.payload[0]);
        assert_eq!(payloads.collect::<Vec<_>>(), [1, 2]);
        assert!(matches!(queue.next().await, Batch::Other(Item::Subscribe(_, 7))));
        assert!(matches!(queue.next().await, Batch::Publish(_)));
        assert!(queue.is_empty() && queue.bytes.get() == 0);
    }
}
