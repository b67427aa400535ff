//! Every counter, with its name.

use serde::{Deserialize, Serialize};

/// What a worker counts. The names are those of `status --json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(usize)]
pub enum Counter {
    /// Open connections now (not a total).
    Connections,
    /// Pending handshakes now (not a total).
    Handshakes,
    /// TCP connections accepted.
    Accepted,
    /// Handshakes answered with 101.
    Opened,
    /// Handshakes refused.
    Refused,
    /// WebSockets ended.
    Closed,
    /// WebSockets that came over from another process.
    Adopted,
    /// WebSockets handed to another process.
    HandedOver,
    /// Messages received from clients.
    MessagesIn,
    /// Messages written to clients.
    MessagesOut,
    /// Bytes received from clients.
    BytesIn,
    /// Bytes written to clients.
    BytesOut,
    /// Pushes queued for a client here.
    PushQueued,
    /// Pushes refused since the client's queue was full.
    PushFull,
    /// Pushes to clients that were gone.
    PushGone,
    /// Pushes larger than a message may be.
    PushTooBig,
    /// Pushes given to the manager for a client elsewhere.
    PushRelayed,
    /// Pushes refused since the lane to the manager was full.
    LaneFull,
    /// Queued messages that were lost since their connection ended first.
    PushLost,
    /// Packets of a dead epoch, dropped.
    StalePackets,
    /// Handlers that panicked.
    Panics,
    /// Plain HTTP requests answered.
    HttpRequests,
    /// Blocking jobs done.
    Tasks,
    /// Events delivered to application processes.
    AppEvents,
    /// Log lines dropped since the log could not keep up.
    LogDropped,
    /// Plain HTTP connections now (not a total).
    Plain,
    /// Refused clients that read their answer now (not a total).
    Lingering,
    /// Clients refused since the server was full.
    RefusedFull,
    /// Handshakes that gave way to newer ones.
    RefusedHandshakes,
    /// Clients refused since their address had its share.
    RefusedAddress,
    /// Clients refused since their address came too often.
    RefusedRate,
    /// Clients refused since their address is denied.
    RefusedDenied,
    /// Requests refused for want of memory.
    RefusedMemory,
    /// Handshakes refused for their Origin.
    RefusedOrigin,
    /// Requests refused for their Host.
    RefusedHost,
    /// Requests refused for what they are or how slowly they came.
    RefusedRequest,
    /// Handshakes refused by the handler.
    RefusedHandler,
    /// Clients refused since the server was about to stop.
    RefusedStopping,
    /// Handshakes that were let in by `local-null` alone.
    OpenedNull,
    /// Times that a client had to wait, or was closed, since it sent too fast.
    TooFast,
    /// Memberships of rooms and users now (not a total).
    Memberships,
    /// Messages that were published to rooms and users, whoever was there.
    Publishes,
    /// Messages that the manager brought from one worker to another.
    Relayed,
    /// Bytes of messages that wait in the manager for a handover to end, now (not a total).
    HeldBytes,
    /// Reloads that went as they should, those of upgrades included.
    Reloads,
    /// Reloads that changed nothing, or not all.
    ReloadsFailed,
    /// Bytes that the worker holds for its clients now, as `client_memory` counts (not a total).
    ClientMemory,
    /// Requests of the HTTP API that were answered.
    ApiRequests,
    /// Requests of the HTTP API that were refused: no right token, or malformed.
    ApiRefused,
    /// Application processes that are at work now (not a total).
    AppBusy,
    /// Events of the application that wait or are handled now (not a total).
    AppWaiting,
    /// What application processes hold in memory now, in bytes (not a total).
    AppMemory,
    /// Plain HTTP requests whose answer has not begun, now (not a total).
    HttpRunning,
    /// Messages to other nodes that the engine took.
    ClusterSent,
    /// Messages of other nodes.
    ClusterReceived,
    /// Messages to other nodes that were not given to the engine, since it was away.
    ClusterUnsent,
    /// Messages of other nodes that were lost here, since nobody took them in time.
    ClusterDropped,
    /// What came on the cluster's channels and was no envelope.
    ClusterGarbled,
    /// Times that messages may have been lost on their way between this node and others.
    ClusterGaps,
    /// Connections to the engine that were made.
    ClusterConnects,
    /// Nodes of the cluster that are there now, this one among them (not a total).
    ClusterNodes,
    /// 1 while the engine of the cluster is away (not a total).
    ClusterAway,
}

