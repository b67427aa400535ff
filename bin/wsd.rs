//! The stock server: its handler is one of the configuration's choice.

use std::process::ExitCode;
use std::rc::Rc;

use wsd::Server;
use wsd::api::Handler;
use wsd::config::{Config, HandlerName};
use wsd::handler::app::AppSettings;
use wsd::handler::{AppHandler, Chat, Echo};

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
