//! Addresses: where to listen, and which networks a peer may come from.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::errors::Wrong;
use super::list::Item;
use super::text::{digits, pointed};
use super::value::path;

/// The longest path of a Unix socket, in bytes (`sun_path` of unix(7), less its NUL).
const UNIX_PATH_MAX: usize = 107;

/// One address the server accepts on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ListenAddr {
    /// A TCP address; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A Unix stream socket at this path.
    Unix(PathBuf),
}

const LISTEN_RIGHT: &str =
    "write \"127.0.0.1:8000\", \"[::1]:8000\", \"*:8000\", a port alone, or \"unix:/path\"";

impl ListenAddr {
    /// Reads an address as it is written in `listen`; a relative Unix path starts at `dir`.
    pub fn parse(text: &str, dir: &Path) -> Result<ListenAddr, Wrong> {
        if let Some(name) = text.strip_prefix("unix:") {
            return unix(text, name, dir);
        }
        if let Some((scheme, rest)) = text.split_once("://") {
            return Err(url(text, scheme, rest));
        }
        if let Ok(addr) = text.parse() {
            return Ok(ListenAddr::Tcp(addr));
        }
        if let Some(port) = digits::<u16>(text) {
            return Ok(ListenAddr::Tcp((Ipv4Addr::LOCALHOST, port).into()));
        }
        match text.rsplit_once(':') {
            Some((host, port)) => named(text, host, port),
            None => Err(Wrong::new(
                format!("has {}, an address without a port", pointed(text)),
                LISTEN_RIGHT,
            )),
        }
    }
}

/// A URL, which is what clients are given.
fn url(text: &str, scheme: &str, rest: &str) -> Wrong {
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let has_port =
        authority.rsplit_once(':').is_some_and(|(_, port)| digits::<u16>(port).is_some());
    let secure = matches!(scheme.to_ascii_lowercase().as_str(), "wss" | "https");
    let address = match has_port {
        true => authority.to_owned(),
        false => format!("{}:8000", if authority.is_empty() { "127.0.0.1" } else { authority }),
    };
    let right = format!("write {}, the address alone", pointed(&address));
    Wrong::new(
        format!("has {}, a URL", pointed(text)),
        match secure {
            true => format!("{right}; the server speaks no TLS, a proxy does, as etc/nginx shows"),
            false => right,
        },
    )
}

fn unix(text: &str, name: &str, dir: &Path) -> Result<ListenAddr, Wrong> {
    if name.is_empty() {
        return Err(Wrong::new("has \"unix:\" without a path", LISTEN_RIGHT));
    }
    let path = path(name, dir)?;
    let len = path.as_os_str().len();
    if len > UNIX_PATH_MAX {
        return Err(Wrong::new(
            format!("has {}, a path of {len} bytes", pointed(text)),
            format!("the kernel takes at most {UNIX_PATH_MAX}"),
        ));
    }
    Ok(ListenAddr::Unix(path))
}

