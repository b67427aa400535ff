//! What `Sec-WebSocket-Extensions` says (RFC 6455 section 9.1, RFC 7692 section 7.1).

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::deflate::DeflateOptions;
use super::event::Fault;

const NAME: &str = "permessage-deflate";
const SERVER_FRESH: &str = "server_no_context_takeover";
const CLIENT_FRESH: &str = "client_no_context_takeover";
const SERVER_BITS: &str = "server_max_window_bits";
const CLIENT_BITS: &str = "client_max_window_bits";

/// The largest window: 2^15 bytes.
const BITS_MAX: u8 = 15;
/// The smallest window that the compressor can keep to; it cannot do the 8 that the RFC allows.
const COMPRESS_BITS_MIN: u8 = 9;

/// What was agreed for one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Direction {
    /// Whether a message may refer to the messages before it.
    pub takeover: bool,
    /// The base-2 logarithm of the window, 8 to 15.
    pub bits: u8,
}

impl Direction {
    /// The bytes of plaintext a message may refer to.
    pub fn window_bytes(self) -> usize {
        1 << self.bits
    }

    fn kept_bytes(self) -> usize {
        if self.takeover { self.window_bytes() } else { 0 }
    }
}

/// What was agreed about permessage-deflate, from our end of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// For what we send.
    pub compress: Direction,
    /// For what we receive.
    pub decompress: Direction,
}

impl Params {
    /// The bytes a connection may come to hold for its contexts.
    pub fn context_bytes(&self) -> usize {
        self.compress.kept_bytes() + self.decompress.kept_bytes()
    }

    pub(super) fn is_sound(&self) -> bool {
        (COMPRESS_BITS_MIN..=BITS_MAX).contains(&self.compress.bits)
            && (8..=BITS_MAX).contains(&self.decompress.bits)
    }
}

/// Answers a client's offers: the first that is acceptable, with the header to send back.
///
/// `offers` are the values of all `Sec-WebSocket-Extensions` lines in their order. An offer with
/// an unknown, doubled or malformed parameter is declined and the next one is looked at; none
/// left means no compression, which is never an error. With `contexts` false no context is taken
/// over, whatever the options say (the worker's memory for them is used up).
pub fn negotiate<'a>(
    offers: impl IntoIterator<Item = &'a str>,
    options: &DeflateOptions,
    contexts: bool,
) -> Option<(Params, String)> {
    if !options.enabled {
        return None;
    }
    for line in offers {
        let mut parser = Parser { rest: line };
        while let Some(offer) = parser.extension() {
            let agreed = offer.deflate().and_then(|offer| offer.answer(options, contexts));
            if agreed.is_some() {
                return agreed;
            }
        }
    }
    None
}

/// The offer of a client.
pub fn offer(options: &DeflateOptions) -> Option<String> {
    if !options.enabled {
        return None;
    }
    let mut header = NAME.to_owned();
    let fresh = [
        (options.server_no_context_takeover, SERVER_FRESH),
        (options.client_no_context_takeover, CLIENT_FRESH),
    ];
    for (_, name) in fresh.into_iter().filter(|&(set, _)| set) {
        let _ = write!(header, "; {name}");
    }
    if options.server_max_window_bits < BITS_MAX {
        let _ = write!(header, "; {SERVER_BITS}={}", options.server_max_window_bits);
    }
    let _ = write!(header, "; {CLIENT_BITS}");
    Some(header)
}

/// Reads a server's answer to [`offer`].
///
/// # Errors
/// A [`Fault`] if the server answered with something that was not offered: a client must then
/// fail the connection (RFC 7692 section 7.1).
pub fn accept_response(
    answer: Option<&str>,
    options: &DeflateOptions,
) -> Result<Option<Params>, Fault> {
    let Some(answer) = answer else { return Ok(None) };
    let bad = || Fault::protocol("extension not as offered");
    let mut parser = Parser { rest: answer };
    let extension = parser.extension().ok_or_else(bad)?;
    let deflate = extension.deflate().filter(|_| options.enabled && parser.rest.is_empty());
    let deflate = deflate.ok_or_else(bad)?;
    let client_bits = match deflate.client_bits {
        Some(None) => return Err(bad()),
        Some(Some(bits)) => bits,
        None => BITS_MAX,
    };
    let server_bits = deflate.server_bits.unwrap_or(BITS_MAX);
    let kept = deflate.server_fresh || !options.server_no_context_takeover;
    if !kept || client_bits < COMPRESS_BITS_MIN || server_bits > options.server_max_window_bits {
        return Err(bad());
    }
    let fresh = deflate.client_fresh || options.client_no_context_takeover;
    let bits = client_bits.min(options.client_max_window_bits);
    Ok(Some(Params {
        compress: Direction { takeover: !fresh, bits },
        decompress: Direction { takeover: !deflate.server_fresh, bits: server_bits },
    }))
}

