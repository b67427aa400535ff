//! What a handler is told of other nodes with the list of a room.

use std::sync::mpsc::{Sender, channel};

use bytes::Bytes;

use super::harness::*;
use super::serving::{config, told};
use crate::api::rooms::Present;
use crate::api::{Context, Flow, Frame, Handler};
use crate::fd::Slot;
use crate::ipc::codec;
use crate::ipc::messages::{ManagerToWorker, WorkerToManager};

/// Tells what the list of a room has, once for each message of another worker.
struct Lists(Sender<String>);

impl Handler for Lists {
    fn on_message(&self, _: &Context, _: Frame<'_>) -> Flow {
        Flow::default()
    }

    fn on_worker_message(&self, ctx: &Context, _: Slot, _: Bytes) -> Flow {
        let (list, tell) = (ctx.presence("presence-r"), self.0.clone());
        Flow::later(async move {
            let list = list.await.unwrap();
            let (users, nodes) = (list.users.len(), list.nodes.map(|it| (it.asked, it.answered)));
            let (engine, whole) = (list.engine, list.is_whole());
            let _ = tell.send(format!("{users} {nodes:?} {engine:?} {whole}"));
        })
    }
}

#[tokio::test]
async fn a_list_of_presence_has_of_other_nodes_what_the_manager_says_and_else_nothing_is_known() {
    let (server, (tell, heard)) = (Server::new(), channel());
    let mut config = config();
    config.cluster.engine = Some("redis://127.0.0.1".to_owned().try_into().unwrap());
    let mut worker = server.start(FIRST, config, move || Lists(tell)).await;
    let list = [Present::new("ann".to_owned(), 1, None)];
    let mut body = Vec::new();
    codec::encode(&&list[..], &mut body).unwrap();
    for (said, is_told) in [
        (Some((Some(1), 1)), "1 Some((Some(1), 1)) Some(Ok) true"),
        (Some((None, 1)), "1 Some((None, 1)) Some(Ok) false"),
        (None, "1 Some((None, 0)) Some(Away) false"),
    ] {
        worker.says(ManagerToWorker::WorkerMessage { from: Slot(1), acts: true }, b"").await;
        let asked_for = |(message, ..): &Heard| match message {
            WorkerToManager::PresenceOf { id, .. } => Some(*id),
            _ => None,
        };
        let id = worker.hears(asked_for).await;
        if let Some((asked, answered)) = said {
            let nodes = ManagerToWorker::PresenceNodes { id, asked, answered, away: false };
            worker.says(nodes, b"").await;
        }
        worker.says(ManagerToWorker::PresenceAnswer { id }, &body).await;
        assert_eq!(told(&heard).await, is_told);
    }
}
