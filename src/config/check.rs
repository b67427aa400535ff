//! Checks: the limits of each key, and what keys demand of each other.

use super::addr::ListenAddr;
use super::errors::Wrong;
use super::keys::{Config, HandlerName, keys};
use super::load::Loading;
use super::value::Setting;

/// A demand of one key on another: both names, and the fault where it is broken. The fault is told
/// of whichever of the two was written last.
struct Relation {
    keys: [&'static str; 2],
    fault: fn(&Config) -> Option<Wrong>,
}

const RELATIONS: [Relation; 10] = [
    Relation { keys: ["head_line_max", "head_bytes_max"], fault: head },
    Relation { keys: ["handshakes_per_ip", "handshakes_max"], fault: handshakes },
    Relation { keys: ["app.command", "handler"], fault: app },
    Relation { keys: ["pid_file", "log_file"], fault: pid_and_log },
    Relation { keys: ["pid_file", "listen"], fault: pid_and_listen },
    Relation { keys: ["log_file", "listen"], fault: log_and_listen },
    Relation { keys: ["api.tokens", "api.listen"], fault: open_to_everybody },
    Relation { keys: ["api.listen", "listen"], fault: api_and_listen },
    Relation { keys: ["pid_file", "api.listen"], fault: pid_and_api },
    Relation { keys: ["log_file", "api.listen"], fault: log_and_api },
];

impl Loading<'_> {
    /// Checks everything that was read; keys with a known fault are left alone.
    pub(super) fn check(&mut self) {
        for key in keys() {
            if self.is_faulty(key.name) {
                continue;
            }
            if let Err(mut what) = (key.check)(&self.config) {
                // A time is told as it was written, not in the unit that it is kept in.
                if let Some(written) = self.written(key.name)
                    && what.wrong == format!("is {}", (key.show)(&self.config))
                {
                    what.wrong = format!("is {written}");
                }
                self.fault(self.origin(key.name), key.name, what);
            }
        }
        for Relation { keys: [one, other], fault } in RELATIONS {
            if self.is_faulty(one) || self.is_faulty(other) {
                continue;
            }
            if let Some(what) = fault(&self.config) {
                let written = |key| self.origin(key) != super::Source::Builtin;
                let key = if written(one) || !written(other) { one } else { other };
                self.fault(self.origin(key), key, what);
            }
        }
        // Who names an application and no handler would be served the chat.
        let key = "app.command";
        if self.written(key).is_some() && self.written("handler").is_none() && !self.is_faulty(key)
        {
            let what =
                Wrong::new("is set and handler is not", "write handler = \"app\" above [app]");
            self.fault(self.origin(key), key, what);
        }
    }
}

fn head(config: &Config) -> Option<Wrong> {
    (config.head_line_max > config.head_bytes_max).then(|| {
        Wrong::new(
            format!(
                "head_line_max ({}) is more than head_bytes_max ({})",
                config.head_line_max.show(),
                config.head_bytes_max.show()
            ),
            "a line cannot be longer than the head it stands in",
        )
    })
}

fn handshakes(config: &Config) -> Option<Wrong> {
    (config.handshakes_per_ip > config.handshakes_max).then(|| {
        Wrong::new(
            format!(
                "handshakes_per_ip ({}) is more than handshakes_max ({})",
                config.handshakes_per_ip, config.handshakes_max
            ),
            "make it at most that",
        )
    })
}

fn app(config: &Config) -> Option<Wrong> {
    (config.handler == HandlerName::App && config.app.command.0.is_empty()).then(|| {
        Wrong::new(
            "handler is \"app\" and app.command is missing",
            "write [app] command = \"php server.php\" or the like",
        )
    })
}

fn pid_and_log(config: &Config) -> Option<Wrong> {
    let same = config.log_file.as_ref() == Some(&config.pid_file);
    same.then(|| Wrong::new("pid_file and log_file are the same file", "use two"))
}

fn pid_and_listen(config: &Config) -> Option<Wrong> {
    let same = config.listen.contains(&ListenAddr::Unix(config.pid_file.clone()));
    same.then(|| Wrong::new("pid_file is also a Unix socket of listen", "use two paths"))
}

/// Whoever can reach a TCP port could command the server.
fn open_to_everybody(config: &Config) -> Option<Wrong> {
    let tcp = config.api.listen.iter().find(|addr| matches!(addr, ListenAddr::Tcp(_)))?;
    config.api.tokens.is_empty().then(|| {
        Wrong::new(
            format!("api.listen has {tcp} and api.tokens is empty, so that anybody may ask"),
            "add the line that `wsd token NAME` prints, or listen on \"unix:/path\"",
        )
    })
}

fn api_and_listen(config: &Config) -> Option<Wrong> {
    let by_kernel = |addr: &&ListenAddr| matches!(addr, ListenAddr::Tcp(addr) if addr.port() == 0);
    let both = |addr: &&ListenAddr| config.listen.contains(addr) && !by_kernel(addr);
    let twice = config.api.listen.iter().find(both)?;
    Some(Wrong::new(
        format!("{twice} is in listen and in api.listen"),
        "give the API an address of its own",
    ))
}

fn pid_and_api(config: &Config) -> Option<Wrong> {
    let same = config.api.listen.contains(&ListenAddr::Unix(config.pid_file.clone()));
    same.then(|| Wrong::new("pid_file is also a Unix socket of api.listen", "use two paths"))
}

fn log_and_api(config: &Config) -> Option<Wrong> {
    let log = config.log_file.clone()?;
    let same = config.api.listen.contains(&ListenAddr::Unix(log));
    same.then(|| Wrong::new("log_file is also a Unix socket of api.listen", "use two paths"))
}

fn log_and_listen(config: &Config) -> Option<Wrong> {
    let log = config.log_file.clone()?;
    let same = config.listen.contains(&ListenAddr::Unix(log));
    same.then(|| Wrong::new("log_file is also a Unix socket of listen", "use two paths"))
}
