//! Reading the sources in their order and collecting every fault.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::de::DeTable;

use super::errors::{ConfigError, ConfigErrors, NO_SUCH_KEY, NO_SUCH_VARIABLE, Source, Wrong};
use super::foreign;
use super::keys::{Config, Key, REMOVED, keys};
use super::nearest;
use super::text::{pointed, quote};
use super::value::Raw;

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

/// Variables that begin with `WSD_` and are no keys: the PHP package's path to the program, the
/// descriptor of an application process that runs a command of ours, and
/// what Kubernetes sets for a service that happens to be called wsd.
const NOT_KEYS: [&str; 4] = ["WSD_BIN", "WSD_APP_", "WSD_SERVICE_", "WSD_PORT"];

/// The password of a cluster's engine. No value that is kept or passed on holds it.
pub const PASSWORD_VARIABLE: &str = "WSD_CLUSTER_PASSWORD";

/// Keys whose values are nobody else's: what `ps` shows of a command line leaves them out.
const SECRETS: [&str; 1] = ["app.env"];

/// Variables from which `runtime_dir` and `log_file` are found.
const DIRECTORIES: [&str; 6] =
    ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR", "TMPDIR", "LOGS_DIRECTORY", "XDG_STATE_HOME", "HOME"];

/// The largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The most faults for which a known name is looked for that is near: each costs a comparison with
/// every key, and what has more faults is hardly a configuration with typing errors.
const NEAREST_MAX: usize = 20;

/// The most syntax errors told of one file: after the first few, the rest tends to be echo.
const SYNTAX_ERRORS_MAX: usize = 5;

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

fn is_ours(name: &str) -> bool {
    name.starts_with("WSD_")
        && name != PASSWORD_VARIABLE
        && !NOT_KEYS.iter().any(|other| name.starts_with(other))
}

impl Config {
    /// Reads all sources over `base`, fills what chooses for itself (`worker_num`, `runtime_dir`
    /// and the like) and checks everything. `max_connection` stays 0 until
    /// [`Config::fit_descriptors`].
    ///
    /// # Errors
    /// Every fault of every source at once.
    pub fn load(base: Config, sources: &Sources) -> Result<Config, ConfigErrors> {
        let loading = Loading::read(base, sources);
        if loading.errors.is_empty() {
            Ok(loading.config)
        } else {
            Err(ConfigErrors(loading.errors))
        }
    }

    /// As [`load`](Self::load), passing over what is wrong elsewhere than with the place of the
    /// server: enough to find one that runs, whose configuration may have been broken since it
    /// was started.
    ///
    /// # Errors
    /// Every fault that could hide where the server is, so that another one would be found.
    pub fn load_to_find(base: Config, sources: &Sources) -> Result<Config, ConfigErrors> {
        let Loading { config, mut errors, origins, .. } = Loading::read(base, sources);
        let is_named = origins.contains_key("runtime_dir");
        errors.retain(|error| error.may_hide_the_server(is_named));
        if errors.is_empty() { Ok(config) } else { Err(ConfigErrors(errors)) }
    }
}

/// A configuration on its way.
pub(super) struct Loading<'a> {
    pub config: Config,
    sources: &'a Sources,
    /// Where each key was written last, and as what.
    origins: BTreeMap<&'static str, (Source, String)>,
    errors: Vec<ConfigError>,
}

