//! The stock server.
use std::process::ExitCode;
fn main() -> ExitCode {
    wsd::Server::new().run()
}
