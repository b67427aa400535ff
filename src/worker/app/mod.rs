//! The handler: what the clients do is told to it, one event of a connection at a time.
//!
//! - [`dispatch`]: calling the handler; [`resume`]: going on with a connection afterwards.
//! - [`frames`]: bytes of an open connection as messages; [`meter`]: how fast a client may send.
//! - [`closing`]: `on_close`; [`crash`]: `on_close` for the clients of a worker that died.
//! - [`sweep`]: clients that have sent nothing for long.
//! - [`tasks`]: blocking jobs; [`processes`]: application processes.

pub(super) mod closing;
pub(super) mod crash;
pub(super) mod dispatch;
pub(super) mod frames;
pub(super) mod meter;
pub(super) mod processes;
pub(super) mod resume;
pub(super) mod sweep;
pub(super) mod tasks;

use std::cell::OnceCell;
use std::ops::Deref;
use std::rc::Rc;

use self::meter::Meters;
use self::processes::Processes;
use self::tasks::Jobs;
use super::clients::Clients;
use crate::api::{Context, Handler, Pace};

/// The handler, and the clients it serves.
pub(super) struct App {
    pub clients: Clients,
    pub handler: Rc<dyn Handler>,
    pub context: OnceCell<Context>,
    pub meters: Meters,
    pub jobs: Jobs,
    pub processes: Processes,
}

impl App {
    /// The handler, of which nothing was called yet.
    pub(super) fn new(clients: Clients, handler: Rc<dyn Handler>, pace: Pace) -> App {
        let config = &clients.settings.config;
        App {
            handler,
            context: OnceCell::new(),
            meters: Meters::new(config, pace),
            jobs: Jobs::new(config.task_threads),
            processes: Processes::default(),
            clients,
        }
    }

    /// What handlers are given. Set before the first of them is called.
    pub(super) fn context(&self) -> Option<&Context> {
        self.context.get()
    }
}

impl Deref for App {
    type Target = Clients;

    fn deref(&self) -> &Clients {
        &self.clients
    }
}
