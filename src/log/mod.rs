//! The log: one line for each event, on descriptor 2, whatever bytes a client sent.
//!
//! The master writes directly and has no thread for it; managers and workers hand their lines to a
//! bounded queue with one writer thread, so that a slow disk or a full pipe never stops a reactor.
//! What cannot be written is dropped and counted, and the count is logged once there is room.

mod line;
mod quota;
mod sink;

use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

use crate::config::{LogFormat, LogLevel};
use crate::error::{Error, Result};
use crate::sys::clock;
use line::{Fields, Style};
pub use line::{is_unsafe, json_unicode};
use quota::{Glance, Limit, Quota, Rest};
use sink::{Direct, Queued, Sink};

/// How the lines of a process reach descriptor 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// By the thread that logs; a line that would have to wait is dropped. For the master.
    Direct,
    /// By a thread of their own, through a bounded queue. For everyone with a reactor.
    Queued,
}

/// The least severe level that is logged, as its number in `LEVELS`.
static LEVEL: AtomicU8 = AtomicU8::new(2);
static LINES: OnceLock<Lines> = OnceLock::new();

const LEVELS: [LevelFilter; 5] = [
    LevelFilter::ERROR,
    LevelFilter::WARN,
    LevelFilter::INFO,
    LevelFilter::DEBUG,
    LevelFilter::TRACE,
];

/// Makes the log of this process. `role` stands in each line: `master`, `manager`, `worker 0`.
/// Panics become one line as well.
///
/// # Errors
/// When it was made before.
pub fn init(role: &str, level: LogLevel, format: LogFormat, output: Output) -> Result<()> {
    set_level(level);
    let style = Style { role: role.to_owned(), format, journal: sink::stderr_is_journal() };
    let told = style.clone();
    let notice = Box::new(move |lines| told.dropped(lines));
    let sink: &'static dyn Sink = match output {
        Output::Direct => Box::leak(Box::new(Direct::new(notice))),
        Output::Queued => Box::leak(Box::new(Queued::new(notice, sink::write_stderr))),
    };
    let lines = Lines { style, sink, quota: Box::leak(Box::default()) };
    tracing::subscriber::set_global_default(lines.clone())
        .map_err(|_| Error::new("the log of this process was made twice"))?;
    let _ = LINES.set(lines);
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

/// Says a line of its own on standard error. `eprintln!` would panic where that fails, as on a full
/// disk or a pipe whose reader has gone, and no process may end for want of somebody to be told.
/// Where the descriptor does not block, as a terminal that another program has left so, this waits
/// a second for room.
pub fn say(text: impl std::fmt::Display) {
    let _ = sink::write_stderr(format!("{text}\n").as_bytes());
}

/// Changes the level while running, as a reload does.
pub fn set_level(level: LogLevel) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    tracing::callsite::rebuild_interest_cache();
}

/// Waits until everything logged so far was written, for at most `deadline`. Returns whether it
/// was. Call it before the process ends.
pub fn flush(deadline: Duration) -> bool {
    LINES.get().is_none_or(|lines| {
        lines.tell_rest();
        lines.sink.flush(deadline)
    })
}

/// How many lines of this process were dropped since it started.
pub fn dropped() -> u64 {
    LINES.get().map_or(0, |lines| lines.sink.dropped())
}

/// Tells how many events of earlier seconds were not logged, where there were too many of them.
/// To be called about once a second.
pub fn tell_rest() {
    if let Some(lines) = LINES.get() {
        lines.tell_rest();
    }
}

/// The target of an event of which `admits_close` was asked before it was made.
pub const ADMITTED: &str = "wsd::admitted";

/// Whether one more `closed` with this cause is to be logged, with the target `ADMITTED`. Most of a
/// crowd that leaves is only counted, and to make an event for that took a hundredth of all that a
/// connection costs that comes and goes.
pub fn admits_close(cause: &str) -> bool {
    LINES.get().is_none_or(|lines| {
        lines.level() >= LevelFilter::INFO && lines.admits(&quota::LIMITS[quota::CLOSED], cause)
    })
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a value that is no text");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    tracing::error!(at = %place, "panic: {text}");
}

/// Turns events into lines. Spans are let pass: no line shows one.
#[derive(Clone)]
struct Lines {
    style: Style,
    sink: &'static dyn Sink,
    quota: &'static Quota,
}

