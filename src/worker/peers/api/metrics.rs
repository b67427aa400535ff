//! `/metrics`: what all processes count, in the text format of Prometheus.
//!
//! The master writes its summary once a second, so the text is made once for each of these, by a
//! thread of its own: a turn of the worker is as short as ever. No label is a client's word.

use std::fmt;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE, encode};
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use super::answer::{Fault, fault};
use crate::api::HttpResponse;
use crate::close::Cause;
use crate::ipc::scoreboard::{BOUNDS, Counter, Fact, Figures, Histogram};
use crate::worker::peers::Peers;

/// A family of totals: its name without `_total`, its help, its label, and the counter of each
/// value of the label.
type Totals = (&'static str, &'static str, &'static str, &'static [(&'static str, Counter)]);

const TOTALS: &[Totals] = &[
    ("accepted", "TCP connections accepted.", "", &[("", Counter::Accepted)]),
    ("opened", "WebSockets opened.", "", &[("", Counter::Opened)]),
    (
        "refused",
        "Clients and requests refused, by reason.",
        "reason",
        &[
            ("full", Counter::RefusedFull),
            ("handshakes", Counter::RefusedHandshakes),
            ("address", Counter::RefusedAddress),
            ("rate", Counter::RefusedRate),
            ("denied", Counter::RefusedDenied),
            ("memory", Counter::RefusedMemory),
            ("origin", Counter::RefusedOrigin),
            ("host", Counter::RefusedHost),
            ("request", Counter::RefusedRequest),
            ("handler", Counter::RefusedHandler),
            ("stopping", Counter::RefusedStopping),
        ],
    ),
    ("null_origins", "Handshakes let in by local-null alone.", "", &[("", Counter::OpenedNull)]),
    (
        "messages",
        "Messages of clients, and messages written to clients.",
        "direction",
        &[("in", Counter::MessagesIn), ("out", Counter::MessagesOut)],
    ),
    (
        "client_bytes",
        "Bytes received from clients and written to clients.",
        "direction",
        &[("in", Counter::BytesIn), ("out", Counter::BytesOut)],
    ),
    (
        "pushes",
        "Pushes by what became of each; a relayed one has its verdict at its client's worker too.",
        "verdict",
        &[
            ("queued", Counter::PushQueued),
            ("relayed", Counter::PushRelayed),
            ("full", Counter::PushFull),
            ("gone", Counter::PushGone),
            ("too_big", Counter::PushTooBig),
        ],
    ),
    ("publishes", "Messages published to rooms and users.", "", &[("", Counter::Publishes)]),
    ("pushes_lost", "Queued messages whose client ended first.", "", &[("", Counter::PushLost)]),
    ("lane_full", "Messages refused since a lane was full.", "", &[("", Counter::LaneFull)]),
    ("relayed_messages", "Messages that the manager passed on.", "", &[("", Counter::Relayed)]),
    ("stale_packets", "Packets of processes that had ended.", "", &[("", Counter::StalePackets)]),
    ("too_fast", "Times that a client sent too fast.", "", &[("", Counter::TooFast)]),
    (
        "moved",
        "Connections that moved between workers.",
        "direction",
        &[("given", Counter::HandedOver), ("taken", Counter::Adopted)],
    ),
    (
        "reloads",
        "Reloads by result.",
        "result",
        &[("ok", Counter::Reloads), ("failed", Counter::ReloadsFailed)],
    ),
    ("panics", "Handlers that panicked.", "", &[("", Counter::Panics)]),
    ("http_requests", "Plain HTTP requests answered.", "", &[("", Counter::HttpRequests)]),
    (
        "api_requests",
        "Requests of the HTTP API.",
        "result",
        &[("answered", Counter::ApiRequests), ("refused", Counter::ApiRefused)],
    ),
    ("app_events", "Events that the application finished.", "", &[("", Counter::AppEvents)]),
    ("tasks", "Blocking jobs done.", "", &[("", Counter::Tasks)]),
    (
        "cluster_messages",
        "Messages to other nodes that the engine took, and messages of other nodes.",
        "direction",
        &[("out", Counter::ClusterSent), ("in", Counter::ClusterReceived)],
    ),
    (
        "cluster_lost",
        "Messages that another node did not get, or this one.",
        "reason",
        &[
            ("engine_away", Counter::ClusterUnsent),
            ("not_taken", Counter::ClusterDropped),
            ("garbled", Counter::ClusterGarbled),
        ],
    ),
    ("cluster_gaps", "Times that messages may have been lost.", "", &[("", Counter::ClusterGaps)]),
    ("cluster_connects", "Connections to the engine.", "", &[("", Counter::ClusterConnects)]),
    ("log_lines_dropped", "Lines that the log could not take.", "", &[("", Counter::LogDropped)]),
];

const HISTOGRAMS: &[(&str, &str, Histogram)] = &[
    ("loop_lag_seconds", "How late workers came to their clock.", Histogram::LoopLag),
    ("handshake_seconds", "From the accept to the end of a handshake.", Histogram::Handshake),
    ("app_event_seconds", "What the application took for an event.", Histogram::AppEvent),
    ("reload_seconds", "From the begin of a reload to its verdict.", Histogram::Reload),
];

const CLIENTS: &[(&str, Counter)] = &[
    ("websocket", Counter::Connections),
    ("handshake", Counter::Handshakes),
    ("http", Counter::Plain),
    ("refused", Counter::Lingering),
];

/// Everything that is told, of one moment.
#[derive(Debug)]
struct Snapshot {
    figures: Figures,
    /// WebSockets of each slot.
    by_slot: Vec<(u8, u64)>,
    connections_max: u64,
    client_memory_max: u64,
}

/// Answers with the figures.
pub(super) async fn answer(worker: &Rc<Peers>) -> HttpResponse {
    let Some(figures) = worker.summary.figures().await else {
        return fault(Fault::Unavailable("the master has told no figures yet"));
    };
    let published = figures.fact(Fact::Published);
    let mut written = worker.api.written.lock().await;
    let text = match &*written {
        Some((of, text)) if *of >= published => text.clone(),
        _ => {
            let Some(text) = write(Snapshot::of(worker, figures)).await else {
                return fault(Fault::Unavailable("no thread is free to write the figures"));
            };
            written.insert((published, text)).1.clone()
        }
    };
    let mut response = HttpResponse::new(text.into());
    let kind = HeaderValue::from_static(CONTENT_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// Has a thread write the text. It is a thread of its own, since those of tasks may all be at work
/// just when somebody has to see why.
async fn write(snapshot: Snapshot) -> Option<Bytes> {
    let (sender, text) = oneshot::channel();
    let work = move || {
        // A receiver that is gone only means that the client has left.
        let _ = sender.send(snapshot.text());
    };
    let thread = std::thread::Builder::new().name("wsd-metrics".to_owned()).spawn(work);
    thread.map_err(|error| tracing::error!(%error, "cannot start a thread")).ok()?;
    text.await.ok().flatten()
}

impl Snapshot {
    fn of(worker: &Peers, figures: Figures) -> Snapshot {
        let config = &worker.settings.config;
        let mut by_slot = worker.board.others.borrow().by_slot(Counter::Connections);
        *by_slot.entry(worker.slot()).or_insert(0) += worker.board.row.get(Counter::Connections);
        Snapshot {
            figures,
            by_slot: by_slot.into_iter().map(|(slot, count)| (slot.0, count)).collect(),
            connections_max: config.max_connection as u64,
            client_memory_max: config.client_memory,
        }
    }

    fn text(self) -> Option<Bytes> {
        let mut registry = Registry::with_prefix("wsd");
        registry.register_collector(Box::new(self));
        let mut text = String::with_capacity(32 * 1024);
        // It fails only where the text cannot grow.
        encode(&mut text, &registry).ok()?;
        Some(text.into())
    }

    fn totals(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, label, counters) in TOTALS {
            let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (value, counter) in *counters {
                let total = self.figures.get(*counter);
                match *label {
                    "" => family.encode_counter::<NoLabelSet, _, u64>(&total, None)?,
                    label => family
                        .encode_family(&[(label, *value)])?
                        .encode_counter::<NoLabelSet, _, u64>(&total, None)?,
                }
            }
        }
        let mut family = to.encode_descriptor(
            "closed",
            "WebSockets closed, by cause.",
            None,
            MetricType::Counter,
        )?;
        for cause in Cause::ALL {
            family
                .encode_family(&[("cause", cause.as_str())])?
                .encode_counter::<NoLabelSet, _, u64>(&self.figures.closed(*cause), None)?;
        }
        let help = "Processes started again after a crash.";
        let mut family = to.encode_descriptor("restarts", help, None, MetricType::Counter)?;
        let facts = [
            ("worker", Fact::WorkerRestarts),
            ("manager", Fact::ManagerRestarts),
            ("courier", Fact::CourierRestarts),
        ];
        for (process, fact) in facts {
            family
                .encode_family(&[("process", process)])?
                .encode_counter::<NoLabelSet, _, u64>(&self.figures.fact(fact), None)?;
        }
        let help = "Application processes started.";
        to.encode_descriptor("app_starts", help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&self.figures.fact(Fact::AppStarts), None)
    }

    fn gauges(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let help = "Connections now, by what each is.";
        let mut family = to.encode_descriptor("connections", help, None, MetricType::Gauge)?;
        for (kind, counter) in CLIENTS {
            let now = self.figures.get(*counter);
            family.encode_family(&[("kind", *kind)])?.encode_gauge(&now)?;
        }
        let help = "WebSockets of each worker now.";
        let mut family =
            to.encode_descriptor("worker_connections", help, None, MetricType::Gauge)?;
        for (slot, count) in &self.by_slot {
            family.encode_family(&[("worker", u32::from(*slot))])?.encode_gauge(count)?;
        }
        let (figures, fact) = (&self.figures, |fact| self.figures.fact(fact));
        let gauges = [
            ("connections_max", "What max_connection allows.", self.connections_max),
            (
                "client_memory_bytes",
                "What workers hold for their clients.",
                figures.get(Counter::ClientMemory),
            ),
            (
                "client_memory_max_bytes",
                "What client_memory allows each worker; 0 is no limit.",
                self.client_memory_max,
            ),
            (
                "held_bytes",
                "Messages that wait in the manager for connections to have moved.",
                figures.get(Counter::HeldBytes),
            ),
            ("memberships", "Memberships of rooms and users.", figures.get(Counter::Memberships)),
            ("slots", "Workers that there ought to be.", fact(Fact::Slots)),
            ("slots_ready", "Workers that are ready.", fact(Fact::Ready)),
            ("generation", "The generation that serves.", fact(Fact::Generation)),
            ("draining", "1 while no new clients are wanted.", fact(Fact::Draining)),
            ("app_processes", "Application processes now.", fact(Fact::AppProcesses)),
            ("app_busy", "Application processes at work.", figures.get(Counter::AppBusy)),
            (
                "app_waiting",
                "Events that wait for the application or are handled.",
                figures.get(Counter::AppWaiting),
            ),
            (
                "app_memory_bytes",
                "What application processes hold in memory.",
                figures.get(Counter::AppMemory),
            ),
            ("cluster_nodes", "Nodes that are there.", figures.get(Counter::ClusterNodes)),
            ("cluster_away", "1 while the engine is away.", figures.get(Counter::ClusterAway)),
        ];
        for (name, help, value) in gauges {
            to.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        let started = fact(Fact::StartedAt) as f64 / 1000.0;
        let help = "When the server was started, in seconds since 1970.";
        to.encode_descriptor("start_time_seconds", help, None, MetricType::Gauge)?
            .encode_gauge(&started)?;
        to.encode_descriptor("build", "The version of the program.", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }

    fn histograms(&self, to: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, histogram) in HISTOGRAMS {
            let measured = self.figures.measured(*histogram);
            let bounds = BOUNDS.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
            let buckets: Vec<(f64, u64)> = bounds.zip(measured.buckets).collect();
            let count = measured.buckets.iter().sum();
            let sum = measured.sum_us as f64 / 1e6;
            to.encode_descriptor(name, help, None, MetricType::Histogram)?
                .encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

impl Collector for Snapshot {
    fn encode(&self, mut to: DescriptorEncoder<'_>) -> fmt::Result {
        self.totals(&mut to)?;
        self.gauges(&mut to)?;
        self.histograms(&mut to)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::fd::AsFd;

    use super::*;
    use crate::ipc::scoreboard::{Summary, SummaryPage};

    fn text(slots: u8) -> String {
        let summary = Summary::create().unwrap();
        let page = SummaryPage::open(summary.memfd().as_fd()).unwrap();
        let snapshot = Snapshot {
            figures: page.figures().unwrap(),
            by_slot: (0..=slots).map(|slot| (slot, 5)).collect(),
            connections_max: 9,
            client_memory_max: 0,
        };
        String::from_utf8(snapshot.text().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn there_are_at_most_2000_series_whatever_the_server_is() {
        let text = text(255);
        let series: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|l| l.rsplit_once(' ').unwrap().0)
            .collect();
        assert!(series.len() <= 2000, "{}", series.len());
        assert_eq!(series.iter().collect::<BTreeSet<_>>().len(), series.len());
        assert!(text.contains("wsd_worker_connections{worker=\"255\"} 5\n"), "{text}");
        assert!(text.contains("wsd_handshake_seconds_bucket{le=\"0.0001\"} 0\n"), "{text}");
        assert!(text.contains("wsd_build_info{version="), "{text}");
    }

    #[test]
    fn every_counter_is_told_or_told_by_its_parts() {
        let told: Vec<Counter> = TOTALS
            .iter()
            .flat_map(|(_, _, _, counters)| counters.iter().map(|(_, it)| *it))
            .collect();
        // The sums of what is told by reason and by cause.
        let parts = [Counter::Refused, Counter::Closed];
        for counter in Counter::ALL.into_iter().filter(|it| !it.is_gauge() && !parts.contains(it))
        {
            assert!(told.contains(&counter), "{counter:?} is not told");
        }
    }
}
