//! Every key: its name, type, default, limits and meaning, in one table.
//!
//! From it come the struct, the reading of files, environment and command line, the nearest-name
//! suggestions, `etc/wsd.toml` and the table in `docs/operations.md`.

// The comments of the keys are the manual's text as well, which is no Markdown.
#![allow(rustdoc::broken_intra_doc_links, rustdoc::private_intra_doc_links, rustdoc::bare_urls)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::addr::{ListenAddr, Net};
use super::command::Command;
use super::engine::EngineAddress;
use super::errors::Wrong;
use super::hosts::Hosts;
use super::mode::Mode;
use super::origin::Origins;
use super::text::quote;
use super::token::{Token, tokens_differ};
use super::value::{Raw, Setting, choices, within, zero_or};
use crate::sys::rights::Capability;

/// One key of the configuration.
pub struct Key {
    /// The name, with its table: `app.command`.
    pub name: &'static str,
    /// The heading it stands under in the documents.
    pub section: &'static str,
    /// What it does, one line a line.
    pub doc: &'static str,
    /// What may be written.
    pub unit: &'static str,
    /// Takes a value over what is there; relative paths start at the directory given.
    pub(super) update: fn(&mut Config, &Raw, &Path) -> Result<(), Wrong>,
    /// The value as TOML.
    pub(super) show: fn(&Config) -> String,
    /// The limits of the value.
    pub(super) check: fn(&Config) -> Result<(), Wrong>,
}