/// An offer or answer of permessage-deflate whose parameters are well-formed.
#[derive(Debug, Default)]
struct Deflate {
    server_fresh: bool,
    client_fresh: bool,
    server_bits: Option<u8>,
    /// An offer may name it without a value.
    client_bits: Option<Option<u8>>,
}

impl Deflate {
    /// What a server answers; `None` declines.
    fn answer(self, options: &DeflateOptions, contexts: bool) -> Option<(Params, String)> {
        let server_bits = self.server_bits.unwrap_or(BITS_MAX).min(options.server_max_window_bits);
        if server_bits < COMPRESS_BITS_MIN {
            return None;
        }
        let server_fresh = self.server_fresh || options.server_no_context_takeover || !contexts;
        let client_fresh = self.client_fresh || options.client_no_context_takeover || !contexts;
        // A client that did not name the parameter cannot be held to less than 15.
        let client_bits = self
            .client_bits
            .map_or(BITS_MAX, |hint| hint.unwrap_or(BITS_MAX).min(options.client_max_window_bits));
        let mut header = NAME.to_owned();
        for (set, name) in [(server_fresh, SERVER_FRESH), (client_fresh, CLIENT_FRESH)] {
            if set {
                let _ = write!(header, "; {name}");
            }
        }
        // Any client reads what a smaller window wrote, so this is said only where it was asked
        // (RFC 7692 section 7.1.2.1): some end the handshake over a parameter they did not offer.
        if self.server_bits.is_some() {
            let _ = write!(header, "; {SERVER_BITS}={server_bits}");
        }
        if self.client_bits.is_some() && client_bits < BITS_MAX {
            let _ = write!(header, "; {CLIENT_BITS}={client_bits}");
        }
        let params = Params {
            compress: Direction { takeover: !server_fresh, bits: server_bits },
            decompress: Direction { takeover: !client_fresh, bits: client_bits },
        };
        Some((params, header))
    }
}

/// One extension of the header: its name and what came of its parameters.
struct Extension {
    is_deflate: bool,
    deflate: Deflate,
    sound: bool,
}

impl Extension {
    fn deflate(self) -> Option<Deflate> {
        (self.is_deflate && self.sound).then_some(self.deflate)
    }

    fn param(&mut self, name: &str, value: Option<&str>) {
        let deflate = &mut self.deflate;
        let first = match name {
            SERVER_FRESH => value.is_none() && !std::mem::replace(&mut deflate.server_fresh, true),
            CLIENT_FRESH => value.is_none() && !std::mem::replace(&mut deflate.client_fresh, true),
            SERVER_BITS => match value.and_then(window_bits) {
                Some(bits) => deflate.server_bits.replace(bits).is_none(),
                None => false,
            },
            CLIENT_BITS => match (value, value.and_then(window_bits)) {
                (Some(_), None) => false,
                (_, bits) => deflate.client_bits.replace(bits).is_none(),
            },
            _ => false,
        };
        self.sound &= first;
    }
}

/// 8 to 15, without a leading zero (RFC 7692 section 7.1.2.1).
fn window_bits(value: &str) -> Option<u8> {
    Some(match value {
        "8" => 8,
        "9" => 9,
        "10" => 10,
        "11" => 11,
        "12" => 12,
        "13" => 13,
        "14" => 14,
        "15" => 15,
        _ => return None,
    })
}

