//! What a handler is told of a message to its slot.

use std::cell::RefCell;
use std::sync::mpsc::{Sender, channel};

use bytes::Bytes;

use super::harness::*;
use super::serving::{config, told};
use crate::api::{Context, Flow, Frame, Handler};
use crate::fd::Slot;
use crate::ipc::messages::ManagerToWorker;

/// Says whether its process gives, by two clones of a message's context: by one after the message,
/// when the next one comes, and by one while the handler still has something under way.
struct Keeper {
    tell: Sender<String>,
    kept: RefCell<Option<Context>>,
}

impl Handler for Keeper {
    fn on_message(&self, _: &Context, _: Frame<'_>) -> Flow {
        Flow::default()
    }

    fn on_worker_message(&self, ctx: &Context, _: Slot, _: Bytes) -> Flow {
        if let Some(before) = self.kept.replace(Some(ctx.clone())) {
            let _ = self.tell.send(format!("after {}", before.is_giving()));
        }
        let (ctx, tell) = (ctx.clone(), self.tell.clone());
        Flow::later(async move {
            tokio::task::yield_now().await;
            let _ = tell.send(format!("meanwhile {}", ctx.is_giving()));
        })
    }
}

#[tokio::test]
async fn the_answer_who_acts_on_a_message_is_good_until_its_handler_has_ended() {
    let (server, (tell, heard)) = (Server::new(), channel());
    let keeper = move || Keeper { tell, kept: RefCell::default() };
    let worker = server.start(FIRST, config(), keeper).await;
    let message = |acts| ManagerToWorker::WorkerMessage { from: Slot(1), acts };
    worker.says(message(false), b"").await;
    assert_eq!(told(&heard).await, "meanwhile true");
    worker.says(message(true), b"").await;
    assert_eq!(told(&heard).await, "after false", "the process gives nothing to anybody");
    assert_eq!(told(&heard).await, "meanwhile false");
}
