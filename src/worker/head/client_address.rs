//! Whose connection it is, where a proxy stands in between.

use std::net::{IpAddr, SocketAddr};

use crate::config::Net;

/// The client's address.
///
/// `peer` is the other end of the connection, `None` on a `unix:` listener; `trusted` is
/// `trusted_proxies`; `forwarded_for` and `real_ip` are the values of the X-Forwarded-For and
/// X-Real-IP fields.
///
/// Only a trusted peer is believed, for anyone can write these fields. X-Forwarded-For is read
/// from the right, where the nearest proxy wrote, to the first address that is no trusted hop;
/// what stands left of it is the client's own text. An entry that is no address ends the walk
/// at the hop before it. X-Real-IP counts where the walk found nothing, and only if it is
/// there once. So a proxy must set (or clear) both, as `etc/nginx/wsd.conf` does. IPv4 in
/// IPv6 (`::ffff:1.2.3.4`) is given as IPv4.
pub fn client_address<'a>(
    peer: Option<IpAddr>,
    trusted: &[Net],
    forwarded_for: impl DoubleEndedIterator<Item = &'a [u8]>,
    real_ip: impl Iterator<Item = &'a [u8]>,
) -> Option<IpAddr> {
    let peer = peer.map(|address| address.to_canonical());
    if !trusts(trusted, peer) {
        return peer;
    }
    walk(trusted, forwarded_for).or_else(|| single(real_ip)).or(peer)
}

/// Whether a hop is in `trusted_proxies`; a `unix:` peer, which has no address, if `unix:` is.
fn trusts(trusted: &[Net], hop: Option<IpAddr>) -> bool {
    trusted.iter().any(|net| match hop {
        Some(address) => net.contains(address),
        None => *net == Net::Unix,
    })
}

/// The last address reached, from the right, over trusted hops.
fn walk<'a>(trusted: &[Net], lines: impl DoubleEndedIterator<Item = &'a [u8]>) -> Option<IpAddr> {
    let mut reached = None;
    for entry in lines.rev().flat_map(|line| line.rsplit(|&byte| byte == b',')) {
        let Some(address) = address(entry) else { return reached };
        reached = Some(address);
        if !trusts(trusted, reached) {
            return reached;
        }
    }
    reached
}

fn single<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<IpAddr> {
    let value = values.next()?;
    if values.next().is_some() { None } else { address(value) }
}

/// An address as proxies write it: bare, in brackets, or with a port.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(text).ok()?.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(inner) => IpAddr::V6(inner.parse().ok()?),
        None => text
            .parse()
            .or_else(|_| text.parse().map(|with_port: SocketAddr| with_port.ip()))
            .ok()?,
    };
    Some(address.to_canonical())
}

/// The fields by which a proxy says whom it forwards.
const FORWARDED: [&str; 5] =
    ["x-forwarded-for", "x-real-ip", "x-forwarded-proto", "x-forwarded-host", "forwarded"];

