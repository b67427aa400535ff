//! The password of a cluster's engine: from a file or the environment, and nowhere else. It goes
//! to the courier by its link, and is in no argument, log, status or configuration that is shown.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::unistd::geteuid;

use crate::config::{Config, PASSWORD_VARIABLE};
use crate::error::{Error, Result};
use crate::sys::path_walk::untrusted_part;

/// Bytes of the file that are read.
const BYTES_MAX: u64 = 4096;

/// The password as it is now; `None` where none is configured.
///
/// # Errors
/// When the file cannot be read, or holds no password.
pub fn engine_password(config: &Config) -> Result<Option<String>> {
    match &config.cluster.password_file {
        Some(path) => {
            trusted(path, config)?;
            read(path).map(Some)
        }
        None => Ok(std::env::var(PASSWORD_VARIABLE).ok().filter(|word| !word.is_empty())),
    }
}

/// Refuses a file that somebody besides root could have led elsewhere, whoever serves: its first
/// line goes to an engine, and root can read every file.
fn trusted(path: &Path, config: &Config) -> Result<()> {
    let doubt = untrusted_part(path).ok().flatten();
    match doubt.filter(|_| geteuid().is_root() && !config.unsafe_paths) {
        None => Ok(()),
        Some(doubt) => Err(Error::new(format!(
            "cluster.password_file: {doubt}; make it root's with `chown root` and `chmod go-w` \
             (where it is meant, as in a container, `--set unsafe_paths=true`)"
        ))),
    }
}

fn read(path: &Path) -> Result<String> {
    let shown = path.display();
    let unread = |error: std::io::Error| {
        Error::new(format!(
            "cluster.password_file: {shown} cannot be read: {error}; name a file that the user of \
             the master may read"
        ))
    };
    // Not to wait for whoever would write to a pipe.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unread)?;
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).map_err(unread)?;
    let word = text.lines().next().unwrap_or_default();
    match word {
        "" => Err(Error::new(format!(
            "cluster.password_file: the first line of {shown} is empty; write the password there"
        ))),
        word => Ok(word.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_the_file_is_the_password_and_an_empty_one_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        std::fs::write(&path, "hush hush\nnot this\n").unwrap();
        let mut config = Config::default();
        config.cluster.password_file = Some(path.clone());
        config.unsafe_paths = true;
        assert_eq!(engine_password(&config).unwrap().as_deref(), Some("hush hush"));
        std::fs::write(&path, "\nx").unwrap();
        let error = engine_password(&config).unwrap_err().to_string();
        assert!(error.contains("cluster.password_file") && error.contains("empty"), "{error}");
        std::fs::remove_file(&path).unwrap();
        let error = engine_password(&config).unwrap_err().to_string();
        assert!(error.contains("cannot be read") && error.contains("name a file"), "{error}");
    }
}
