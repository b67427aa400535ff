//! What was seen, for people and for scripts.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use crate::traffic::Errors;

/// Named figures in the order in which they are told.
#[derive(Default)]
pub struct Report {
    lines: Vec<(&'static str, String)>,
    json: Map<String, Value>,
    errors: Errors,
}

impl Report {
    /// A line for people.
    pub fn line(&mut self, name: &'static str, text: impl Into<String>) {
        self.lines.push((name, text.into()));
    }

    /// A figure for scripts.
    pub fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.json.insert(name.to_owned(), value.into());
    }

    /// Latencies, for both. `name` is the line's, `key` the figure's.
    pub fn latency(&mut self, name: &'static str, key: &str, histogram: &Histogram<u64>) {
        if histogram.is_empty() {
            return;
        }
        let at = |quantile| histogram.value_at_quantile(quantile);
        let points = [("p50", at(0.5)), ("p90", at(0.9)), ("p99", at(0.99)), ("p99.9", at(0.999))];
        let mut text = String::new();
        let mut values = Map::new();
        for (point, nanos) in points.into_iter().chain([("max", histogram.max())]) {
            // Writing into a string cannot fail.
            let _ = write!(text, "{point} {}   ", duration(nanos));
            values.insert(point.to_owned(), json!(nanos as f64 / 1e3));
        }
        values.insert("mean".to_owned(), json!(histogram.mean() / 1e3));
        self.line(name, text.trim_end());
        self.figure(key, values);
    }

    /// Connections lost and why.
    pub fn errors(&mut self, errors: Errors) {
        self.errors = errors;
    }

    /// Whether a connection was lost.
    pub fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    /// Prints it all.
    pub fn print(mut self, as_json: bool) {
        if as_json {
            self.json.insert("errors".to_owned(), json!(self.errors));
            println!("{}", Value::Object(self.json));
            return;
        }
        println!();
        for (name, text) in &self.lines {
            println!("  {name:<12} {text}");
        }
        if self.errors.is_empty() {
            println!("  {:<12} none", "errors");
        }
        for (why, count) in &self.errors {
            println!("  {:<12} {count} × {why}", "errors");
        }
        println!();
    }
}

/// `1,234,567`.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Nanoseconds in a fitting unit.
pub fn duration(nanos: u64) -> String {
    match nanos as f64 {
        n if n < 1e6 => format!("{:.1} µs", n / 1e3),
        n if n < 1e9 => format!("{:.2} ms", n / 1e6),
        n => format!("{:.2} s", n / 1e9),
    }
}

/// Bytes in a fitting unit.
pub fn size(bytes: f64) -> String {
    match bytes {
        b if b < 10_000.0 => format!("{b:.0} B"),
        b if b < 10_000_000.0 => format!("{:.1} KiB", b / 1024.0),
        b if b < 1e10 => format!("{:.1} MiB", b / (1 << 20) as f64),
        b => format!("{:.2} GiB", b / (1 << 30) as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_easy_to_read() {
        assert_eq!(thousands(1_234_567.4), "1,234,567");
        assert_eq!(thousands(12.0), "12");
        assert_eq!(duration(1_500), "1.5 µs");
        assert_eq!(duration(12_340_000), "12.34 ms");
        assert_eq!(size(512.0), "512 B");
        assert_eq!(size(15.0 * 1024.0 * 1024.0), "15.0 MiB");
    }
}
