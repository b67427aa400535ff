//! The door: who comes in, from the kernel's queue to an open WebSocket or an HTTP request.
//!
//! - [`listeners`] and [`accept`]; [`checks`] has the limits; [`refuse`] tells whom is not let in.
//! - [`open`]: the head of a request, and the handshake. [`serials`]: the numbers of clients.
//! - [`plain`], [`seat`], [`http`] and [`http_connections`]: requests that are no WebSocket.
//! - [`readiness`]: what balancers are told.

pub(super) mod accept;
pub(super) mod checks;
pub(super) mod http;
pub(super) mod http_connections;
pub(super) mod listeners;
pub(super) mod open;
pub(super) mod plain;
pub(super) mod readiness;
pub(super) mod refuse;
pub(super) mod seat;
pub(super) mod serials;

use std::cell::RefCell;
use std::ops::Deref;
use std::rc::Rc;

use self::http::Disk;
use self::http_connections::HttpConnections;
use self::listeners::Listeners;
use self::readiness::Summary;
use self::serials::Serials;
use super::app::App;

/// The way in.
pub(super) struct Door {
    pub app: Rc<App>,
    pub disk: Rc<Disk>,
    pub listeners: RefCell<Listeners>,
    pub serials: RefCell<Serials>,
    pub http: HttpConnections,
    pub summary: Summary,
}

impl Door {
    /// A door without a listener yet, that gives numbers from the serial `lease` on.
    pub(super) fn new(app: Rc<App>, lease: u64) -> Door {
        let config = &app.settings.config;
        Door {
            disk: Disk::new(config.upload_tmp_dir.clone(), config.upload_tmp_max),
            listeners: RefCell::default(),
            serials: RefCell::new(Serials::new(app.slot(), lease)),
            http: HttpConnections::default(),
            summary: Summary::default(),
            app,
        }
    }
}

impl Deref for Door {
    type Target = Rc<App>;

    fn deref(&self) -> &Rc<App> {
        &self.app
    }
}
