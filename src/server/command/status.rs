//! `status`: the page an operator looks at first.

use std::path::Path;

use super::style::{Style, Table, Tone, bytes, duration, number, safe};
use super::{ExitStatus, ask_again, complain, connect, print, print_json, told, verdict};
use crate::ipc::control::{
    ClusterReport, ReloadState, Request, Status, WorkerReport, WorkerState,
};
use crate::sys::clock::unix_ms;

/// Shows the state of the whole server.
pub(crate) fn status(runtime_dir: &Path, json: bool) -> ExitStatus {
    let answer = connect(runtime_dir)
        .map(|mut control| ask_again(runtime_dir, &mut control, &Request::Status {}));
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return complain(&error),
        Err(status) => return status,
    };
    if json {
        return print_json(&answer);
    }
    match answer.read::<Status>() {
        Ok(status) => {
            // It was asked; whether anybody reads the answer is theirs.
            let _ = print(&render(&status, Style::for_stdout()));
            verdict(&answer)
        }
        Err(_) => verdict(&answer),
    }
}

/// Has the server open its log file anew.
pub(crate) fn reopen(runtime_dir: &Path, json: bool) -> ExitStatus {
    let answer = connect(runtime_dir)
        .map(|mut control| ask_again(runtime_dir, &mut control, &Request::Reopen {}));
    match answer {
        Ok(Ok(answer)) => told(&answer, json),
        Ok(Err(error)) => complain(&error),
        Err(status) => status,
    }
}

fn render(status: &Status, style: Style) -> String {
    let total = |name: &str| status.counters.get(name).copied().unwrap_or_default();
    let name = style.text(Tone::Bold, &format!("wsd {}", safe(&status.version)));
    let mut text = format!(
        "{name}  up {}  generation {}  {} connections\n",
        duration(status.uptime_ms),
        status.generation,
        style.text(Tone::Bold, &number(status.connections)),
    );
    let mut line = |label: &str, value: String| {
        text.push_str(&format!(
            "  {}  {value}\n",
            style.text(Tone::Faint, &format!("{label:<9}"))
        ));
    };
    line("listen", safe(&status.listen.join("  ")));
    for (label, value) in more(status, style).into_iter().chain(processes(status)) {
        line(label, value);
    }
    let held = status.manager.held_bytes;
    match status.reload.state {
        ReloadState::Idle => {}
        state if held > 0 => line("reload", format!("{} ({} held)", state.as_str(), bytes(held))),
        state => line("reload", state.as_str().to_owned()),
    }
    text.push('\n');
    text.push_str(&tables(status, style));
    let mut line = |label: &str, value: String| {
        text.push_str(&format!(
            "  {}  {value}\n",
            style.text(Tone::Faint, &format!("{label:<9}"))
        ));
    };
    line(
        "clients",
        format!(
            "{} opened  {} closed  {} refused",
            number(total("opened")),
            number(total("closed")),
            number(total("refused"))
        ),
    );
    line(
        "messages",
        format!("{} in  {} out", number(total("messages_in")), number(total("messages_out"))),
    );
    // Handshakes, plain HTTP and control frames among them.
    line("traffic", format!("{} in  {} out", bytes(total("bytes_in")), bytes(total("bytes_out"))));
    line(
        "pushes",
        format!(
            "{} queued  {} gone  {} full  {} relayed",
            number(total("push_queued")),
            number(total("push_gone")),
            number(total("push_full") + total("lane_full")),
            number(total("push_relayed"))
        ),
    );
    for (label, tone, what) in troubles(status) {
        line(label, style.text(tone, &what));
    }
    text
}

/// The workers, and their application processes where there are any.
fn tables(status: &Status, style: Style) -> String {
    let mut text = workers(&status.workers).lines(style) + "\n";
    if status.workers.iter().any(|worker| !worker.processes.is_empty()) {
        text += &applications(&status.workers).lines(style);
        text.push('\n');
    }
    text
}

/// What not every server has.
fn more(status: &Status, style: Style) -> Vec<(&'static str, String)> {
    let api = (!status.api.is_empty()).then(|| ("api", safe(&status.api.join("  "))));
    let cluster = status.cluster.as_ref().map(|cluster| ("cluster", cluster_line(cluster, style)));
    let what = "no new clients; ends when the last is gone (`wsd drain --undo`)";
    let drain = status.draining.then(|| ("draining", style.text(Tone::Odd, what)));
    api.into_iter().chain(cluster).chain(drain).collect()
}

