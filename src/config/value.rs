//! How the value of a key is read from text, and shown again.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::errors::Wrong;
use super::text::{digits, duration, pointed, printable, quote, shorten, size};

/// A value as it was written, before its key says what it ought to be.
#[derive(Debug, Clone)]
pub enum Raw {
    /// From an environment variable or `--set`: text without a type.
    Bare(String),
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i128),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array.
    List(Vec<Raw>),
    /// A TOML table.
    Table(Vec<(String, Raw)>),
    /// A TOML value that no key takes: a date, or a number beyond all ranges.
    Other(String),
}

impl Raw {
    /// Takes a parsed TOML value.
    pub fn from_toml(value: &DeValue<'_>) -> Raw {
        match value {
            DeValue::String(text) => Raw::Text(text.to_string()),
            DeValue::Integer(number) => {
                match i128::from_str_radix(number.as_str(), number.radix()) {
                    Ok(integer) => Raw::Integer(integer),
                    Err(_) => Raw::Other(number.as_str().to_owned()),
                }
            }
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(float) => Raw::Float(float),
                Err(_) => Raw::Other(number.as_str().to_owned()),
            },
            DeValue::Boolean(flag) => Raw::Bool(*flag),
            DeValue::Datetime(date) => Raw::Other(date.to_string()),
            DeValue::Array(items) => {
                Raw::List(items.iter().map(|item| Raw::from_toml(item.get_ref())).collect())
            }
            DeValue::Table(table) => Raw::Table(
                table
                    .iter()
                    .map(|(key, item)| (key.get_ref().to_string(), Raw::from_toml(item.get_ref())))
                    .collect(),
            ),
        }
    }

    /// What stands in the environment or behind `--set`: text without a type, or a string that is
    /// quoted as in the file.
    pub(super) fn bare(text: &str) -> Raw {
        if text.len() > 1
            && text.starts_with('"')
            && text.ends_with('"')
            && let Ok(value) = DeValue::parse(text)
            && let DeValue::String(text) = value.get_ref()
        {
            return Raw::Text(text.to_string());
        }
        Raw::Bare(text.to_owned())
    }

    /// Bare text that starts like a TOML array or table is read as one.
    pub(super) fn structured(text: &str) -> Option<Raw> {
        let value = text.starts_with(['[', '{']).then(|| DeValue::parse(text).ok())??;
        Some(Raw::from_toml(value.get_ref()))
    }

    /// The text of a string, quoted or bare.
    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Raw::Bare(text) | Raw::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as a person would point at it; white space at an end would not be seen.
    fn shown(&self) -> String {
        match self {
            Raw::Bare(text) if text.trim() != text => pointed(text),
            Raw::Bare(text) | Raw::Other(text) => shorten(text),
            Raw::Text(text) => format!("the text {}", pointed(text)),
            Raw::Integer(number) => number.to_string(),
            Raw::Float(number) => number.to_string(),
            Raw::Bool(flag) => flag.to_string(),
            Raw::List(_) => "a list".to_owned(),
            Raw::Table(_) => "a table".to_owned(),
        }
    }

    /// The value as it was written.
    pub(super) fn written(&self) -> String {
        match self {
            Raw::Text(text) => pointed(text),
            other => other.shown(),
        }
    }

    /// As [`wrong`](Self::wrong), of a value that may be a secret: its kind alone is told.
    pub(super) fn wrong_unseen(&self, right: impl Into<String>) -> Wrong {
        let kind = match self {
            Raw::Bare(text) if text.is_empty() => "empty",
            Raw::Bare(_) | Raw::Text(_) => "a text",
            _ => "of another kind",
        };
        Wrong::new(format!("is {kind}"), right)
    }

    pub(super) fn wrong(&self, right: impl Into<String>) -> Wrong {
        let wrong = match self {
            Raw::Bare(text) if text.is_empty() => "is empty".to_owned(),
            _ => format!("is {}", self.shown()),
        };
        Wrong::new(wrong, right)
    }
}

/// A type that the value of a key can have.
pub trait Setting: Sized {
    /// What may be written, for the documents.
    const UNIT: &'static str;

    /// Reads a value. Relative paths start at `dir`.
    fn read(raw: &Raw, dir: &Path) -> Result<Self, Wrong>;