impl Counter {
    /// Every counter, in the order of their words.
    pub const ALL: [Counter; 62] = [
        Counter::Connections,
        Counter::Handshakes,
        Counter::Accepted,
        Counter::Opened,
        Counter::Refused,
        Counter::Closed,
        Counter::Adopted,
        Counter::HandedOver,
        Counter::MessagesIn,
        Counter::MessagesOut,
        Counter::BytesIn,
        Counter::BytesOut,
        Counter::PushQueued,
        Counter::PushFull,
        Counter::PushGone,
        Counter::PushTooBig,
        Counter::PushRelayed,
        Counter::LaneFull,
        Counter::PushLost,
        Counter::StalePackets,
        Counter::Panics,
        Counter::HttpRequests,
        Counter::Tasks,
        Counter::AppEvents,
        Counter::LogDropped,
        Counter::Plain,
        Counter::Lingering,
        Counter::RefusedFull,
        Counter::RefusedHandshakes,
        Counter::RefusedAddress,
        Counter::RefusedRate,
        Counter::RefusedDenied,
        Counter::RefusedMemory,
        Counter::RefusedOrigin,
        Counter::RefusedHost,
        Counter::RefusedRequest,
        Counter::RefusedHandler,
        Counter::RefusedStopping,
        Counter::OpenedNull,
        Counter::TooFast,
        Counter::Memberships,
        Counter::Publishes,
        Counter::Relayed,
        Counter::HeldBytes,
        Counter::Reloads,
        Counter::ReloadsFailed,
        Counter::ClientMemory,
        Counter::ApiRequests,
        Counter::ApiRefused,
        Counter::AppBusy,
        Counter::AppWaiting,
        Counter::AppMemory,
        Counter::HttpRunning,
        Counter::ClusterSent,
        Counter::ClusterReceived,
        Counter::ClusterUnsent,
        Counter::ClusterDropped,
        Counter::ClusterGarbled,
        Counter::ClusterGaps,
        Counter::ClusterConnects,
        Counter::ClusterNodes,
        Counter::ClusterAway,
    ];

    /// The name in `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Counter::Connections => "connections",
            Counter::Handshakes => "handshakes",
            Counter::Accepted => "accepted",
            Counter::Opened => "opened",
            Counter::Refused => "refused",
            Counter::Closed => "closed",
            Counter::Adopted => "adopted",
            Counter::HandedOver => "handed_over",
            Counter::MessagesIn => "messages_in",
            Counter::MessagesOut => "messages_out",
            Counter::BytesIn => "bytes_in",
            Counter::BytesOut => "bytes_out",
            Counter::PushQueued => "push_queued",
            Counter::PushFull => "push_full",
            Counter::PushGone => "push_gone",
            Counter::PushTooBig => "push_too_big",
            Counter::PushRelayed => "push_relayed",
            Counter::LaneFull => "lane_full",
            Counter::PushLost => "push_lost",
            Counter::StalePackets => "stale_packets",
            Counter::Panics => "panics",
            Counter::HttpRequests => "http_requests",
            Counter::Tasks => "tasks",
            Counter::AppEvents => "app_events",
            Counter::LogDropped => "log_dropped",
            Counter::Plain => "plain",
            Counter::Lingering => "lingering",
            Counter::RefusedFull => "refused_full",
            Counter::RefusedHandshakes => "refused_handshakes",
            Counter::RefusedAddress => "refused_address",
            Counter::RefusedRate => "refused_rate",
            Counter::RefusedDenied => "refused_denied",
            Counter::RefusedMemory => "refused_memory",
            Counter::RefusedOrigin => "refused_origin",
            Counter::RefusedHost => "refused_host",
            Counter::RefusedRequest => "refused_request",
            Counter::RefusedHandler => "refused_handler",
            Counter::RefusedStopping => "refused_stopping",
            Counter::OpenedNull => "opened_null",
            Counter::TooFast => "too_fast",
            Counter::Memberships => "memberships",
            Counter::Publishes => "publishes",
            Counter::Relayed => "relayed",
            Counter::HeldBytes => "held_bytes",
            Counter::Reloads => "reloads",
            Counter::ReloadsFailed => "reloads_failed",
            Counter::ClientMemory => "client_memory",
            Counter::ApiRequests => "api_requests",
            Counter::ApiRefused => "api_refused",
            Counter::AppBusy => "app_busy",
            Counter::AppWaiting => "app_waiting",
            Counter::AppMemory => "app_memory",
            Counter::HttpRunning => "http_running",
            Counter::ClusterSent => "cluster_sent",
            Counter::ClusterReceived => "cluster_received",
            Counter::ClusterUnsent => "cluster_unsent",
            Counter::ClusterDropped => "cluster_dropped",
            Counter::ClusterGarbled => "cluster_garbled",
            Counter::ClusterGaps => "cluster_gaps",
            Counter::ClusterConnects => "cluster_connects",
            Counter::ClusterNodes => "cluster_nodes",
            Counter::ClusterAway => "cluster_away",
        }
    }

    /// Whether it says how many there are now, rather than how many there were.
    pub fn is_gauge(self) -> bool {
        use Counter::{AppBusy, AppMemory, AppWaiting, ClientMemory, HeldBytes, Memberships};
        use Counter::{ClusterAway, ClusterNodes, HttpRunning};
        self.is_clients()
            || matches!(self, HeldBytes | ClientMemory | Memberships)
            || matches!(self, AppBusy | AppWaiting | AppMemory | HttpRunning)
            || matches!(self, ClusterNodes | ClusterAway)
    }

    /// Whether it counts clients that there are now, of whom a worker has at most
    /// `max_connection`.
    pub(super) fn is_clients(self) -> bool {
        use Counter::{Connections, Handshakes, Lingering, Plain};
        matches!(self, Connections | Handshakes | Plain | Lingering)
    }
}