impl<'a> Loading<'a> {
    fn read(base: Config, sources: &'a Sources) -> Loading<'a> {
        let mut loading =
            Loading { config: base, sources, origins: BTreeMap::new(), errors: Vec::new() };
        if let Some(file) = &sources.file {
            loading.read_file(file);
        }
        loading.read_environment();
        loading.read_set();
        loading.config.resolve(sources);
        loading.check();
        loading
    }

    fn read_file(&mut self, file: &Path) {
        let whole = Source::File { path: file.to_owned(), line: 0, column: 0 };
        let read = || read_text(&self.sources.dir.join(file));
        match self.sources.text.clone().unwrap_or_else(read) {
            Ok(text) => self.read_toml(file, &text),
            Err(what) => self.fault(whole, "", what),
        }
    }

    fn read_toml(&mut self, file: &Path, text: &str) {
        let lines = Lines::of(text);
        let at = |offset: usize| {
            let (line, column) = lines.position(offset);
            Source::File { path: file.to_owned(), line, column }
        };
        let (table, faults) = DeTable::parse_recoverable(text);
        for fault in faults.iter().take(SYNTAX_ERRORS_MAX) {
            let message = fault.message().replace('\n', ", ");
            let offset = fault.span().map_or(0, |span| span.start);
            self.fault(at(offset), "", Wrong::new(message, "correct the TOML"));
        }
        if !faults.is_empty() {
            return;
        }
        let dir = self.sources.file_dir();
        for (name, value) in in_order(table.get_ref()) {
            let Some(entries) = value.get_ref().as_table().filter(|_| is_table(name.get_ref()))
            else {
                let raw = Raw::from_toml(value.get_ref());
                self.take(at(name.span().start), name.get_ref(), &raw, &dir);
                continue;
            };
            for (entry, value) in in_order(entries) {
                let full = format!("{}.{}", name.get_ref(), entry.get_ref());
                let raw = Raw::from_toml(value.get_ref());
                self.take(at(entry.span().start), &full, &raw, &dir);
            }
        }
    }

    fn read_environment(&mut self) {
        let sources = self.sources;
        for (variable, value) in sources.env.iter().filter(|(name, _)| is_ours(name)) {
            let source = Source::Environment(variable.clone());
            let named = keys().find(|key| variable_of(key.name) == *variable);
            match named {
                Some(key) => self.take(source, key.name, &Raw::bare(value), &sources.dir),
                None if let Some(gone) = removed(|key| variable_of(key) == *variable) => {
                    self.fault(source, "", gone);
                }
                None => {
                    let what = NO_SUCH_VARIABLE;
                    let name = variable.strip_prefix("WSD_").unwrap_or(variable);
                    let wrong = foreign::remedy(name).map(|right| Wrong::new(what, right));
                    let wrong = wrong.unwrap_or_else(|| {
                        let names: Vec<String> = keys().map(|key| variable_of(key.name)).collect();
                        unknown(self.nearest(variable, names.iter().map(String::as_str)), what)
                    });
                    self.fault(source, "", wrong);
                }
            }
        }
    }

    fn read_set(&mut self) {
        let sources = self.sources;
        for (name, value) in &sources.set {
            let source = Source::Set(format!("{name}={value}"));
            self.take(source, name, &Raw::bare(value), &sources.dir);
        }
    }

    /// Takes one value, or notes what is wrong with it.
    fn take(&mut self, source: Source, name: &str, raw: &Raw, dir: &Path) {
        let (key, result) = match (key(name), entry_of(name)) {
            (Some(key), _) => (key, (key.update)(&mut self.config, raw, dir)),
            (None, Some((key, entry))) => {
                let table = Raw::Table(vec![(entry.to_owned(), raw.clone())]);
                (key, (key.update)(&mut self.config, &table, dir))
            }
            (None, None) => {
                if let Some(outer) = name.strip_prefix("app.").and_then(key) {
                    let right = format!("write {} above [app]", outer.name);
                    return self.fault(source, name, Wrong::new("is no key of [app]", right));
                }
                if let Some(gone) = removed(|key| key == name) {
                    return self.fault(source, name, gone);
                }
                let what = NO_SUCH_KEY;
                let wrong = foreign::remedy(name).map(|right| Wrong::new(what, right));
                let wrong = wrong.unwrap_or_else(|| {
                    unknown(self.nearest(name, keys().map(|key| key.name)), what)
                });
                return self.fault(source, name, wrong);
            }
        };
        match result {
            Ok(()) => drop(self.origins.insert(key.name, (source, raw.written()))),
            Err(what) => self.fault(source, key.name, what),
        }
    }

    /// The known name that is nearest to a mistyped one, while there are not too many of these.
    fn nearest<'n>(&self, name: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
        if self.errors.len() < NEAREST_MAX { nearest(name, known) } else { None }
    }

    pub(super) fn fault(&mut self, source: Source, key: &str, what: Wrong) {
        self.errors.push(ConfigError { source, key: key.to_owned(), what });
    }

    /// Where the value of a key comes from.
    pub(super) fn origin(&self, key: &str) -> Source {
        self.origins.get(key).map_or(Source::Builtin, |(source, _)| source.clone())
    }

    /// The value of a key as it was written; `None` for a default.
    pub(super) fn written(&self, key: &str) -> Option<&str> {
        self.origins.get(key).map(|(_, written)| written.as_str())
    }

    /// Whether a fault of this key is known already, so that it is not told twice.
    pub(super) fn is_faulty(&self, key: &str) -> bool {
        self.errors.iter().any(|error| error.key == key)
    }
}

/// The entries of a table in the order they were written.
fn in_order<'t, 'i>(
    table: &'t DeTable<'i>,
) -> Vec<(&'t toml::Spanned<toml::de::DeString<'i>>, &'t toml::Spanned<toml::de::DeValue<'i>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

fn read_text(path: &Path) -> Result<String, Wrong> {
    let fault = |wrong: String| Wrong::new(wrong, "name a readable TOML file with -c");
    let size =
        std::fs::metadata(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    if size.is_dir() {
        return Err(fault("is a directory".to_owned()));
    }
    if size.len() > FILE_BYTES_MAX {
        return Err(fault(format!("has {} bytes, more than {FILE_BYTES_MAX}", size.len())));
    }
    let bytes = std::fs::read(path).map_err(|error| fault(format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        fault(format!("is not UTF-8 from byte {} on", error.utf8_error().valid_up_to()))
    })
}

/// Where the lines of a text begin, found once: a file may have a fault on each of them.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Lines<'a> {
        let behind = text.match_indices('\n').map(|(newline, _)| newline + 1);
        Lines { text, starts: std::iter::once(0).chain(behind).collect() }
    }

    /// Line and column of a byte, both from 1; the column counts characters.
    fn position(&self, offset: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= offset);
        let before = self.text.get(self.starts[line - 1]..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

fn key(name: &str) -> Option<&'static Key> {
    keys().find(|key| key.name == name)
}

/// `app.env.NAME` names an entry of the table `app.env`.
fn entry_of(name: &str) -> Option<(&'static Key, &str)> {
    let entry = name.strip_prefix("app.env.")?;
    Some((key("app.env")?, entry))
}

fn is_table(name: &str) -> bool {
    keys().any(|key| key.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The environment variable of a key: `WSD_APP_COMMAND` for `app.command`.
pub(super) fn variable_of(key: &str) -> String {
    format!("WSD_{}", key.replace('.', "_").to_uppercase())
}

/// What is said of a key that an earlier version had.
fn removed(is_it: impl Fn(&str) -> bool) -> Option<Wrong> {
    let (_, wrong, right) = REMOVED.iter().find(|(key, ..)| is_it(key))?;
    Some(Wrong::new(*wrong, *right))
}

fn unknown(near: Option<&str>, wrong: &str) -> Wrong {
    match near {
        Some(near) => Wrong::new(wrong, format!("did you mean {}?", quote(near))),
        None => Wrong::new(wrong, "etc/wsd.toml lists all keys"),
    }
}
