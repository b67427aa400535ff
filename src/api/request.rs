//! The request that opened a connection, and a handler's answer to it.

use std::net::{IpAddr, SocketAddr};

use crate::fd::Fd;

/// Header fields in the order they came, names in lower case.
///
/// All of them lie in a few pieces of memory: a piece for each name and each value would cost a
/// handshake more than all else that is done with them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    names: String,
    values: Vec<u8>,
    /// Where the name and the value of each field end.
    ends: Vec<(usize, usize)>,
}

impl Headers {
    /// The first field of that name (any case), where it is visible ASCII or UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut values = self.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        values.next().and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// Every field of that name (any case) that is UTF-8.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> + 'a {
        self.iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .filter_map(|(_, value)| std::str::from_utf8(value).ok())
    }

    /// All fields, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut begin = (0, 0);
        self.ends.iter().map(move |&end| {
            let (name, value) = (begin.0..end.0, begin.1..end.1);
            begin = end;
            (&self.names[name], &self.values[value])
        })
    }

    /// Adds a field behind the others; its name becomes lower case.
    pub fn push(&mut self, name: &str, value: &[u8]) {
        let begin = self.names.len();
        self.names.push_str(name);
        self.names[begin..].make_ascii_lowercase();
        self.values.extend_from_slice(value);
        self.ends.push((self.names.len(), self.values.len()));
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Headers {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Headers {
        let mut headers = Headers {
            names: String::with_capacity(128),
            values: Vec::with_capacity(256),
            ends: Vec::with_capacity(8),
        };
        fields.into_iter().for_each(|(name, value)| headers.push(name.as_ref(), value.as_ref()));
        headers
    }
}

/// The request that opened a connection.
///
/// Whole during `on_handshake` and `on_open`. After that a connection keeps the target, the
/// subprotocol, the addresses and the headers named by `keep_headers` (default: cookie), which
/// is what `on_attach` sees.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Request {
    /// The client's global number.
    pub fd: Fd,
    /// Path and query as they came, for example `/ws?room=1`.
    pub target: String,
    /// Header fields.
    pub headers: Headers,
    /// The subprotocol agreed on, if any.
    pub subprotocol: Option<String>,
    /// The other end of the TCP connection; `None` on a `unix:` listener.
    pub peer: Option<SocketAddr>,
    /// The client's address: the peer, or what a proxy in `trusted_proxies` says.
    pub client: Option<IpAddr>,
    /// The server's end of the TCP connection; `None` on a `unix:` listener and in `on_attach`.
    pub local: Option<SocketAddr>,
    /// What `on_handshake` gave to `on_open`; see [`Accept::extension`].
    pub(crate) extensions: Extensions,
}

impl Request {
    /// A request without header fields, as a client of that number would have sent it to
    /// `target`: for the tests of handlers.
    pub fn new(fd: Fd, target: impl Into<String>) -> Request {
        Request {
            fd,
            target: target.into(),
            headers: Headers::default(),
            subprotocol: None,
            peer: None,
            client: None,
            local: None,
            extensions: Extensions::default(),
        }
    }

    /// What `on_handshake` gave to `on_open` with [`Accept::extension`], by its type. `None` in
    /// `on_attach`: the value does not move with the connection.
    pub fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<&T> {
        self.extensions.0.get()
    }

    /// Always `GET` (RFC 6455 section 4.1).
    pub fn method(&self) -> &'static str {
        "GET"
    }

    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(self.target.as_str(), |(path, _)| path)
    }

    /// The query without its `?`; empty where there is none.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The value of a query parameter, percent-decoded (`+` is a space), the first of its name.
    pub fn query_param(&self, name: &str) -> Option<String> {
        self.query().split('&').find_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key) == name).then(|| decode(value))
        })
    }

    /// A header field, the first of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// A cookie's value as it came, the first of its name (RFC 6265 section 5.4).
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.headers.all("cookie").flat_map(|line| line.split(';')).find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then_some(value)
        })
    }
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        rest = after;
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A handler's answer to a handshake.
pub type Handshake = Result<Accept, Refuse>;