/// Reads each byte of the header once. Bad syntax ends it, as if the header ended there.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn extension(&mut self) -> Option<Extension> {
        // An empty list element is allowed (RFC 9110 section 5.6.1).
        while self.eat(b',') {}
        let name = self.token()?;
        let is_deflate = name.eq_ignore_ascii_case(NAME);
        let mut extension = Extension { is_deflate, deflate: Deflate::default(), sound: true };
        while self.eat(b';') {
            let name = self.token()?;
            let value = if self.eat(b'=') { Some(self.value()?) } else { None };
            extension.param(name, value);
        }
        self.space();
        if !self.rest.is_empty() && !self.eat(b',') {
            self.rest = "";
            return None;
        }
        Some(extension)
    }

    /// A token, or a quoted string whose content is a token (RFC 6455 section 9.1).
    fn value(&mut self) -> Option<&'a str> {
        if !self.eat(b'"') {
            return self.token();
        }
        let value = self.token()?;
        self.rest = self.rest.strip_prefix('"')?;
        Some(value)
    }

    fn token(&mut self) -> Option<&'a str> {
        self.space();
        let end = self.rest.bytes().position(|byte| !is_token(byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = if token.is_empty() { "" } else { rest };
        (!token.is_empty()).then_some(token)
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.space();
        let found = self.rest.as_bytes().first() == Some(&byte);
        if found {
            self.rest = &self.rest[1..];
        }
        found
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn options() -> DeflateOptions {
        DeflateOptions {
            enabled: true,
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            ..DeflateOptions::default()
        }
    }

    fn answer(offer: &str) -> Option<String> {
        negotiate([offer], &options(), true).map(|(_, header)| header)
    }

    #[test]
    fn an_offer_is_answered_with_what_was_asked() {
        let cases = [
            ("permessage-deflate", "permessage-deflate"),
            ("Permessage-Deflate ; client_max_window_bits", "permessage-deflate"),
            (
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            ),
            (
                "permessage-deflate; server_max_window_bits=\"10\"",
                "permessage-deflate; server_max_window_bits=10",
            ),
            (
                "permessage-deflate;client_max_window_bits=8",
                "permessage-deflate; client_max_window_bits=8",
            ),
            (", x-other; a=b, permessage-deflate", "permessage-deflate"),
        ];
        for (offer, want) in cases {
            assert_eq!(answer(offer).as_deref(), Some(want), "{offer}");
        }
    }

    #[test]
    fn an_offer_that_is_odd_is_declined() {
        for offer in [
            "",
            "permessage-deflate; what",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=7",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=010",
            "permessage-deflate; server_max_window_bits=99999999999999999999",
            "permessage-deflate; client_max_window_bits=0",
            "permessage-deflate; client_max_window_bits=",
            "permessage-deflate; client_max_window_bits=\"15",
            "permessage-deflate;",
            "permessage-deflate permessage-deflate",
            "permessage-deflated",
            "x-webkit-deflate-frame",
        ] {
            assert_eq!(answer(offer), None, "{offer}");
        }
    }

    #[test]
    fn the_first_acceptable_of_several_offers_is_taken() {
        let several = "permessage-deflate; server_max_window_bits=8, \
                       permessage-deflate; server_max_window_bits=9, permessage-deflate";
        let want = "permessage-deflate; server_max_window_bits=9";
        assert_eq!(answer(several).as_deref(), Some(want));
        let lines = ["permessage-deflate; bad", "permessage-deflate"];
        assert!(negotiate(lines, &options(), true).is_some());
    }

    #[test]
    fn without_memory_for_contexts_none_is_taken_over() {
        let (params, header) = negotiate(["permessage-deflate"], &options(), false).unwrap();
        assert_eq!(params.context_bytes(), 0);
        let want = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
        assert_eq!(header, want);
    }

    #[test]
    fn nothing_is_agreed_while_it_is_off() {
        assert_eq!(negotiate(["permessage-deflate"], &DeflateOptions::default(), true), None);
        assert_eq!(offer(&DeflateOptions::default()), None);
    }

    #[test]
    fn an_answer_that_was_not_offered_is_a_fault() {
        for answer in [
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate, permessage-deflate",
            "other",
            "",
        ] {
            assert!(accept_response(Some(answer), &options()).is_err(), "{answer}");
        }
        assert_eq!(accept_response(None, &options()), Ok(None));
    }

    proptest! {
        #[test]
        fn both_ends_agree(
            server_fresh: bool,
            client_fresh: bool,
            contexts: bool,
            offered in 9u8..=15,
            server_bits in 9u8..=15,
            client_bits in 9u8..=15,
        ) {
            let client = DeflateOptions {
                server_no_context_takeover: server_fresh,
                server_max_window_bits: offered,
                ..options()
            };
            let server = DeflateOptions {
                client_no_context_takeover: client_fresh,
                server_max_window_bits: server_bits,
                client_max_window_bits: client_bits,
                ..options()
            };
            let line = offer(&client).unwrap();
            let (ours, header) = negotiate([line.as_str()], &server, contexts).unwrap();
            let theirs = accept_response(Some(&header), &client).unwrap().unwrap();
            // A client that was not told of a smaller window reads what it holds all the same.
            prop_assert_eq!(ours.compress.takeover, theirs.decompress.takeover);
            prop_assert!(ours.compress.bits <= theirs.decompress.bits);
            prop_assert_eq!(ours.decompress, theirs.compress);
            prop_assert!(ours.is_sound());
        }

        #[test]
        fn no_header_makes_it_panic(header in "[ -~\t]{0,200}", odd in ".{0,40}") {
            let _ = answer(&header);
            let _ = answer(&format!("permessage-deflate{header}{odd}"));
            let _ = accept_response(Some(&header), &options());
        }
    }
}
