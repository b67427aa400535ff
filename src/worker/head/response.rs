//! The answer: a 101, or a refusal that closes.

use std::fmt;
use std::time::SystemTime;

use data_encoding::BASE64;
use sha1::{Digest, Sha1};

use super::check::is_token;
use crate::api::{Refuse, is_reserved};

/// What a 101 says besides the key.
#[derive(Debug, Clone, Copy, Default)]
pub struct Acceptance<'a> {
    /// The subprotocol agreed on.
    pub subprotocol: Option<&'a str>,
    /// Sec-WebSocket-Extensions, as the engine negotiated them.
    pub extensions: Option<&'a str>,
    /// The handler's own fields.
    pub headers: &'a [(String, String)],
}

/// A handler's answer that cannot be sent: a bug in the handler, a 500 for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadAnswer {
    /// The field's name is not a token.
    Name(String),
    /// The field's value has a control character, for example a line end.
    Value(String),
    /// The field is the server's own to set.
    Reserved(String),
    /// The status is not within 300 to 599.
    Status(u16),
}

impl fmt::Display for BadAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadAnswer::Name(name) => write!(f, "header name {name:?} is not a token"),
            BadAnswer::Value(name) => write!(f, "header {name:?} has a control character"),
            BadAnswer::Reserved(name) => write!(f, "header {name:?} is the server's own to set"),
            BadAnswer::Status(status) => write!(f, "status {status} is no refusal (300 to 599)"),
        }
    }
}

impl std::error::Error for BadAnswer {}

/// The bytes of a 101 (RFC 6455 section 4.2.2).
///
/// # Errors
///
/// A field of the handler that may not be sent.
pub fn accept(key: &str, with: &Acceptance<'_>) -> Result<Vec<u8>, BadAnswer> {
    check_fields(with.headers)?;
    let mut bytes = Vec::with_capacity(256);
    bytes.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    bytes.extend_from_slice(&accept_key(key));
    bytes.extend_from_slice(b"\r\n");
    if let Some(subprotocol) = with.subprotocol {
        field(&mut bytes, "Sec-WebSocket-Protocol", subprotocol);
    }
    if let Some(extensions) = with.extensions {
        field(&mut bytes, "Sec-WebSocket-Extensions", extensions);
    }
    for (name, value) in with.headers {
        field(&mut bytes, name, value);
    }
    bytes.extend_from_slice(b"\r\n");
    Ok(bytes)
}

/// The answer to a client's `Sec-WebSocket-Key` (RFC 6455 section 4.2.2, number 5.4).
fn accept_key(key: &str) -> [u8; 28] {
    let hash = Sha1::new().chain_update(key).chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut text = [0; 28];
    BASE64.encode_mut(&hash.finalize(), &mut text);
    text
}

/// The bytes of a handler's refusal. `now` is for its Date.
///
/// # Errors
///
/// A status or a field of the handler that may not be sent.
pub fn refuse(refuse: &Refuse, now: SystemTime) -> Result<Vec<u8>, BadAnswer> {
    if !(300..600).contains(&refuse.status) {
        return Err(BadAnswer::Status(refuse.status));
    }
    check_fields(&refuse.headers)?;
    let mut fields: Vec<(&str, &str)> =
        refuse.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let typed = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    if !typed && !refuse.body.is_empty() {
        fields.push(("Content-Type", "text/plain; charset=utf-8"));
        fields.push(("X-Content-Type-Options", "nosniff"));
    }
    Ok(closing(refuse.status, &fields, &refuse.body, now))
}

