//! The error of the server's own doings: what failed, on what, and whose fault it was.

use std::fmt;
use std::io;

/// Shorthand for results of the server's own doings.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Something the world refused us, with the subject it was about.
#[derive(Debug)]
pub struct Error {
    what: String,
    source: Option<io::Error>,
}

impl Error {
    /// An error that is a whole sentence of its own.
    pub fn new(what: impl Into<String>) -> Error {
        Error { what: what.into(), source: None }
    }

    /// A failed system call: `what` names the call and its subject.
    pub fn io(what: impl Into<String>, source: impl Into<io::Error>) -> Error {
        Error { what: what.into(), source: Some(source.into()) }
    }

    /// The errno of the failed call, where there was one.
    pub fn errno(&self) -> Option<i32> {
        self.source.as_ref().and_then(io::Error::raw_os_error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            None => f.write_str(&self.what),
            Some(source) => write!(f, "{}: {source}", self.what),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Names the subject of a failed call: `open(path).subject(|| format!("open {path}"))?`.
pub trait Subject<T> {
    /// Turns the error into an [`Error`] that starts with `what`.
    fn subject(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Subject<T> for std::result::Result<T, E> {
    fn subject(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::io(what(), source))
    }
}
