//! Where a configuration comes from: a file, the environment and the command line.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::errors::Wrong;
use super::keys::Config;
use super::load::Loading;
use super::text::pointed;

/// Where a configuration comes from. The master keeps it, so that a reload reads the same places
/// with the same overrides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sources {
    /// The TOML file of `-c`.
    pub file: Option<PathBuf>,
    /// Environment variables; those that are not ours are ignored.
    pub env: Vec<(String, String)>,
    /// The `--set key=value` of the command line, in order.
    pub set: Vec<(String, String)>,
    /// The directory the server was started in: relative paths of `file`, environment and `--set`
    /// start there, also after a daemon has left it.
    pub dir: PathBuf,
    /// The effective user id at the start; decides where `runtime_dir` is.
    pub uid: u32,
    /// What [`read_now`](Self::read_now) read of `file`.
    #[serde(skip)]
    pub text: Option<Result<String, Wrong>>,
}

/// Variables that begin with `WSD_` and are no keys: the PHP package's paths to the program and to
/// what its processes share, and what an application process that runs a command of ours has from
/// its worker.
const NOT_KEYS: [&str; 4] = ["WSD_BIN", "WSD_SHARED_DIR", "WSD_APP_FD", "WSD_APP_PLACE"];
/// How the variables begin that Kubernetes sets for a service that happens to be called wsd.
const FOREIGN: [&str; 2] = ["WSD_SERVICE_", "WSD_PORT"];

/// The password of a cluster's engine. No value that is kept or passed on holds it.
pub const PASSWORD_VARIABLE: &str = "WSD_CLUSTER_PASSWORD";

/// Variables with secrets: no process of the server's has them in its environment but the master.
pub const SECRET_VARIABLES: [&str; 2] = [PASSWORD_VARIABLE, "WSD_APP_ENV"];

/// Keys whose values are nobody else's: what `ps` shows of a command line leaves them out.
const SECRETS: [&str; 1] = ["app.env"];

/// Variables from which `runtime_dir` and `log_file` are found.
const DIRECTORIES: [&str; 6] =
    ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "TMPDIR", "LOGS_DIRECTORY", "XDG_STATE_HOME", "HOME"];

/// The largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

impl Sources {
    /// The sources of a process of its own: `file` and `set` as given, and what matters of the
    /// environment, the directory and the user of this process.
    pub fn here(file: Option<PathBuf>, set: Vec<(String, String)>) -> Sources {
        Sources {
            file,
            env: Sources::environment(std::env::vars_os()),
            set,
            dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            uid: nix::unistd::geteuid().as_raw(),
            text: None,
        }
    }

    /// Reads the file, for a process that is about to give up the right to.
    pub fn read_now(mut self) -> Sources {
        self.text = self.file.as_ref().map(|file| read_text(&self.dir.join(file)));
        self
    }

    /// Where the value of a secret begins in an argument of the command line that sets one.
    pub fn secret_of(argument: &[u8]) -> Option<usize> {
        let option = b"--set=";
        let start = if argument.starts_with(option) { option.len() } else { 0 };
        let end = start + argument[start..].iter().position(|byte| *byte == b'=')?;
        let key = String::from_utf8_lossy(&argument[start..end]);
        let is_secret = |secret: &str| {
            let rest = key.trim_start().strip_prefix(secret);
            rest.is_some_and(|rest| rest.trim().is_empty() || rest.starts_with('.'))
        };
        SECRETS.into_iter().any(is_secret).then_some(end + 1)
    }

