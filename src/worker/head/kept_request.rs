//! What an open connection keeps of its request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use super::Head;
use crate::api::Request;
use crate::fd::Fd;

/// The whole request, as `on_handshake` and `on_open` see it.
///
/// `subprotocol` may still be open; `peer` is `None` on a `unix:` listener.
pub fn request(
    head: &Head<'_>,
    fd: Fd,
    subprotocol: Option<&str>,
    peer: Option<SocketAddr>,
    client: Option<IpAddr>,
) -> Request {
    // An application may get fields as variables, in which `-` and `_` are one: who may not set
    // X-Real-IP could set X_Real_IP.
    let fields = head.fields().filter(|(name, _)| !name.contains('_'));
    Request {
        headers: fields.collect(),
        subprotocol: subprotocol.map(str::to_owned),
        peer,
        client,
        ..Request::new(fd, &*head.target)
    }
}

/// A request packed into one allocation: an open connection may live for days, and there are
/// many. The bytes are also what moves to another process with it.
///
/// In order: peer, client, target, subprotocol (empty: none), then name and value of each kept
/// header to the end. An address is a tag (0 none, 4, 6) and its octets, a peer has its port
/// and for 6 its scope id besides; a text has its length in front, seven bits a byte.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptRequest(Box<[u8]>);

impl KeptRequest {
    /// Packs a request, with the headers whose names (in any case) are in `keep_headers`.
    pub fn new(request: &Request, keep_headers: &[String]) -> KeptRequest {
        let kept = |name: &str| keep_headers.iter().any(|keep| keep.eq_ignore_ascii_case(name));
        let subprotocol = request.subprotocol.as_deref().unwrap_or_default().as_bytes();
        let headers = || request.headers.iter().filter(|(name, _)| kept(name));
        let texts = headers().flat_map(|(name, value)| [name.as_bytes(), value]);
        let texts = texts.chain([request.target.as_bytes(), subprotocol]).map(packed_len);
        // As much as it takes, since it stays for as long as the connection does.
        let mut bytes = Vec::with_capacity(addresses_len(request) + texts.sum::<usize>());
        put_ip(&mut bytes, request.peer.map(|peer| peer.ip()));
        if let Some(peer) = request.peer {
            bytes.extend_from_slice(&peer.port().to_be_bytes());
        }
        if let Some(SocketAddr::V6(peer)) = request.peer {
            bytes.extend_from_slice(&peer.scope_id().to_be_bytes());
        }
        put_ip(&mut bytes, request.client);
        put(&mut bytes, request.target.as_bytes());
        put(&mut bytes, subprotocol);
        for (name, value) in headers() {
            put(&mut bytes, name.as_bytes());
            put(&mut bytes, value);
        }
        debug_assert_eq!(bytes.len(), bytes.capacity());
        KeptRequest(bytes.into_boxed_slice())
    }

    /// Takes bytes that came from another process.
    ///
    /// # Errors
    ///
    /// Gives `None` where they are not a whole request.
    pub fn from_bytes(bytes: &[u8]) -> Option<KeptRequest> {
        Unpacked::new(bytes)?;
        Some(KeptRequest(bytes.into()))
    }

    /// The bytes that [`KeptRequest::from_bytes`] takes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The request of the client that now has number `fd`.
    pub fn request(&self, fd: Fd) -> Request {
        let Unpacked { peer, client, target, subprotocol, headers } = self.unpack();
        Request {
            headers: headers.into_iter().collect(),
            subprotocol: (!subprotocol.is_empty()).then(|| subprotocol.to_owned()),
            peer,
            client,
            ..Request::new(fd, target)
        }
    }

    /// The other end of the connection; `None` on a `unix:` listener.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.unpack().peer
    }

    /// The client's address.
    pub fn client(&self) -> Option<IpAddr> {
        self.unpack().client
    }

    /// Both ways to make one have checked the bytes, so the default is never seen.
    fn unpack(&self) -> Unpacked<'_> {
        Unpacked::new(&self.0).unwrap_or_default()
    }
}

impl std::fmt::Debug for KeptRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unpacked = self.unpack();
        f.debug_struct("KeptRequest")
            .field("peer", &unpacked.peer)
            .field("target", &unpacked.target)
            .finish()
    }
}

#[derive(Default)]
struct Unpacked<'a> {
    peer: Option<SocketAddr>,
    client: Option<IpAddr>,
    target: &'a str,
    subprotocol: &'a str,
    headers: Vec<(&'a str, &'a [u8])>,
}

