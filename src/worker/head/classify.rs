//! Telling an upgrade from plain HTTP.

use super::check::is_token;
use super::{Body, Head, Refusal, subprotocol};

/// What a head asks for.
#[derive(Debug)]
pub enum Kind<'a> {
    /// Plain HTTP.
    Plain,
    /// A WebSocket.
    Upgrade(Upgrade<'a>),
}

/// The opening handshake of a WebSocket (RFC 6455 section 4.2.1), its form checked.
#[derive(Debug)]
pub struct Upgrade<'a> {
    /// Sec-WebSocket-Key: 24 characters.
    pub key: &'a str,
    /// The subprotocols offered, in the client's order, each once.
    pub protocols: Vec<&'a str>,
}

/// Says what a head asks for.
///
/// # Errors
///
/// What looks like an upgrade by half is refused, so that no proxy on the way may take for a
/// tunnel what we would serve as plain HTTP: 400, 405 for another method than GET, 426 for
/// another version than 13 and for a handshake whose Upgrade got lost on the way.
pub fn classify<'a>(head: &Head<'a>) -> Result<Kind<'a>, Refusal> {
    if !names_websocket(head) {
        return match head.get("sec-websocket-key") {
            None => Ok(Kind::Plain),
            Some(_) => Err(upgrade_lost()),
        };
    }
    if !head.list("upgrade").any(|token| token.eq_ignore_ascii_case(b"websocket")) {
        return Err(Refusal::bad("the Upgrade is not to websocket"));
    }
    if !head.list("upgrade").chain(head.list("connection")).all(is_protocol) {
        return Err(Refusal::bad("Upgrade or Connection is not a list of tokens"));
    }
    if head.method != "GET" {
        let why = "an upgrade to WebSocket is a GET";
        return Err(Refusal::new(405, why).header("Allow", "GET"));
    }
    if head.minor == 0 {
        let advice = "Behind nginx, set: proxy_http_version 1.1;";
        return Err(Refusal::bad("an upgrade to WebSocket needs HTTP/1.1").advice(advice));
    }
    if !head.list("connection").any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
        return Err(Refusal::bad("an Upgrade without \"Connection: Upgrade\"").advice(NGINX));
    }
    if head.body != Body::Empty {
        return Err(Refusal::bad("an upgrade has a body"));
    }
    check_version(head)?;
    let key = check_key(head)?;
    Ok(Kind::Upgrade(Upgrade { key, protocols: subprotocol::offered(head)? }))
}

const NGINX: &str = "Behind nginx, set: proxy_http_version 1.1; \
    proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\";";

/// Whether any Upgrade field mentions websocket, in whatever shape.
fn names_websocket(head: &Head<'_>) -> bool {
    let name = b"websocket";
    let mentions =
        |value: &[u8]| value.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name));
    head.all("upgrade").any(mentions)
}

fn upgrade_lost() -> Refusal {
    let why = "a WebSocket handshake without \"Upgrade: websocket\"";
    Refusal::upgrade_required(why).advice(NGINX)
}

/// A protocol with or without a version (RFC 9110 section 7.8).
fn is_protocol(element: &[u8]) -> bool {
    element.splitn(2, |&byte| byte == b'/').all(is_token)
}

fn check_version(head: &Head<'_>) -> Result<(), Refusal> {
    match head.get("sec-websocket-version") {
        Some(b"13") => Ok(()),
        Some(_) => Err(Refusal::upgrade_required("only version 13 of WebSocket is spoken here")),
        None => {
            Err(Refusal::bad("no Sec-WebSocket-Version").header("Sec-WebSocket-Version", "13"))
        }
    }
}

/// 16 bytes in base64. Bits beyond them in the last character are let pass, as others do.
fn check_key<'a>(head: &Head<'a>) -> Result<&'a str, Refusal> {
    let Some(key) = head.get("sec-websocket-key") else {
        return Err(Refusal::bad("no Sec-WebSocket-Key"));
    };
    let digits = key.strip_suffix(b"==").filter(|digits| digits.len() == 22);
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    let good = digits.is_some_and(|digits| digits.iter().all(is_digit));
    let text = str::from_utf8(key).ok().filter(|_| good);
    text.ok_or_else(|| Refusal::bad("the Sec-WebSocket-Key is not 16 bytes in base64"))
}
