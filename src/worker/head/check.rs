//! The strict checks, on raw lines, before httparse sees them.
//!
//! Everything here is something two parsers on one path have been known to read differently.

use std::str;

use super::target::{self, Target};
use super::{RawHead, Refusal};

/// Fields that decide what a request means: to have one twice is to have two requests in one.
const SINGLETONS: [(&str, &str); 8] = [
    ("host", "more than one Host"),
    ("content-length", "more than one Content-Length"),
    ("transfer-encoding", "more than one Transfer-Encoding"),
    ("sec-websocket-key", "more than one Sec-WebSocket-Key"),
    ("sec-websocket-version", "more than one Sec-WebSocket-Version"),
    ("origin", "more than one Origin"),
    ("authorization", "more than one Authorization"),
    ("content-type", "more than one Content-Type"),
];

/// The longest name of a field that the http crate holds, and then some.
const NAME_BYTES_MAX: usize = 8192;

/// A request line.
pub(super) struct RequestLine<'a> {
    pub method: &'a str,
    pub target: Target<'a>,
    pub minor: u8,
}

/// Checks the request line and each field line.
///
/// # Errors
///
/// 400, 501 for CONNECT, and 505 for a version other than HTTP/1.0 and HTTP/1.1.
pub(super) fn check<'a>(head: &RawHead<'a>) -> Result<RequestLine<'a>, Refusal> {
    let mut lines = head.lines();
    let request = check_request_line(lines.next().unwrap_or_default())?;
    let mut seen = [false; SINGLETONS.len()];
    for line in lines {
        let name = check_field_line(line)?;
        for ((singleton, why), seen) in SINGLETONS.iter().zip(&mut seen) {
            if name.eq_ignore_ascii_case(singleton.as_bytes()) && std::mem::replace(seen, true) {
                return Err(Refusal::bad(why));
            }
        }
    }
    Ok(request)
}

/// `method SP target SP version`, with single spaces (RFC 9112 section 3).
fn check_request_line(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
    let mut words = line.split(|&byte| byte == b' ');
    let words = (words.next(), words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = words else {
        return Err(Refusal::bad("the request line is not method, target and version"));
    };
    let name = str::from_utf8(method).ok().filter(|_| is_token(method));
    let Some(name) = name else { return Err(Refusal::bad("the method is not a token")) };
    let minor = check_version(version)?;
    if method == b"CONNECT" {
        return Err(Refusal::new(501, "CONNECT is for proxies"));
    }
    Ok(RequestLine { method: name, target: target::check(method, target)?, minor })
}

/// Gives the minor version.
fn check_version(version: &[u8]) -> Result<u8, Refusal> {
    match version {
        b"HTTP/1.0" => Ok(0),
        b"HTTP/1.1" => Ok(1),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Refusal::new(505, "only HTTP/1.0 and HTTP/1.1 are spoken here"))
        }
        _ => Err(Refusal::bad("the request line does not end in an HTTP version")),
    }
}

/// `name: value`; gives the name.
pub fn check_field_line(line: &[u8]) -> Result<&[u8], Refusal> {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else {
        return Err(Refusal::bad("a header line without a colon"));
    };
    let name = &line[..colon];
    match name {
        [] => Err(Refusal::bad("a header line without a name")),
        [.., b' ' | b'\t'] => Err(Refusal::bad("white space before a colon")),
        name if name.len() > NAME_BYTES_MAX => Err(Refusal::new(431, "a header name is too long")),
        name if !is_token(name) => Err(Refusal::bad("a header name is not a token")),
        name => Ok(name),
    }
}

/// A token (RFC 9110 section 5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&byte| TCHARS[usize::from(byte)])
}

/// Which bytes a token may have: each byte of each name is looked up.
const TCHARS: [bool; 256] = {
    let (mut tchars, mut byte) = ([false; 256], 0);
    while byte < 128 {
        tchars[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let (others, mut at) = (b"!#$%&'*+-.^_`|~", 0);
    while at < others.len() {
        tchars[others[at] as usize] = true;
        at += 1;
    }
    tchars
};
