//! A refusal: the status, the reason, and the bytes that say so.

use std::borrow::Cow;
use std::time::SystemTime;

/// Why a head is refused. Its answer always closes the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The reason in short, the same in the body, the log and the metric.
    pub why: &'static str,
    /// What to do about it, for the body and the log; no byte in it is raw client input.
    pub advice: Option<String>,
    /// Fields that belong to this status.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
}

impl Refusal {
    /// A refusal of that status.
    pub fn new(status: u16, why: &'static str) -> Refusal {
        Refusal { status, why, advice: None, headers: Vec::new() }
    }

    /// 400: the client broke a rule.
    pub fn bad(why: &'static str) -> Refusal {
        Refusal::new(400, why)
    }

    /// 408: the head was not whole within `handshake_timeout`.
    pub fn timeout() -> Refusal {
        Refusal::new(408, "the request did not arrive in time")
    }

    /// 503: the handler did not answer within `handshake_timeout`.
    pub fn undecided() -> Refusal {
        Refusal::new(503, "the server did not decide about the handshake in time")
    }

    /// 426: a WebSocket upgrade is needed, or one of another version (RFC 6455 section 4.4).
    pub fn upgrade_required(why: &'static str) -> Refusal {
        let refusal = Refusal::new(426, why).header("Upgrade", "websocket");
        refusal.header("Sec-WebSocket-Version", "13")
    }

    /// 503: no room; the client may come back after `retry_after` seconds.
    pub fn overloaded(why: &'static str, retry_after: u32) -> Refusal {
        Refusal::new(503, why).header("Retry-After", retry_after.to_string())
    }

    /// Adds a field to the answer.
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Refusal {
        self.headers.push((name, value.into()));
        self
    }

    /// Adds what to do about it.
    pub fn advice(mut self, advice: impl Into<String>) -> Refusal {
        self.advice = Some(advice.into());
        self
    }

    /// The body, a line or two of plain text.
    pub fn body(&self) -> String {
        match &self.advice {
            None => format!("{}\n", self.why),
            Some(advice) => format!("{}\n{advice}\n", self.why),
        }
    }

    /// The whole answer. `now` is for its Date (RFC 9110 section 6.6.1).
    pub fn to_bytes(&self, now: SystemTime) -> Vec<u8> {
        let mut fields: Vec<(&str, &str)> = vec![("Content-Type", "text/plain; charset=utf-8")];
        fields.extend(self.headers.iter().map(|(name, value)| (*name, value.as_ref())));
        super::response::closing(self.status, &fields, self.body().as_bytes(), now)
    }
}
