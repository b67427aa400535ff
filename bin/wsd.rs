//! The stock server: its handler is one of the configuration's choice.

use std::process::ExitCode;
use std::rc::Rc;

use wsd::Server;
use wsd::api::Handler;
use wsd::config::{Config, HandlerName};
use wsd::handler::app::AppSettings;
use wsd::handler::{AppHandler, Chat, Echo};

/// Each message has memory of its own, which this takes and gives back in less time than the C
/// library (`docs/decisions/mimalloc.md`).
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    Server::new().boxed_handler(handler).run()
}

fn handler(config: &Config) -> Rc<dyn Handler> {
    match config.handler {
        HandlerName::Chat => Rc::new(Chat::new()),
        HandlerName::Echo => Rc::new(Echo),
        HandlerName::App => Rc::new(AppHandler::new(AppSettings::from(config))),
    }
}