impl<'a> Unpacked<'a> {
    fn new(bytes: &'a [u8]) -> Option<Unpacked<'a>> {
        let mut rest = bytes;
        let mut unpacked = Unpacked {
            peer: take_peer(&mut rest)?,
            client: take_ip(&mut rest)?,
            target: str::from_utf8(take(&mut rest)?).ok()?,
            subprotocol: str::from_utf8(take(&mut rest)?).ok()?,
            headers: Vec::new(),
        };
        while !rest.is_empty() {
            let name = str::from_utf8(take(&mut rest)?).ok()?;
            unpacked.headers.push((name, take(&mut rest)?));
        }
        Some(unpacked)
    }
}

fn put_ip(bytes: &mut Vec<u8>, address: Option<IpAddr>) {
    match address {
        None => bytes.push(0),
        Some(IpAddr::V4(address)) => {
            bytes.push(4);
            bytes.extend_from_slice(&address.octets());
        }
        Some(IpAddr::V6(address)) => {
            bytes.push(6);
            bytes.extend_from_slice(&address.octets());
        }
    }
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (array, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*array)
}

fn take_ip(rest: &mut &[u8]) -> Option<Option<IpAddr>> {
    match take_array::<1>(rest)? {
        [0] => Some(None),
        [4] => Some(Some(Ipv4Addr::from(take_array::<4>(rest)?).into())),
        [6] => Some(Some(Ipv6Addr::from(take_array::<16>(rest)?).into())),
        _ => None,
    }
}

fn take_peer(rest: &mut &[u8]) -> Option<Option<SocketAddr>> {
    let Some(ip) = take_ip(rest)? else { return Some(None) };
    let port = u16::from_be_bytes(take_array(rest)?);
    Some(Some(match ip {
        IpAddr::V4(_) => SocketAddr::new(ip, port),
        IpAddr::V6(ip) => {
            SocketAddrV6::new(ip, port, 0, u32::from_be_bytes(take_array(rest)?)).into()
        }
    }))
}

fn put(bytes: &mut Vec<u8>, text: &[u8]) {
    let mut length = text.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(text);
}

/// What `put` takes for a text.
fn packed_len(text: &[u8]) -> usize {
    let bits = usize::BITS - text.len().leading_zeros();
    bits.max(1).div_ceil(7) as usize + text.len()
}

/// What both addresses take, with their tags.
fn addresses_len(request: &Request) -> usize {
    let ip = |ip: IpAddr| if ip.is_ipv4() { 4 } else { 16 };
    let scope = |peer: SocketAddr| if peer.is_ipv6() { 4 } else { 0 };
    let peer = request.peer.map_or(0, |peer| ip(peer.ip()) + 2 + scope(peer));
    2 + peer + request.client.map_or(0, ip)
}

fn take<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut length = 0usize;
    for shift in (0..28).step_by(7) {
        let [byte] = take_array(rest)?;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            let (text, after) = rest.split_at_checked(length)?;
            *rest = after;
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::Headers;
    use crate::fd::Slot;

    fn fd(serial: u64) -> Fd {
        Fd::new(0, Slot(1), serial).unwrap()
    }

    fn sample(peer: Option<&str>, client: Option<&str>) -> Request {
        Request {
            headers: Headers::from_iter([
                ("host", b"a".to_vec()),
                ("cookie", vec![0xff; 300]),
                ("x-a", b"1".to_vec()),
                ("cookie", b"b=2".to_vec()),
            ]),
            subprotocol: Some("chat".to_owned()),
            peer: peer.map(|text| text.parse().unwrap()),
            client: client.map(|text| text.parse().unwrap()),
            ..Request::new(fd(7), "/ws?room=1")
        }
    }

    #[test]
    fn what_is_kept_comes_back_and_the_rest_is_gone() {
        for (peer, client) in [
            (None, None),
            (None, Some("1.2.3.4")),
            (Some("1.2.3.4:5"), Some("::1")),
            (Some("[fe80::1%3]:5"), Some("fe80::1")),
        ] {
            let mut request = sample(peer, client);
            let kept = KeptRequest::new(&request, &["Cookie".to_owned()]);
            let cookies = request.headers.iter().filter(|(name, _)| *name == "cookie");
            request.headers = cookies.collect();
            assert_eq!(kept.request(fd(7)), request);
            assert_eq!((kept.peer(), kept.client()), (request.peer, request.client));
            assert_eq!(kept.unpack().target, "/ws?room=1");
            assert_eq!(KeptRequest::from_bytes(kept.as_bytes()), Some(kept));
        }
    }

    #[test]
    fn a_plain_connection_keeps_little() {
        let mut request = sample(Some("1.2.3.4:5"), Some("1.2.3.4"));
        request.subprotocol = None;
        assert_eq!(KeptRequest::new(&request, &[]).as_bytes().len(), 24);
    }

    #[test]
    fn a_cut_of_the_bytes_is_refused_or_has_fewer_headers() {
        let kept = KeptRequest::new(&sample(Some("1.2.3.4:5"), None), &["cookie".to_owned()]);
        for end in 0..kept.as_bytes().len() {
            if let Some(cut) = KeptRequest::from_bytes(&kept.as_bytes()[..end]) {
                assert!(cut.request(fd(1)).headers.iter().count() < 2);
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(kept) = KeptRequest::from_bytes(&bytes) {
                kept.request(fd(1));
            }
        }
    }
}