    /// The value as TOML.
    fn show(&self) -> String;

    /// The value as the limit of a range in a message.
    fn limit(&self) -> String {
        self.show()
    }

    /// Takes a value over an earlier one. Only a table does more than replace.
    fn update(&mut self, raw: &Raw, dir: &Path) -> Result<(), Wrong> {
        *self = Self::read(raw, dir)?;
        Ok(())
    }
}

/// A range check for a key, with both ends allowed.
pub fn within<T: Setting + PartialOrd>(
    range: RangeInclusive<T>,
) -> impl Fn(&T) -> Result<(), Wrong> {
    move |value| {
        if range.contains(value) {
            return Ok(());
        }
        let (low, high) = (range.start().limit(), range.end().limit());
        Err(Wrong::new(format!("is {}", value.show()), format!("write {low} to {high}")))
    }
}

/// As [`within`], where 0 besides means "off" or "choose for me".
pub fn zero_or<T: Setting + PartialOrd + Default>(
    range: RangeInclusive<T>,
) -> impl Fn(&T) -> Result<(), Wrong> {
    move |value| {
        if *value == T::default() || range.contains(value) {
            return Ok(());
        }
        let (low, high) = (range.start().limit(), range.end().limit());
        Err(Wrong::new(format!("is {}", value.show()), format!("write 0, or {low} to {high}")))
    }
}

impl Setting for bool {
    const UNIT: &'static str = "true or false";

