//! One event as one line, of text or JSON.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Level};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};

use super::quota::Rest;
use crate::config::LogFormat;

/// The longest line, in bytes, its LF included: what a pipe takes whole or not at all (PIPE_BUF).
pub const LINE_BYTES_MAX: usize = 4096;

/// The longest message or value as it stands in a line, in bytes.
const VALUE_BYTES_MAX: usize = 1500;

/// Room at the end of a line for the mark that something was left out.
const MARK_BYTES: usize = 32;

/// How the lines of a process look.
#[derive(Clone)]
pub struct Style {
    /// Who logs: `master`, `manager`, `worker 0`.
    pub role: String,
    /// Text or JSON.
    pub format: LogFormat,
    /// Whether descriptor 2 is journald's, which takes the level from a prefix (sd-daemon(3)).
    pub journal: bool,
}

impl Style {
    /// The line that tells of events that were like others and were not logged.
    pub fn more(&self, (limit, why, count): Rest) -> String {
        let count = ("count", Value::Bare(count.to_string()));
        let (message, rest) = match limit.message {
            "" => (why, vec![count]),
            named => (named.to_owned(), vec![count, (limit.reason, Value::Text(why))]),
        };
        let message = format!("{message} more, which were not logged");
        self.write(Level::INFO, Fields { message, rest })
    }

    /// The line that tells of `lines` that were dropped.
    pub fn dropped(&self, lines: u64) -> String {
        let message = "log lines were dropped: descriptor 2 takes them too slowly".to_owned();
        let rest = vec![("lines", Value::Bare(lines.to_string()))];
        self.write(Level::WARN, Fields { message, rest })
    }

    /// The line that says this, with its LF.
    pub fn write(&self, level: Level, fields: Fields) -> String {
        match self.format {
            LogFormat::Text => self.text(level, fields),
            LogFormat::Json => self.json(level, fields),
        }
    }

    fn text(&self, level: Level, fields: Fields) -> String {
        let mut line = String::with_capacity(160);
        if self.journal {
            line.push_str(priority(level));
        }
        push_time(&mut line);
        let _ = write!(line, " {level:<5} {}: ", self.role);
        escape(&mut line, &fields.message, text_escape);
        for (name, value) in fields.rest {
            let mut part = format!(" {name}=");
            match value {
                Value::Bare(text) => part.push_str(&text),
                Value::Text(text) => push_value(&mut part, &text),
            }
            if line.len() + part.len() > LINE_BYTES_MAX - MARK_BYTES {
                line.push_str(" …");
                break;
            }
            line.push_str(&part);
        }
        line.push('\n');
        line
    }