impl Lines {
    fn level(&self) -> LevelFilter {
        LEVELS[usize::from(LEVEL.load(Ordering::Relaxed)).min(LEVELS.len() - 1)]
    }

    fn write(&self, event: &Event<'_>) {
        if is_limited(event.metadata()) {
            let glance = Glance::of(event);
            let (limit, why) = glance.limit(*event.metadata().level());
            if !self.admits(limit, why) {
                return;
            }
        }
        self.sink.write(self.style.write(*event.metadata().level(), Fields::of(event)));
    }

    /// Whether one more event of this reason is logged. What was left out of earlier seconds is
    /// told first.
    fn admits(&self, limit: &'static Limit, why: &str) -> bool {
        let (shown, rest) = self.quota.admit(limit, why, clock::monotonic_ms() / 1000);
        self.tell(rest);
        shown
    }

    fn tell_rest(&self) {
        self.tell(self.quota.rest(clock::monotonic_ms() / 1000));
    }

    fn tell(&self, rest: Vec<Rest>) {
        for rest in rest {
            self.sink.write(self.style.more(rest));
        }
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level()
            && (*metadata.level() <= tracing::Level::INFO || ours(metadata))
    }
}

/// Whether only so many events of this kind are logged in a second: our own, unless whoever runs
/// the server has asked for every one of them.
fn is_limited(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_own = target == "wsd" || target.starts_with("wsd::");
    is_own && target != ADMITTED && *metadata.level() <= tracing::Level::INFO
}

/// The machinery below is not asked for its chatter; programs built on the crate are.
fn ours(metadata: &Metadata<'_>) -> bool {
    const QUIET: [&str; 3] = ["hyper", "mio", "tokio"];
    !QUIET.iter().any(|name| metadata.target().starts_with(name))
}

