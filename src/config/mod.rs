//! The configuration: one validated value from defaults, file, environment and command line.
//!
//! ```text
//! built-in ◄ the program's own (`base`) ◄ TOML file ◄ environment WSD_KEY ◄ --set key=value
//! ```
//!
//! [`Sources`] remembers where to look, so that a reload reads everything anew with the same
//! overrides. [`Config::load`] reports all faults at once.
//!
//! - `keys`: every key in one table; `resolve` fills those that choose for themselves, `check` has
//!   the limits. `foreign`: names that other servers have for them.
//! - `sources` and `load`: from where values come; `errors`: what is wrong with them.
//! - types of values: `value`, `list`, `addr`, `hosts`, `origin`, `engine`, `mode`, `token`,
//!   `command`; `text` reads and shows sizes and times.
//! - `manual`: the sample and the table of the manual, made from the keys.

mod addr;
mod check;
mod command;
mod engine;
mod errors;
mod foreign;
mod hosts;
mod keys;
mod list;
mod load;
mod manual;
mod mode;
mod origin;
mod resolve;
mod sources;
mod text;
mod token;
mod value;

pub use addr::{ListenAddr, Net};
pub use command::Command;
pub use engine::{EngineAddress, EnginePlace};
pub use errors::{ConfigError, ConfigErrors, Source, Wrong};
pub use hosts::Hosts;
pub use keys::{
    ApiConfig, AppConfig, AppStdout, BufferPolicy, ClusterConfig, Config, HandlerName, Key,
    LogFormat, LogLevel, OnHang, RatePolicy, keys,
};
pub use manual::{markdown_table, toml_manual};
pub use mode::Mode;
pub use origin::{NotAnOrigin, Origin, Origins, authority};
pub use resolve::{batch_max, lingering_max};
pub use sources::{PASSWORD_VARIABLE, SECRET_VARIABLES, Sources};
pub(crate) use text::digits;
#[cfg(feature = "cli")]
pub(crate) use text::duration;
pub use token::{SECRET_BYTES as TOKEN_SECRET_BYTES, Scope, Scopes, Token};

use std::time::Duration;

use crate::sys::rights::Rights;

impl Config {
    /// The configuration as text for a child that starts no application: without `app.env`, whose
    /// values are the applications' alone, and without `api.tokens` unless it serves the API.
    pub fn for_child(&self, serves_api: bool) -> String {
        let mut config = self.clone();
        config.app.env.clear();
        if !serves_api {
            config.api.tokens.clear();
        }
        serde_json::to_string(&config).unwrap_or_default()
    }

    /// The keys whose value in `new` differs though it cannot change while the server runs.
    pub fn reload_refusals(&self, new: &Config) -> Vec<&'static str> {
        const FIXED: [&str; 12] = [
            "runtime_dir",
            "pid_file",
            "user",
            "group",
            "daemonize",
            "app.user",
            "app.group",
            "cluster.engine",
            "cluster.name",
            "cluster.node",
            "cluster.lease_ttl",
            "cluster.password_file",
        ];
        self.changes(new).into_iter().filter(|key| FIXED.contains(key)).collect()
    }

    /// Which node of a cluster this is; `None` without one.
    pub fn node(&self) -> Option<u8> {
        self.cluster.engine.as_ref().map(|_| self.cluster.node as u8)
    }

    /// The longest message that may be pushed to a client, in bytes: what one may send can be
    /// echoed, and what may wait for one can be sent.
    pub fn push_bytes_max(&self) -> u64 {
        self.package_max_length.max(self.buffer_output_size)
    }

    /// The names of all keys whose value differs in `new`.
    pub fn changes(&self, new: &Config) -> Vec<&'static str> {
        keys().filter(|key| (key.show)(self) != (key.show)(new)).map(|key| key.name).collect()
    }

    /// Every key with its value as TOML, as `wsd check` may print it.
    pub fn shown(&self) -> Vec<(&'static str, String)> {
        keys().map(|key| (key.name, (key.show)(self))).collect()
    }

    /// What to tell whoever starts a server as root without saying whether that is meant.
    pub fn root_warning(&self) -> Option<&'static str> {
        let is_root = nix::unistd::geteuid().is_root();
        (is_root && self.user.is_none()).then_some(
            "started as root without `user`: workers and application processes run as root; set \
             user = \"www-data\" or the like, or user = \"root\" where that is meant",
        )
    }

    /// What the manager, and what else serves no client, keeps of its rights.
    pub fn manager_rights(&self) -> Rights {
        let (user, group) = (self.user.clone(), self.group.clone());
        Rights { user, group, capabilities: Vec::new(), dumpable: self.dumpable }
    }

    /// What a worker keeps of its rights.
    pub fn worker_rights(&self) -> Rights {
        Rights { capabilities: self.capabilities.clone(), ..self.manager_rights() }
    }

    /// What an application process keeps of its rights.
    pub fn app_rights(&self) -> Rights {
        let (user, group) = (self.app.user.clone(), self.app.group.clone());
        let (user, group) = match (user, group) {
            (None, group) => (self.user.clone(), group.or_else(|| self.group.clone())),
            both => both,
        };
        Rights { user, group, ..self.worker_rights() }
    }

    /// Whether idle clients are closed, and how: the idle time and how often to look, which is at
    /// least once in that time.
    pub fn heartbeat(&self) -> Option<(Duration, Duration)> {
        let (idle, interval) = (self.heartbeat_idle_time, self.heartbeat_check_interval);
        (!idle.is_zero() && !interval.is_zero()).then_some((idle, interval.min(idle)))
    }
}

/// The known name that is nearest to a mistyped one; `None` where none is near.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name: Vec<char> = name.to_lowercase().chars().take(64).collect();
    let last = |known: &'a str| known.rsplit('.').next().unwrap_or(known);
    known
        .map(|known| {
            let lower = known.to_lowercase();
            let begun = name.len() >= 4 && lower.chars().zip(&name).all(|(a, b)| a == *b);
            let whole = if begun { 1 } else { distance(&name, &lower) };
            (whole.min(distance(&name, last(known)) + 1), known)
        })
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, known)| *distance <= 1 + known.len().min(name.len()) / 3)
        .map(|(_, known)| known)
}

/// Edits between two names: letters put in, left out, changed, or two swapped.
fn distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // The first row and column count what was put in or left out; the rest is filled below.
    let mut rows: Vec<Vec<usize>> =
        (0..=a.len()).map(|i| (0..=b.len()).map(|j| i.max(j)).collect()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests;