    /// Keeps the variables that matter. Bytes that are not UTF-8 are replaced, which no key takes
    /// for right.
    pub fn environment(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Vec<(String, String)> {
        let text = |text: OsString| text.to_string_lossy().into_owned();
        let mut kept: Vec<_> = vars
            .into_iter()
            .map(|(name, value)| (text(name), text(value)))
            .filter(|(name, _)| is_ours(name) || DIRECTORIES.contains(&name.as_str()))
            .collect();
        kept.sort();
        kept
    }

    /// Whether environment or command line say `unsafe_paths`, whatever the file says.
    pub fn allow_unsafe_paths(&self) -> bool {
        let without_file = Sources { file: None, ..self.clone() };
        Loading::read(Config::default(), &without_file).config.unsafe_paths
    }

    /// Splits the `key=value` of a `--set`.
    pub fn parse_set(text: &str) -> Result<(String, String), String> {
        match text.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok((key.trim().to_owned(), value.to_owned()))
            }
            _ => Err(format!("{} is not key=value, such as worker_num=4", pointed(text))),
        }
    }

    pub(super) fn var(&self, name: &str) -> Option<&str> {
        let (_, value) = self.env.iter().find(|(known, _)| known == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    /// The directory that relative paths of the file start at.
    pub(super) fn file_dir(&self) -> PathBuf {
        let file = self.file.as_deref().map(|file| self.dir.join(file));
        file.as_deref().and_then(Path::parent).unwrap_or(&self.dir).to_owned()
    }
}

pub(super) fn is_ours(name: &str) -> bool {
    name.starts_with("WSD_")
        && name != PASSWORD_VARIABLE
        && !NOT_KEYS.contains(&name)
        && !FOREIGN.iter().any(|other| name.starts_with(other))
}

pub(super) fn read_text(path: &Path) -> Result<String, Wrong> {
    let fault = |wrong: String| Wrong::new(wrong, "name a readable TOML file with -c");
    let unread = |error: io::Error| fault(format!("cannot be read: {error}"));
    // Not to wait for whoever would write to a pipe.
    let mut options = OpenOptions::new();
    let file = options.read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unread)?;
    let what = file.metadata().map_err(unread)?;
    if !what.is_file() {
        let kind = if what.is_dir() { "is a directory" } else { "is no regular file" };
        return Err(fault(kind.to_owned()));
    }
    if what.len() > FILE_BYTES_MAX {
        return Err(fault(format!("has {} bytes, more than {FILE_BYTES_MAX}", what.len())));
    }
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(unread)?;
    String::from_utf8(bytes).map_err(|error| {
        fault(format!("is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()))
    })
}

#[cfg(test)]
mod tests {
    use super::super::keys::keys;
    use super::super::load::variable_of;
    use super::*;

    /// What a configuration of these sources is refused with.
    fn refused(file: Option<&str>, env: &[(&str, &str)], set: &[(&str, &str)]) -> String {
        let pairs = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
        };
        let sources = Sources {
            file: file.map(|_| PathBuf::from("wsd.toml")),
            text: file.map(|text| Ok(text.to_owned())),
            env: pairs(env),
            set: pairs(set),
            dir: PathBuf::from("/srv"),
            ..Sources::default()
        };
        Config::load(Config::default(), &sources).unwrap_err().to_string()
    }

    #[test]
    fn the_variable_of_every_key_is_read_and_those_of_others_are_not() {
        for key in keys() {
            assert!(is_ours(&variable_of(key.name)), "{}", key.name);
        }
        for other in [
            "WSD_BIN",
            "WSD_APP_FD",
            "WSD_APP_PLACE",
            "WSD_SERVICE_HOST",
            "WSD_PORT_8000_TCP",
            PASSWORD_VARIABLE,
            "HOME",
        ] {
            assert!(!is_ours(other), "{other}");
        }
        let told = refused(None, &[("WSD_APP_PROCESSES", "abc")], &[]);
        assert!(told.contains("WSD_APP_PROCESSES: app.processes: is abc"), "{told}");
        assert!(refused(None, &[("WSD_APP_FDS", "3")], &[]).contains("no key has this name"));
    }

    #[test]
    fn no_fault_shows_what_may_be_a_secret() {
        let sets = [
            ("app.env", "DB=hush"),
            ("app.env", "{ DB = \"hush\""),
            ("app.env", "{ DB = [\"hush\"] }"),
            ("app.env", "{ \"DB=hush\" = \"x\" }"),
            ("app.env.D=B", "hush"),
            ("app.envDB", "hush"),
            ("App.env.DB", "hush"),
            ("cluster.engine", "redis://u:hush@h"),
            ("cluster.engine", "redis//u:hush@h"),
            ("cluster.engine", "redis://h/hush"),
            ("cluster.password", "hush"),
            ("api.tokens", "hush"),
        ];
        for (name, value) in sets {
            let told = refused(None, &[], &[(name, value)]);
            assert!(told.starts_with("--set ") && !told.contains("hush"), "{name}: {told}");
        }
        for name in ["WSD_APP_ENV", "WSD_APP_ENVDB", "WSD_CLUSTER_ENGINE", "WSD_CLUSTER_PASS"] {
            let told = refused(None, &[(name, "DB=hush")], &[]);
            assert!(told.contains(name) && !told.contains("hush"), "{name}: {told}");
        }
        for text in [
            "[app]\nenv = \"DB=hush\"",
            "[app]\nenv = [\"hush\"]",
            "[app.env]\nDB = [\"hush\"]",
            "[app.env]\n\"DB=hush\" = \"x\"",
            "[app.env]\nDB = hush",
            "[app.env]\nDB = \"hush",
            "[app.env]\nDB = \"hush\" hush",
            "[App.env]\nDB = \"hush\"",
            "[cluster]\nengine = \"hush\"",
            "[cluster]\nengine = [\"hush\"]",
            "[cluster]\npassword = \"hush\"",
        ] {
            let told = refused(Some(text), &[], &[]);
            assert!(told.contains("wsd.toml:") && !told.contains("hush"), "{text}: {told}");
        }
    }

    #[test]
    fn a_pipe_is_no_configuration_and_nobody_waits_for_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("wsd.toml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read_text(&pipe).unwrap_err().wrong, "is no regular file");
        assert_eq!(read_text(dir.path()).unwrap_err().wrong, "is a directory");
    }

    #[test]
    fn children_are_given_no_variable_of_an_application() {
        let mut config = Config::default();
        config.app.env.insert("DB".to_owned(), "hush".to_owned());
        for serves_api in [true, false] {
            let given = config.for_child(serves_api);
            assert!(!given.contains("hush") && serde_json::from_str::<Config>(&given).is_ok());
        }
    }
}
