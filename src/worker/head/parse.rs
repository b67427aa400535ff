//! Taking a checked head apart.

use std::borrow::Cow;
use std::str;

use super::origin::Authority;
use super::{RawHead, Refusal, check};
use crate::config::digits;

/// How the body after a head is framed (RFC 9112 section 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    Empty,
    /// So many bytes, at least one.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A parsed head.
#[derive(Debug)]
pub struct Head<'a> {
    /// The method, a token in the case it came.
    pub method: &'a str,
    /// Path and query, visible ASCII; `*` for an OPTIONS about the server itself.
    pub target: Cow<'a, str>,
    /// The minor version: 0 or 1.
    pub minor: u8,
    /// The body's framing.
    pub body: Body,
    /// Its Host, or the host of its target; `None` in HTTP/1.0 alone.
    pub host: Option<Authority<'a>>,
    fields: Vec<httparse::Header<'a>>,
}

impl<'a> Head<'a> {
    /// Name (as it came) and value of each field, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.fields.iter().map(|field| (field.name, field.value))
    }

    /// The value of the first field of that name, in any case.
    pub fn get(&self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// The values of all fields of that name, in any case.
    pub fn all(&self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let wanted = self.fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        wanted.map(|field| field.value)
    }

    /// The elements of a list field, over all its lines, empty ones left out (RFC 9110 section
    /// 5.6.1).
    pub fn list(&self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let elements = self.all(name).flat_map(|line| line.split(|&byte| byte == b','));
        elements.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
    }

    /// The head anew, with its target and Host as they are understood here: what another parser
    /// reads of it cannot differ.
    pub fn to_bytes(&self) -> Vec<u8> {
        let line = format!("{} {} HTTP/1.{}\r\n", self.method, self.target, self.minor);
        let mut bytes = line.into_bytes();
        for (name, value) in self.fields() {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

/// Checks and parses a head.
///
/// # Errors
///
/// 400, 501 (CONNECT, or a transfer coding other than chunked) and 505.
pub fn parse<'a>(raw: &RawHead<'a>) -> Result<Head<'a>, Refusal> {
    let line = check::check(raw)?;
    let mut fields = vec![httparse::EMPTY_HEADER; raw.field_count()];
    let behind = raw.bytes().iter().position(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let Ok(httparse::Status::Complete(_)) =
        httparse::parse_headers(&raw.bytes()[behind..], &mut fields)
    else {
        return Err(Refusal::bad("the head does not parse"));
    };
    let target = line.target.path;
    let (method, minor, body) = (line.method, line.minor, Body::Empty);
    let mut head = Head { method, target, minor, body, host: None, fields };
    head.host = check_host(&head)?;
    if let Some(authority) = line.target.authority {
        head.set_host(authority);
    }
    head.body = body_of(&head)?;
    Ok(head)
}

impl<'a> Head<'a> {
    /// The host of an absolute form stands in the place of Host (RFC 9112 section 3.2.2).
    fn set_host(&mut self, value: &'a [u8]) {
        self.host = Authority::parse(value);
        match self.fields.iter_mut().find(|field| field.name.eq_ignore_ascii_case("host")) {
            Some(host) => host.value = value,
            None => self.fields.push(httparse::Header { name: "Host", value }),
        }
    }
}

/// RFC 9112 section 3.2: 400 where Host is missing in HTTP/1.1, or is not a host.
fn check_host<'a>(head: &Head<'a>) -> Result<Option<Authority<'a>>, Refusal> {
    match head.get("host") {
        None if head.minor == 0 => Ok(None),
        None => Err(Refusal::bad("no Host")),
        Some(host) => match Authority::parse(host) {
            None => Err(Refusal::bad("the Host is not a host and port")),
            parsed => Ok(parsed),
        },
    }
}

/// The framing; where it could be read in two ways there is none (RFC 9112 section 6.3).
fn body_of(head: &Head<'_>) -> Result<Body, Refusal> {
    match (head.get("transfer-encoding"), head.get("content-length")) {
        (None, None) => Ok(Body::Empty),
        (Some(_), Some(_)) => Err(Refusal::bad("both Transfer-Encoding and Content-Length")),
        (Some(_), None) if head.minor == 0 => {
            Err(Refusal::bad("Transfer-Encoding in an HTTP/1.0 request"))
        }
        (Some(_), None) => transfer_coding(head),
        (None, Some(length)) => content_length(length),
    }
}

/// RFC 9112 sections 6.1, 6.3 and 7.
fn transfer_coding(head: &Head<'_>) -> Result<Body, Refusal> {
    let codings: Vec<&[u8]> = head.list("transfer-encoding").collect();
    let chunked = codings.iter().filter(|coding| coding.eq_ignore_ascii_case(b"chunked")).count();
    match codings.last() {
        Some(last) if last.eq_ignore_ascii_case(b"chunked") => {}
        _ => return Err(Refusal::bad("the last transfer coding is not chunked")),
    }
    match (codings.len(), chunked) {
        (1, _) => Ok(Body::Chunked),
        (_, 1) => Err(Refusal::new(501, "a transfer coding other than chunked")),
        _ => Err(Refusal::bad("chunked more than once")),
    }
}

fn content_length(value: &[u8]) -> Result<Body, Refusal> {
    match str::from_utf8(value).ok().and_then(digits) {
        Some(0) => Ok(Body::Empty),
        Some(length) => Ok(Body::Length(length)),
        None => Err(Refusal::bad("the Content-Length is not a number")),
    }
}
