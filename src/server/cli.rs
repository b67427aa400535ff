//! The command line of a daemon: parsed here, carried out elsewhere. A contract that others
//! script against; `docs/operations.md` has the exit statuses.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};

use super::check;
use super::command::{self, ExitStatus};
use super::stopper::{Stopped, stop};
use super::words::{self, close_code, close_reason, time};
use super::{Server, launcher};
use crate::config::{Config, Scopes, Sources};
use crate::fd::Fd;
use crate::ipc::control::BodyKind;
use crate::log::say;
use crate::sys::guard;

const EXAMPLES: &str = "\
Examples:
  wsd start                      serve in the foreground; then open http://127.0.0.1:8000/
  wsd start -d -c wsd.toml       serve as a daemon; returns when every worker serves
  wsd status                     the processes, what they do, and how much of it
  wsd connections                who is connected
  wsd push 14450488833 'hello'   a message to one client, from anywhere on this machine
  wsd publish lobby 'hello'      a message to everybody in a room
  wsd reload                     new code and configuration; nobody is disconnected
  wsd stop                       returns when every process has ended
";

/// What stands below the help of every command: examples and the exit statuses.
fn manual() -> String {
    let statuses = ExitStatus::ALL.iter();
    let lines = statuses.map(|(status, what)| format!("  {}  {what}\n", *status as u8));
    format!("{EXAMPLES}\nExit status:\n{}", lines.collect::<String>())
}

