//! Reading the sources in their order and collecting every fault.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::DeTable;

use super::errors::{
    ConfigError, ConfigErrors, DID_YOU_MEAN, NO_SUCH_KEY, NO_SUCH_VARIABLE, Source, Wrong,
};
use super::foreign;
use super::keys::{Config, Key, REMOVED, keys};
use super::nearest;
use super::sources::{Sources, is_ours, read_text};
use super::text::quote;
use super::value::Raw;

/// The most faults for which a known name is looked for that is near: each costs a comparison with
/// every key, and what has more faults is hardly a configuration with typing errors.
const NEAREST_MAX: usize = 20;

/// The most syntax errors told of one file: after the first few, the rest tends to be echo.
const SYNTAX_ERRORS_MAX: usize = 5;

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
    pub(super) fn read(base: Config, sources: &'a Sources) -> Loading<'a> {
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
            let source = Source::Set(name.clone());
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
                if let Some(wrong) = misplaced(&source, name) {
                    return self.fault(source, name, wrong);
                }
                if let Some(gone) = removed(|key| key == name) {
                    return self.fault(source, name, gone);
                }
                let what = NO_SUCH_KEY;
                let wrong = foreign::remedy(name).map(|right| Wrong::new(what, right));
                let wrong = wrong.unwrap_or_else(|| match raw {
                    Raw::Table(_) => Wrong::new(what, TABLES),
                    _ => unknown(self.nearest(name, keys().map(|key| key.name)), what),
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

/// What is said of a table that is none of ours.
const TABLES: &str =
    "the tables are [api], [cluster] and [app], and all other keys stand above these";

/// What is said of a key that stands in another table than its own.
fn misplaced(source: &Source, name: &str) -> Option<Wrong> {
    let (table, entry) = name.split_once('.').filter(|(table, _)| is_table(table))?;
    let in_table = || keys().find(|key| key.name.split_once('.').is_some_and(|it| it.1 == entry));
    let own = key(entry).or_else(in_table)?.name;
    let right = match (source, own.split_once('.')) {
        (Source::File { .. }, None) => format!("write {own} above [{table}]"),
        (Source::File { .. }, Some((home, _))) => format!("write {entry} below [{home}]"),
        _ => format!("the key is {own}"),
    };
    Some(Wrong::new(format!("is no key of [{table}]"), right))
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
        Some(near) => Wrong::new(wrong, format!("{DID_YOU_MEAN} {}?", quote(near))),
        None => Wrong::new(wrong, "etc/wsd.toml lists all keys"),
    }
}
