//! Who may open a WebSocket from a browser.
//!
//! A browser lets any page open a WebSocket to any server and sends the user's cookies along;
//! only the Origin tells (cross-site WebSocket hijacking). So the default is the same host, and
//! every comparison is between parsed values: never a prefix, a suffix or a pattern.

use std::net::IpAddr;

use super::{Reason, Refusal};
use crate::config::{Hosts, Origin, Origins, authority};

/// The key of the configuration that this file stands for.
const KEY: &str = "allowed_origins";

/// How a request came, besides its Origin.
#[derive(Debug, Clone, Copy, Default)]
pub struct Came<'a> {
    /// Its Host.
    pub host: Option<Authority<'a>>,
    /// The scheme that a trusted proxy says it came by.
    pub scheme: Option<&'a [u8]>,
    /// Whether its client is of this machine, and nobody forwarded it.
    pub is_local: bool,
}

/// Decides by the Origin of a head, knowing how the request came. A client without an Origin is no
/// browser and is let in. True if the page is let in by `local-null` alone.
///
/// # Errors
///
/// A 403 whose body and log text name the key and the value to add.
pub fn check_origin(
    allowed: &Origins,
    origin: Option<&[u8]>,
    came: Came<'_>,
) -> Result<bool, Refusal> {
    let Some(text) = origin.filter(|_| !allowed.any) else { return Ok(false) };
    let parsed: Option<Origin> = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    let Some(origin) = parsed else { return Err(not_an_origin(text)) };
    let same = came.host.filter(|_| allowed.same_host);
    if allowed.lists(&origin) || same.is_some_and(|host| host.serves(&origin, came.scheme)) {
        return Ok(false);
    }
    let is_local = came.is_local && came.host.is_some_and(|host| host.is_loopback());
    if allowed.local_null && origin == Origin::Null && is_local {
        return Ok(true);
    }
    Err(not_allowed(&origin))
}

/// Decides by the Host of a request, which came to a loopback listener or not. Whoever was
/// forwarded by a trusted proxy called that by its own names.
///
/// # Errors
///
/// A 421 whose body and log text name the key and the value to add.
pub fn check_host(
    allowed: &Hosts,
    host: Option<Authority<'_>>,
    to_loopback: bool,
    forwarded: bool,
) -> Result<(), Refusal> {
    // Without one it comes from no browser.
    let Some(host) = host else { return Ok(()) };
    let auto = allowed.auto && (forwarded || !to_loopback || host.is_of_this_machine());
    if auto || allowed.lists(host.host) {
        return Ok(());
    }
    let name = host.host.to_ascii_lowercase();
    let advice = format!("Host is {name}; to answer to it, add \"{name}\" to allowed_hosts.");
    let why = "this server does not answer to that host";
    Err(Refusal::new(421, why).because(Reason::Host).advice(advice))
}

fn not_allowed(origin: &Origin) -> Refusal {
    let advice = format!("Origin is {origin}; to let it in, add \"{origin}\" to {KEY}.");
    Refusal::new(403, "the origin is not allowed").because(Reason::Origin).advice(advice)
}

/// What is no origin cannot be added; its beginning is shown escaped and cut.
fn not_an_origin(text: &[u8]) -> Refusal {
    // What stands before an @ may be a password, what stands behind the host a token.
    let text = text.rsplit(|&byte| byte == b'@').next().unwrap_or_default();
    let is_shown = |byte: u8| !byte.is_ascii() || is_of_host(byte);
    let length = |text: &[u8]| text.iter().take_while(|byte| is_shown(**byte)).count();
    let mut end = length(text);
    if text[..end].ends_with(b":") && text[end..].starts_with(b"//") {
        end += 2 + length(&text[end + 2..]);
    }
    let shown = text[..end.min(100)].escape_ascii();
    let advice = format!("The Origin has \"{shown}\" in it; only \"*\" in {KEY} lets that in.");
    Refusal::new(403, "the Origin is not an origin").because(Reason::Origin).advice(advice)
}

/// Whether a scheme, a host or a port may have this.
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._:[]".contains(&byte)
}

