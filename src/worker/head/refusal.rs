//! A refusal: the status, the reason, and the bytes that say so.

use std::borrow::Cow;
use std::time::SystemTime;

use crate::ipc::scoreboard::Counter;

/// When a refused client may come back, in seconds.
pub const RETRY_AFTER: u32 = 5;

/// What kind of refusal it is: each has a counter of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The server is full.
    Full,
    /// Newer handshakes took the place.
    Handshakes,
    /// Its address has its share.
    Address,
    /// Its address comes too often.
    Rate,
    /// Its address is denied.
    Denied,
    /// There is no memory for it.
    Memory,
    /// Its Origin is not allowed.
    Origin,
    /// Its Host is not allowed.
    Host,
    /// It is malformed, too long or too slow.
    Request,
    /// The handler said so, or failed.
    Handler,
    /// The server is about to stop.
    Stopping,
}

impl Reason {
    /// Its counter.
    pub fn counter(self) -> Counter {
        match self {
            Reason::Full => Counter::RefusedFull,
            Reason::Handshakes => Counter::RefusedHandshakes,
            Reason::Address => Counter::RefusedAddress,
            Reason::Rate => Counter::RefusedRate,
            Reason::Denied => Counter::RefusedDenied,
            Reason::Memory => Counter::RefusedMemory,
            Reason::Origin => Counter::RefusedOrigin,
            Reason::Host => Counter::RefusedHost,
            Reason::Request => Counter::RefusedRequest,
            Reason::Handler => Counter::RefusedHandler,
            Reason::Stopping => Counter::RefusedStopping,
        }
    }
}

/// Why a head is refused. Its answer always closes the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The reason in short, the same in the body, the log and the metric.
    pub why: &'static str,
    /// What kind it is.
    pub reason: Reason,
    /// What to do about it, for the log and for a client of this machine: it names keys. No byte
    /// in it is raw client input.
    pub advice: Option<String>,
    /// Whether the client is not to read the advice.
    pub hidden: bool,
    /// Fields that belong to this status.
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    /// Whether it is told as JSON, as the API does.
    pub json: bool,
    /// Whether the answer says nothing besides its status.
    pub silent: bool,
    /// Whether the request was a HEAD, whose answer has no body (RFC 9110 section 9.3.2).
    pub bodiless: bool,
}

impl Refusal {
    /// A refusal of that status.
    pub fn new(status: u16, why: &'static str) -> Refusal {
        Refusal {
            status,
            why,
            reason: Reason::Request,
            advice: None,
            hidden: false,
            headers: Vec::new(),
            json: false,
            silent: false,
            bodiless: false,
        }
    }

    /// Makes it a refusal of that kind.
    pub fn because(mut self, reason: Reason) -> Refusal {
        self.reason = reason;
        self
    }

    /// Keeps the advice from a client that may be a stranger.
    pub fn hide_from_strangers(mut self, is_stranger: bool) -> Refusal {
        self.hidden |= is_stranger;
        self
    }

    /// 400: the client broke a rule.
    pub fn bad(why: &'static str) -> Refusal {
        Refusal::new(400, why)
    }

    /// 400: the client said that nothing more comes, in the midst of a request.
    pub fn cut() -> Refusal {
        Refusal::bad("the request ended before it was whole")
    }

    /// 413 (RFC 9110 section 15.5.14).
    pub fn too_large() -> Refusal {
        Refusal::new(413, "the body is too long").advice("The limit is package_max_length.")
    }

    /// 408: the head was not whole within `handshake_timeout`.
    pub fn timeout() -> Refusal {
        Refusal::new(408, "the request did not arrive in time")
    }

    /// 503: the handler did not answer within `handshake_timeout`.
    pub fn undecided() -> Refusal {
        let why = "the server did not decide about the handshake in time";
        Refusal::new(503, why).because(Reason::Handler)
    }

    /// 426: a WebSocket upgrade is needed, or one of another version (RFC 6455 section 4.4).
    pub fn upgrade_required(why: &'static str) -> Refusal {
        let refusal = Refusal::new(426, why).header("Upgrade", "websocket");
        refusal.header("Sec-WebSocket-Version", "13")
    }

    /// 503: no room; the client may come back after `retry_after` seconds.
    pub fn overloaded(why: &'static str, retry_after: u32) -> Refusal {
        let refusal = Refusal::new(503, why).because(Reason::Full);
        refusal.header("Retry-After", retry_after.to_string())
    }

    /// 503: there is no room, and this client was the one to be waited for.
    pub fn needed() -> Refusal {
        let refusal = Refusal::overloaded("a newer client needed the place", RETRY_AFTER);
        refusal.advice("max_connection, handshakes_max or api.connections_max is reached.")
    }

    /// 503: the server is about to stop, or to give its connections to another process.
    pub fn stopping() -> Refusal {
        Refusal::overloaded("the server is about to stop", 1).because(Reason::Stopping)
    }

    /// Adds a field to the answer.
    pub fn header(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Refusal {
        self.headers.push((name, value.into()));
        self
    }

    /// Makes it the answer to the request that begins with these bytes.
    pub fn answering(mut self, request: &[u8]) -> Refusal {
        self.bodiless = request.trim_ascii_start().starts_with(b"HEAD ");
        self
    }

    /// Tells it as JSON.
    pub fn told_as_json(self) -> Refusal {
        Refusal { json: true, ..self }
    }

    /// The type of the body.
    pub fn content_type(&self) -> &'static str {
        if self.json { "application/json" } else { "text/plain; charset=utf-8" }
    }

    /// Adds what to do about it.
    pub fn advice(mut self, advice: impl Into<String>) -> Refusal {
        self.advice = Some(advice.into());
        self
    }

    /// The reason and what to do about it, for the log.
    pub fn for_log(&self) -> Cow<'static, str> {
        match &self.advice {
            None => Cow::Borrowed(self.why),
            Some(advice) => Cow::Owned(format!("{}. {advice}", self.why)),
        }
    }

    /// The body, a line or two of plain text.
    pub fn body(&self) -> String {
        if self.silent {
            return String::new();
        }
        if self.json {
            let code = match self.status {
                404 => "not_found",
                408 => "timeout",
                413 => "too_big",
                503 => "unavailable",
                _ => "bad_request",
            };
            let message = if self.hidden { Cow::Borrowed(self.why) } else { self.for_log() };
            let error = serde_json::json!({ "code": code, "message": message });
            return format!("{}\n", serde_json::json!({ "error": error }));
        }
        match self.advice.as_ref().filter(|_| !self.hidden) {
            None => format!("{}\n", self.why),
            Some(advice) => format!("{}\n{advice}\n", self.why),
        }
    }

    /// The whole answer. `now` is for its Date (RFC 9110 section 6.6.1).
    pub fn to_bytes(&self, now: SystemTime) -> Vec<u8> {
        let mut fields: Vec<(&str, &str)> =
            vec![("Content-Type", self.content_type()), ("X-Content-Type-Options", "nosniff")];
        fields.extend(self.headers.iter().map(|(name, value)| (*name, value.as_ref())));
        let body = self.body();
        let mut bytes = super::response::closing(self.status, &fields, body.as_bytes(), now);
        if self.bodiless {
            bytes.truncate(bytes.len() - body.len());
        }
        bytes
    }
}
