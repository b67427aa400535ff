//! What can go wrong, and the exit code that says so.

use std::fmt;

/// Why a run came to nothing.
#[derive(Debug, Clone)]
pub struct Fault {
    /// 2: the command line; 3: no server, or not one of the kind that the test needs.
    pub code: u8,
    text: String,
}

impl Fault {
    /// The command line is at fault.
    pub fn usage(text: impl Into<String>) -> Fault {
        Fault { code: 2, text: text.into() }
    }

    /// The server, or the way to it, is at fault.
    pub fn server(text: impl Into<String>) -> Fault {
        Fault { code: 3, text: text.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Fault {
        Fault::server(error.to_string())
    }
}

impl From<nix::errno::Errno> for Fault {
    fn from(errno: nix::errno::Errno) -> Fault {
        std::io::Error::from(errno).into()
    }
}
