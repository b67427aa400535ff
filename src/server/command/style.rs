//! How answers look: colours only where a person reads, tables that line up, numbers and times
//! that can be taken in at a glance.

use std::io::IsTerminal;

use crate::log::{is_unsafe, json_unicode};

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    on: bool,
}

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// A heading or a name.
    Bold,
    /// What matters less.
    Faint,
    /// As it should be.
    Good,
    /// To be looked at.
    Odd,
    /// Wrong.
    Bad,
}

impl Style {
    /// Colours where stdout is a terminal and NO_COLOR is not set (no-color.org).
    pub fn for_stdout() -> Style {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Style { on: wanted && !dumb && std::io::stdout().is_terminal() }
    }

    /// None.
    #[cfg(test)]
    pub fn none() -> Style {
        Style { on: false }
    }

    /// Text in a tone.
    pub fn text(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Bold => "1",
            Tone::Faint => "2",
            Tone::Good => "32",
            Tone::Odd => "33",
            Tone::Bad => "31",
        };
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A table: a heading a column, right-aligned where it starts with `>`.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    /// An empty one.
    pub fn new(headings: &[&'static str]) -> Table {
        Table { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row with a cell for each heading.
    pub fn row(&mut self, cells: Vec<(String, Tone)>) {
        self.rows.push(cells);
    }

    /// As lines, two spaces before each.
    pub fn lines(&self, style: Style) -> String {
        let names: Vec<&str> = self.headings.iter().map(|h| h.trim_start_matches('>')).collect();
        let widths: Vec<usize> = names
            .iter()
            .enumerate()
            .map(|(column, name)| {
                let cells = self.rows.iter().filter_map(|row| row.get(column));
                cells.map(|(cell, _)| cell.chars().count()).fold(name.len(), usize::max)
            })
            .collect();
        let line = |cells: &[(String, Tone)]| {
            let mut line = String::from(" ");
            for (column, (cell, tone)) in cells.iter().enumerate() {
                let gap = " ".repeat(widths[column].saturating_sub(cell.chars().count()));
                let cell = style.text(*tone, cell);
                let right = self.headings[column].starts_with('>');
                let padded =
                    if right { format!(" {gap}{cell} ") } else { format!(" {cell}{gap} ") };
                line.push_str(&padded);
            }
            line.truncate(line.trim_end().len());
            line.push('\n');
            line
        };
        let heading: Vec<_> = names.iter().map(|n| ((*n).to_owned(), Tone::Faint)).collect();
        let mut lines = line(&heading);
        lines.extend(self.rows.iter().map(|row| line(row)));
        lines
    }
}

/// A number with its thousands apart: `1,234,567`.
pub fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the largest unit that leaves a number of at least 1: `1.5 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A time in its two largest units: `3d 4h`, `12m 5s`, `340 ms`.
pub fn duration(ms: u64) -> String {
    let secs = ms / 1000;
    match secs {
        0 => format!("{ms} ms"),
        1..60 => format!("{secs}s"),
        60..3600 => format!("{}m {}s", secs / 60, secs % 60),
        3600..86_400 => format!("{}h {}m", secs / 3600, secs / 60 % 60),
        _ => format!("{}d {}h", secs / 86_400, secs / 3600 % 24),
    }
}

/// Makes text of others fit for a terminal: no control characters, nothing that turns the line.
pub fn safe(text: &str) -> String {
    text.chars().map(|char| if is_unsafe(char) { '\u{fffd}' } else { char }).collect()
}

/// As [`safe`], for a text of JSON that others have made, which says the same as before.
pub fn safe_json(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' => safe.push(char),
            // Outside of a string no JSON has one of these.
            char if is_unsafe(char) => safe.push_str(&json_unicode(char)),
            char => safe.push(char),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_easy_to_read() {
        assert_eq!([0, 999, 1000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1536, 5 << 30].map(bytes), ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]);
        assert_eq!(
            [340, 59_000, 725_000, 3_660_000, 273_600_000].map(duration),
            ["340 ms", "59s", "12m 5s", "1h 1m", "3d 4h"]
        );
    }

    #[test]
    fn a_table_lines_up() {
        let mut table = Table::new(&["slot", ">open"]);
        table.row(vec![("0".to_owned(), Tone::Plain), ("1,204".to_owned(), Tone::Plain)]);
        table.row(vec![("10".to_owned(), Tone::Plain), ("7".to_owned(), Tone::Good)]);
        let lines = "  slot   open\n  0     1,204\n  10        7\n";
        assert_eq!(table.lines(Style::none()), lines);
    }

    #[test]
    fn a_clients_text_cannot_drive_the_terminal() {
        assert_eq!(safe("a\x1b[2Jb\u{202e}c"), "a\u{fffd}[2Jb\u{fffd}c");
        let json = safe_json("{\"a\":\"\u{9b}31m\u{feff}\"}\n");
        assert_eq!(json, "{\"a\":\"\\u009b31m\\ufeff\"}\n");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["a"], "\u{9b}31m\u{feff}");
        let json = safe_json("{\"a\":\"\u{e0041}\u{200b}\"}");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert!(json.is_ascii() && read["a"] == "\u{e0041}\u{200b}", "{json}");
    }
}