#[derive(Parser)]
#[command(name = "wsd", version, about = "A multi-process WebSocket application server.")]
#[command(after_help = manual(), propagate_version = true, max_term_width = 98)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Options {
    /// Read this configuration file; etc/wsd.toml documents every key.
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Override a key of the configuration; may be given again. Wins over the file and over the
    /// environment (WSD_KEY).
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = Sources::parse_set)]
    set: Vec<(String, String)>,
    /// Print data as JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Serve, in the foreground unless told otherwise.
    Start(Start),
    /// Stop the server, and return when every process has ended.
    ///
    /// The server stops accepting, lets running handlers end (at most max_wait_time), closes every
    /// connection with 1001, and kills what does not end in time.
    Stop,
    /// Stop the server if it runs, and start it.
    Restart(Start),
    /// Load new code and configuration without disconnecting anybody, and print the verdict.
    ///
    /// Where the configuration or the program is bad, nothing changes and the status is 1.
    Reload,
    /// As reload, but the master itself becomes the program that is installed now.
    Upgrade,
    /// Show the processes and what they do.
    Status,
    /// List the open connections.
    Connections {
        /// Only those that do not read, the one with the most bytes that wait first; at most 100.
        #[arg(long, conflicts_with_all = ["room", "uid"])]
        slow: bool,
        /// Of this room alone.
        #[arg(long, value_name = "ROOM")]
        room: Option<String>,
        /// Of this user alone.
        #[arg(long, value_name = "UID")]
        uid: Option<String>,
        /// Only those of this node, as without a room and a user.
        #[arg(long)]
        here: bool,
    },
    /// List the nodes of the cluster, as the node that is asked knows them.
    Nodes,
    /// List the rooms that have members, and how many.
    Rooms {
        /// Of this node of a cluster alone.
        #[arg(long)]
        here: bool,
    },
    /// List the members of a room.
    Members {
        /// The room.
        room: String,
        /// Of this node of a cluster alone.
        #[arg(long)]
        here: bool,
    },
    /// Send a text message to the members of a room, and say how many got it.
    Publish {
        /// The room.
        room: String,
        /// The message; `-` reads the message from standard input.
        text: OsString,
        /// Send a binary message.
        #[arg(long)]
        binary: bool,
        /// Leave this client out.
        #[arg(long, value_name = "FD")]
        except: Option<Fd>,
        /// To the members of this node of a cluster alone.
        #[arg(long)]
        here: bool,
    },
    /// Show what is known of one client.
    Info {
        /// The client's number, as `connections` shows it.
        fd: Fd,
    },
    /// Push a text message to one client, or to every connection of a user; status 4 when there
    /// is none.
    #[command(override_usage = words::PUSH_USAGE)]
    Push {
        /// The client's number, as `connections` shows it, and the message; with --uid, the
        /// message alone. `-` reads the message from standard input.
        #[arg(num_args = 0..=2, value_name = "FD TEXT")]
        words: Vec<OsString>,
        /// To every connection of this user: push --uid UID TEXT.
        #[arg(long, value_name = "UID")]
        uid: Option<String>,
        /// Send a binary message.
        #[arg(long)]
        binary: bool,
        /// With --uid: to the connections of this node of a cluster alone.
        #[arg(long, requires = "uid")]
        here: bool,
    },
    /// Push a text message to every client.
    Broadcast {
        /// The message; `-` reads the message from standard input.
        text: OsString,
        /// Send a binary message.
        #[arg(long)]
        binary: bool,
        /// Leave this client out.
        #[arg(long, value_name = "FD")]
        except: Option<Fd>,
        /// To the clients of this node of a cluster alone.
        #[arg(long)]
        here: bool,
    },
    /// Close one client's connection; status 4 when the client is gone.
    Close {
        /// The client's number, as `connections` shows it.
        fd: Fd,
        /// The close code: 1000 to 1003, 1007 to 1014, 3000 to 4999.
        #[arg(long, default_value_t = 1000, value_parser = close_code)]
        code: u16,
        /// The reason, at most 123 bytes.
        #[arg(long, default_value = "", value_parser = close_reason)]
        reason: String,
    },
    /// Check the configuration, and what else a start would fail on. Binds nothing.
    Check {
        /// Ask the engine of the cluster as well, and say what answers.
        #[arg(long)]
        connect: bool,
    },
    /// Open the log file anew, after a rotation.
    Reopen,
    /// Take no new clients, keep those that are there, and end when the last is gone.
    ///
    /// First the server says that it is not ready (/ready, health_path), so that balancers send
    /// nobody more; after drain_grace it takes no new clients; it ends when the last is gone, or
    /// after drain_timeout. Reloads and upgrades change nothing about that.
    Drain {
        /// Be ready again, and take new clients.
        #[arg(long)]
        undo: bool,
        /// Return when the server has ended.
        #[arg(long, conflicts_with = "undo")]
        wait: bool,
    },
    /// Connect to a WebSocket server, this one or any: lines that are typed are sent, and what
    /// comes is shown.
    ///
    /// Ends when the server closes, or behind the end of standard input, after --wait and once the
    /// server has answered the close. By wss:// the server must show a trusted certificate;
    /// SSL_CERT_FILE names a file of other ones to trust.
    Connect {
        /// Where to: ws://127.0.0.1:8000/ or wss://example.com/ or the like.
        url: String,
        /// A header of the request more; may be given again.
        #[arg(short = 'H', long, value_name = "NAME: VALUE")]
        header: Vec<String>,
        /// A subprotocol to ask for; may be given again.
        #[arg(long, value_name = "NAME")]
        subprotocol: Vec<String>,
        /// Send each line as a binary message.
        #[arg(long)]
        binary: bool,
        /// How long to wait for answers behind the end of standard input, such as 500ms or 10s; 1s
        /// behind a pipe or a file, and not at all behind Ctrl-D.
        #[arg(long, value_name = "TIME", value_parser = time)]
        wait: Option<Duration>,
    },
    /// Print what completes commands in a shell.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory.
    #[command(hide = true)]
    Manual {
        /// The directory, which has to be there.
        directory: PathBuf,
    },
    /// Make a token for the HTTP API, and print it with the entry for api.tokens.
    Token {
        /// What the token is known by: letters, digits, dots, _ and -.
        name: String,
        /// What the token allows: read, push and admin, with + between them.
        #[arg(long, default_value = "read", value_parser = Scopes::parse)]
        scope: Scopes,
    },
}

#[derive(Args)]
struct Start {
    /// Go to the background; returns once every worker serves, or says why not.
    #[arg(short, long)]
    daemon: bool,
}

/// Does what the command line says.
pub fn run(server: Server) -> ExitCode {
    let Cli { options, command } = Cli::parse();
    if let Some(status) = without_server(&command, options.json) {
        return status.into();
    }
    let mut sources = Sources::here(options.config, options.set);
    guard::hide_arguments(Sources::secret_of);
    if let Command::Start(Start { daemon: true }) | Command::Restart(Start { daemon: true }) =
        command
    {
        sources.set.push(("daemonize".to_owned(), "true".to_owned()));
    }
    // A command to a running server needs nothing of the configuration but where the server is.
    let is_check = matches!(command, Command::Check { .. });
    let strict = is_check || matches!(command, Command::Start(_) | Command::Restart(_));
    let config = match launcher::load(&server, &sources, strict) {
        Ok(config) => config,
        Err(errors) => {
            if is_check && options.json {
                check::print_errors(&errors);
            }
            say(format_args!("{errors}"));
            return ExitCode::FAILURE;
        }
    };
    if matches!(command, Command::Reload | Command::Upgrade)
        && let Err(useless) = words::check_sets(&sources)
    {
        say(format_args!("wsd: {useless}"));
        return ExitStatus::Usage.into();
    }
    if !(is_check || matches!(command, Command::Start(_)))
        && let Err(error) = launcher::check_lead(&server, &sources, &config)
    {
        say(format_args!("wsd: {error}"));
        return ExitCode::FAILURE;
    }
    match command {
        Command::Start(_) => launcher::start(sources, config),
        Command::Restart(_) => {
            // A server that runs is not stopped for one that cannot start.
            if let Err(code) = launcher::find_obstacles(&sources, &config) {
                return code;
            }
            match end(&config) {
                ExitStatus::Done | ExitStatus::NotRunning => launcher::start(sources, config),
                status => status.into(),
            }
        }
        Command::Check { connect } => {
            check::check(&sources, &config, connect, options.json).into()
        }
        command => carry_out(command, &config, options.json).into(),
    }
}