/// Lets a client in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Accept {
    /// The subprotocol to agree on; it must be one the client offered, or the client is answered
    /// 500. `None` leaves the choice to the `subprotocols` of the configuration.
    pub subprotocol: Option<String>,
    /// Header fields to add to the 101, for example cookies. With one that only the server may set
    /// ([`is_reserved`]), or with a control character in it, the client is answered 500.
    pub headers: Vec<(String, String)>,
    pub(crate) extensions: Extensions,
}

impl Accept {
    /// Lets a client in and says nothing more.
    pub fn new() -> Accept {
        Accept::default()
    }

    /// Agrees on a subprotocol, which must be one that the client offered.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Accept {
        self.subprotocol = Some(name.into());
        self
    }

    /// Adds a header field to the 101.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Accept {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Gives a value to `on_open`, which finds it by [`Request::extension`]: who the client is,
    /// say. One value of each type. It is dropped after `on_open`, or when the client leaves
    /// before.
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Accept {
        self.extensions.0.insert(value);
        self
    }
}

/// Values by their types. They are no part of what makes two requests equal, and do not travel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Extensions(http::Extensions);

impl PartialEq for Extensions {
    fn eq(&self, _: &Extensions) -> bool {
        true
    }
}

impl Eq for Extensions {}

/// Keeps a client out. The TCP connection is closed after the answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refuse {
    /// The HTTP status, 300 to 599; any other becomes 500.
    pub status: u16,
    /// Header fields to add; none that only the server may set ([`is_reserved`]), which would make
    /// of the answer a 500.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Refuse {
    /// A refusal with a text for a body.
    pub fn new(status: u16, body: impl Into<String>) -> Refuse {
        Refuse { status, headers: Vec::new(), body: body.into().into_bytes() }
    }

    /// Adds a header field, for instance `Location`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Refuse {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// Whether only the server itself may set this header field: it frames the connection.
pub fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let framing = [
        "connection",
        "upgrade",
        "content-length",
        "transfer-encoding",
        "date",
        "keep-alive",
        "trailer",
    ];
    framing.contains(&name.as_str()) || name.starts_with("sec-websocket-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fd::Slot;

    fn request(target: &str, headers: &[(&str, &str)]) -> Request {
        Request {
            headers: headers.iter().copied().collect(),
            ..Request::new(Fd::new(0, Slot(0), 1).unwrap(), target)
        }
    }

    #[test]
    fn an_extension_goes_from_accept_to_request_by_its_type() {
        let accept = Accept::new().extension("ada").extension(7_u8);
        let mut request = request("/", &[]);
        request.extensions = accept.extensions;
        assert_eq!(request.extension::<&str>(), Some(&"ada"));
        assert_eq!(request.clone().extension::<u8>(), Some(&7));
        assert_eq!(request.extension::<u16>(), None);
    }

    #[test]
    fn fields_come_back_in_their_order_with_names_in_lower_case() {
        let fields = [("Host", "a"), ("COOKIE", ""), ("", "x"), ("cookie", "b=1")];
        let headers: Headers = fields.into_iter().collect();
        let seen: Vec<_> = headers.iter().collect();
        let value = |text: &'static str| text.as_bytes();
        assert_eq!(
            seen,
            [("host", value("a")), ("cookie", b""), ("", value("x")), ("cookie", value("b=1"))]
        );
        assert_eq!((headers.get("Host"), headers.get("cookie")), (Some("a"), Some("")));
        assert_eq!(headers.all("Cookie").collect::<Vec<_>>(), ["", "b=1"]);
        assert_eq!(headers.get("hos"), None);
    }

    #[test]
    fn path_and_query_are_told_apart() {
        let request = request("/ws?room=a%20b&x=1+2&bad=%zz", &[]);
        assert_eq!((request.path(), request.query()), ("/ws", "room=a%20b&x=1+2&bad=%zz"));
        assert_eq!(request.query_param("room").as_deref(), Some("a b"));
        assert_eq!(request.query_param("x").as_deref(), Some("1 2"));
        assert_eq!(request.query_param("bad").as_deref(), Some("%zz"));
        assert_eq!(request.query_param("none"), None);
    }

    #[test]
    fn cookies_are_found_in_any_line() {
        let request = request("/", &[("cookie", "a=1; b=2"), ("Cookie", "c=x=y")]);
        assert_eq!(request.cookie("b"), Some("2"));
        assert_eq!(request.cookie("c"), Some("x=y"));
        assert_eq!(request.cookie("d"), None);
    }
}
