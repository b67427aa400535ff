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
    /// Whether the request was a HEAD, whose answer has no body (RFC 9110 section 9.3.2).
    pub bodiless: bool,
}

impl Refusal {
    /// A refusal of that status.
    pub fn new(status: u16, why: &'static str) -> Refusal {
        Refusal { status, why, advice: None, headers: Vec::new(), bodiless: false }
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

    /// Makes it the answer to the request that begins with these bytes.
    pub fn answering(mut self, request: &[u8]) -> Refusal {
        self.bodiless = request.trim_ascii_start().starts_with(b"HEAD ");
        self
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
        match &self.advice {
            None => format!("{}\n", self.why),
            Some(advice) => format!("{}\n{advice}\n", self.why),
        }
    }

    /// The whole answer. `now` is for its Date (RFC 9110 section 6.6.1).
    pub fn to_bytes(&self, now: SystemTime) -> Vec<u8> {
        let mut fields: Vec<(&str, &str)> = vec![("Content-Type", "text/plain; charset=utf-8")];
        fields.extend(self.headers.iter().map(|(name, value)| (*name, value.as_ref())));
        let body = self.body();
        let mut bytes = super::response::closing(self.status, &fields, body.as_bytes(), now);
        if self.bodiless {
            bytes.truncate(bytes.len() - body.len());
        }
        bytes
    }
}
