//! What a worker asks the manager for where its handler publishes.

use bytes::Bytes;

use super::harness::*;
use super::serving::config;
use crate::api::rooms::Topic;
use crate::api::{Context, Flow, Frame, Handler};
use crate::fd::Slot;
use crate::ipc::messages::{ManagerToWorker, WorkerToManager};

/// Publishes to no room, and then to one.
struct Publisher;

impl Handler for Publisher {
    fn on_message(&self, _: &Context, _: Frame<'_>) -> Flow {
        Flow::default()
    }

    fn on_worker_message(&self, ctx: &Context, _: Slot, _: Bytes) -> Flow {
        let _ = ctx.publish_many([""; 0], "for nobody");
        let _ = ctx.publish("r", "for its members");
        Flow::default()
    }
}

#[tokio::test]
async fn a_publish_to_no_room_goes_to_no_worker() {
    let server = Server::new();
    let mut worker = server.start(FIRST, config(), || Publisher).await;
    worker.says(ManagerToWorker::WorkerMessage { from: Slot(1), acts: true }, b"").await;
    let first = worker.hears(|(message, ..)| match message {
        WorkerToManager::Call { call, .. } => Some(call.topics.clone()),
        _ => None,
    });
    assert_eq!(first.await, [Topic::room("r")]);
}