impl Subscriber for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.level())
    }

    fn event(&self, event: &Event<'_>) {
        self.write(event);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Memory(Mutex<Vec<String>>);

    impl Sink for Memory {
        fn write(&self, line: String) {
            self.0.lock().unwrap().push(line);
        }

        fn flush(&self, _: Duration) -> bool {
            true
        }

        fn dropped(&self) -> u64 {
            0
        }
    }

    /// The lines that `work` logs, each without its time.
    fn logged(format: LogFormat, work: impl FnOnce()) -> Vec<String> {
        let memory: &'static Memory = Box::leak(Box::default());
        let style = Style { role: "worker 0".to_owned(), format, journal: false };
        let lines = Lines { style, sink: memory, quota: Box::leak(Box::default()) };
        tracing::subscriber::with_default(lines, work);
        std::mem::take(&mut *memory.0.lock().unwrap())
    }

    fn text(work: impl FnOnce()) -> String {
        let lines = logged(LogFormat::Text, work);
        assert_eq!(lines.len(), 1);
        let (time, rest) = lines[0].split_at(25);
        assert!(time.ends_with("Z ") && time.as_bytes()[10] == b'T', "{time:?}");
        rest.to_owned()
    }

    const NASTY: &str = "a\x1b[31mb\r\nc\u{2028}d\u{202e}e\u{85}f\0g\x7f\u{200b}\u{ad}\u{e0041}";
    const SAFE: &str = concat!(
        r"a\u{1b}[31mb\r\nc\u{2028}d\u{202e}e\u{85}f\u{0}g\u{7f}",
        r"\u{200b}\u{ad}\u{e0041}"
    );

    #[test]
    fn a_line_has_level_role_message_and_fields() {
        let line = text(|| tracing::warn!(fd = 7, ok = true, name = "x y", "slow {}", 1));
        assert_eq!(line, "WARN  worker 0: slow 1 fd=7 ok=true name=\"x y\"\n");
    }

    #[test]
    fn one_event_is_one_line_whatever_a_client_sent() {
        let line =
            text(|| tracing::info!(shown = %NASTY, debugged = ?NASTY, plain = NASTY, "{NASTY}"));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.starts_with(&format!("INFO  worker 0: {SAFE} shown={SAFE} debugged=\"a")));
        assert!(line.ends_with(&format!("plain={SAFE}\n")), "{line}");
        assert!(line.trim_end().chars().all(|c| !c.is_control() && c != '\u{2028}'), "{line}");
    }

    #[test]
    fn refusals_without_end_are_a_few_lines_of_each_reason() {
        let lines = logged(LogFormat::Text, || {
            for _ in 0..5_000 {
                tracing::info!(status = 400, why = "a", "refused");
                tracing::info!(status = 503, why = %"b c", "refused");
            }
        });
        // A second may end meanwhile.
        assert!((20..200).contains(&lines.len()), "{}", lines.len());
        assert!(lines[0].ends_with("refused status=400 why=a\n"), "{}", lines[0]);
    }

    #[test]
    fn a_reason_is_one_whatever_a_client_adds_to_it() {
        let lines = logged(LogFormat::Text, || {
            for number in 0..5_000 {
                let why = format!("no such host. Host is {number}.example; add it.");
                tracing::info!(status = 421, why = %why, "refused");
            }
        });
        // A second may end meanwhile; then a line counts the rest.
        assert!((10..100).contains(&lines.len()), "{}", lines.len());
        assert!(lines[0].contains("Host is 0.example; add it."), "{}", lines[0]);
    }

    #[test]
    fn a_message_without_end_is_a_few_lines_and_a_count_whatever_it_says() {
        let mut lines = logged(LogFormat::Text, || {
            for number in 0..5_000 {
                tracing::warn!(number, "bodies take upload_tmp_max");
            }
        });
        // A second may end meanwhile.
        assert!((20..200).contains(&lines.len()), "{}", lines.len());
        let (limit, why) = (&quota::LIMITS[2], "bodies take upload_tmp_max".to_owned());
        let style = Style { role: "worker 0".to_owned(), format: LogFormat::Text, journal: false };
        lines.push(style.more((limit, why, 7)));
        let last = lines.pop().unwrap_or_default();
        assert!(
            last.ends_with("bodies take upload_tmp_max more, which were not logged count=7\n"),
            "{last}"
        );
    }

    #[test]
    fn what_was_asked_for_and_what_an_application_says_is_logged_whole() {
        let application = logged(LogFormat::Text, || {
            (0..500).for_each(|_| tracing::info!(target: "application", "the same"));
        });
        assert_eq!(application.len(), 500);
        let asked = logged(LogFormat::Text, || {
            (0..500).for_each(|_| tracing::event!(target: "wsd::x", tracing::Level::DEBUG, "d"));
        });
        assert_eq!(asked.len() % 500, 0, "all of them, or none where the level is less");
    }

    #[test]
    fn a_value_cannot_pass_for_another_field() {
        let of = |value: &str| text(|| tracing::info!(path = %value, "m"));
        for (value, shown) in [
            ("/ fd=9", r#""/ fd=9""#),
            ("add \"a\" to it", r#"'add "a" to it'"#),
            ("\" fd=9 'x", r#""\" fd=9 'x""#),
            ("'", r#""'""#),
            ("\"\\", r#""\"\\""#),
        ] {
            assert_eq!(of(value), format!("INFO  worker 0: m path={shown}\n"));
        }
    }

    #[test]
    fn json_lines_are_json_and_lines() {
        let work =
            || tracing::error!(fd = 7u64, half = 0.5, nasty = %NASTY, role = "r", "{NASTY}");
        let lines = logged(LogFormat::Json, work);
        assert_eq!(lines[0].matches('\n').count(), 1);
        assert!(!lines[0].contains(['\u{2028}', '\x1b', '\u{85}', '\u{200b}', '\u{e0041}']));
        let json: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!((&json["level"], &json["role"]), (&"error".into(), &"worker 0".into()));
        assert_eq!((&json["fd"], &json["half"]), (&7.into(), &0.5.into()));
        assert_eq!((&json["message"], &json["nasty"]), (&NASTY.into(), &NASTY.into()));
        assert_eq!(json["role_"], "r");
    }

    #[test]
    fn a_line_never_outgrows_what_a_pipe_takes_at_once() {
        let long = "\u{1b}ü".repeat(5000);
        for format in [LogFormat::Text, LogFormat::Json] {
            let lines = logged(format, || tracing::info!(a = %long, b = %long, c = 1, "{long}"));
            assert!(lines[0].len() <= line::LINE_BYTES_MAX, "{}", lines[0].len());
            assert!(lines[0].ends_with('\n'));
            if format == LogFormat::Json {
                serde_json::from_str::<serde_json::Value>(&lines[0]).unwrap();
            }
        }
    }
}
