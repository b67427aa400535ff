//! The bytes of a message.

use std::fmt;
use std::ops::Deref;

use bytes::Bytes;

/// The bytes of a message, of a [`Frame`](super::Frame) or a [`Message`](super::Message): lent for
/// `'a`, which for a frame is as long as its handler runs, or shared and free of any lifetime.
///
/// They are read as a slice. Whoever keeps them takes [`into_owned`](Payload::into_owned) or
/// [`into_bytes`](Payload::into_bytes), which copy what is lent and nothing else.
#[derive(Clone)]
pub struct Payload<'a>(Held<'a>);

#[derive(Clone)]
enum Held<'a> {
    Lent(&'a [u8]),
    /// Bytes of somebody else, who may be asked for a share of them.
    Shared(&'a Bytes),
    Own(Bytes),
}

impl Payload<'_> {
    /// The same without a lifetime.
    pub fn into_owned(self) -> Payload<'static> {
        Payload(Held::Own(self.into_bytes()))
    }

    /// The bytes, to be kept; cheap to clone.
    pub fn into_bytes(self) -> Bytes {
        match self.0 {
            Held::Own(bytes) => bytes,
            _ => self.to_bytes(),
        }
    }

    /// A share of the bytes, to be kept; cheap to clone.
    pub fn to_bytes(&self) -> Bytes {
        match &self.0 {
            Held::Lent(bytes) => Bytes::copy_from_slice(bytes),
            Held::Shared(bytes) => Bytes::clone(bytes),
            Held::Own(bytes) => bytes.clone(),
        }
    }
}

impl Deref for Payload<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Lent(bytes) => bytes,
            Held::Shared(bytes) => bytes,
            Held::Own(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Payload<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Payload<'a> {
        Payload(Held::Lent(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Payload<'a> {
        Payload(Held::Lent(bytes))
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    fn from(text: &'a str) -> Payload<'a> {
        Payload(Held::Lent(text.as_bytes()))
    }
}

impl<'a> From<&'a Bytes> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a Bytes) -> Payload<'a> {
        Payload(Held::Shared(bytes))
    }
}

impl From<Bytes> for Payload<'_> {
    #[inline]
    fn from(bytes: Bytes) -> Self {
        Payload(Held::Own(bytes))
    }
}

impl From<Vec<u8>> for Payload<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Payload(Held::Own(bytes.into()))
    }
}

impl From<String> for Payload<'_> {
    fn from(text: String) -> Self {
        Payload(Held::Own(text.into()))
    }
}

impl From<Payload<'_>> for Bytes {
    fn from(payload: Payload<'_>) -> Bytes {
        payload.into_bytes()
    }
}

/// By the bytes, wherever they are.
impl<T: AsRef<[u8]> + ?Sized> PartialEq<T> for Payload<'_> {
    fn eq(&self, other: &T) -> bool {
        **self == *other.as_ref()
    }
}

impl Eq for Payload<'_> {}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_lent_is_copied() {
        let bytes = Bytes::from(b"shared".to_vec());
        let at = bytes.as_ptr();
        assert_eq!(Payload::from(&bytes).into_bytes().as_ptr(), at);
        assert_eq!(Payload::from(bytes.clone()).to_bytes().as_ptr(), at);
        assert_eq!(Payload::from(bytes.clone()).into_owned().as_ptr(), at);
        let kept = {
            let buffer = b"lent".to_vec();
            let lent = Payload::from(&buffer[..]);
            assert_eq!(lent.as_ptr(), buffer.as_ptr());
            lent.into_owned()
        };
        assert_eq!(kept, *b"lent");
        assert_eq!(format!("{kept:?}"), "b\"lent\"");
    }
}
