//! The handler: the user's code, as the worker calls it.

use std::rc::Rc;

use bytes::Bytes;

use super::rooms::PresenceEvent;
use super::{Accept, Context, Flow, Frame, Handshake, HttpRequest, HttpResponse, Request};
use crate::close::Close;
use crate::fd::{Fd, Slot};

/// How much a handler's clients may send, and what becomes of those who do not read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pace {
    /// `messages_per_second` where that is 0; 0 is no limit.
    pub messages_per_second: usize,
    /// How many messages may come at once after a time of rest.
    pub messages_burst: usize,
    /// A message for a client with too much waiting is dropped, whatever `buffer_policy` says.
    pub skips_slow: bool,
}

/// The user's code. One value of it lives in each worker, and only there: it needs no `Send`.
///
/// Events of one connection never overlap and come in order: `on_handshake`, `on_open`,
/// `on_message`…, `on_close`. `on_close` runs exactly once for every `on_open`, also when the
/// worker was killed (then in its replacement). A panic costs the connection it happened on
/// (1011), not the worker.
///
/// A handler that answers at once reads the frame that it is lent. One that goes on asynchronously
/// keeps the frame first:
///
/// ```
/// use std::time::Duration;
///
/// use wsd::api::{Context, Flow, Frame, Handler};
///
/// /// Sends each message back, and the word "later" a second later.
/// struct Echo;
///
/// impl Handler for Echo {
///     fn on_message(&self, ctx: &Context, frame: Frame<'_>) -> Flow {
///         if frame.text() != Some("later") {
///             ctx.push(frame.fd, frame);
///             return Flow::default();
///         }
///         let (ctx, frame) = (ctx.clone(), frame.into_owned());
///         Flow::later(async move {
///             tokio::time::sleep(Duration::from_secs(1)).await;
///             ctx.push(frame.fd, frame);
///         })
///     }
/// }
/// ```
#[allow(unused_variables)]
pub trait Handler: 'static {
    /// The worker is up and about to serve; it is not ready before this is done. It has the rights
    /// of `user` already: what only root may read is read in `Server::before_privilege_drop`.
    fn on_worker_start(&self, ctx: &Context) -> Flow {
        Flow::default()
    }

    /// The worker is about to leave; its connections are closed or handed over.
    fn on_worker_stop(&self, ctx: &Context) -> Flow {
        Flow::default()
    }

    /// A connection is about to move to another process. For handlers whose flows end before
    /// their work does: pending until nothing of this connection is under way. It is not read
    /// meanwhile.
    fn on_drain(&self, ctx: &Context, fd: Fd) -> Flow {
        Flow::default()
    }

    /// A client asks to come in. The default lets everyone in.
    fn on_handshake(&self, ctx: &Context, request: &Rc<Request>) -> Flow<Handshake> {
        Flow::Ready(Ok(Accept::default()))
    }

    /// The 101 is sent (or queued before anything pushed here). Swoole's `open`.
    fn on_open(&self, ctx: &Context, request: Rc<Request>) -> Flow {
        Flow::default()
    }

    /// A whole message. Swoole's `message`. It is lent: a handler that keeps it, or goes on
    /// asynchronously with it, takes [`Frame::into_owned`] first.
    fn on_message(&self, ctx: &Context, frame: Frame<'_>) -> Flow;

    /// The connection has ended; `fd` is gone for everyone. Until this has ended, the context's
    /// `rooms`, `uid` and `session` read what the connection had. Swoole's `close`.
    fn on_close(&self, ctx: &Context, fd: Fd, close: Close) -> Flow {
        Flow::default()
    }

    /// A plain HTTP request on the same port. `None` means: not ours, so the server answers 404,
    /// or 426 where `is_websocket_path` says so. Swoole's `request`.
    fn on_request(&self, ctx: &Context, request: HttpRequest) -> Flow<Option<HttpResponse>> {
        Flow::Ready(None)
    }

    /// A plain HTTP connection has ended, or is to become a WebSocket: one on which `on_request`
    /// has seen a request. Swoole's `disconnect`.
    fn on_disconnect(&self, ctx: &Context, fd: Fd) -> Flow {
        Flow::default()
    }

    /// Whether `on_request` is to have the body of this request. Where it is not, the body is not
    /// read, `on_request` sees an empty one, and the connection ends with the answer.
    fn wants_body(&self, request: &http::request::Parts) -> bool {
        true
    }

    /// Bytes of a request's body above which it waits in a file, [`HttpRequest::held`], and not in
    /// memory. The default is that all of it is in memory.
    fn body_in_memory_max(&self) -> usize {
        usize::MAX
    }

    /// What this handler makes of clients that send or read too much, where the configuration
    /// sets nothing.
    fn pace(&self) -> Pace {
        Pace::default()
    }

    /// Whether a plain request for `path` deserves "426 Upgrade Required" instead of 404.
    fn is_websocket_path(&self, path: &str) -> bool {
        matches!(path, "/" | "/ws")
    }

    /// Whether the server's own refusal of a plain request says in a line of text what to do.
    fn explains(&self, status: u16) -> bool {
        let _ = status;
        true
    }

    /// Whether pings and pongs of clients come to `on_message`. The worker then answers no ping,
    /// and keeps the answers to its own. Swoole's `open_websocket_ping_frame`.
    fn takes_control_frames(&self) -> bool {
        false
    }

    /// Which of its processes serves a client, where the handler has several: [`Info::process`].
    ///
    /// [`Info::process`]: super::Info::process
    fn process_of(&self, fd: Fd) -> Option<u16> {
        let _ = fd;
        None
    }

    /// Whether this handler can serve now; else why not, for the answer at `health_path`. While
    /// `on_worker_start` runs, the answer is what a slow start is said to wait for; an error when
    /// it has ended fails the start of the worker.
    fn health(&self) -> Result<(), String> {
        Ok(())
    }

    /// A worker, this one perhaps, called `send_to_worker`. Swoole's `pipeMessage`.
    fn on_worker_message(&self, ctx: &Context, from: Slot, data: Bytes) -> Flow {
        Flow::default()
    }

    /// A user has come into a room that has presence, or has left it. Called on each worker that
    /// has members there, once for each stay of a user; what those members are to know of it,
    /// [`publish_here`](Context::publish_here) tells them.
    fn on_presence(&self, ctx: &Context, event: PresenceEvent) -> Flow {
        Flow::default()
    }

    /// What a handler keeps of a connection that is about to move to another process. Forget the
    /// client here, too: it is not this process's any more, and its `on_close` runs elsewhere.
    fn freeze(&self, ctx: &Context, fd: Fd) -> Option<Bytes> {
        None
    }

    /// A connection came over from another process, with what `freeze` kept there. Not a new
    /// client: `on_open` ran where it came from.
    fn on_attach(&self, ctx: &Context, request: Rc<Request>, frozen: Option<Bytes>) -> Flow {
        Flow::default()
    }
}
