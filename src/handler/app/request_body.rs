//! The request of a client, as an application process gets it.

use bytes::{BufMut, Bytes, BytesMut};

use super::codec::{Broken, Fields, Kind, put_fields, put_string, take_fields, take_string};

/// The payload of OPEN, REQUEST and ATTACH.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RequestBody {
    /// `GET` and so on.
    pub method: Bytes,
    /// Path and query.
    pub target: Bytes,
    /// The subprotocol agreed on, or empty.
    pub subprotocol: Bytes,
    /// The other end of the connection, or empty.
    pub peer: Bytes,
    /// The client's address, or empty.
    pub client: Bytes,
    /// The server's end of the connection, or empty.
    pub local: Bytes,
    /// `HTTP/1.1` or `HTTP/1.0`.
    pub version: Bytes,
    /// Header fields.
    pub fields: Fields,
    /// The body of a REQUEST, what was kept in an ATTACH.
    pub rest: Bytes,
}

impl RequestBody {
    /// The payload.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256 + self.rest.len());
        let Self { method, target, subprotocol, peer, client, local, version, .. } = self;
        for text in [method, target, subprotocol, peer, client, local, version] {
            put_string(&mut out, text);
        }
        put_fields(&mut out, self.fields.iter().map(|(name, value)| (&name[..], &value[..])));
        out.put_slice(&self.rest);
        out.freeze()
    }

    /// Reads the payload of a frame of that kind.
    pub fn decode(mut body: Bytes, kind: Kind) -> Result<RequestBody, Broken> {
        let mut next = || take_string(&mut body);
        let first = (|| Some((next()?, next()?, next()?, next()?)))();
        let (method, target, subprotocol, peer) = first.ok_or(Broken::Payload(kind))?;
        let second = (|| Some((next()?, next()?, next()?)))();
        let (client, local, version) = second.ok_or(Broken::Payload(kind))?;
        let fields = take_fields(&mut body).ok_or(Broken::Payload(kind))?;
        let rest = body;
        Ok(RequestBody { method, target, subprotocol, peer, client, local, version, fields, rest })
    }
}
