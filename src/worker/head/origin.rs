//! Who may open a WebSocket from a browser.
//!
//! A browser lets any page open a WebSocket to any server and sends the user's cookies along;
//! only the Origin tells (cross-site WebSocket hijacking). So the default is the same host, and
//! every comparison is between parsed values: never a prefix, a suffix or a pattern.

use std::fmt;
use std::net::Ipv6Addr;

use super::Refusal;

/// The key of the configuration that this file stands for.
const KEY: &str = "allowed_origins";

/// Which origins may open a WebSocket. A client without an Origin is no browser and is always
/// let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Origins {
    /// Origin's host and port equal Host's: the default.
    #[default]
    SameHost,
    /// `*`: every origin, also `null`.
    Any,
    /// Exactly these: scheme, host and port in normal form, or `null`.
    List(Vec<String>),
}

/// An entry of `allowed_origins` that is not an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadOrigin(pub String);

impl fmt::Display for BadOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let example = "write it like \"https://example.com\" or \"https://example.com:8443\", \
            without a path, or \"null\", or \"*\"";
        write!(f, "{KEY}: {:?} is not an origin; {example}", self.0)
    }
}

impl std::error::Error for BadOrigin {}

impl Origins {
    /// From the entries of `allowed_origins`; none means the same host.
    ///
    /// # Errors
    ///
    /// The first entry that is neither an origin nor `null` nor `*`. A list that is given
    /// replaces the same-host rule, it does not add to it.
    pub fn new(entries: &[String]) -> Result<Origins, BadOrigin> {
        if entries.is_empty() {
            return Ok(Origins::SameHost);
        }
        if entries.iter().any(|entry| entry == "*") {
            return Ok(Origins::Any);
        }
        let normal = entries.iter().map(|entry| match entry.as_str() {
            "null" => Ok("null".to_owned()),
            text => match Origin::parse(text.as_bytes()) {
                Some(origin) => Ok(origin.to_string()),
                None => Err(BadOrigin(text.to_owned())),
            },
        });
        normal.collect::<Result<_, _>>().map(Origins::List)
    }

    /// Decides by the Origin and Host fields of a head.
    ///
    /// # Errors
    ///
    /// A 403 whose body and log text name the key and the value to add.
    pub fn check(&self, origin: Option<&[u8]>, host: Option<&[u8]>) -> Result<(), Refusal> {
        let Some(text) = origin else { return Ok(()) };
        if *self == Origins::Any {
            return Ok(());
        }
        let origin = Origin::parse(text);
        let normal = match &origin {
            Some(origin) => origin.to_string(),
            None if text == b"null" => "null".to_owned(),
            None => return Err(not_an_origin(text)),
        };
        let allowed = match self {
            Origins::Any => true,
            Origins::List(list) => list.contains(&normal),
            Origins::SameHost => {
                let host = host.and_then(Authority::parse);
                origin.zip(host).is_some_and(|(origin, host)| origin.is_at(&host))
            }
        };
        if allowed { Ok(()) } else { Err(not_allowed(&normal)) }
    }
}

fn not_allowed(normal: &str) -> Refusal {
    let advice = format!("Origin is {normal}; to let it in, add \"{normal}\" to {KEY}.");
    Refusal::new(403, "the origin is not allowed").advice(advice)
}

/// What is no origin cannot be added; it is shown escaped and cut.
fn not_an_origin(text: &[u8]) -> Refusal {
    let shown = text[..text.len().min(100)].escape_ascii();
    let advice = format!("Origin is \"{shown}\", which no entry of {KEY} can match but \"*\".");
    Refusal::new(403, "the Origin is not an origin").advice(advice)
}

/// A serialised origin (RFC 6454 section 6.1), its host in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin {
    scheme: String,
    authority: Authority,
}

impl Origin {
    /// Strict: no user, path, query, fragment or white space, for a browser sends none.
    fn parse(text: &[u8]) -> Option<Origin> {
        let text = str::from_utf8(text).ok()?;
        let (scheme, authority) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        let mut bytes = scheme.bytes();
        let starts_well = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !starts_well || !bytes.all(is_scheme) {
            return None;
        }
        let mut authority = Authority::parse(authority.as_bytes())?;
        authority.port = authority.port.filter(|&port| Some(port) != default_port(&scheme));
        Some(Origin { scheme, authority })
    }