fn named(text: &str, host: &str, port: &str) -> Result<ListenAddr, Wrong> {
    let Some(port) = digits::<u16>(port) else {
        return Err(Wrong::new(
            format!("has {}, whose port is no number from 0 to 65535", pointed(text)),
            LISTEN_RIGHT,
        ));
    };
    match host {
        "" | "*" => Ok(ListenAddr::Tcp((Ipv4Addr::UNSPECIFIED, port).into())),
        "localhost" => Ok(ListenAddr::Tcp((Ipv4Addr::LOCALHOST, port).into())),
        _ if host.contains(':') => Err(Wrong::new(
            format!("has {}, an IPv6 address without brackets", pointed(text)),
            format!("write \"[{}]:{port}\"", host.trim_matches(['[', ']'])),
        )),
        _ => Err(Wrong::new(
            format!("has {}; names other than localhost are not looked up", pointed(text)),
            LISTEN_RIGHT,
        )),
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp(addr) => addr.fmt(f),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddr, String> {
        ListenAddr::parse(text, Path::new("")).map_err(|fault| fault.wrong)
    }
}

impl TryFrom<String> for ListenAddr {
    type Error = String;

    fn try_from(text: String) -> Result<ListenAddr, String> {
        text.parse()
    }
}

impl From<ListenAddr> for String {
    fn from(addr: ListenAddr) -> String {
        addr.to_string()
    }
}

impl Item for ListenAddr {
    const UNIT: &'static str = "list of addresses";

    fn item(text: &str, dir: &Path) -> Result<ListenAddr, Wrong> {
        ListenAddr::parse(text, dir)
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// A set of peers: a CIDR network, or everyone who comes over a Unix socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Net {
    /// An IPv4 or IPv6 network, written `10.0.0.0/8`, or one address.
    Inet {
        /// Its first address.
        addr: IpAddr,
        /// How many leading bits count.
        bits: u8,
    },
    /// Peers of a `unix:` listener, written `unix:` as in nginx.
    Unix,
}

impl Net {
    /// Whether `peer` is in the network. An IPv4 peer seen as `::ffff:a.b.c.d` is an IPv4 peer.
    pub fn contains(&self, peer: IpAddr) -> bool {
        match (self, peer.to_canonical()) {
            (Net::Inet { addr: IpAddr::V4(net), bits }, IpAddr::V4(peer)) => {
                let shift = 32 - u32::from(*bits);
                (net.to_bits() ^ peer.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            (Net::Inet { addr: IpAddr::V6(net), bits }, IpAddr::V6(peer)) => {
                let shift = 128 - u32::from(*bits);
                (net.to_bits() ^ peer.to_bits()).checked_shr(shift).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    fn parse(text: &str) -> Result<Net, Wrong> {
        const RIGHT: &str = "write networks such as \"10.0.0.0/8\", \"::1\" or \"unix:\"";
        let wrong = |why: &str| Wrong::new(format!("has {}, {why}", pointed(text)), RIGHT);
        if text == "unix:" {
            return Ok(Net::Unix);
        }
        let (addr, bits) = match text.split_once('/') {
            None => (text, None),
            Some((addr, bits)) => (addr, Some(bits)),
        };
        let addr: IpAddr = addr.parse().map_err(|_| wrong("which is no address"))?;
        let most = if addr.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => most,
            Some(bits) => digits::<u8>(bits)
                .filter(|bits| *bits <= most)
                .ok_or_else(|| wrong(&format!("whose length is no number from 0 to {most}")))?,
        };
        let first = first_of(addr, bits);
        if first != addr {
            return Err(Wrong::new(
                format!("has {}, where bits beyond the first {bits} are set", pointed(text)),
                format!("write \"{first}/{bits}\" for the network, or \"{addr}\" for the host"),
            ));
        }
        Ok(match first {
            // Peers of that form are taken for the IPv4 peers that they are.
            IpAddr::V6(v6) if bits >= 96 && v6.to_ipv4_mapped().is_some() => {
                Net::Inet { addr: first.to_canonical(), bits: bits - 96 }
            }
            _ => Net::Inet { addr: first, bits },
        })
    }

    /// Whether it is the internet, of one of its two kinds, or a large part of it: larger than the
    /// largest network that is anybody's own, which are 10.0.0.0/8 and fc00::/7.
    pub fn is_everybody(&self) -> bool {
        match self {
            Net::Inet { addr: IpAddr::V4(_), bits } => *bits < 8,
            Net::Inet { addr: IpAddr::V6(_), bits } => *bits < 7,
            Net::Unix => false,
        }
    }
}

fn first_of(addr: IpAddr, bits: u8) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Net::Unix => f.write_str("unix:"),
            Net::Inet { addr, bits } => write!(f, "{addr}/{bits}"),
        }
    }
}

impl TryFrom<String> for Net {
    type Error = String;

    fn try_from(text: String) -> Result<Net, String> {
        Net::parse(&text).map_err(|fault| fault.wrong)
    }
}

impl From<Net> for String {
    fn from(net: Net) -> String {
        net.to_string()
    }
}

impl Item for Net {
    const UNIT: &'static str = "list of networks";

    fn item(text: &str, _: &Path) -> Result<Net, Wrong> {
        Net::parse(text)
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Net {
        Net::parse(text).unwrap()
    }

    #[test]
    fn addresses_are_read_in_every_spelling() {
        for (text, shown) in [
            ("127.0.0.1:8000", "127.0.0.1:8000"),
            ("[::1]:8000", "[::1]:8000"),
            ("*:8000", "0.0.0.0:8000"),
            (":8000", "0.0.0.0:8000"),
            ("8000", "127.0.0.1:8000"),
            ("localhost:0", "127.0.0.1:0"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:x.sock", "unix:/etc/wsd/x.sock"),
        ] {
            let addr = ListenAddr::parse(text, Path::new("/etc/wsd")).unwrap();
            assert_eq!(addr.to_string(), shown);
            assert_eq!(addr.to_string().parse(), Ok(addr));
        }
    }

    #[test]
    fn wrong_addresses_are_told_the_right_spelling() {
        for text in [
            "",
            "x",
            "+80",
            "host:80",
            "*:+80",
            "1.2.3.4",
            "1.2.3.4:70000",
            "unix:",
            "::1:8000",
            "[::1]",
        ] {
            assert!(ListenAddr::parse(text, Path::new("/")).is_err(), "{text}");
        }
        let fault = ListenAddr::parse("::1:8000:80", Path::new("/")).unwrap_err();
        assert_eq!(fault.right, "write \"[::1:8000]:80\"");
        let long = format!("unix:/{}", "x".repeat(107));
        assert!(ListenAddr::parse(&long, Path::new("/")).is_err());
    }

    #[test]
    fn networks_contain_their_addresses_alone() {
        let inside = |net_text: &str, peer: &str| net(net_text).contains(peer.parse().unwrap());
        assert!(inside("10.0.0.0/8", "10.255.0.1"));
        assert!(!inside("10.0.0.0/8", "11.0.0.1"));
        assert!(inside("10.0.0.0/8", "::ffff:10.1.2.3"));
        assert!(inside("0.0.0.0/0", "203.0.113.9"));
        assert!(!inside("0.0.0.0/0", "::1"));
        assert!(inside("::/0", "2001:db8::1"));
        assert!(inside("::1", "::1"));
        assert!(inside("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(inside("::ffff:10.0.0.1", "::ffff:10.0.0.1"));
        assert!(!inside("::ffff:10.0.0.0/104", "11.1.2.3"));
        assert_eq!(net("::ffff:0.0.0.0/96").to_string(), "0.0.0.0/0");
        assert!(!inside("::1", "::2"));
        assert!(!Net::Unix.contains("127.0.0.1".parse().unwrap()));
    }

    #[test]
    fn a_network_with_host_bits_is_refused_with_both_readings() {
        let fault = Net::parse("10.1.2.3/8").unwrap_err();
        assert!(
            fault.right.contains("10.0.0.0/8") && fault.right.contains("10.1.2.3"),
            "{fault:?}"
        );
        for text in [
            "",
            "10.0.0.0/33",
            "::1/129",
            "example.com",
            "10.0.0.0/",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
        ] {
            assert!(Net::parse(text).is_err(), "{text}");
        }
    }
}
