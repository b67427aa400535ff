//! Text: how a piece of it is shown in a message, and how sizes and times are read from it.

use std::str::FromStr;
use std::time::Duration;

/// Keeps a message to one readable line whatever was written.
pub fn shorten(text: &str) -> String {
    let mut short = printable(&text.chars().take(60).collect::<String>());
    if text.chars().count() > 60 {
        short.push('…');
    }
    short
}

/// Text as it can stand in a line of a message: quotation marks and backslashes as they are, and
/// no control character.
pub fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        match c {
            '"' | '\'' | '\\' => line.push(c),
            _ => line.extend(c.escape_debug()),
        }
        line
    })
}

/// A piece of a value in quotation marks, for a message that points at it.
pub fn pointed(text: &str) -> String {
    quote(&shorten(text))
}

/// A TOML string for `text`.
pub fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A whole number that is written as digits alone. `parse` would take a sign before the digits,
/// which stands nowhere in what this program prints: `+7` is a slip.
pub fn digits<T: FromStr>(text: &str) -> Option<T> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain)
}

/// A number of bytes, with or without a unit.
pub fn size(text: &str) -> Option<u64> {
    let (number, unit) = split_unit(text);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kib" => 10,
        "m" | "mib" => 20,
        "g" | "gib" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// A time, with or without a unit; without, in seconds.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split_unit(text);
    let millis: u64 = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(millis).map(Duration::from_millis);
    }
    let fraction: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(fraction * millis as f64 / 1_000.0).ok()
}