/// The processes of which there is one.
fn processes(status: &Status) -> Vec<(&'static str, String)> {
    let takes = |memory, cpu| format!("{}, {} of CPU", bytes(memory), duration(cpu));
    let master = takes(status.memory_bytes, status.cpu_ms);
    let manager = takes(status.manager.memory_bytes, status.manager.cpu_ms);
    let again = restarts(status.restarts.managers);
    let mut lines = vec![
        ("master", format!("pid {}  {master}", status.master_pid)),
        ("manager", format!("pid {}  {manager}{again}", status.manager_pid)),
    ];
    if let Some(courier) = &status.courier {
        let again = restarts(courier.restarts);
        let what = match courier.pid {
            None => "not there".to_owned(),
            Some(pid) => format!("pid {pid}  {}", takes(courier.memory_bytes, courier.cpu_ms)),
        };
        lines.push(("courier", what + &again));
    }
    lines
}

/// What this node knows of its cluster.
fn cluster_line(cluster: &ClusterReport, style: Style) -> String {
    let s = if cluster.nodes == 1 { "" } else { "s" };
    let mut line = format!("node {}  {} node{s} there", cluster.node, cluster.nodes);
    if let Some(since) = cluster.away_since {
        let why = safe(cluster.why.as_deref().unwrap_or("the courier is not there"));
        let away = duration(unix_ms().saturating_sub(since));
        let what =
            format!("the engine has been away for {away}, and this node serves alone: {why}");
        line = format!("node {}  {}", cluster.node, style.text(Tone::Odd, &what));
    }
    if cluster.gaps > 0 {
        let s = if cluster.gaps == 1 { "" } else { "s" };
        let gaps = format!("{} gap{s}", number(cluster.gaps));
        line = format!("{line}  {}", style.text(Tone::Odd, &gaps));
    }
    line
}

/// What an operator would want to know of first.
fn troubles(status: &Status) -> Vec<(&'static str, Tone, String)> {
    let mut troubles = Vec::new();
    for (name, what) in TROUBLES {
        let total = status.counters.get(name).copied().unwrap_or_default();
        if total > 0 {
            troubles.push(("trouble", Tone::Odd, format!("{} {what}", number(total))));
        }
    }
    if status.restarts.workers > 0 {
        let text = format!("{} workers started again after a crash", status.restarts.workers);
        troubles.push(("trouble", Tone::Odd, text));
    }
    for trouble in &status.troubles {
        troubles.push(("trouble", Tone::Bad, safe(trouble)));
    }
    for slot in &status.throttled {
        let text =
            format!("slot {} keeps dying; next try in {}", slot.slot, duration(slot.retry_ms));
        troubles.push(("trouble", Tone::Bad, text));
    }
    let failure = status.reload.last.as_ref().and_then(|last| last.failure.as_deref());
    for part in failure.into_iter().flat_map(str::lines) {
        troubles.push(("reload", Tone::Bad, safe(part)));
    }
    troubles
}

/// Counters that are shown only where they are not 0.
const TROUBLES: [(&str, &str); 4] = [
    ("push_lost", "queued messages lost with their connection"),
    ("panics", "handlers panicked"),
    ("stale_packets", "packets of dead workers dropped"),
    ("log_dropped", "log lines dropped"),
];

fn restarts(count: u64) -> String {
    match count {
        0 => String::new(),
        1 => "  started again once".to_owned(),
        n => format!("  started again {n} times"),
    }
}

fn workers(workers: &[WorkerReport]) -> Table {
    let mut table = Table::new(&[
        "worker",
        "state",
        ">pid",
        ">gen",
        ">open",
        ">msgs in",
        ">msgs out",
        ">bytes out",
        ">lane",
        ">silent",
        ">memory",
        ">cpu",
    ]);
    for worker in workers {
        let count = |name: &str| worker.counters.get(name).copied().unwrap_or_default();
        let tone = match worker.state {
            WorkerState::Serving => Tone::Good,
            WorkerState::Starting | WorkerState::Handing | WorkerState::Draining => Tone::Odd,
            WorkerState::Hung => Tone::Bad,
        };
        let quiet = |shown: bool, text: String| {
            if shown { (text, Tone::Odd) } else { ("-".to_owned(), Tone::Faint) }
        };
        table.row(vec![
            (format!("{}.{}", worker.slot, worker.epoch), Tone::Plain),
            (worker.state.as_str().to_owned(), tone),
            (worker.pid.to_string(), Tone::Plain),
            (worker.generation.to_string(), Tone::Plain),
            (number(worker.connections), Tone::Bold),
            (number(count("messages_in")), Tone::Plain),
            (number(count("messages_out")), Tone::Plain),
            (bytes(count("bytes_out")), Tone::Plain),
            quiet(worker.lane_bytes > 0, bytes(worker.lane_bytes)),
            quiet(worker.silent_ms >= 1000, duration(worker.silent_ms)),
            (bytes(worker.memory_bytes), Tone::Plain),
            (duration(worker.cpu_ms), Tone::Plain),
        ]);
    }
    table
}

