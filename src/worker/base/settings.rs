//! The configuration as the worker uses it: times as ticks, limits as numbers of their own.

use std::net::IpAddr;

use super::ticks::{Tick, ticks};
use crate::config::{BufferPolicy, Config};
use crate::sys::socket::TcpOptions;
use crate::websocket::{DeflateOptions, Limits};
use crate::worker::head;

/// What the rest of the worker asks of the configuration.
pub(in crate::worker) struct Settings {
    pub config: Config,
    pub message: Limits,
    pub head: head::Limits,
    pub buffer_bytes: usize,
    /// The longest message that may be pushed.
    pub push_bytes: usize,
    pub close_slow: bool,
    pub handshake: Tick,
    /// `None`: never.
    pub message_time: Option<Tick>,
    /// `None`: never.
    pub ping: Option<Tick>,
    pub pong: Tick,
    /// `None`: never.
    pub age: Option<Tick>,
    pub tcp: TcpOptions,
    /// Which node this is; 0 without a cluster.
    pub node: u8,
    pub in_cluster: bool,
}

impl Settings {
    pub fn new(config: Config) -> Settings {
        let some = |time: std::time::Duration| (!time.is_zero()).then(|| ticks(time));
        Settings {
            message: Limits {
                message_bytes: config.package_max_length as usize,
                fragments: config.max_fragments as u32,
            },
            head: head::Limits {
                head_bytes_max: config.head_bytes_max as usize,
                line_bytes_max: config.head_line_max as usize,
                fields_max: config.head_fields_max,
            },
            buffer_bytes: config.buffer_output_size as usize,
            push_bytes: config.push_bytes_max() as usize,
            close_slow: config.buffer_policy == BufferPolicy::Close,
            handshake: ticks(config.handshake_timeout),
            message_time: some(config.message_timeout),
            ping: some(config.ping_interval),
            pong: ticks(config.pong_timeout),
            age: some(config.max_connection_age),
            tcp: TcpOptions {
                nodelay: config.tcp_nodelay,
                keepalive: config.tcp_keepalive,
                user_timeout: config.tcp_user_timeout,
            },
            node: config.node().unwrap_or(0),
            in_cluster: config.node().is_some(),
            config,
        }
    }

    pub fn deflate(&self) -> DeflateOptions {
        let config = &self.config;
        DeflateOptions {
            enabled: config.websocket_compression,
            level: config.compression_level as u8,
            threshold: config.compression_threshold as usize,
            server_no_context_takeover: !config.compression_context_takeover,
            client_no_context_takeover: !config.compression_context_takeover,
            server_max_window_bits: config.compression_window_bits as u8,
            client_max_window_bits: config.compression_window_bits as u8,
            memory: config.compression_memory as usize,
        }
    }

    /// Whether a TCP peer is in `trusted_proxies`.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.config.trusted_proxies.iter().any(|net| net.contains(peer))
    }
}
