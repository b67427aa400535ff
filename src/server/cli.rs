//! The command line of a daemon: parsed here, carried out elsewhere.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use super::stopper::{Stopped, stop};
use super::{Server, launcher};
use crate::config::{Config, Sources};

#[derive(Parser)]
#[command(name = "wsd", version, about = "A multi-process WebSocket application server")]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Options {
    /// Read this configuration file.
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a key of the configuration; may be given again.
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = Sources::parse_set)]
    set: Vec<(String, String)>,
    /// Print data as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serve, in the foreground unless told otherwise.
    Start {
        /// Go to the background once every worker serves.
        #[arg(short, long)]
        daemon: bool,
    },
    /// Stop the server, and return when all of it is gone.
    Stop,
}

pub fn run(server: Server) -> ExitCode {
    let Cli { options, command } = Cli::parse();
    let mut sources = Sources::here(options.config, options.set);
    match command {
        Command::Start { daemon } => {
            if daemon {
                sources.set.push(("daemonize".to_owned(), "true".to_owned()));
            }
            match launcher::load(&server, &sources) {
                Ok(config) => launcher::start(sources, config),
                Err(code) => code,
            }
        }
        Command::Stop => match launcher::load(&server, &sources) {
            Ok(config) => match stop(&config) {
                Ok(Stopped::NotRunning) => ExitCode::from(3),
                Ok(_) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("wsd: {error}");
                    ExitCode::FAILURE
                }
            },
            Err(code) => code,
        },
    }
}