    fn json(&self, level: Level, fields: Fields) -> String {
        let mut line = String::with_capacity(240);
        line.push_str("{\"time\":\"");
        push_time(&mut line);
        let level = level.as_str().to_ascii_lowercase();
        let _ = write!(line, "\",\"level\":\"{level}\",\"role\":\"");
        escape(&mut line, &self.role, json_escape);
        line.push_str("\",\"message\":\"");
        escape(&mut line, &fields.message, json_escape);
        line.push('"');
        for (name, value) in fields.rest {
            let taken = matches!(name, "time" | "level" | "role" | "message" | "truncated");
            let mut part = format!(",\"{name}{}\":", if taken { "_" } else { "" });
            match value {
                Value::Bare(text) => part.push_str(&text),
                Value::Text(text) => {
                    part.push('"');
                    escape(&mut part, &text, json_escape);
                    part.push('"');
                }
            }
            if line.len() + part.len() > LINE_BYTES_MAX - MARK_BYTES {
                line.push_str(",\"truncated\":true");
                break;
            }
            line.push_str(&part);
        }
        line.push_str("}\n");
        line
    }
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// The time now, UTC, to the millisecond.
fn push_time(line: &mut String) {
    let mut time = String::with_capacity(32);
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    // The package writes microseconds.
    let millis = time.rfind('.').map_or(time.len(), |dot| (dot + 4).min(time.len()));
    line.push_str(&time[..millis]);
    line.push('Z');
}

/// A value in a text line: in quotes where it could pass for more than one.
fn push_value(part: &mut String, text: &str) {
    let plain = !text.is_empty() && !text.contains([' ', '=', '"', '\'']);
    if plain || is_quoted(text) {
        return escape(part, text, text_escape);
    }
    // What is to be copied into the configuration stands as it is to be written there.
    if text.contains('"') && !text.contains(['\'', '\\']) {
        part.push('\'');
        escape(part, text, text_escape);
        return part.push('\'');
    }
    part.push('"');
    escape(part, text, |out, char| match char {
        '"' | '\\' => {
            out.push('\\');
            out.push(char);
        }
        _ => text_escape(out, char),
    });
    part.push('"');
}

/// Whether `text` is one quoted string already, as Debug writes it.
fn is_quoted(text: &str) -> bool {
    let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let mut escaped = false;
    inner.is_some_and(|inner| {
        inner.chars().all(|char| {
            let ok = char != '"' || escaped;
            escaped = char == '\\' && !escaped;
            ok
        }) && !escaped
    })
}

/// Whether a terminal, a pager or a log reader could take `char` for more than a letter, or shows
/// nothing in its place: controls, line and paragraph separators, the marks that turn the direction
/// of writing, and what is invisible where two names would look alike. The joiners that emoji and
/// some scripts need are none of these.
pub fn is_unsafe(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        || matches!(char, '\u{200e}' | '\u{200f}' | '\u{61c}' | '\u{feff}')
        || matches!(char, '\u{ad}' | '\u{200b}' | '\u{180e}' | '\u{2060}'..='\u{2065}')
        || matches!(char, '\u{206a}'..='\u{206f}' | '\u{fff9}'..='\u{fffb}')
        || matches!(char, '\u{e0000}'..='\u{e007f}')
}

fn text_escape(out: &mut String, char: char) {
    if !is_unsafe(char) {
        return out.push(char);
    }
    let _ = match char {
        '\n' | '\r' | '\t' => write!(out, "{}", char.escape_default()),
        _ => write!(out, "{}", char.escape_unicode()),
    };
}

fn json_escape(out: &mut String, char: char) {
    match char {
        '"' | '\\' => {
            out.push('\\');
            out.push(char);
        }
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        _ if is_unsafe(char) => out.push_str(&json_unicode(char)),
        _ => out.push(char),
    }
}

/// A letter as JSON writes one by its number (RFC 8259 section 7): of two units beyond U+FFFF.
pub fn json_unicode(char: char) -> String {
    char.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

/// Appends `text`, each letter by `one`, up to the limit of a value.
fn escape(out: &mut String, text: &str, one: impl Fn(&mut String, char)) {
    let end = out.len() + VALUE_BYTES_MAX;
    for char in text.chars() {
        if out.len() >= end {
            out.push('…');
            return;
        }
        one(out, char);
    }
}

/// What an event says.
#[derive(Default)]
pub struct Fields {
    message: String,
    rest: Vec<(&'static str, Value)>,
}

enum Value {
    /// A number or truth value, the same in text and JSON.
    Bare(String),
    /// Anything else, not yet escaped.
    Text(String),
}

impl Fields {
    /// Those of an event.
    pub fn of(event: &Event<'_>) -> Fields {
        let mut fields = Fields::default();
        event.record(&mut fields);
        fields
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => self.rest.push((name, Value::Text(text))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message = value.to_owned(),
            name => self.rest.push((name, Value::Text(value.to_owned()))),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.rest.push((field.name(), Value::Bare(value.to_string())));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.rest.push((field.name(), Value::Bare(value.to_string())));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.rest.push((field.name(), Value::Bare(value.to_string())));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let text = value.to_string();
        let value = if value.is_finite() { Value::Bare(text) } else { Value::Text(text) };
        self.rest.push((field.name(), value));
    }
}
