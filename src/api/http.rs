//! Plain HTTP on the same port.

use std::net::IpAddr;

use bytes::Bytes;

use super::{Body, HeldBody};
use crate::fd::Fd;

/// A plain HTTP request, its body read whole: at most `package_max_length` bytes, and a longer one
/// is answered 413 without the handler.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct HttpRequest {
    /// The request itself.
    pub request: http::Request<Bytes>,
    /// The body, where it is longer than [`Handler::body_in_memory_max`]: `request` has none then.
    ///
    /// [`Handler::body_in_memory_max`]: super::Handler::body_in_memory_max
    pub held: Option<HeldBody>,
    /// The other end of the TCP connection; `None` on a `unix:` listener.
    pub peer: Option<std::net::SocketAddr>,
    /// The client's address: the peer, or what a trusted proxy says.
    pub client: Option<IpAddr>,
    /// The connection's number, which it keeps when an upgrade follows.
    pub fd: Option<Fd>,
    /// The server's end of the TCP connection; `None` on a `unix:` listener.
    pub local: Option<std::net::SocketAddr>,
}

impl HttpRequest {
    /// A request of which nothing else is known: for the tests of handlers.
    pub fn new(request: http::Request<Bytes>) -> HttpRequest {
        HttpRequest { request, held: None, peer: None, client: None, fd: None, local: None }
    }
}

/// The answer to a plain HTTP request.
pub type HttpResponse = http::Response<Body>;
