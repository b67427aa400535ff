//! `nodes`.

use std::path::Path;

use super::ExitStatus;
use super::rooms::list;
use super::style::{Table, Tone, duration, number, safe};
use crate::ipc::control::{NodeReport, NodeState, Request};
use crate::sys::clock::unix_ms;

/// Lists the nodes of the cluster, as this one knows them.
pub(crate) fn nodes(runtime_dir: &Path, json: bool) -> ExitStatus {
    let headings = [
        ">node",
        "state",
        "host",
        "version",
        ">connections",
        ">topics",
        ">up",
        ">lag",
        ">gaps",
        "",
    ];
    let mut table = Table::new(&headings);
    list(runtime_dir, &Request::Nodes {}, json, "node", |nodes: Vec<NodeReport>| {
        for node in nodes {
            let cells = [
                node.node.to_string(),
                state(node.state).to_owned(),
                safe(&node.host),
                safe(&node.version),
                number(node.connections),
                number(node.topics),
                duration(unix_ms().saturating_sub(node.since)),
                if node.lag_us == 0 { "-".to_owned() } else { format!("{} us", node.lag_us) },
                number(node.gaps),
                if node.here { "here".to_owned() } else { String::new() },
            ];
            table.row(cells.map(|cell| (cell, Tone::Plain)).to_vec());
        }
        table
    })
}

/// As in JSON.
fn state(state: NodeState) -> &'static str {
    match state {
        NodeState::Serves => "serves",
        NodeState::Drains => "drains",
        NodeState::Silent => "silent",
        NodeState::Unknown => "unknown",
    }
}
