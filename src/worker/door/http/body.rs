//! A handler's body as hyper asks for it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::api::{Body, BrokeOff};

/// The body of an answer on its way to the client.
pub(super) struct Outgoing {
    body: Body,
    /// It broke off, and hyper is told once what came before has been written.
    broke: Option<BrokeOff>,
}

impl Outgoing {
    pub fn new(body: Body) -> Outgoing {
        Outgoing { body, broke: None }
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = BrokeOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokeOff>>> {
        if let Some(broke) = self.broke.take() {
            return Poll::Ready(Some(Err(broke)));
        }
        match self.body.poll_part(cx) {
            // An error has hyper forget what it has not written yet. A body that waits has hyper
            // write first.
            Poll::Ready(Some(Err(broke))) => {
                self.broke = Some(broke);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            part => part.map(|part| part.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.broke.is_none() && self.body.is_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.left().map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