/// Carries out what needs no server of this machine and no configuration.
fn without_server(command: &Command, json: bool) -> Option<ExitStatus> {
    Some(match command {
        Command::Token { name, scope } => command::token(name, *scope, json),
        Command::Connect { url, header, subprotocol, binary, wait } => {
            command::connect_to(url, header, subprotocol, (*binary, *wait), json)
        }
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "wsd", &mut std::io::stdout());
            ExitStatus::Done
        }
        Command::Manual { directory } => {
            let generated = clap_mangen::generate_to(Cli::command(), directory);
            let failed = generated.err().map(|error| {
                say(format_args!("wsd: cannot write to {}: {error}", directory.display()));
            });
            failed.map_or(ExitStatus::Done, |()| ExitStatus::Failed)
        }
        _ => return None,
    })
}

fn carry_out(command: Command, config: &Config, json: bool) -> ExitStatus {
    let dir: &Path = &config.runtime_dir;
    match command {
        Command::Stop => match end(config) {
            ExitStatus::NotRunning => {
                let (dir, elsewhere) = (dir.display(), command::ELSEWHERE);
                say(format_args!("wsd: no server runs in {dir}; {elsewhere}"));
                ExitStatus::NotRunning
            }
            status => status,
        },
        Command::Reload => command::reload(dir, json),
        Command::Upgrade => command::upgrade(dir, json),
        Command::Status => command::status(dir, json),
        Command::Connections { slow: true, .. } => command::slow(dir, json),
        Command::Connections { room, uid, here, .. } => {
            command::connections(dir, (room, uid), here, json)
        }
        Command::Nodes => command::nodes(dir, json),
        Command::Rooms { here } => command::rooms(dir, here, json),
        Command::Members { room, here } => command::members(dir, &room, here, json),
        Command::Publish { room, text, binary, except, here } => match command::message(text) {
            Ok(text) => command::publish(dir, &room, (except, here), (kind(binary), &text), json),
            Err(status) => status,
        },
        Command::Info { fd } => command::info(dir, fd, json),
        Command::Push { words, uid, binary, here } => {
            match command::whom(words, uid)
                .and_then(|(to, text)| Ok((to, command::message(text)?)))
            {
                Ok((command::To::Client(fd), text)) => {
                    command::push(dir, fd, kind(binary), &text, json)
                }
                Ok((command::To::User(uid), text)) => {
                    command::push_uid(dir, &uid, here, (kind(binary), &text), json)
                }
                Err(status) => status,
            }
        }
        Command::Broadcast { text, binary, except, here } => match command::message(text) {
            Ok(text) => command::broadcast(dir, kind(binary), (except, here), &text, json),
            Err(status) => status,
        },
        Command::Close { fd, code, reason } => command::close(dir, fd, code, &reason, json),
        Command::Reopen => command::reopen(dir, json),
        Command::Drain { undo, wait } => command::drain(dir, undo, wait, json),
        // These were taken care of before.
        Command::Check { .. }
        | Command::Start(_)
        | Command::Restart(_)
        | Command::Token { .. }
        | Command::Connect { .. }
        | Command::Completions { .. }
        | Command::Manual { .. } => ExitStatus::Usage,
    }
}

fn kind(binary: bool) -> BodyKind {
    if binary { BodyKind::Binary } else { BodyKind::Text }
}

fn end(config: &Config) -> ExitStatus {
    match stop(config) {
        Ok(Stopped::NotRunning) => ExitStatus::NotRunning,
        Ok(Stopped::Gracefully | Stopped::Killed) => ExitStatus::Done,
        Err(error) => {
            say(format_args!("wsd: {error}"));
            ExitStatus::Failed
        }
    }
}
