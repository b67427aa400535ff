//! What `wsd check --connect` tells of an engine: whether it answers, as what, and what of its
//! settings is hardly meant for a cluster.

use std::sync::Arc;
use std::time::Duration;

use super::engine::{Description, Engine, Lease, Message, OWNER_BYTES, Session};
use super::inbox::Inbox;
use super::state::Names;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ipc::cluster::nodes::{NODES_MAX, NodeRecord};

/// After which the engine has forgotten by itself what was tried.
const TRIAL_TTL: Duration = Duration::from_secs(1);

/// Connects, asks, and disconnects. The answer is the engine, and the nodes that are there.
pub(crate) fn check(
    config: &Config,
    password: Option<String>,
) -> Result<(Description, Vec<NodeRecord>)> {
    let engine = super::engine_of(config, password)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::io("start a runtime", error))?;
    let asked = runtime.block_on(ask(&*engine, &Names::of(config)));
    // A name that is looked up may take its thread any time.
    runtime.shutdown_background();
    asked
}

async fn ask(engine: &dyn Engine, names: &Names) -> Result<(Description, Vec<NodeRecord>)> {
    let mut session = engine.connect(Arc::new(Inbox::default())).await?;
    let description = session.describe().await?;
    try_out(&mut *session, names.trial()).await?;
    let keys: Vec<String> = (0..NODES_MAX).map(|node| names.lease(node)).collect();
    let records = session.holders(&keys).await?.into_iter().flatten();
    Ok((description, records.filter_map(|bytes| NodeRecord::from_bytes(&bytes)).collect()))
}

/// Does all that a node does: a replica, an engine that is full and one that does not let this user
/// do it would answer to everything else.
async fn try_out(session: &mut dyn Session, [name, serials]: [String; 2]) -> Result<()> {
    // One owner for whoever checks: a lease that another check has left would not be written, and
    // so would hide that this user may not write.
    let lease = Lease { key: name.clone(), owner: "0".repeat(OWNER_BYTES), record: Vec::new() };
    session.claim(&lease, TRIAL_TTL).await?;
    session.release(&lease).await?;
    session.raise(&serials, &[(0, 1)]).await?;
    session.forget(&serials).await?;
    let channel = std::slice::from_ref(&name);
    session.subscribe(channel).await?;
    session.subscribers(channel).await?;
    session.publish(&[Message { channel: name.clone(), payload: Vec::new() }]).await?;
    session.unsubscribe(channel).await
}