/// Makes a struct with a field a key, its defaults, and the keys themselves.
macro_rules! settings {
    (
        $(#[$meta:meta])*
        $struct:ident, keys $keys:ident, prefix $prefix:literal, at $at:ident, $at_mut:ident;
        $($section:literal {
            $($(#[doc = $doc:literal])+ $name:ident: $type:ty = $default:expr $(, $check:expr)?;)+
        })+
        $(plus $(#[$plus_meta:meta])* $plus:ident: $plus_type:ty;)*
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $struct {
            $($($(#[doc = $doc])+ pub $name: $type,)+)+
            $($(#[$plus_meta])* pub $plus: $plus_type,)*
        }

        impl Default for $struct {
            fn default() -> $struct {
                $struct {
                    $($($name: $default,)+)+
                    $($plus: <$plus_type>::default(),)*
                }
            }
        }

        const $keys: &[Key] = &[$($(Key {
            name: concat!($prefix, stringify!($name)),
            section: $section,
            doc: concat!($($doc, "\n",)+),
            unit: <$type as Setting>::UNIT,
            update: |config, raw, dir| $at_mut(config).$name.update(raw, dir),
            show: |config| $at(config).$name.show(),
            check: |_config| {
                $($check(&$at(_config).$name)?;)?
                Ok(())
            },
        },)+)+];
    };
}

/// Keys that an earlier version had, each with what happens now. Both are clauses without a full
/// stop.
pub(super) const REMOVED: [(&str, &str, &str); 1] = [(
    "crash_proof",
    "was removed: a killed worker costs its clients their connection (1006), and they connect \
     again to its replacement",
    "take the key out",
)];

/// Every key, in the order of the documents.
pub fn keys() -> impl Iterator<Item = &'static Key> {
    CONFIG_KEYS.iter().chain(API_KEYS).chain(CLUSTER_KEYS).chain(APP_KEYS)
}

fn root(config: &Config) -> &Config {
    config
}

fn root_mut(config: &mut Config) -> &mut Config {
    config
}

fn api(config: &Config) -> &ApiConfig {
    &config.api
}

fn api_mut(config: &mut Config) -> &mut ApiConfig {
    &mut config.api
}

fn cluster(config: &Config) -> &ClusterConfig {
    &config.cluster
}

fn cluster_mut(config: &mut Config) -> &mut ClusterConfig {
    &mut config.cluster
}

fn app(config: &Config) -> &AppConfig {
    &config.app
}

fn app_mut(config: &mut Config) -> &mut AppConfig {
    &mut config.app
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A day, the upper limit of most times.
const DAY: Duration = secs(86_400);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

settings! {
    /// The whole configuration, validated. Made by [`Config::load`]; travels between processes as
    /// JSON, where unknown fields are ignored and missing ones take their default.
    Config, keys CONFIG_KEYS, prefix "", at root, root_mut;

    "Processes" {
        /// Where to accept: "127.0.0.1:8000", "[::1]:8000", "*:8000" (every IPv4 address),
        /// "unix:/path", or a port alone, which means 127.0.0.1. Port 0 lets the kernel choose;
        /// `wsd status` shows the real one.
        listen: Vec<ListenAddr> = vec![ListenAddr::Tcp(([127, 0, 0, 1], 8000).into())],
            listen_ok;
        /// How many worker processes serve, 1 to 256; 0 means one for each core.
        worker_num: usize = 0, within(0..=256);
        /// What the stock server does with connections: chat and echo are built in, app hands
        /// them to processes of your own (see [app]).
        handler: HandlerName = HandlerName::Chat;
        /// The directory of the control socket, pid file and lock. Empty means
        /// $RUNTIME_DIRECTORY, else /run/wsd as root, else $XDG_RUNTIME_DIR/wsd, else wsd-UID
        /// under the directory for temporary files. Cannot change on reload.
        runtime_dir: PathBuf = PathBuf::new();
        /// The file with the master's process id. Empty means wsd.pid in runtime_dir. Cannot
        /// change on reload.
        pid_file: PathBuf = PathBuf::new();
        /// As root with a `user`: start though others can write to the runtime_dir, the
        /// configuration file, the program, or a directory above them. For containers, in which
        /// there is nobody else. A configuration file that others can write to cannot say so
        /// itself: --set or WSD_UNSAFE_PATHS can.
        unsafe_paths: bool = false;
        /// Whether `wsd start` goes to the background, as with -d. Cannot change on reload.
        daemonize: bool = false;
        /// The user that every process but the master becomes before it serves; needs root, and
        /// the master stays root. Empty means stay; started as root, the server then warns at
        /// each start, and "root" says that it is meant. Cannot change on reload.
        user: Option<String> = None;
        /// The group to become in place of the first group of `user`, whose further groups stay.
        /// Without `user` it is the only group. Cannot change on reload.
        group: Option<String> = None;
        /// Capabilities that workers and application processes keep, such as "CAP_DAC_OVERRIDE".
        /// All others are taken from them, also where they stay root.
        capabilities: Vec<Capability> = Vec::new();
        /// Whether a worker leaves a core file where it crashes and lets a debugger of its own
        /// user look into it. Its memory holds what clients send.
        dumpable: bool = false;
        /// Threads of each worker for blocking jobs (`task`).
        task_threads: usize = 4, within(1..=256);
    }

    "Log" {
        /// The log file. Empty means stderr; for a daemon wsd.log in $LOGS_DIRECTORY, else in
        /// /var/log/wsd as root, else in wsd under $XDG_STATE_HOME or ~/.local/state, else in
        /// wsd-UID-log under the directory for temporary files. `wsd reopen` opens it anew.
        log_file: Option<PathBuf> = None;
        /// A log file of so many bytes gets the name with .old behind it, in the place of the one
        /// before, and a new one begins. 0 means 64 MiB where log_file is empty, and no limit for
        /// a file that is named, which is logrotate's work.
        log_size_max: u64 = 0, zero_or(MIB..=GIB << 10);
        /// The least severe events that are logged.
        log_level: LogLevel = LogLevel::Info;
        /// One line of text an event, or one JSON object.
        log_format: LogFormat = LogFormat::Text;
    }

    "Limits" {
        /// Connections of all workers together: WebSockets, handshakes under way and plain HTTP.
        /// Over it the plain connection that waits longest for its client's next request or body
        /// gives its place up, else the oldest unfinished handshake; where there is none, a client
        /// gets 503 with Retry-After. 0 means what the descriptor limit (ulimit -n) allows, which
        /// is also the ceiling.
        max_connection: usize = 0, within(0..=1 << 24);
        /// The longest message a client may send; a longer one ends its connection with 1009.
        package_max_length: u64 = 2 * MIB, within(1..=GIB);
        /// The most frames one message may come in; more end the connection with 1008.
        max_fragments: usize = 4096, within(1..=1 << 24);
        /// The time a client has to finish a message it began; after it 1008. 0 is no limit.
        message_timeout: Duration = secs(60), zero_or(millis(100)..=DAY);
        /// What one worker may hold for all its clients together: unfinished messages, what waits
        /// to be sent, heads and bodies. Over it a handshake and a request with a body get 503,
        /// and a client that sends a long message or does not read is closed with 1013. 0 is no
        /// limit.
        client_memory: u64 = 256 * MIB, zero_or(MIB..=1024 * GIB);
        /// Messages that a client may send a second, its own pings and pongs among them. 0 is
        /// the handler's own limit: the chat's is 20, others have none.
        messages_per_second: usize = 0, within(0..=1_000_000);
        /// How many of these it may send at once after a time of rest.
        messages_burst: usize = 100, within(1..=1_000_000);
        /// Bytes that a client may send a second. 0 is no limit.
        bytes_per_second: u64 = 0, within(0..=GIB);
        /// How many of these it may send at once after a time of rest.
        bytes_burst: u64 = 4 * MIB, within(1..=GIB);
        /// What happens over either: slow reads the client no faster, close ends the connection
        /// with 1008.
        rate_policy: RatePolicy = RatePolicy::Slow;
        /// What may wait for one client behind the message being sent. A message to a client is at
        /// most this long, or as long as package_max_length if that is more.
        buffer_output_size: u64 = MIB, within(1..=GIB);
        /// What happens over buffer_output_size: close ends the connection with 1013, drop loses
        /// the message. Either way the pusher is told.
        buffer_policy: BufferPolicy = BufferPolicy::Close;
        /// Connections of one address, of whatever kind; an IPv6 address counts with its /64,
        /// and behind trusted_proxies the client that they name. Over it 503. Each worker counts
        /// its own and has its even part of the limit and what chance may add: one address gets
        /// at least 64 of 64, and at most 118 from two workers, 192 from eight. 0 is no limit.
        connections_per_ip: usize = 0, within(0..=1 << 24);
        /// New connections that one address may open a second, counted in parts as
        /// connections_per_ip counts; behind trusted_proxies, WebSockets. Over it 429. 0 is no
        /// limit.
        handshakes_per_second: usize = 0, within(0..=1_000_000);
        /// How many of these it may open at once after a time of rest.
        handshakes_burst: usize = 32, within(1..=1_000_000);
        /// Networks from which nobody is let in, such as "192.0.2.0/24"; 403.
        denied: Vec<Net> = Vec::new();
        /// The time from accept to the finished handshake.
        handshake_timeout: Duration = secs(10), within(millis(100)..=secs(3600));
        /// Handshakes that may be under way in one worker at once; over it the oldest unfinished
        /// one ends.
        handshakes_max: usize = 4096, within(1..=1 << 20);
        /// Of these, how many may come from one address; trusted_proxies do not count.
        handshakes_per_ip: usize = 1024, within(1..=1 << 20);
        /// Where the server answers 200 for itself while it can serve, and 503 while an
        /// application's events wait and none was taken for 5 s. "" is nowhere.
        health_path: Option<String> = Some("/healthz".to_owned()), path_ok;
        /// The longest silence within the body of a plain request; after it 408.
        body_timeout: Duration = secs(30), within(millis(100)..=secs(3600));
        /// The least rate of such a body in bytes a second, reckoned from body_timeout on; a
        /// slower one gets 408. 0 is no limit.
        body_rate_min: u64 = KIB, within(0..=GIB);
        /// Where bodies of plain requests wait that are longer than 256 KiB, for handler = "app":
        /// files without a name, gone with the request. Empty means $TMPDIR, else /tmp.
        upload_tmp_dir: PathBuf = PathBuf::new();
        /// What the bodies that wait there may take for one worker, all together. Over it 503.
        upload_tmp_max: u64 = 4 * GIB, within(MIB..=1024 * GIB);
        /// How long a plain HTTP connection may stay open between two requests. Longer than the
        /// keepalive_timeout of nginx's upstream (60 s), lest nginx uses what is being closed.
        http_keepalive_timeout: Duration = secs(75), within(secs(1)..=DAY);
        /// Plain HTTP connections that one worker keeps open between two requests; over it the
        /// one that has waited longest is closed.
        http_keepalive_max: usize = 1024, within(1..=1 << 20);
        /// Plain HTTP requests on one connection; the last one's answer closes it. 0 is no limit.
        http_keepalive_requests: usize = 1000, within(0..=1 << 30);
        /// Plain HTTP requests of the whole server that wait or whose answer has not begun; one
        /// more gets 503. 0 is no limit.
        http_requests_max: usize = 0, within(0..=1 << 30);
        /// The time in which a client has to take some of an HTTP answer that waits for it.
        http_send_timeout: Duration = secs(60), within(millis(100)..=DAY);
        /// The longest request head; a longer one gets 431.
        head_bytes_max: u64 = 16 * KIB, within(512..=MIB);
        /// The longest request line (over it 414) and header line (over it 431).
        head_line_max: u64 = 8 * KIB, within(128..=MIB);
        /// The most header fields of a request; over it 431.
        head_fields_max: usize = 128, within(8..=1024);
    }

    "Rooms" {
        /// Rooms and users with members on one worker; over it a join that needs a new one is
        /// answered full.
        rooms_max: usize = 1_000_000, within(1..=1 << 26);
        /// Rooms that one client may be in; over it a join is answered full.
        rooms_per_client: usize = 128, within(1..=65_535);
        /// Which rooms have presence: those whose name begins with one of these. A client can join
        /// such a room only when it is bound to a user, and the handler hears who comes and goes.
        rooms_presence: Vec<String> = vec!["presence-".to_owned()], presence_ok;
        /// For how long a user whose last connection has left such a room is still there, told to
        /// the second: so that a page that is loaded anew is no event. 0: not at all.
        presence_linger: Duration = Duration::ZERO, zero_or(millis(100)..=secs(3600));
        /// Bytes of the longest room name.
        room_name_max: usize = 255, within(1..=255);
        /// Bytes of the longest uid of a user.
        uid_max: usize = 255, within(1..=255);
        /// Bytes of JSON that the application may keep of one connection, and that a join may
        /// have as its info for presence.
        session_max: u64 = 4 * KIB, within(1..=64 * KIB);
    }

    "Handshake" {
        /// Which pages may connect, by their Origin header: "same-host" (its host and port are
        /// those the request was sent to, and its scheme where a trusted proxy tells it), origins
        /// such as "https://example.com", "null" (any page), "local-null" (null from a client of
        /// this machine that names the server by a name of loopback), or "*" for all. A request
        /// without Origin comes from no browser and is always allowed.
        allowed_origins: Origins = Origins::default();
        /// By which names a request may call the server, in its Host: "auto" is, on a loopback
        /// listener, a name of loopback or an address, and any name elsewhere or from
        /// trusted_proxies; a host such as "app.test" is allowed everywhere; "*" is any. Without
        /// "auto" only the hosts that are named. Over it 421. A page of another site can make its
        /// own name lead to 127.0.0.1, and would be of the same host. A request without Host and
        /// /healthz pass.
        allowed_hosts: Hosts = Hosts::default();
        /// Networks whose X-Real-IP and X-Forwarded-For are believed, such as "127.0.0.1" or
        /// "10.0.0.0/8"; "unix:" means every peer of a Unix listener.
        trusted_proxies: Vec<Net> = Vec::new();
        /// Subprotocols the server speaks, the preferred one first.
        subprotocols: Vec<String> = Vec::new(), tokens_ok;
        /// Request headers a handler can still read after the handshake. Each costs memory for
        /// each connection.
        keep_headers: Vec<String> = vec!["cookie".to_owned()], tokens_ok;
    }

    "Liveness" {
        /// A client that has sent nothing for so long is closed with 1001. Messages count, pings
        /// of the client, and pongs to pings of the application; the answers to the server's own
        /// pings do not, which every browser sends. 0 is never: a client that only
        /// listens does no wrong.
        heartbeat_idle_time: Duration = secs(0), zero_or(secs(1)..=DAY);
        /// How often the server looks for such clients, at least once in heartbeat_idle_time. 0 is
        /// never.
        heartbeat_check_interval: Duration = secs(60), zero_or(secs(1)..=DAY);
        /// How often the server pings a silent client, with jitter; proxies cut silence at 60 s.
        /// 0 is never.
        ping_interval: Duration = secs(25), zero_or(millis(100)..=DAY);
        /// The time a client has to answer a ping.
        pong_timeout: Duration = secs(20), within(millis(100)..=DAY);
        /// The age at which a connection is closed with 1012, so that clients spread anew over
        /// servers. 0 is never.
        max_connection_age: Duration = Duration::ZERO, zero_or(secs(1)..=secs(365 * 86_400));
        /// A worker or manager that does not answer for so long is killed and replaced.
        worker_timeout: Duration = secs(10), within(secs(2)..=secs(3600));
    }

    "Reload and stop" {
        /// The time running handlers have to end, and connections that cannot move have to leave,
        /// on reload and stop.
        max_wait_time: Duration = secs(30), within(Duration::ZERO..=DAY);
        /// Connections left behind by a reload are closed spread over this time, and a client that
        /// a reload, a stop or its age costs its connection is told a time within it after which
        /// to come back (`retry after N ms`), so that they do not all come back at once.
        reload_jitter: Duration = secs(10), within(Duration::ZERO..=secs(3600));
        /// How long a server that drains (`wsd drain`) still takes clients after it has said that
        /// it is not ready: longer than balancers take to ask.
        drain_grace: Duration = secs(10), within(Duration::ZERO..=secs(3600));
        /// A server that drains stops after this time though clients are left. 0 is never.
        drain_timeout: Duration = Duration::ZERO, zero_or(secs(1)..=DAY);
        /// A stop closes its clients spread over this time, but within max_wait_time, so that what
        /// they come back to is not stormed. 0 is at once.
        stop_jitter: Duration = Duration::ZERO, within(Duration::ZERO..=secs(3600));
    }

    "TCP" {
        /// Connections the kernel queues for each listener; net.core.somaxconn is its ceiling.
        backlog: usize = 4096, within(1..=65_535);
        /// Whether small messages leave at once (TCP_NODELAY).
        tcp_nodelay: bool = true;
        /// Silence before the kernel probes a connection (SO_KEEPALIVE). 0 is never: ping_interval
        /// does the same and more.
        tcp_keepalive: Duration = Duration::ZERO, zero_or(secs(1)..=secs(32_767));
        /// How long sent data may stay unacknowledged before the kernel gives a connection up
        /// (TCP_USER_TIMEOUT). 0 leaves it to the kernel, about 15 minutes.
        tcp_user_timeout: Duration = secs(30), zero_or(secs(1)..=DAY);
    }

    "Compression" {
        /// Whether permessage-deflate (RFC 7692) is offered. It costs CPU and memory, and beside
        /// secrets it can leak them.
        websocket_compression: bool = false;
        /// 1 is fastest, 9 smallest.
        compression_level: usize = 3, within(1..=9);
        /// Messages shorter than this are sent as they are.
        compression_threshold: u64 = KIB, within(0..=GIB);
        /// Whether each connection keeps its own compressor between messages: smaller on the
        /// wire, about 300 KiB of memory each.
        compression_context_takeover: bool = false;
        /// The largest window, 9 to 15 bits.
        compression_window_bits: usize = 15, within(9..=15);
        /// What the compressors of one worker may take; over it connections get none.
        compression_memory: u64 = 64 * MIB, within(MIB..=64 * GIB);
    }

    plus
    /// The `[api]` table: the HTTP API and the metrics.
    api: ApiConfig;

    plus
    /// The `[cluster]` table: the other nodes, and the engine that carries what goes there.
    cluster: ClusterConfig;

    plus
    /// The `[app]` table: processes of an application in any language, for `handler = "app"`.
    app: AppConfig;
}

settings! {
    /// The `[api]` table: the HTTP API, the metrics, and who may ask.
    ApiConfig, keys API_KEYS, prefix "api.", at api, api_mut;

    "[api]" {
        /// Where the HTTP API and /metrics are served: "unix:/path" or "127.0.0.1:8001", as in
        /// `listen`. Empty is nowhere. A TCP address needs a token. One socket serves for all
        /// workers, and whichever of them is free takes the next connection.
        listen: Vec<ListenAddr> = Vec::new(), api_listen_ok;
        /// Who may ask, a text for each: name, scopes and hash of a token, as `wsd token` prints
        /// them. The scopes are read (metrics, information), push (messages and closes) and
        /// admin (all of it). Without a token every process that can connect to a Unix
        /// socket may ask everything.
        tokens: Vec<Token> = Vec::new(), tokens_differ;
        /// The permissions of a Unix socket in api.listen.
        socket_mode: Mode = Mode(0o600);
        /// Connections of the API that each worker serves at once; while there are as many, the
        /// next one takes the place of one that waits for its client.
        connections_max: usize = 128, within(1..=4096);
        /// The longest body of a request, and what a batch may hold.
        body_max: u64 = 4 * MIB, within(KIB..=64 * MIB);
    }
}

settings! {
    /// The `[cluster]` table: what makes several hosts one server.
    ClusterConfig, keys CLUSTER_KEYS, prefix "cluster.", at cluster, cluster_mut;

    "[cluster]" {
        /// The engine that carries messages between the nodes of a cluster, a Redis 6 or later or
        /// a Valkey: "redis://user@host:6379/0", "unix:/path?user=U&db=0", or
        /// "redis+sentinel://host:26379,host:26379/service". Empty means that this server is
        /// alone. A program that can write to the engine can push to every client. Cannot change
        /// on reload.
        engine: Option<EngineAddress> = None, engine_ok;
        /// The cluster's name: nodes of one name and one engine are one cluster. Cannot change on
        /// reload.
        name: String = "wsd".to_owned(), cluster_name_ok;
        /// Which node of the cluster this is, 0 to 63: the first part of the number of each of its
        /// clients. No two nodes may have the same. Cannot change on reload.
        node: usize = 0, within(0..=63);
        /// A node that the engine has not heard of for so long is dead for the others. Cannot
        /// change on reload.
        lease_ttl: Duration = secs(5), within(secs(2)..=secs(60));
        /// A file whose first line is the engine's password; the master reads it. The
        /// environment variable WSD_CLUSTER_PASSWORD does instead. Cannot change on reload.
        password_file: Option<PathBuf> = None;
    }
}

settings! {
    /// The `[app]` table: the application's own processes.
    AppConfig, keys APP_KEYS, prefix "app.", at app, app_mut;

    "[app]" {
        /// The program and its arguments: "php server.php", or ["php", "server.php"]. No shell
        /// reads it.
        command: Command = Command::default();
        /// Application processes for each worker.
        processes: usize = 1, within(1..=256);
        /// Processes of the whole server that do tasks and nothing else: they have no clients. Each
        /// is started by one worker.
        task_processes: usize = 0, within(0..=256);
        /// Processes of the whole server that run a function of their own (Swoole's addProcess):
        /// each is started by one worker, and gets nothing but what others send to it.
        user_processes: usize = 0, within(0..=256);
        /// A process is replaced after so many events. 0 is never.
        max_requests: usize = 0, within(0..=usize::MAX >> 1);
        /// The same for processes that do tasks.
        task_max_requests: usize = 0, within(0..=usize::MAX >> 1);
        /// Processes for each worker that stand by, with the application loaded, to take the place
        /// of one that dies.
        spare: usize = 0, within(0..=256);
        /// A process is replaced once it takes more memory than this. 0 is no limit.
        memory_limit: u64 = 0, zero_or(MIB..=1024 * GIB);
        /// Where what a process prints goes: log, or own, which is the server's standard output
        /// while it runs in the foreground. What goes to standard error is always logged.
        stdout: AppStdout = AppStdout::Log;
        /// The time a process has for one event; after it, it is killed and replaced. 0 is no
        /// limit.
        event_timeout: Duration = secs(30), zero_or(millis(100)..=DAY);
        /// What happens to the clients of a process that was killed: repin hands them to another
        /// process, close ends them with 1011.
        on_hang: OnHang = OnHang::Repin;
        /// Environment variables for the processes, besides the server's own.
        env: BTreeMap<String, String> = BTreeMap::new();
        /// The user the processes run as; needs root. Empty means `user`. That user may push, ask
        /// and close on the control socket. Cannot change on reload.
        user: Option<String> = None;
        /// The group the processes run as. Empty means the group of `app.user`, or `group` where
        /// that is empty too. Cannot change on reload.
        group: Option<String> = None;
        /// The directory the processes run in. Empty means that of the configuration file, else
        /// where the server was started.
        cwd: PathBuf = PathBuf::new();
    }
}

choices! {
    /// The values of `handler`.
    HandlerName {
        /// The built-in chat with its page.
        Chat = "chat",
        /// Every message comes back.
        Echo = "echo",
        /// Application processes.
        App = "app",
    }
}

choices! {
    /// The values of `log_level`.
    LogLevel {
        /// What ends a process or loses data.
        Error = "error",
        /// What an operator should look at.
        Warn = "warn",
        /// Starts, stops, reloads.
        Info = "info",
        /// Each connection.
        Debug = "debug",
        /// Each message.
        Trace = "trace",
    }
}

choices! {
    /// The values of `log_format`.
    LogFormat {
        /// For people.
        Text = "text",
        /// For machines.
        Json = "json",
    }
}

choices! {
    /// The values of `buffer_policy`.
    BufferPolicy {
        /// The slow client is closed with 1013.
        Close = "close",
        /// The message is dropped.
        Drop = "drop",
    }
}

choices! {
    /// The values of `app.stdout`.
    AppStdout {
        /// The server's log.
        Log = "log",
        /// The server's own standard output.
        Own = "own",
    }
}

choices! {
    /// The values of `rate_policy`.
    RatePolicy {
        /// The client is read no faster than it may send.
        Slow = "slow",
        /// The client is closed with 1008.
        Close = "close",
    }
}

choices! {
    /// The values of `app.on_hang`.
    OnHang {
        /// Another process takes the clients.
        Repin = "repin",
        /// The clients are closed with 1011.
        Close = "close",
    }
}

fn listen_ok(listen: &[ListenAddr]) -> Result<(), Wrong> {
    if listen.is_empty() {
        return Err(Wrong::new("is empty", "write at least one address"));
    }
    api_listen_ok(listen)
}

fn api_listen_ok(listen: &[ListenAddr]) -> Result<(), Wrong> {
    if listen.len() > LISTEN_MAX {
        let wrong = format!("has {} addresses", listen.len());
        return Err(Wrong::new(wrong, format!("write at most {LISTEN_MAX}")));
    }
    let chosen_by_kernel =
        |addr: &ListenAddr| matches!(addr, ListenAddr::Tcp(addr) if addr.port() == 0);
    for (index, addr) in listen.iter().enumerate() {
        if listen[..index].contains(addr) && !chosen_by_kernel(addr) {
            return Err(Wrong::new(format!("names {addr} twice"), "write it once"));
        }
    }
    Ok(())
}

/// The most addresses: each takes a descriptor for each worker in the master.
const LISTEN_MAX: usize = 16;

fn path_ok(path: &Option<String>) -> Result<(), Wrong> {
    let good = |path: &String| {
        let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"?#<>\"`".contains(&byte);
        path.starts_with('/') && path.bytes().all(is_plain)
    };
    match path.as_ref().filter(|path| !good(path)) {
        None => Ok(()),
        Some(path) => Err(Wrong::new(
            format!("is {}", quote(path)),
            "write a path that begins with / and has no query, such as \"/healthz\"",
        )),
    }
}

fn engine_ok(engine: &Option<EngineAddress>) -> Result<(), Wrong> {
    match engine {
        Some(_) if !cfg!(feature = "cluster") => Err(Wrong::new(
            "asks for a cluster, which this program was built without",
            "build with the feature `cluster`, or write \"\"",
        )),
        _ => Ok(()),
    }
}

/// It stands in the names of channels and keys.
fn cluster_name_ok(name: &str) -> Result<(), Wrong> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match (1..=64).contains(&name.len()) && name.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(Wrong::new(
            format!("is {}", quote(name)),
            "write 1 to 64 letters, digits, dots, _ and -",
        )),
    }
}

/// Every name begins with the empty one.
fn presence_ok(beginnings: &[String]) -> Result<(), Wrong> {
    match beginnings.iter().any(String::is_empty) {
        false => Ok(()),
        true => Err(Wrong::new(
            "has an empty name, with which every room begins",
            "write [] for presence in no room, or how the names of rooms begin",
        )),
    }
}

/// Names of headers and subprotocols are tokens (RFC 9110 section 5.6.2).
fn tokens_ok(names: &[String]) -> Result<(), Wrong> {
    let is_token = |name: &String| {
        let char_ok = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !name.is_empty() && name.bytes().all(char_ok)
    };
    match names.iter().find(|name| !is_token(name)) {
        None => Ok(()),
        Some(name) => Err(Wrong::new(
            format!("has {}", quote(name)),
            "use letters, digits and !#$%&'*+-.^_`|~ alone",
        )),
    }
}