/// The application processes of all workers.
fn applications(workers: &[WorkerReport]) -> Table {
    let mut table =
        Table::new(&["process", "state", ">pid", ">events", ">restarts", ">memory", ">cpu"]);
    for worker in workers {
        for process in &worker.processes {
            let (state, tone) = match (process.ready, process.events) {
                (false, _) => ("starting", Tone::Odd),
                (true, 0) => ("idle", Tone::Good),
                (true, _) => ("busy", Tone::Good),
            };
            let task = if process.task { " task" } else { "" };
            table.row(vec![
                (format!("{}.{}/{}{task}", worker.slot, worker.epoch, process.place), Tone::Plain),
                (state.to_owned(), tone),
                (process.pid.to_string(), Tone::Plain),
                (number(process.events.into()), Tone::Plain),
                (number(process.restarts.into()), Tone::Plain),
                (bytes(process.memory_bytes), Tone::Plain),
                (duration(process.cpu_ms), Tone::Plain),
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;
    use crate::ipc::control::{CourierReport, ProcessReport};
    use std::collections::BTreeMap;

    #[test]
    fn the_page_shows_every_worker_and_every_trouble() {
        let worker = |slot, state, silent_ms| WorkerReport {
            slot: Slot(slot),
            pid: 4100 + i32::from(slot),
            epoch: 1,
            generation: 2,
            state,
            connections: 1204,
            silent_ms,
            lane_bytes: 0,
            counters: BTreeMap::from([("messages_in".to_owned(), 5_000_000)]),
            memory_bytes: 3 << 20,
            cpu_ms: 61_000,
            processes: vec![ProcessReport {
                place: 1,
                pid: 4200,
                task: slot == 1,
                ready: true,
                events: slot.into(),
                restarts: 2,
                memory_bytes: 24 << 20,
                cpu_ms: 900,
            }],
        };
        let courier = CourierReport { pid: Some(4002), restarts: 1, ..CourierReport::default() };
        let status = Status {
            version: "0.1.0".to_owned(),
            master_pid: 4000,
            manager_pid: 4001,
            uptime_ms: 725_000,
            listen: vec!["127.0.0.1:8000".to_owned()],
            generation: 2,
            connections: 2408,
            workers: vec![worker(0, WorkerState::Serving, 0), worker(1, WorkerState::Hung, 4000)],
            counters: BTreeMap::from([("panics".to_owned(), 3)]),
            courier: Some(courier),
            ..Status::default()
        };
        let page = "\
wsd 0.1.0  up 12m 5s  generation 2  2,408 connections
  listen     127.0.0.1:8000
  master     pid 4000  0 B, 0 ms of CPU
  manager    pid 4001  0 B, 0 ms of CPU
  courier    pid 4002  0 B, 0 ms of CPU  started again once

  worker  state     pid  gen   open    msgs in  msgs out  bytes out  lane  silent   memory    cpu
  0.1     serving  4100    2  1,204  5,000,000         0        0 B     -       -  3.0 MiB  1m 1s
  1.1     hung     4101    2  1,204  5,000,000         0        0 B     -      4s  3.0 MiB  1m 1s

  process     state   pid  events  restarts    memory     cpu
  0.1/1       idle   4200       0         2  24.0 MiB  900 ms
  1.1/1 task  busy   4200       1         2  24.0 MiB  900 ms

  clients    0 opened  0 closed  0 refused
  messages   0 in  0 out
  traffic    0 B in  0 B out
  pushes     0 queued  0 gone  0 full  0 relayed
  trouble    3 handlers panicked
";
        assert_eq!(render(&status, Style::none()), page);
    }
}
