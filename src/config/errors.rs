//! What is wrong with a configuration: every fault at once, each with where it was written.

use std::fmt;
use std::path::PathBuf;

use super::text::printable;

/// Where a value was written. Later variants win over earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: the built-in default, or what the program passed in.
    Builtin,
    /// The TOML file; line and column count from 1, and are 0 where the whole file is meant.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column, in characters.
        column: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A `--set` of the command line, by its name: the value may be a secret.
    Set(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Builtin => f.write_str("default"),
            Source::File { path, line: 0, .. } => write!(f, "{}", path.display()),
            Source::File { path, line, column } => {
                write!(f, "{}:{line}:{column}", path.display())
            }
            Source::Environment(name) => write!(f, "environment {name}"),
            // It may hold a password, which is what is wrong with it.
            Source::Set(text) if text.starts_with("cluster.engine=") && text.contains('@') => {
                f.write_str("--set cluster.engine")
            }
            Source::Set(text) => write!(f, "--set {}", printable(text)),
        }
    }
}

/// What is wrong with one value, and what would be right. Both are clauses without a full stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// The fault.
    pub wrong: String,
    /// The remedy.
    pub right: String,
}

impl Wrong {
    pub(super) fn new(wrong: impl Into<String>, right: impl Into<String>) -> Wrong {
        Wrong { wrong: wrong.into(), right: right.into() }
    }
}

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where the value was written.
    pub source: Source,
    /// The key, with its table (`app.command`); empty where the text as a whole is at fault.
    pub key: String,
    /// The fault and its remedy.
    pub what: Wrong,
}

/// What is wrong with a name of the file, and of the command line.
pub(super) const NO_SUCH_KEY: &str = "there is no such key";
/// How a remedy begins that names another key.
pub(super) const DID_YOU_MEAN: &str = "did you mean";
/// What is wrong with the name of a variable of the environment.
pub(super) const NO_SUCH_VARIABLE: &str = "no key has this name";

impl ConfigError {
    /// Whether the text may have said another `runtime_dir` than the one that was read. Where no
    /// source names one, a name that is no key may have been meant as that, such as that of a
    /// table around it.
    pub(super) fn may_hide_the_server(&self, is_named: bool) -> bool {
        const PLACE: &str = "runtime_dir";
        let is_unknown = [NO_SUCH_KEY, NO_SUCH_VARIABLE].contains(&self.what.wrong.as_str());
        // A misspelt name of another key stands for that key.
        if !is_named && is_unknown && !self.what.right.starts_with(DID_YOU_MEAN) {
            return true;
        }
        let whole_file = matches!(self.source, Source::File { .. }) && self.key.is_empty();
        whole_file
            || self.what.right.contains(&super::load::variable_of(PLACE))
            || self.key.rsplit('.').next() == Some(PLACE)
            || self.what.right.contains(PLACE)
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", printable(&self.key))?;
        }
        write!(f, "{}; {}", self.what.wrong, self.what.right)
    }
}

/// All faults of a configuration, in the order of its sources. Displays one a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