    fn read(raw: &Raw, _: &Path) -> Result<bool, Wrong> {
        match raw {
            Raw::Bool(flag) => Ok(*flag),
            Raw::Bare(text) => match text.as_str() {
                "true" | "1" | "yes" | "on" => Ok(true),
                "false" | "0" | "no" | "off" => Ok(false),
                _ => Err(raw.wrong("write true or false")),
            },
            _ => Err(raw.wrong("write true or false, without quotes")),
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Setting for usize {
    const UNIT: &'static str = "number";

    fn read(raw: &Raw, _: &Path) -> Result<usize, Wrong> {
        let number = match raw {
            Raw::Integer(number) => usize::try_from(*number).ok(),
            Raw::Bare(text) => digits(text),
            _ => None,
        };
        number.ok_or_else(|| raw.wrong("write a whole number, without quotes"))
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// Sizes in bytes. The letters are powers of 1024, as in Swoole and nginx.
impl Setting for u64 {
    const UNIT: &'static str = "bytes, or text with KiB, MiB or GiB";

    fn read(raw: &Raw, _: &Path) -> Result<u64, Wrong> {
        let size = match raw {
            Raw::Integer(number) => u64::try_from(*number).ok(),
            Raw::Bare(text) | Raw::Text(text) => size(text),
            _ => None,
        };
        size.ok_or_else(|| raw.wrong("write a number of bytes, or a size such as \"2MiB\""))
    }

    fn show(&self) -> String {
        match *self {
            0 => "0".to_owned(),
            bytes if bytes.is_multiple_of(1 << 30) => format!("\"{}GiB\"", bytes >> 30),
            bytes if bytes.is_multiple_of(1 << 20) => format!("\"{}MiB\"", bytes >> 20),
            bytes if bytes.is_multiple_of(1 << 10) => format!("\"{}KiB\"", bytes >> 10),
            bytes => bytes.to_string(),
        }
    }
}

/// Times. A bare number means seconds, as in Swoole.
impl Setting for Duration {
    const UNIT: &'static str = "seconds, or text with ms, s, m, h or d";

    fn read(raw: &Raw, _: &Path) -> Result<Duration, Wrong> {
        let time = match raw {
            Raw::Integer(number) => u64::try_from(*number).ok().map(Duration::from_secs),
            Raw::Float(number) => Duration::try_from_secs_f64(*number).ok(),
            Raw::Bare(text) | Raw::Text(text) => duration(text),
            _ => None,
        };
        let time = time.filter(|time| time.as_secs() <= DURATION_SECS_MAX);
        time.ok_or_else(|| {
            raw.wrong("write seconds, or a time such as \"250ms\", \"10s\", \"2m\"")
        })
    }

    fn show(&self) -> String {
        match (self.as_secs(), self.subsec_millis()) {
            (0, 0) => "0".to_owned(),
            (secs, 0) => format!("\"{secs}s\""),
            _ => format!("\"{}ms\"", self.as_millis()),
        }
    }

    fn limit(&self) -> String {
        let units = [(86_400, "d"), (3_600, "h"), (60, "m")];
        let secs = self.as_secs();
        let whole = |(unit, _): &&(u64, &str)| secs > 0 && secs.is_multiple_of(*unit);
        match units.iter().find(whole).filter(|_| self.subsec_nanos() == 0) {
            Some((unit, letter)) => format!("\"{}{letter}\"", secs / unit),
            None => self.show(),
        }
    }
}

/// A hundred years: beyond it, adding to a clock could overflow.
const DURATION_SECS_MAX: u64 = 100 * 365 * 86_400;

/// A path; empty where the key chooses for itself.
impl Setting for PathBuf {
    const UNIT: &'static str = "path";

    fn read(raw: &Raw, dir: &Path) -> Result<PathBuf, Wrong> {
        match raw.as_text() {
            None => Err(raw.wrong("write a path in quotes")),
            Some("") => Ok(PathBuf::new()),
            Some(text) => path(text, dir),
        }
    }

    fn show(&self) -> String {
        quote(&self.to_string_lossy())
    }
}

/// Makes a written path absolute. It must stay UTF-8: the configuration travels as JSON.
pub fn path(text: &str, dir: &Path) -> Result<PathBuf, Wrong> {
    if text.contains('\0') {
        return Err(Wrong::new("holds a NUL byte", "write a path without one"));
    }
    let path = dir.join(text);
    if path.to_str().is_none() {
        return Err(Wrong::new(
            format!("leads to {}, which is not UTF-8", printable(&path.to_string_lossy())),
            "use a directory whose name is",
        ));
    }
    Ok(path)
}

impl Setting for Option<PathBuf> {
    const UNIT: &'static str = "path";

    fn read(raw: &Raw, dir: &Path) -> Result<Option<PathBuf>, Wrong> {
        let path = PathBuf::read(raw, dir)?;
        Ok(if path.as_os_str().is_empty() { None } else { Some(path) })
    }

    fn show(&self) -> String {
        self.clone().unwrap_or_default().show()
    }
}

impl Setting for Option<String> {
    const UNIT: &'static str = "name";

    fn read(raw: &Raw, _: &Path) -> Result<Option<String>, Wrong> {
        match raw.as_text() {
            None => Err(raw.wrong("write a name in quotes")),
            Some("") => Ok(None),
            Some(text) => Ok(Some(text.to_owned())),
        }
    }

    fn show(&self) -> String {
        quote(self.as_deref().unwrap_or_default())
    }
}

/// A name that is never empty.
impl Setting for String {
    const UNIT: &'static str = "name";

    fn read(raw: &Raw, _: &Path) -> Result<String, Wrong> {
        raw.as_text().map(str::to_owned).ok_or_else(|| raw.wrong("write a name in quotes"))
    }

    fn show(&self) -> String {
        quote(self)
    }
}

/// An enum whose variants are written as words.
macro_rules! choices {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$doc])* #[serde(rename = $text)] $variant,)+ }

        impl $name {
            /// The word as it is written.
            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }
        }

        impl Setting for $name {
            const UNIT: &'static str = choices!(@list $($text)+);

            fn read(raw: &Raw, _: &Path) -> Result<$name, Wrong> {
                match raw {
                    $(Raw::Bare(text) | Raw::Text(text) if text == $text => {
                        Ok($name::$variant)
                    })+
                    _ => Err(raw.choice(&[$($text),+])),
                }
            }

            fn show(&self) -> String {
                quote(self.as_str())
            }
        }
    };
    (@list $first:literal $($rest:literal)*) => { concat!($first $(, " | ", $rest)*) };
}
pub(super) use choices;

impl Raw {
    /// The fault of a value that is none of `choices`.
    pub fn choice(&self, choices: &[&'static str]) -> Wrong {
        let close = self.as_text().and_then(|text| super::nearest(text, choices.iter().copied()));
        let list = choices.iter().map(|choice| quote(choice)).collect::<Vec<_>>().join(", ");
        match close {
            Some(close) => self.wrong(format!("did you mean {}? (one of {list})", quote(close))),
            None => self.wrong(format!("write one of {list}")),
        }
    }
}
