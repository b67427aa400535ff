//! Who may open a WebSocket from a browser: the values of `allowed_origins`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::errors::Wrong;
use super::list::words;
use super::text::{digits, quote};
use super::value::{Raw, Setting};

/// An origin as browsers send it (RFC 6454 section 6.2): compared by scheme, host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The literal `null`: a sandboxed frame, or a page from a file.
    Null,
    /// An origin with a host.
    Host {
        /// In lower case.
        scheme: String,
        /// In lower case; an IPv6 address keeps its brackets.
        host: String,
        /// The one written, else the scheme's own (80, 443); `None` for a scheme without one.
        port: Option<u16>,
    },
}

impl Origin {
    /// The port a scheme implies.
    pub fn default_port(scheme: &str) -> Option<u16> {
        match scheme {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        }
    }
}

/// The text is not an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAnOrigin;

impl FromStr for Origin {
    type Err = NotAnOrigin;

    /// Strict: no path, no user, no empty or doubled port, ASCII alone (IDN hosts as punycode).
    fn from_str(text: &str) -> Result<Origin, NotAnOrigin> {
        if text == "null" {
            return Ok(Origin::Null);
        }
        let (scheme, rest) = text.split_once("://").ok_or(NotAnOrigin)?;
        let scheme_ok = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        let (host, port) = authority(rest).filter(|_| scheme_ok).ok_or(NotAnOrigin)?;
        let scheme = scheme.to_ascii_lowercase();
        let port = port.or_else(|| Origin::default_port(&scheme));
        Ok(Origin::Host { scheme, host: host.to_ascii_lowercase(), port })
    }
}

/// The host and the port of an origin or of a Host. `None` for anything but a name, an IPv4 address
/// or a bracketed IPv6 address, and perhaps a port.
pub fn authority(text: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = split_port(text)?;
    let port = match port {
        None => None,
        Some(port) => Some(digits(port)?),
    };
    host_ok(host).then_some((host, port))
}

/// Splits `host:port`, where an IPv6 host stands in brackets.
fn split_port(text: &str) -> Option<(&str, Option<&str>)> {
    let end = match text.strip_prefix('[') {
        Some(_) => text.find(']')? + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(end);
    match rest.strip_prefix(':') {
        Some(port) => Some((host, Some(port))),
        None if rest.is_empty() => Some((host, None)),
        None => None,
    }
}

fn host_ok(host: &str) -> bool {
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse::<std::net::Ipv6Addr>().is_ok();
    }
    !host.is_empty()
        && host
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_'))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Null => f.write_str("null"),
            Origin::Host { scheme, host, port } => {
                write!(f, "{scheme}://{host}")?;
                match port {
                    Some(port) if Origin::default_port(scheme) != Some(*port) => {
                        write!(f, ":{port}")
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

/// The value of `allowed_origins`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Origins {
    /// `*`: every origin.
    pub any: bool,
    /// `same-host`: an origin whose host and port are those of the request's Host.
    pub same_host: bool,
    /// `local-null`: `null` where client and Host are of this machine.
    pub local_null: bool,
    /// Origins allowed by name.
    pub listed: Vec<Origin>,
}

impl Default for Origins {
    fn default() -> Origins {
        Origins { any: false, same_host: true, local_null: false, listed: Vec::new() }
    }
}

impl Origins {
    /// Whether `origin` is allowed by name, or every one is. `same_host` is the caller's to test:
    /// it takes the request.
    pub fn lists(&self, origin: &Origin) -> bool {
        self.any || self.listed.contains(origin)
    }

    fn parse(words: &[String]) -> Result<Origins, Wrong> {
        let mut origins = Origins { same_host: false, ..Origins::default() };
        for word in words {
            match word.as_str() {
                "*" => origins.any = true,
                "same-host" => origins.same_host = true,
                "local-null" => origins.local_null = true,
                _ => origins.listed.push(listed(word)?),
            }
        }
        if words.is_empty() {
            return Err(Wrong::new("is empty", "write [\"same-host\"] for the default"));
        }
        Ok(origins)
    }

    fn words(&self) -> Vec<String> {
        let any = self.any.then(|| "*".to_owned());
        let same = self.same_host.then(|| "same-host".to_owned());
        let local = self.local_null.then(|| "local-null".to_owned());
        any.into_iter()
            .chain(same)
            .chain(local)
            .chain(self.listed.iter().map(Origin::to_string))
            .collect()
    }
}

fn listed(word: &str) -> Result<Origin, Wrong> {
    word.parse().map_err(|NotAnOrigin| {
        let bare = word.trim_end_matches('/');
        let guess = [bare.to_owned(), format!("https://{bare}")];
        let right = match guess.iter().find(|guess| guess.parse::<Origin>().is_ok()) {
            Some(guess) => format!("did you mean {}?", quote(guess)),
            None => "write \"https://host\", \"https://host:port\", \"same-host\", \
                     \"null\", \"local-null\" or \"*\""
                .to_owned(),
        };
        Wrong::new(format!("has {}, which is no origin", quote(word)), right)
    })
}

impl TryFrom<Vec<String>> for Origins {
    type Error = String;

    fn try_from(words: Vec<String>) -> Result<Origins, String> {
        Origins::parse(&words).map_err(|fault| fault.wrong)
    }
}

impl From<Origins> for Vec<String> {
    fn from(origins: Origins) -> Vec<String> {
        origins.words()
    }
}

impl Setting for Origins {
    const UNIT: &'static str = "list of origins";

    fn read(raw: &Raw, _: &Path) -> Result<Origins, Wrong> {
        Origins::parse(&words(raw)?)
    }

    fn show(&self) -> String {
        self.words().show()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_compare_by_scheme_host_and_port() {
        let same = |a: &str, b: &str| a.parse::<Origin>().unwrap() == b.parse::<Origin>().unwrap();
        assert!(same("https://Example.com", "https://example.com:443"));
        assert!(same("HTTP://[::1]:80", "http://[::1]"));
        assert!(!same("https://example.com", "http://example.com"));
        assert!(!same("https://example.com", "https://example.com.evil.net"));
        assert!(!same("https://example.com", "https://example.com:8443"));
        assert!(same("chrome-extension://abc", "chrome-extension://abc"));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "example.com",
            "https://",
            "https://example.com/",
            "https://user@example.com",
            "https://example.com:",
            "https://example.com:x",
            "https://example.com:+80",
            "https://example.com:99999",
            "https://a:1:2",
            "https://[::1",
            "https://[::1]x",
            "https://münchen.de",
            "https://a b",
            "NULL",
            "://x",
        ] {
            assert_eq!(text.parse::<Origin>(), Err(NotAnOrigin), "{text}");
        }
    }

    #[test]
    fn a_missing_scheme_or_a_slash_is_answered_with_the_right_value() {
        for (text, right) in [
            ("app.example", "did you mean \"https://app.example\"?"),
            ("https://app.example/", "did you mean \"https://app.example\"?"),
        ] {
            assert_eq!(Origins::parse(&[text.to_owned()]).unwrap_err().right, right);
        }
    }
}
