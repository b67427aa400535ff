//! Where the server is, and the request that opens a connection to it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::fault::Fault;

/// Connections from one loopback address to one port: the kernel has some 28,000 ports for it.
const PER_SOURCE: usize = 20_000;

/// The server, with everything a connection needs made beforehand.
pub struct Target {
    /// As the user wrote it, for messages.
    pub name: String,
    /// The TCP port, where there is one.
    pub address: Address,
    /// The bytes of the upgrade request. One key for all: no server may care.
    pub request: Vec<u8>,
    /// What `Sec-WebSocket-Accept` has to be.
    pub accept: String,
}

/// How the server is reached.
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// What goes into the request besides the address.
#[derive(Default)]
pub struct Extras<'a> {
    pub path: Option<&'a str>,
    pub origin: Option<&'a str>,
    pub headers: &'a [String],
    pub deflate: bool,
}

impl Target {
    /// Reads `ws://host:port/path`, `host:port`, `[::1]:8000` or `unix:/path/to.sock`.
    pub fn parse(text: &str, extras: &Extras) -> Result<Target, Fault> {
        let (address, host, path) = locate(text)?;
        let path = extras.path.unwrap_or(&path);
        if !path.starts_with('/') {
            return Err(Fault::usage(format!("the path `{path}` does not begin with a slash")));
        }
        let key = generate_key();
        let mut request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        );
        if extras.deflate {
            request += "Sec-WebSocket-Extensions: permessage-deflate; \
                        client_no_context_takeover; server_no_context_takeover\r\n";
        }
        if let Some(origin) = extras.origin {
            request += &format!("Origin: {origin}\r\n");
        }
        for header in extras.headers {
            if !header.contains(": ") || header.contains(['\r', '\n']) {
                return Err(Fault::usage(format!("the header `{header}` is not `Name: value`")));
            }
            request += &format!("{header}\r\n");
        }
        request += "\r\n";
        Ok(Target {
            name: text.to_owned(),
            address,
            request: request.into_bytes(),
            accept: derive_accept_key(key.as_bytes()),
        })
    }

    /// A new socket on its way to the server. `nth` spreads many over the addresses that
    /// loopback has, since one of them runs out of ports.
    pub fn connect(&self, nth: usize) -> std::io::Result<Socket> {
        let (domain, address) = match &self.address {
            Address::Tcp(address) => (Domain::for_address(*address), SockAddr::from(*address)),
            Address::Unix(path) => (Domain::UNIX, SockAddr::unix(path)?),
        };
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
        if let Address::Tcp(address) = &self.address {
            socket.set_tcp_nodelay(true)?;
            // A reset at the end leaves no TIME_WAIT, of which a machine has few.
            socket.set_linger(Some(std::time::Duration::ZERO))?;
            if let (SocketAddr::V4(v4), true) = (address, nth >= PER_SOURCE)
                && v4.ip().is_loopback()
            {
                let block = u8::try_from(nth / PER_SOURCE).unwrap_or(u8::MAX);
                socket.bind(&SocketAddr::from(([127, 0, 1, block], 0)).into())?;
            }
        }
        match socket.connect(&address) {
            Ok(()) => Ok(socket),
            Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        }
    }
}

/// The address, the `Host` header and the path that a URL means.
fn locate(text: &str) -> Result<(Address, String, String), Fault> {
    if let Some(path) = text.strip_prefix("unix:") {
        let path = PathBuf::from(path.trim_start_matches("//"));
        return Ok((Address::Unix(path), "localhost".to_owned(), "/".to_owned()));
    }
    if text.starts_with("wss:") || text.starts_with("https:") {
        return Err(Fault::usage(
            "wss: this tool speaks no TLS, which would measure the cipher; \
             point it at the port behind the proxy",
        ));
    }
    let rest = text.strip_prefix("ws://").or_else(|| text.strip_prefix("http://"));
    let rest = rest.unwrap_or(text);
    let (host, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let with_port = if has_port { host.to_owned() } else { format!("{host}:80") };
    let resolved = with_port.to_socket_addrs().map_err(|error| {
        Fault::usage(format!("`{text}` is not an address (like ws://127.0.0.1:8000/): {error}"))
    })?;
    // `localhost` may be both; a server of the old family alone is still the commoner one.
    let mut all: Vec<SocketAddr> = resolved.collect();
    all.sort_by_key(SocketAddr::is_ipv6);
    let address = all.first().ok_or_else(|| Fault::usage(format!("`{text}` has no address")))?;
    Ok((Address::Tcp(*address), host.to_owned(), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str, extras: &Extras) -> String {
        String::from_utf8(Target::parse(text, extras).unwrap().request).unwrap()
    }

    #[test]
    fn a_url_names_host_port_and_path() {
        let extras = Extras::default();
        let text = request("ws://127.0.0.1:8000/chat?room=1", &extras);
        assert!(text.starts_with("GET /chat?room=1 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n"));
        let target = Target::parse("[::1]:9000", &extras).unwrap();
        assert!(matches!(target.address, Address::Tcp(a) if a.is_ipv6() && a.port() == 9000));
        let target = Target::parse("unix:/run/wsd.sock", &extras).unwrap();
        assert!(matches!(target.address, Address::Unix(p) if p.ends_with("wsd.sock")));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let headers = ["nonsense".to_owned()];
        let extras = Extras { headers: &headers, ..Extras::default() };
        assert!(Target::parse("127.0.0.1:1", &extras).is_err());
        assert!(Target::parse("wss://127.0.0.1/", &Extras::default()).is_err());
        let extras = Extras { path: Some("chat"), ..Extras::default() };
        assert!(Target::parse("127.0.0.1:1", &extras).is_err());
    }
}
