//! `echo`: sends each message back to whom it came from.

use crate::api::{Context, Flow, Frame, Handler};

/// Sends each message back as it came, text as text and binary as binary.
///
/// A client that does not read what it asked for meets the server's own policy for slow readers
/// (`buffer_output_size`); echo has no other opinion.
#[derive(Debug, Clone, Copy, Default)]
pub struct Echo;

impl Handler for Echo {
    fn on_message(&self, ctx: &Context, frame: Frame<'_>) -> Flow {
        // The verdict needs no answer here: what the client's queue cannot take is counted and
        // dealt with where the queue is.
        let _ = ctx.push(frame.fd, frame);
        Flow::default()
    }

    fn wants_body(&self, _: &http::request::Parts) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::api::testing::{FakeWorker, Sent};
    use crate::api::{Message, Opcode};

    #[test]
    fn a_message_comes_back_in_its_own_kind() {
        let fake = FakeWorker::new(0, 1);
        let fd = fake.client(7);
        for opcode in [Opcode::Text, Opcode::Binary] {
            let data = Bytes::from_static(b"ping");
            let flow = Echo.on_message(&fake.context(), Frame::new(fd, opcode, data.clone()));
            assert!(matches!(flow, Flow::Ready(())));
            assert_eq!(fake.take(), [Sent::Push(fd, Message { opcode, data: data.into() })]);
        }
    }
}