    /// Whether this is the page's own server. Behind a proxy that ends TLS we cannot know our
    /// scheme, so a Host without a port has the default port of the Origin's scheme.
    fn is_at(&self, host: &Authority) -> bool {
        let Some(default) = default_port(&self.scheme) else { return false };
        let port = |authority: &Authority| authority.port.unwrap_or(default);
        self.authority.host == host.host && port(&self.authority) == port(host)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority.host)?;
        self.authority.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// A host and its port, as in Host and in an origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Authority {
    host: String,
    port: Option<u16>,
}

impl Authority {
    /// `None` for anything but a name, an IPv4 address or a bracketed IPv6 address, and a port
    /// from 1 without leading zeros. A trailing dot makes another name, as it does in a browser.
    pub(super) fn parse(text: &[u8]) -> Option<Authority> {
        let text = str::from_utf8(text).ok()?;
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']')?;
                let port = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
                (format!("[{}]", address.parse::<Ipv6Addr>().ok()?), port)
            }
            None => {
                let (host, port) =
                    text.split_once(':').map_or((text, None), |(h, p)| (h, Some(p)));
                (host.to_ascii_lowercase(), port)
            }
        };
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        if !host.starts_with('[') && (host.is_empty() || !host.bytes().all(is_name)) {
            return None;
        }
        let port = match port {
            None => None,
            Some(digits) if !digits.starts_with(['0', '+']) => Some(digits.parse().ok()?),
            Some(_) => return None,
        };
        Some(Authority { host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(entries: &[&str]) -> Origins {
        Origins::new(&entries.iter().map(|entry| entry.to_string()).collect::<Vec<_>>()).unwrap()
    }

    fn allows(origins: &Origins, origin: &str, host: &str) -> bool {
        origins.check(Some(origin.as_bytes()), Some(host.as_bytes())).is_ok()
    }

    /// Origin, Host, and whether they are the same host.
    const SAME_HOST: [(&str, &str, bool); 52] = [
        ("http://example.com", "example.com", true),
        ("https://example.com", "example.com", true),
        ("http://example.com:80", "example.com", true),
        ("http://example.com", "example.com:80", true),
        ("https://example.com", "example.com:443", true),
        ("https://example.com:443", "example.com", true),
        ("http://EXAMPLE.com", "example.COM", true),
        ("HTTP://example.com", "example.com", true),
        ("http://example.com:8000", "example.com:8000", true),
        ("http://127.0.0.1:8000", "127.0.0.1:8000", true),
        ("http://localhost:8000", "localhost:8000", true),
        ("http://[::1]:8000", "[::1]:8000", true),
        ("http://[0:0:0:0:0:0:0:1]", "[::1]", true),
        ("http://[FE80::1]", "[fe80::1]", true),
        ("http://xn--mnchen-3ya.de", "xn--mnchen-3ya.de", true),
        ("http://example.com.", "example.com.", true),
        ("http://my_host:1", "my_host:1", true),
        ("http://example.com:8000", "example.com", false),
        ("http://example.com", "example.com:8000", false),
        ("http://example.com", "example.com:443", false),
        ("https://example.com", "example.com:80", false),
        ("https://example.com:80", "example.com:443", false),
        ("http://example.com:8001", "example.com:8000", false),
        ("http://evil.com", "example.com", false),
        ("http://example.com.evil.com", "example.com", false),
        ("http://evilexample.com", "example.com", false),
        ("http://example.com-evil.com", "example.com", false),
        ("http://sub.example.com", "example.com", false),
        ("http://example.co", "example.com", false),
        ("http://example.comm", "example.com", false),
        ("http://example.com.", "example.com", false),
        ("http://example.com", "example.com.", false),
        ("http://example.com@evil.com", "example.com", false),
        ("http://evil.com@example.com", "example.com", false),
        ("http://user:pass@example.com", "example.com", false),
        ("http://example.com/", "example.com", false),
        ("http://example.com/path", "example.com", false),
        ("http://example.com?x", "example.com", false),
        ("http://example.com#x", "example.com", false),
        ("http://evil.com#http://example.com", "example.com", false),
        ("http://evil.com\\@example.com", "example.com", false),
        ("http://example.com http://evil.com", "example.com", false),
        ("http://example.com, http://evil.com", "example.com", false),
        ("http://example.com:", "example.com", false),
        ("http://example.com:080", "example.com", false),
        ("http://example.com:65616", "example.com", false),
        ("http://example.com:+80", "example.com", false),
        ("http://ex%61mple.com", "example.com", false),
        ("http://münchen.de", "xn--mnchen-3ya.de", false),
        ("http://ехample.com", "example.com", false),
        ("http://127.0.0.1", "localhost", false),
        ("http://[::ffff:127.0.0.1]", "127.0.0.1", false),
    ];

    #[test]
    fn by_default_origin_and_host_are_the_same() {
        for (origin, host, expected) in SAME_HOST {
            assert_eq!(allows(&Origins::SameHost, origin, host), expected, "{origin} at {host}");
        }
    }

    #[test]
    fn what_is_no_web_origin_is_never_the_same_host() {
        for origin in [
            "",
            " ",
            "null",
            "NULL",
            "*",
            "example.com",
            "//example.com",
            "http:",
            "http://",
            "http:example.com",
            "http:/example.com",
            "://example.com",
            "ftp://example.com",
            "ws://example.com",
            "wss://example.com",
            "file://",
            "chrome-extension://example.com",
            "http://[::1",
            "http://::1",
            "http://[::1]x",
            "http://[example.com]",
            "1http://example.com",
            "http://example.com\u{0}",
        ] {
            assert!(!allows(&Origins::SameHost, origin, "example.com"), "{origin:?}");
        }
        assert!(Origins::SameHost.check(Some(b"http://a"), None).is_err());
        assert!(Origins::SameHost.check(Some(b"http://a\xff"), Some(b"a\xff")).is_err());
    }

    #[test]
    fn a_client_without_an_origin_is_no_browser() {
        for origins in [Origins::SameHost, Origins::Any, origins(&["https://a"])] {
            assert_eq!(origins.check(None, Some(b"example.com")), Ok(()));
        }
    }

    #[test]
    fn a_listed_origin_matches_in_scheme_host_and_port() {
        let listed = origins(&["https://Example.com", "http://a:8000", "chrome-extension://abc"]);
        for (origin, expected) in [
            ("https://example.com", true),
            ("https://example.com:443", true),
            ("https://EXAMPLE.COM", true),
            ("http://a:8000", true),
            ("chrome-extension://abc", true),
            ("http://example.com", false),
            ("https://example.com:8443", false),
            ("https://www.example.com", false),
            ("https://example.com.evil.com", false),
            ("http://a", false),
            ("null", false),
            ("http://here", false),
        ] {
            assert_eq!(allows(&listed, origin, "here"), expected, "{origin}");
        }
    }

    #[test]
    fn null_comes_in_only_where_it_is_listed() {
        assert!(allows(&origins(&["null"]), "null", "a"));
        assert!(!allows(&origins(&["null"]), "http://a", "a"));
        assert!(allows(&origins(&["https://x", "*"]), "null", "a"));
    }

    #[test]
    fn an_entry_that_is_no_origin_is_an_error() {
        for entry in [
            "example.com",
            "https://example.com/",
            "https://*.example.com",
            "",
            "NULL",
            "https://user@example.com",
            "https://münchen.de",
            "https://a b",
        ] {
            let error = Origins::new(&[entry.to_owned()]).unwrap_err();
            assert_eq!(error, BadOrigin(entry.to_owned()));
        }
    }

    #[test]
    fn the_refusal_names_the_key_and_the_value_to_add() {
        let refusal = Origins::SameHost.check(Some(b"HTTPS://Evil.com:443"), Some(b"a"));
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.status, 403);
        let body = refusal.body();
        assert!(body.contains("add \"https://evil.com\" to allowed_origins"), "{body}");
    }

    #[test]
    fn the_refusal_of_garbage_shows_it_escaped_and_cut() {
        let refusal = Origins::SameHost.check(Some(&[0xe2; 4000]), Some(b"a")).unwrap_err();
        assert!(refusal.body().is_ascii() && refusal.body().len() < 600);
        assert!(refusal.body().contains("\\xe2"));
    }
}