/// A host and its port, as in Host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// In the case it came; an IPv6 address keeps its brackets.
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// `None` for anything but a name, an IPv4 address or a bracketed IPv6 address, and a port.
    /// A trailing dot makes another name, as it does in a browser.
    pub fn parse(text: &'a [u8]) -> Option<Authority<'a>> {
        let (host, port) = authority(str::from_utf8(text).ok()?)?;
        Some(Authority { host, port })
    }

    /// Whether it is a name or an address of loopback.
    fn is_loopback(&self) -> bool {
        let name = self.host.strip_suffix('.').unwrap_or(self.host);
        // `localhost`, and what stands below it.
        let last = name.rsplit('.').next().unwrap_or_default();
        last.eq_ignore_ascii_case("localhost")
            || self.address().is_some_and(|ip| ip.to_canonical().is_loopback())
    }

    /// Whether no other machine's name leads here by it: it is loopback, or an address.
    fn is_of_this_machine(&self) -> bool {
        self.is_loopback() || self.address().is_some()
    }

    fn address(&self) -> Option<IpAddr> {
        self.host.trim_matches(['[', ']']).parse().ok()
    }

    /// Whether a page of this origin came from here. Behind a proxy that ends TLS we cannot know
    /// our own scheme, so a Host without a port has the default port of the Origin's scheme.
    fn serves(&self, origin: &Origin, by: Option<&[u8]>) -> bool {
        let Origin::Host { scheme, host, port } = origin else { return false };
        let web = matches!(scheme.as_str(), "http" | "https");
        let same = by.is_none_or(|by| by.eq_ignore_ascii_case(scheme.as_bytes()));
        let same = same && self.host.eq_ignore_ascii_case(host);
        web && same && self.port.or(Origin::default_port(scheme)) == *port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(entries: &[&str]) -> Origins {
        let entries: Vec<String> = entries.iter().map(|entry| entry.to_string()).collect();
        entries.try_into().unwrap()
    }

    fn check(
        origins: &Origins,
        origin: Option<&[u8]>,
        host: Option<&[u8]>,
    ) -> Result<bool, Refusal> {
        let host = host.and_then(Authority::parse);
        check_origin(origins, origin, Came { host, ..Came::default() })
    }

    fn allows(origins: &Origins, origin: &str, host: &str) -> bool {
        check(origins, Some(origin.as_bytes()), Some(host.as_bytes())).is_ok()
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
        ("http://[0:0:0:0:0:0:0:1]", "[::1]", false),
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
        ("http://example.com:080", "example.com", true),
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
            assert_eq!(allows(&Origins::default(), origin, host), expected, "{origin} at {host}");
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
            assert!(!allows(&Origins::default(), origin, "example.com"), "{origin:?}");
        }
        assert!(check(&Origins::default(), Some(b"http://a"), None).is_err());
        assert!(check(&Origins::default(), Some(b"http://a\xff"), Some(b"a\xff")).is_err());
    }

    #[test]
    fn a_client_without_an_origin_is_no_browser() {
        for origins in [Origins::default(), origins(&["*"]), origins(&["https://a"])] {
            assert_eq!(check(&origins, None, Some(b"example.com")), Ok(false));
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
    fn the_scheme_that_a_trusted_proxy_tells_is_compared() {
        let allows = |origin: &[u8], scheme: &[u8]| {
            let host = Authority::parse(b"a");
            let came = Came { host, scheme: Some(scheme), is_local: false };
            check_origin(&Origins::default(), Some(origin), came).is_ok()
        };
        assert!(allows(b"https://a", b"https") && allows(b"http://a", b"HTTP"));
        assert!(!allows(b"http://a", b"https") && !allows(b"https://a", b"http"));
    }

    #[test]
    fn a_page_from_disk_comes_in_where_all_is_local() {
        let local = origins(&["same-host", "local-null"]);
        for (origin, host, is_local, expected) in [
            ("null", "127.0.0.1:8000", true, Some(true)),
            ("null", "localhost", true, Some(true)),
            ("null", "[::1]:8000", true, Some(true)),
            ("null", "app.localhost", true, Some(true)),
            ("null", "127.0.0.1:8000", false, None),
            ("null", "example.com", true, None),
            ("null", "localhost.example.com", true, None),
            ("null", "192.0.2.1", true, None),
            ("http://127.0.0.1:8000", "127.0.0.1:8000", true, Some(false)),
            ("http://evil.com", "127.0.0.1:8000", true, None),
        ] {
            let host = Authority::parse(host.as_bytes());
            let came = Came { host, scheme: None, is_local };
            let found = check_origin(&local, Some(origin.as_bytes()), came).ok();
            assert_eq!(found, expected, "{origin} at {host:?}");
        }
    }

    #[test]
    fn a_loopback_listener_answers_to_names_of_its_machine() {
        let hosts = |words: &[&str]| -> Hosts {
            words.iter().map(|word| word.to_string()).collect::<Vec<_>>().try_into().unwrap()
        };
        let allows = |hosts: &Hosts, host: &str, to_loopback, forwarded| {
            let host = Some(Authority::parse(host.as_bytes()).unwrap());
            check_host(hosts, host, to_loopback, forwarded).is_ok()
        };
        for host in [
            "localhost",
            "LOCALHOST:8000",
            "localhost.",
            "a.localhost",
            "127.0.0.1:8000",
            "[::1]",
            "192.0.2.1:1",
            "[2001:db8::1]:8000",
        ] {
            assert!(allows(&Hosts::default(), host, true, false), "{host}");
            assert!(!allows(&hosts(&["app.test"]), host, true, true), "{host}");
        }
        for host in
            ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8000", "app.test"]
        {
            assert!(!allows(&Hosts::default(), host, true, false), "{host}");
            assert!(allows(&Hosts::default(), host, false, false), "{host}");
            assert!(allows(&Hosts::default(), host, true, true), "{host}");
            assert!(allows(&hosts(&["*"]), host, true, false), "{host}");
        }
        for list in [&["app.test"][..], &["auto", "app.test"]] {
            assert!(allows(&hosts(list), "APP.test:81", true, false));
            assert!(!allows(&hosts(list), "evil.example", true, false));
        }
        assert!(!allows(&hosts(&["app.test"]), "evil.example", false, true));
        assert!(check_host(&Hosts::default(), None, true, false).is_ok());
    }

    #[test]
    fn a_list_replaces_the_same_host_unless_it_names_it() {
        let both = origins(&["same-host", "https://example.com"]);
        assert!(allows(&both, "http://here", "here"));
        assert!(allows(&both, "https://example.com", "here"));
        assert!(!allows(&both, "https://there", "here"));
        assert!(!allows(&origins(&["https://example.com"]), "http://here", "here"));
    }

    #[test]
    fn the_refusal_names_the_key_and_the_value_to_add() {
        let refusal = check(&Origins::default(), Some(b"HTTPS://Evil.com:443"), Some(b"a"));
        let refusal = refusal.unwrap_err();
        assert_eq!(refusal.status, 403);
        let body = refusal.body();
        assert!(body.contains("add \"https://evil.com\" to allowed_origins"), "{body}");
    }

    #[test]
    fn the_refusal_of_garbage_shows_it_escaped_and_cut() {
        let refusal = check(&Origins::default(), Some(&[0xe2; 4000]), Some(b"a")).unwrap_err();
        assert!(refusal.body().is_ascii() && refusal.body().len() < 600);
        assert!(refusal.body().contains("\\xe2"));
        for secret in [
            "http://ada:word@a.example?token=1",
            "http://a.example/token",
            "http://a.example:80;token",
            "http://a.example token",
            "http://a.example\\token",
            "a.example//token",
            "a.example=token://b.example",
        ] {
            let refusal = check(&Origins::default(), Some(secret.as_bytes()), Some(b"a"));
            let log = refusal.unwrap_err().for_log();
            let hides = !log.contains("word") && !log.contains("token");
            assert!(log.contains("a.example") && hides, "{secret}: {log}");
        }
    }
}
