//! What is told of other nodes where some of them cannot be asked.

use serde_json::{Value, json};

use super::bounds::FakeCourier;
use super::*;
use crate::ipc::cluster::envelope::NodeMessage;
use crate::ipc::cluster::messages::CourierToManager;

/// Has a room published to while some nodes are silent and one hears of it, which answers before
/// or behind the engine. What the command is told of the other nodes.
async fn published(silent: Vec<u8>, answers_first: bool) -> (Answer, Value) {
    let (master, mut courier) = FakeCourier::boot().await;
    let _worker = master.serving(id(0, 1), 1).await;
    let mut control = master.control().await;
    control.send("{\"cmd\":\"publish\",\"room\":\"r\",\"opcode\":\"text\",\"bytes\":1}\nx").await;
    let id = loop {
        if let NodeMessage::Call { id, .. } = courier.hear().await.0 {
            break id;
        }
    };
    let tally = NodeMessage::Tally { id, queued: 3, full: 0, whole: true };
    if answers_first {
        courier.bring(&tally, b"").await;
    }
    courier.say(&CourierToManager::Standing { silent, draining: Vec::new() }, b"").await;
    courier.say(&CourierToManager::Sent { id, nodes: Some(1) }, b"").await;
    if !answers_first {
        courier.bring(&tally, b"").await;
    }
    let answer = control.answer().await;
    let nodes = answer.more["nodes"].clone();
    (answer, nodes)
}

#[test]
fn while_a_node_is_silent_the_others_answer_and_nobody_knows_how_many_had_to_be_asked() {
    for answers_first in [false, true] {
        story(async {
            let (answer, nodes) = published(vec![2], answers_first).await;
            assert_eq!((answer.ok, answer.verdict), (false, Some(Verdict::Unknown)), "{answer:?}");
            assert_eq!(answer.more["queued"], 3, "{answer:?}");
            assert_eq!(nodes, json!({"asked": null, "answered": 1}));
            let (answer, nodes) = published(Vec::new(), answers_first).await;
            assert!(answer.ok, "{answer:?}");
            assert_eq!(nodes, json!({"asked": 1, "answered": 1}));
        });
    }
}
