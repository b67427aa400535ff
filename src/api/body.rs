//! The body of an HTTP answer: whole, or in parts as they are made.

use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::mpsc;

/// Parts that wait for the client beside the one being made.
const PARTS_AHEAD: usize = 1;

/// The body of an answer to a plain HTTP request.
#[derive(Debug, Default)]
pub struct Body(Inner);

#[derive(Debug)]
enum Inner {
    Whole(Bytes),
    Parts(Parts),
}

impl Default for Inner {
    fn default() -> Inner {
        Inner::Whole(Bytes::new())
    }
}

#[derive(Debug)]
struct Parts {
    /// `None` is the proper end.
    parts: mpsc::Receiver<Option<Bytes>>,
    /// Bytes that are still to come, where that is known.
    left: Option<u64>,
    ended: bool,
}

/// Makes a [`Body`] part by part. Dropped before [`finish`](Self::finish), it breaks the answer
/// off: the client's connection ends, so that the client can tell.
#[derive(Debug)]
pub struct BodyWriter(mpsc::Sender<Option<Bytes>>);

/// The client is gone, or nobody asked for a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NobodyReads;

/// The body broke off before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokeOff;

impl std::fmt::Display for BrokeOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer's body broke off before its end")
    }
}

impl std::error::Error for BrokeOff {}

impl Body {
    /// A body in parts. With `length`, its bytes are counted: the answer has a Content-Length, and
    /// a body that is shorter or longer breaks off. Without, it is chunked.
    pub fn in_parts(length: Option<u64>) -> (BodyWriter, Body) {
        let (sender, parts) = mpsc::channel(PARTS_AHEAD);
        (BodyWriter(sender), Body(Inner::Parts(Parts { parts, left: length, ended: false })))
    }

    /// All of it, where it is whole.
    pub fn whole(&self) -> Option<&Bytes> {
        match &self.0 {
            Inner::Whole(bytes) => Some(bytes),
            Inner::Parts(_) => None,
        }
    }

    /// How many bytes are to come, where that is known.
    pub fn left(&self) -> Option<u64> {
        match &self.0 {
            Inner::Whole(bytes) => Some(bytes.len() as u64),
            Inner::Parts(parts) => parts.left,
        }
    }

    /// Whether nothing is to come.
    pub fn is_end(&self) -> bool {
        match &self.0 {
            Inner::Whole(bytes) => bytes.is_empty(),
            Inner::Parts(parts) => parts.ended,
        }
    }

    /// The next part; `None` after the last.
    pub fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokeOff>>> {
        match &mut self.0 {
            Inner::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Inner::Whole(bytes) => Poll::Ready(Some(Ok(std::mem::take(bytes)))),
            Inner::Parts(parts) => parts.poll(cx),
        }
    }

    /// Waits for the next part; `None` after the last.
    pub async fn part(&mut self) -> Option<Result<Bytes, BrokeOff>> {
        std::future::poll_fn(|cx| self.poll_part(cx)).await
    }
}

impl Parts {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokeOff>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(part) = self.parts.poll_recv(cx) else { return Poll::Pending };
        let short = self.left.is_some_and(|left| left > 0);
        Poll::Ready(match part {
            Some(Some(bytes)) if self.left.is_some_and(|left| left < bytes.len() as u64) => {
                self.ended = true;
                Some(Err(BrokeOff))
            }
            Some(Some(bytes)) => {
                self.left = self.left.map(|left| left - bytes.len() as u64);
                Some(Ok(bytes))
            }
            Some(None) if !short => {
                self.ended = true;
                None
            }
            _ => {
                self.ended = true;
                Some(Err(BrokeOff))
            }
        })
    }
}

impl BodyWriter {
    /// Waits until the client has taken what was sent before, and sends a part.
    ///
    /// # Errors
    ///
    /// Nobody reads the body any more.
    pub async fn send(&self, part: impl Into<Bytes>) -> Result<(), NobodyReads> {
        let part = part.into();
        if part.is_empty() {
            return if self.0.is_closed() { Err(NobodyReads) } else { Ok(()) };
        }
        self.0.send(Some(part)).await.map_err(|_| NobodyReads)
    }

    /// Ends the body.
    pub async fn finish(self) {
        // Nobody reads any more: the end is what the client has.
        let _ = self.0.send(None).await;
    }

    /// Waits until nobody reads the body any more.
    pub async fn unread(&self) {
        self.0.closed().await;
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Body {
        Body(Inner::Whole(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Bytes::from(bytes).into()
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Bytes::from(text).into()
    }
}

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Body {
        Bytes::from(text).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(mut body: Body) -> Result<Vec<u8>, BrokeOff> {
        let mut all = Vec::new();
        while let Some(part) = body.part().await {
            all.extend_from_slice(&part?);
        }
        Ok(all)
    }

    async fn written(
        length: Option<u64>,
        parts: &[&'static str],
        ends: bool,
    ) -> Result<Vec<u8>, BrokeOff> {
        let (writer, body) = Body::in_parts(length);
        let write = async {
            for part in parts {
                let _ = writer.send(*part).await;
            }
            if ends {
                writer.finish().await;
            } else {
                drop(writer);
            }
        };
        tokio::join!(write, read(body)).1
    }

    #[tokio::test]
    async fn parts_come_in_order_and_an_end_is_told_from_a_break() {
        assert_eq!(written(None, &["a", "", "b"], true).await, Ok(b"ab".to_vec()));
        assert_eq!(written(None, &["a", "b"], false).await, Err(BrokeOff));
        assert_eq!(written(Some(2), &["a", "b"], true).await, Ok(b"ab".to_vec()));
        assert_eq!(written(Some(3), &["a", "b"], true).await, Err(BrokeOff), "too short");
        assert_eq!(written(Some(1), &["a", "b"], true).await, Err(BrokeOff), "too long");
        assert_eq!(read(Body::from("whole")).await, Ok(b"whole".to_vec()));
    }
}
