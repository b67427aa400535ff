//! `connections` and `info`.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use super::push::conclude;
use super::style::{Style, Table, Tone, bytes, duration, safe, safe_json};
use super::{ExitStatus, ask_again, complain, connect, verdict};
use crate::api::{Info, Verdict};
use crate::fd::Fd;
use crate::ipc::control::{Connection, Control, ControlError, Request};
use crate::sys::clock::unix_ms;

/// Lists every open connection: as a table for people, or as one JSON array. Each line is
/// written when it comes, so a list of any length takes no memory here.
pub(crate) fn connections(
    runtime_dir: &Path,
    (room, uid): (Option<String>, Option<String>),
    here: bool,
    json: bool,
) -> ExitStatus {
    let request = Request::Connections { room, uid, here };
    list(runtime_dir, |control, out| match json {
        true => as_json(control, &request, out),
        false => as_table(control, &request, out),
    })
}

/// Lists the clients that do not read.
pub(crate) fn slow(runtime_dir: &Path, json: bool) -> ExitStatus {
    list(runtime_dir, |control, out| match json {
        true => as_json(control, &Request::Slow {}, out),
        false => slow_table(control, out),
    })
}

fn list(
    runtime_dir: &Path,
    show: impl FnOnce(
        &mut Control,
        &mut BufWriter<io::StdoutLock<'_>>,
    ) -> Result<ExitStatus, ControlError>,
) -> ExitStatus {
    let mut control = match connect(runtime_dir) {
        Ok(control) => control,
        Err(status) => return status,
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let listed = show(&mut control, &mut out);
    let flushed = out.flush();
    match listed {
        // Nobody reads any more, as with `wsd connections | head`.
        Err(_) if flushed.is_err() => ExitStatus::Done,
        Err(error) => complain(&error),
        Ok(status) => status,
    }
}

fn as_json(
    control: &mut Control,
    request: &Request,
    out: &mut impl Write,
) -> Result<ExitStatus, ControlError> {
    let mut before = "[\n";
    let answer = control.ask_list(request, b"", |item| {
        write!(out, "{before}  {}", safe_json(item))?;
        before = ",\n";
        Ok(())
    })?;
    let end = if before == "[\n" { "[]\n" } else { "\n]\n" };
    out.write_all(end.as_bytes()).map_err(|error| ControlError::Failed(error.to_string()))?;
    Ok(verdict(&answer))
}

fn slow_table(control: &mut Control, out: &mut impl Write) -> Result<ExitStatus, ControlError> {
    let style = Style::for_stdout();
    let headings =
        [">fd", ">worker", ">queued", ">for", ">rtt", ">unacked", ">resent", "peer", "path"];
    let mut table = Table::new(&headings);
    let answer = control.ask_list(&Request::Slow {}, b"", |item| {
        let info: Info = serde_json::from_str(item)?;
        let number = |n: Option<u32>| n.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let cells = [
            info.fd.to_string(),
            info.worker.to_string(),
            bytes(info.queued_bytes),
            duration(info.queued_ms),
            info.rtt_us.map_or_else(|| "-".to_owned(), rtt),
            number(info.unacked),
            number(info.retransmits),
            safe(&info.peer),
            safe(&info.path),
        ];
        table.row(cells.map(|cell| (cell, Tone::Plain)).to_vec());
        Ok(())
    })?;
    let count = answer.more.get("count").and_then(|n| n.as_u64()).unwrap_or_default();
    let text = match count {
        0 if answer.ok => "every client reads\n".to_owned(),
        0 => String::new(),
        _ => table.lines(style),
    };
    out.write_all(text.as_bytes()).map_err(|error| ControlError::Failed(error.to_string()))?;
    Ok(verdict(&answer))
}

/// A round-trip time.
fn rtt(us: u32) -> String {
    if us < 10_000 { format!("{us} us") } else { format!("{} ms", us / 1000) }
}

fn as_table(
    control: &mut Control,
    request: &Request,
    out: &mut impl Write,
) -> Result<ExitStatus, ControlError> {
    let style = Style::for_stdout();
    let now = unix_ms();
    let heading = row("fd", "worker", "since", "idle", "peer", "uid");
    let mut any = false;
    let answer = control.ask_list(request, b"", |item| {
        let connection: Connection = serde_json::from_str(item)?;
        if !std::mem::replace(&mut any, true) {
            writeln!(out, "{}", style.text(Tone::Faint, &heading))?;
        }
        let since = duration(now.saturating_sub(connection.connected_at));
        let epoch = connection.epoch.map_or(String::new(), |epoch| format!(".{epoch}"));
        let worker = format!("{}{epoch}", connection.worker);
        let fd = connection.fd.to_string();
        let idle = duration(connection.idle_ms);
        let uid = connection.uid.as_deref().map_or(String::new(), safe);
        let line = row(&fd, &worker, &since, &idle, &safe(&connection.peer), &uid);
        writeln!(out, "{}", line.trim_end())
    })?;
    if answer.ok || answer.verdict == Some(Verdict::Unknown) {
        let count = answer.more.get("count").and_then(|n| n.as_u64()).unwrap_or_default();
        let s = if count == 1 { "" } else { "s" };
        let total = format!("{} connection{s}", super::style::number(count));
        writeln!(out, "{}", style.text(Tone::Bold, &total))
            .map_err(|error| ControlError::Failed(error.to_string()))?;
    }
    Ok(verdict(&answer))
}

/// Columns wide enough for any fd, so that the list can stream.
fn row(fd: &str, worker: &str, since: &str, idle: &str, peer: &str, uid: &str) -> String {
    format!("{fd:>16}  {worker:>8}  {since:>9}  {idle:>9}  {peer:<21}  {uid}")
}

/// Shows what is known of one client.
pub(crate) fn info(runtime_dir: &Path, fd: Fd, json: bool) -> ExitStatus {
    let request = Request::Info { fd };
    let asked =
        connect(runtime_dir).map(|mut control| ask_again(runtime_dir, &mut control, &request));
    conclude(asked, json, |answer| {
        answer.read::<Info>().map(|info| card(&info, unix_ms())).unwrap_or_default()
    })
}

/// How the kernel sees the connection, where it is one over TCP.
fn tcp(info: &Info) -> Option<(&'static str, String)> {
    let (rtt_us, unacked, resent) = (info.rtt_us?, info.unacked?, info.retransmits?);
    Some(("tcp", format!("rtt {}, {unacked} unacked, {resent} resent", rtt(rtt_us))))
}

/// The worker, which on another node than the first is not the one of that slot here.
fn worker(info: &Info) -> String {
    match info.fd.node() {
        0 => info.worker.to_string(),
        node => format!("{} of node {node}", info.worker),
    }
}

fn card(info: &Info, now: u64) -> String {
    let client = info.client.map_or_else(|| "unknown".to_owned(), |client| client.to_string());
    let mut table = Table::new(&["client", ""]);
    let fields = [
        ("fd", info.fd.to_string()),
        ("worker", worker(info)),
        ("address", client),
        ("peer", safe(&info.peer)),
        ("connected", format!("{} ago", duration(now.saturating_sub(info.connected_at)))),
        ("idle", duration(info.idle_ms)),
        ("received", bytes(info.bytes_in)),
        ("sent", bytes(info.bytes_out)),
        ("queued", format!("{} for {}", bytes(info.queued_bytes), duration(info.queued_ms))),
        ("path", safe(&info.path)),
        ("user", info.uid.as_deref().map_or(String::new(), safe)),
        ("rooms", safe(&info.rooms.join(", "))),
        ("session", info.session.as_deref().map_or(String::new(), safe)),
    ];
    // What few have is shown where it is there.
    let fields = fields.into_iter().filter(|(_, value)| !value.is_empty()).chain(tcp(info));
    for (name, value) in fields {
        table.row(vec![(name.to_owned(), Tone::Faint), (value, Tone::Plain)]);
    }
    let lines = table.lines(Style::for_stdout());
    // The fields name themselves.
    lines.split_once('\n').map_or(String::new(), |(_, rows)| rows.to_owned())
}