/// Whether a head says that a proxy forwards it, by the names of its fields.
pub fn is_forwarded<'a>(mut names: impl Iterator<Item = &'a str>) -> bool {
    names.any(|name| FORWARDED.iter().any(|field| name.eq_ignore_ascii_case(field)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<Net> {
        texts.iter().map(|text| Net::try_from(text.to_string()).unwrap()).collect()
    }

    struct Case {
        peer: &'static str,
        forwarded_for: &'static [&'static str],
        real_ip: &'static [&'static str],
        client: &'static str,
    }

    const fn case(
        peer: &'static str,
        forwarded_for: &'static [&'static str],
        real_ip: &'static [&'static str],
        client: &'static str,
    ) -> Case {
        Case { peer, forwarded_for, real_ip, client }
    }

    const MATRIX: [Case; 36] = [
        // A stranger is never believed.
        case("9.9.9.9", &[], &[], "9.9.9.9"),
        case("9.9.9.9", &["1.1.1.1"], &[], "9.9.9.9"),
        case("9.9.9.9", &[], &["1.1.1.1"], "9.9.9.9"),
        case("9.9.9.9", &["1.1.1.1"], &["2.2.2.2"], "9.9.9.9"),
        case("9.9.9.9", &["10.0.0.1"], &["10.0.0.1"], "9.9.9.9"),
        case("2001:db8::1", &["1.1.1.1"], &[], "2001:db8::1"),
        case("::ffff:9.9.9.9", &["1.1.1.1"], &[], "9.9.9.9"),
        case("11.0.0.1", &["10.0.0.1, 1.1.1.1"], &[], "11.0.0.1"),
        // A trusted proxy is, from the right.
        case("10.0.0.1", &[], &[], "10.0.0.1"),
        case("10.0.0.1", &["1.1.1.1"], &[], "1.1.1.1"),
        case("10.0.0.1", &[], &["1.1.1.1"], "1.1.1.1"),
        case("::ffff:10.0.0.1", &["1.1.1.1"], &[], "1.1.1.1"),
        case("::1", &["1.1.1.1"], &[], "1.1.1.1"),
        case("10.0.0.1", &["1.1.1.1, 2.2.2.2"], &[], "2.2.2.2"),
        case("10.0.0.1", &["1.1.1.1, 10.0.0.2"], &[], "1.1.1.1"),
        case("10.0.0.1", &["6.6.6.6, 1.1.1.1, 10.0.0.3, 10.0.0.2"], &[], "1.1.1.1"),
        case("10.0.0.1", &["10.0.0.4, 1.1.1.1, 10.0.0.3"], &[], "1.1.1.1"),
        case("10.0.0.1", &["10.0.0.3, 10.0.0.2"], &[], "10.0.0.3"),
        case("10.0.0.1", &["6.6.6.6", "1.1.1.1"], &[], "1.1.1.1"),
        case("10.0.0.1", &["6.6.6.6, 1.1.1.1", "10.0.0.2"], &[], "1.1.1.1"),
        case("10.0.0.1", &["1.1.1.1"], &["2.2.2.2"], "1.1.1.1"),
        // Spellings.
        case("10.0.0.1", &["1.1.1.1:5678"], &[], "1.1.1.1"),
        case("10.0.0.1", &["2001:db8::2"], &[], "2001:db8::2"),
        case("10.0.0.1", &["[2001:db8::2]"], &[], "2001:db8::2"),
        case("10.0.0.1", &["[2001:db8::2]:80"], &[], "2001:db8::2"),
        case("10.0.0.1", &["::ffff:1.1.1.1"], &[], "1.1.1.1"),
        case("10.0.0.1", &["1.1.1.1,::1,\t10.0.0.2 "], &[], "1.1.1.1"),
        // Garbage ends the walk where it stands.
        case("10.0.0.1", &["1.1.1.1, unknown"], &[], "10.0.0.1"),
        case("10.0.0.1", &["unknown"], &["1.1.1.1"], "1.1.1.1"),
        case("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.2"], &[], "10.0.0.2"),
        case("10.0.0.1", &["1.1.1.1, , 10.0.0.2"], &[], "10.0.0.2"),
        case("10.0.0.1", &[""], &["x"], "10.0.0.1"),
        case("10.0.0.1", &["01.1.1.1"], &["1.1.1.1, 2.2.2.2"], "10.0.0.1"),
        case("10.0.0.1", &[], &["1.1.1.1", "2.2.2.2"], "10.0.0.1"),
        case("10.0.0.1", &["[1.1.1.1]"], &["[::1"], "10.0.0.1"),
        case("10.0.0.1", &["localhost"], &["1.1.1.1\u{a0}"], "10.0.0.1"),
    ];

    #[test]
    fn only_trusted_hops_are_believed() {
        for Case { peer, forwarded_for, real_ip, client } in MATRIX {
            let found = client_address(
                Some(peer.parse().unwrap()),
                &nets(&["10.0.0.0/8", "::1"]),
                forwarded_for.iter().map(|line| line.as_bytes()),
                real_ip.iter().map(|line| line.as_bytes()),
            );
            let name = format!("{peer} with {forwarded_for:?} and {real_ip:?}");
            assert_eq!(found, Some(client.parse().unwrap()), "{name}");
        }
    }

    #[test]
    fn a_unix_peer_is_believed_only_where_unix_is_listed() {
        let found = |unix, line: &'static str| {
            let lines = [line.as_bytes()];
            let trusted = nets(if unix { &["unix:", "10.0.0.0/8"] } else { &["0.0.0.0/0"] });
            client_address(None, &trusted, lines.into_iter(), std::iter::empty())
        };
        assert_eq!(found(false, "1.1.1.1"), None);
        assert_eq!(found(true, "1.1.1.1"), Some("1.1.1.1".parse().unwrap()));
        assert_eq!(found(true, "unknown"), None);
        assert_eq!(found(true, "6.6.6.6, 1.1.1.1, 10.1.1.1"), Some("1.1.1.1".parse().unwrap()));
    }
}
