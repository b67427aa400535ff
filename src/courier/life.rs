//! The life of a courier, from its first packet to its exit.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use tokio::task::{LocalSet, spawn_local};

use super::engine::Engine;
use super::links;
use super::session;
use super::state::Courier;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::ipc::cluster::messages::{CourierToMaster, MasterToCourier};
use crate::ipc::master_link::MasterLink;
use crate::ipc::messages::Hello;
use crate::log;
use crate::sys::{ending, process};

/// How long the exit waits for the log's writer.
const LOG_FLUSH_TIME: Duration = Duration::from_millis(100);
/// For saying good-bye to the engine: whatever happens, the courier has ended then.
const LEAVE_TIME: Duration = Duration::from_millis(450);

/// The whole life of the courier process. `master` is the descriptor of the link to the master.
pub(crate) fn run(master: OwnedFd) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            crate::log::say(format_args!("wsd: the courier cannot start its reactor: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let lived = LocalSet::new().block_on(&runtime, live(master));
    // A name that is looked up may take its thread any time.
    runtime.shutdown_background();
    log::flush(LOG_FLUSH_TIME);
    match lived {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the courier cannot go on");
            log::flush(LOG_FLUSH_TIME);
            ExitCode::FAILURE
        }
    }
}

async fn live(master: OwnedFd) -> Result<()> {
    let parent = nix::unistd::getppid();
    let master = MasterLink::new(master)?;
    let Some((MasterToCourier::Boot(boot), fds)) = master.receive().await? else {
        return Err(Error::new("the first packet of the master is not Boot"));
    };
    master.send(&CourierToMaster::Hello(Hello::ours()));
    let [link] = <[OwnedFd; 1]>::try_from(fds)
        .map_err(|fds| Error::new(format!("Boot came with {} descriptors", fds.len())))?;
    let config: Config = serde_json::from_str(&boot.config)
        .map_err(|error| Error::new(format!("cannot read the configuration: {error}")))?;
    process::ignore_master_signals()?;
    ending::before_the_master();
    config.manager_rights().take()?;
    process::die_with_parent(parent)?;
    log::init("courier", config.log_level, config.log_format, log::Output::Queued)?;
    let engine = super::engine_of(&config, boot.password.clone())?;
    let courier = Rc::new(Courier::boot(boot, &config, link, master)?);
    serve(courier, engine.into()).await
}

/// Serves until the master says to leave, or is gone.
pub(super) async fn serve(courier: Rc<Courier>, engine: Rc<dyn Engine>) -> Result<()> {
    let writer = {
        let courier = Rc::clone(&courier);
        spawn_local(async move { courier.link.flush_forever().await })
    };
    let reader = spawn_local(links::read_manager(Rc::clone(&courier)));
    let arrivals = spawn_local(links::pass_on(Rc::clone(&courier)));
    let mut serving = spawn_local(session::serve(Rc::clone(&courier), engine));
    let left = tokio::select! {
        left = links::follow_master(&courier) => left,
        read = reader => Err(match read {
            Ok(error) => error,
            Err(error) => Error::new(format!("the reader of the manager's link ended: {error}")),
        }),
        ended = &mut serving => Err(Error::new(format!("no session follows: {ended:?}"))),
    };
    if left.is_ok() {
        courier.take_last_words();
        courier.leaves.notify_one();
        // Whether it could say good-bye or not: a lease ends by itself.
        let _ = tokio::time::timeout(LEAVE_TIME, serving).await;
    }
    writer.abort();
    arrivals.abort();
    left
}