/// An answer after which the connection ends. A body is left out where the status forbids one.
pub(super) fn closing(
    status: u16,
    fields: &[(&str, &str)],
    body: &[u8],
    now: SystemTime,
) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status).ok();
    let reason = reason.and_then(|status| status.canonical_reason()).unwrap_or("Refused");
    let mut bytes = format!("HTTP/1.1 {status} {reason}\r\n").into_bytes();
    let upgrade = fields.iter().any(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
    // RFC 9110 section 7.8: who sends Upgrade names it in Connection.
    field(&mut bytes, "Connection", if upgrade { "close, Upgrade" } else { "close" });
    field(&mut bytes, "Date", &httpdate::fmt_http_date(now));
    let body = if status == 304 { &[] } else { body };
    if status != 304 {
        field(&mut bytes, "Content-Length", &body.len().to_string());
    }
    for (name, value) in fields {
        field(&mut bytes, name, value);
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

fn field(bytes: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        bytes.extend_from_slice(part.as_bytes());
    }
}

/// Fields that frame the connection are not the handler's.
fn check_fields(fields: &[(String, String)]) -> Result<(), BadAnswer> {
    for (name, value) in fields {
        if !is_token(name.as_bytes()) {
            return Err(BadAnswer::Name(name.clone()));
        }
        if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
            return Err(BadAnswer::Value(name.clone()));
        }
        if is_reserved(name) {
            return Err(BadAnswer::Reserved(name.clone()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::head::Refusal;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_sample_of_the_rfc_is_answered_as_there() {
        let with = Acceptance { subprotocol: Some("chat"), ..Acceptance::default() };
        assert_eq!(
            text(accept(KEY, &with).unwrap()),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: chat\r\n\r\n"
        );
    }

    #[test]
    fn extensions_and_the_handlers_fields_follow() {
        let headers = [("Set-Cookie".to_owned(), "a=ü".to_owned())];
        let extensions = Some("permessage-deflate");
        let with = Acceptance { subprotocol: None, extensions, headers: &headers };
        let answer = text(accept(KEY, &with).unwrap());
        let tail = "Sec-WebSocket-Extensions: permessage-deflate\r\nSet-Cookie: a=ü\r\n\r\n";
        assert!(answer.ends_with(tail), "{answer}");
        assert!(!answer.contains("Sec-WebSocket-Protocol"));
    }

    #[test]
    fn a_handler_cannot_break_out_of_its_field() {
        let refused = |name: &str, value: &str| {
            let headers = [(name.to_owned(), value.to_owned())];
            let accepted = accept(KEY, &Acceptance { headers: &headers, ..Acceptance::default() });
            let answer = Refuse { status: 403, headers: headers.to_vec(), body: Vec::new() };
            let error = accepted.unwrap_err();
            assert_eq!(refuse(&answer, SystemTime::UNIX_EPOCH), Err(error.clone()));
            error
        };
        for value in ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b", "a\u{7f}", "\u{1b}[0m"] {
            assert_eq!(refused("X-A", value), BadAnswer::Value("X-A".to_owned()));
        }
        for name in ["", "X A", "X:A", "X-A\r\n", "Ä"] {
            assert_eq!(refused(name, "a"), BadAnswer::Name(name.to_owned()));
        }
        for name in [
            "Connection",
            "upgrade",
            "SEC-WebSocket-Accept",
            "Sec-WebSocket-Protocol",
            "Content-Length",
            "Transfer-Encoding",
            "Sec-WebSocket-Extensions",
        ] {
            assert_eq!(refused(name, "a"), BadAnswer::Reserved(name.to_owned()));
        }
    }

    #[test]
    fn a_refusal_closes_and_says_why() {
        let answer = text(Refusal::bad("no Host").to_bytes(SystemTime::UNIX_EPOCH));
        assert_eq!(
            answer,
            "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 8\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             X-Content-Type-Options: nosniff\r\n\r\nno Host\n"
        );
    }

    #[test]
    fn a_426_names_the_protocol_and_its_version_and_closes() {
        let answer = text(Refusal::upgrade_required("x").to_bytes(SystemTime::UNIX_EPOCH));
        for line in [
            "HTTP/1.1 426 Upgrade Required\r\n",
            "Connection: close, Upgrade\r\n",
            "Upgrade: websocket\r\n",
            "Sec-WebSocket-Version: 13\r\n",
        ] {
            assert!(answer.contains(line), "{answer}");
        }
    }

    #[test]
    fn a_503_says_when_to_come_back() {
        let answer = text(Refusal::overloaded("full", 5).to_bytes(SystemTime::UNIX_EPOCH));
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 5\r\n"));
    }

    #[test]
    fn a_handlers_refusal_is_sent_as_it_is() {
        let mut answer = Refuse::new(401, "who?");
        answer.headers.push(("WWW-Authenticate".to_owned(), "Bearer".to_owned()));
        let bytes = text(refuse(&answer, SystemTime::UNIX_EPOCH).unwrap());
        assert!(bytes.starts_with("HTTP/1.1 401 Unauthorized\r\nConnection: close\r\n"));
        assert!(bytes.contains("WWW-Authenticate: Bearer\r\n") && bytes.ends_with("\r\n\r\nwho?"));
        let success = refuse(&Refuse::new(200, ""), SystemTime::UNIX_EPOCH);
        assert_eq!(success, Err(BadAnswer::Status(200)));
    }
}
