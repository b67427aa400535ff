//! `wsd-bench`: a load generator for WebSocket servers.
//!
//! ```text
//! cli ─► Target ─► opener: sockets after their handshake
//!                    └─► Traffic (one per thread) ◄─ Work: when to send (echo, fan)
//!                          └─ wire: frames made beforehand, answers counted and compared
//! run: threads, phases, the server's CPU around them ─► Report
//! ```

mod cli;
mod control;
mod crowd;
mod echo;
mod fan;
mod fault;
mod opener;
mod report;
mod run;
mod server;
mod stats;
mod target;
mod test_broadcast;
mod test_close;
mod test_connect;
mod test_echo;
mod test_idle;
mod test_join;
mod test_leave;
mod test_publish;
mod test_push;
mod test_relay;
mod traffic;
mod wire;

use std::process::ExitCode;

use clap::Parser;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use cli::{Cli, Test};
use fault::Fault;
use report::Report;
use server::Server;
use target::{Extras, Target};

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(test_relay::HOP) {
        return test_relay::hop().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    let cli = Cli::parse();
    match measure(&cli) {
        Ok(report) => {
            let code = u8::from(report.has_errors());
            report.print(cli.json);
            ExitCode::from(code)
        }
        Err(fault) => {
            eprintln!("wsd-bench: {fault}");
            ExitCode::from(fault.code)
        }
    }
}

fn measure(cli: &Cli) -> Result<Report, Fault> {
    let extras = Extras {
        path: cli.path.as_deref(),
        origin: cli.origin.as_deref(),
        headers: &cli.headers,
        deflate: cli.deflate,
    };
    let target = Target::parse(&cli.url, &extras)?;
    // Only a wish: what is refused shows when descriptors run out, and is told there.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
    let server = match cli.pid {
        Some(pid) => {
            let found = Server::of_pid(pid);
            Some(found.ok_or_else(|| Fault::usage(format!("there is no process {pid}")))?)
        }
        None => Server::find(&target),
    };
    match cli.test {
        Test::Echo => test_echo::measure(cli, &target, server.as_ref()),
        Test::Broadcast => test_broadcast::measure(cli, &target, server.as_ref()),
        Test::Publish => test_publish::measure(cli, &target, server.as_ref()),
        Test::Join => test_join::measure(cli, &target, server.as_ref()),
        Test::Leave => test_leave::measure(cli, &target, server.as_ref()),
        Test::Push => test_push::measure(cli, &target, server.as_ref()),
        Test::Idle => test_idle::measure(cli, &target, server.as_ref()),
        Test::Connect => test_connect::measure(cli, &target, server.as_ref()),
        Test::Close => test_close::measure(cli, &target, server.as_ref()),
        Test::Relay => test_relay::measure(cli),
    }
}
