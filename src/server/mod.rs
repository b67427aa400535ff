//! The server as its user builds it: handlers in, a whole daemon out.
//!
//! `run` gives the program the command line of a daemon (`start|stop|reload|status|…`), `start`
//! serves in the foreground. Both are also where every process of the server begins: master,
//! manager and workers are this same program, executed anew under another name, and the call
//! finds out which of them it is. So call it first thing in `main`, and do nothing before it
//! that only one process should do.
//!
//! - `closures`: the handler that closures make together.
//! - `role`: which process this is. `launcher`: from the terminal to the master; `obstacles`: what
//!   would keep a server from starting.
//! - `cli` and `words`: the command line as it is typed; `check`, `stopper` and `command` carry it
//!   out.
//! - `testing`: a server within one process.

#[cfg(feature = "cli")]
mod check;
#[cfg(feature = "cli")]
mod cli;
mod closures;
#[cfg(feature = "cli")]
mod command;
mod launcher;
mod obstacles;
mod role;
#[cfg(feature = "cli")]
mod stopper;
#[cfg(any(test, feature = "testing"))]
pub(crate) mod testing;
#[cfg(feature = "cli")]
mod words;

use std::process::ExitCode;
use std::rc::Rc;

use crate::api::Handler;
use crate::config::Config;
use crate::error::{Error, Result};
use closures::Closures;
use role::Role;

/// A server to be. Swoole's `Swoole\WebSocket\Server`.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     wsd::Server::new()
///         .listen("127.0.0.1:8000")
///         .on_message(|ctx, frame| {
///             ctx.push(frame.fd, "this is server");
///         })
///         .run()
/// }
/// ```
pub struct Server {
    base: Config,
    wrong: Option<String>,
    closures: Closures,
    handler: Option<Maker>,
    privileged: Privileged,
}

type Maker = Box<dyn FnOnce(&Config) -> Rc<dyn Handler>>;
type Privileged = Box<dyn FnOnce(&Config) -> Result<()>>;

impl Default for Server {
    fn default() -> Server {
        Server::new()
    }
}

impl Server {
    /// A server with the defaults of `etc/wsd.toml` and handlers that do nothing.
    pub fn new() -> Server {
        Server {
            base: Config::default(),
            wrong: None,
            closures: Closures::default(),
            handler: None,
            privileged: Box::new(|_| Ok(())),
        }
    }

    /// Where to listen, in place of the default `127.0.0.1:8000`; see `listen` in
    /// `etc/wsd.toml`. Called again, it adds an address. A configuration file, the environment
    /// and `--set` win over it.
    pub fn listen(mut self, address: &str) -> Server {
        match address.parse() {
            Ok(address) if self.base.listen == Config::default().listen => {
                self.base.listen = vec![address];
            }
            Ok(address) => self.base.listen.push(address),
            Err(wrong) => self.wrong = Some(format!("listen(\"{address}\"): it {wrong}")),
        }
        self
    }

    /// Defaults of the program for any other key, which file, environment and `--set` win over.
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Server {
        change(&mut self.base);
        self
    }

    /// In each worker, before it becomes `user`: the place to read what only root may read, such
    /// as a key. Whatever runs after it, from the making of the handler on, has the rights of
    /// `user` alone. A worker that is started later, after a kill or for a reload, runs it too.
    ///
    /// Keep what it reads in something that the handler shares, such as an `Rc<OnceCell<_>>`.
    /// It may start no thread, which would keep root's rights.
    ///
    /// # Errors
    /// What it returns as an error is the reason for which the worker does not start.
    pub fn before_privilege_drop<E: std::fmt::Display>(
        mut self,
        f: impl FnOnce(&Config) -> std::result::Result<(), E> + 'static,
    ) -> Server {
        self.privileged = Box::new(move |config| {
            f(config).map_err(|error| Error::new(format!("before_privilege_drop: {error}")))
        });
        self
    }

    /// A handler of your own, in place of closures. It is made in each worker, and only there,
    /// with the rights of `user` already.
    pub fn handler<H: Handler>(mut self, make: impl FnOnce(&Config) -> H + 'static) -> Server {
        self.handler = Some(Box::new(|config| Rc::new(make(config))));
        self
    }

    /// As [`handler`](Self::handler), where the type is known only then.
    pub fn boxed_handler(
        mut self,
        make: impl FnOnce(&Config) -> Rc<dyn Handler> + 'static,
    ) -> Server {
        self.handler = Some(Box::new(make));
        self
    }

    /// Serves in the foreground, whatever the command line says, until a signal stops it.
    pub fn start(self) -> ExitCode {
        match self.role() {
            Ok(Some(role)) => self.live_as(role),
            Ok(None) => launcher::start_in_foreground(self),
            Err(code) => code,
        }
    }

    /// Does what the command line says: `start`, `stop`, `reload`, `status`, `push` and so on.
    /// Needs the feature `cli`, which is there by default.
    #[cfg(feature = "cli")]
    pub fn run(self) -> ExitCode {
        match self.role() {
            Ok(Some(role)) => self.live_as(role),
            Ok(None) => cli::run(self),
            Err(code) => code,
        }
    }

    fn role(&self) -> std::result::Result<Option<Role>, ExitCode> {
        if let Some(wrong) = &self.wrong {
            crate::log::say(format_args!("wsd: {wrong}"));
            return Err(ExitCode::FAILURE);
        }
        Role::of_this_process().map_err(|error| {
            crate::log::say(format_args!("wsd: {error}"));
            ExitCode::FAILURE
        })
    }

    fn live_as(self, role: Role) -> ExitCode {
        let Server { base, closures, handler, privileged, .. } = self;
        role.live(base, privileged, maker(handler, closures))
    }

    /// The handler, made in the thread that calls it.
    #[cfg(any(test, feature = "testing"))]
    fn into_handler(self, config: &Config) -> Rc<dyn Handler> {
        maker(self.handler, self.closures)(config)
    }
}

fn maker(handler: Option<Maker>, closures: Closures) -> Maker {
    handler.unwrap_or_else(|| Box::new(|config| Rc::new(closures.with_states(config))))
}
