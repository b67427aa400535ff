//! Handlers written as closures, plain or async, and the `Handler` they make together.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;

use super::Server;
use crate::api::rooms::PresenceEvent;
use crate::api::{
    Accept, Context, Flow, Frame, Handler, Handshake, HttpRequest, HttpResponse, IntoFlow, Request,
};
use crate::close::Close;
use crate::config::Config;
use crate::fd::{Fd, Slot};

type Freeze = Box<dyn Fn(Context, Fd) -> Option<Bytes>>;
/// Makes a value in a worker.
type MakeState = Box<dyn FnOnce(&Config) -> KeepState>;
/// Gives a value that was made to the worker's context.
type KeepState = Box<dyn FnOnce(&Context)>;
type Hook<A, T = ()> = Option<Box<dyn Fn(Context, A) -> Flow<T>>>;

/// What the closures of a [`Server`] do.
#[derive(Default)]
pub struct Closures {
    worker_start: Hook<()>,
    worker_stop: Hook<()>,
    handshake: Hook<Rc<Request>, Handshake>,
    open: Hook<Rc<Request>>,
    message: Hook<Frame<'static>>,
    close: Hook<(Fd, Close)>,
    request: Hook<HttpRequest, Option<HttpResponse>>,
    worker_message: Hook<(Slot, Bytes)>,
    attach: Hook<(Rc<Request>, Option<Bytes>)>,
    presence: Hook<PresenceEvent>,
    freeze: Option<Freeze>,
    states: Vec<MakeState>,
    made: RefCell<Vec<KeepState>>,
}

impl Closures {
    /// Makes what the closures share in this worker; the worker's context gets it at its start.
    pub fn with_states(mut self, config: &Config) -> Closures {
        let states = std::mem::take(&mut self.states);
        self.made = RefCell::new(states.into_iter().map(|make| make(config)).collect());
        self
    }
}

/// The closures. Each gets the worker's [`Context`] first; each may be plain or return a future.
impl Server {
    /// A value for all closures, one of each type: rooms, a database pool. It is made once in each
    /// worker, with the rights of `user`, and stays there: a closure finds it by
    /// [`Context::expect_state`]. It is not shared with other workers and does not move in a
    /// reload; what belongs to a connection goes through [`freeze`](Server::freeze).
    ///
    /// ```no_run
    /// # use std::cell::Cell;
    /// #[derive(Default)]
    /// struct Messages(Cell<u64>);
    ///
    /// wsd::Server::new().state(|_| Messages::default()).on_message(|ctx, frame| {
    ///     let messages = &ctx.expect_state::<Messages>().0;
    ///     messages.set(messages.get() + 1);
    ///     ctx.push(frame.fd, format!("message {} of this worker", messages.get()));
    /// });
    /// ```
    pub fn state<T: 'static>(mut self, make: impl FnOnce(&Config) -> T + 'static) -> Server {
        self.closures.states.push(Box::new(|config| {
            let value = make(config);
            Box::new(|ctx| ctx.set_state(value))
        }));
        self
    }

    /// In each worker, before it serves and with the rights of `user` already; see
    /// [`before_privilege_drop`](Server::before_privilege_drop). Swoole's `workerStart`.
    pub fn on_worker_start<R: IntoFlow<(), M>, M>(
        mut self,
        f: impl Fn(Context) -> R + 'static,
    ) -> Server {
        self.closures.worker_start = Some(Box::new(move |ctx, ()| f(ctx).into_flow()));
        self
    }

    /// In each worker, before it leaves. Swoole's `workerStop`.
    pub fn on_worker_stop<R: IntoFlow<(), M>, M>(
        mut self,
        f: impl Fn(Context) -> R + 'static,
    ) -> Server {
        self.closures.worker_stop = Some(Box::new(move |ctx, ()| f(ctx).into_flow()));
        self
    }

    /// A client asks to come in: `Ok(Accept)` lets it, `Err(Refuse)` answers with a status.
    /// Swoole's `handshake`.
    pub fn on_handshake<R: IntoFlow<Handshake, M>, M>(
        mut self,
        f: impl Fn(Context, Rc<Request>) -> R + 'static,
    ) -> Server {
        self.closures.handshake = Some(Box::new(move |ctx, request| f(ctx, request).into_flow()));
        self
    }

    /// A client came in. Swoole's `open`.
    pub fn on_open<R: IntoFlow<(), M>, M>(
        mut self,
        f: impl Fn(Context, Rc<Request>) -> R + 'static,
    ) -> Server {
        self.closures.open = Some(Box::new(move |ctx, request| f(ctx, request).into_flow()));
        self
    }

    /// A client sent a message. Swoole's `message`. The frame is the closure's own, so that an
    /// async closure may keep it; a [`Handler`] is lent it, which saves a copy of each message.
    pub fn on_message<R: IntoFlow<(), M>, M>(
        mut self,
        f: impl Fn(Context, Frame<'static>) -> R + 'static,
    ) -> Server {
        self.closures.message = Some(Box::new(move |ctx, frame| f(ctx, frame).into_flow()));
        self
    }

    /// A connection ended. Swoole's `close`.
    pub fn on_close<R: IntoFlow<(), M>, M>(
        mut self,
        f: impl Fn(Context, Fd, Close) -> R + 'static,
    ) -> Server {
        let call = move |ctx, (fd, close)| f(ctx, fd, close).into_flow();
        self.closures.close = Some(Box::new(call));
        self
    }

    /// A plain HTTP request; `None` leaves the answer to the server. Swoole's `request`.
    pub fn on_request<R: IntoFlow<Option<HttpResponse>, M>, M>(
        mut self,
        f: impl Fn(Context, HttpRequest) -> R + 'static,
    ) -> Server {
        self.closures.request = Some(Box::new(move |ctx, request| f(ctx, request).into_flow()));
        self
    }

    /// Another worker called `send_to_worker`. Swoole's `pipeMessage`.
    pub fn on_worker_message<R: IntoFlow<(), M>, M>(
        mut self,
        f: impl Fn(Context, Slot, Bytes) -> R + 'static,
    ) -> Server {
        let call = move |ctx, (from, data)| f(ctx, from, data).into_flow();
        self.closures.worker_message = Some(Box::new(call));
        self
    }

    /// A connection came over from another process in a reload, with what `freeze` kept of it.
    pub fn on_attach<R: IntoFlow<(), M>, M>(
        mut self,
        f: impl Fn(Context, Rc<Request>, Option<Bytes>) -> R + 'static,
    ) -> Server {
        let call = move |ctx, (request, frozen)| f(ctx, request, frozen).into_flow();
        self.closures.attach = Some(Box::new(call));
        self
    }

    /// A user has come into a room that has presence, or has left it: on each worker that has
    /// members there.
    pub fn on_presence<R: IntoFlow<(), M>, M>(
        mut self,
        f: impl Fn(Context, PresenceEvent) -> R + 'static,
    ) -> Server {
        self.closures.presence = Some(Box::new(move |ctx, event| f(ctx, event).into_flow()));
        self
    }

    /// What to keep of a connection that is about to move to another process, and the place to
    /// forget the client here: its `on_close` runs in the other one.
    pub fn freeze(mut self, f: impl Fn(Context, Fd) -> Option<Bytes> + 'static) -> Server {
        self.closures.freeze = Some(Box::new(f));
        self
    }
}

fn call<A>(hook: &Hook<A>, ctx: &Context, argument: A) -> Flow {
    hook.as_ref().map_or_else(Flow::default, |hook| hook(ctx.clone(), argument))
}

impl Handler for Closures {
    fn on_worker_start(&self, ctx: &Context) -> Flow {
        self.made.take().into_iter().for_each(|keep| keep(ctx));
        call(&self.worker_start, ctx, ())
    }

    fn on_worker_stop(&self, ctx: &Context) -> Flow {
        call(&self.worker_stop, ctx, ())
    }

    fn on_handshake(&self, ctx: &Context, request: &Rc<Request>) -> Flow<Handshake> {
        match &self.handshake {
            Some(hook) => hook(ctx.clone(), Rc::clone(request)),
            None => Flow::Ready(Ok(Accept::default())),
        }
    }

    fn on_open(&self, ctx: &Context, request: Rc<Request>) -> Flow {
        call(&self.open, ctx, request)
    }

    fn on_presence(&self, ctx: &Context, event: PresenceEvent) -> Flow {
        call(&self.presence, ctx, event)
    }

    fn on_message(&self, ctx: &Context, frame: Frame<'_>) -> Flow {
        call(&self.message, ctx, frame.into_owned())
    }

    fn on_close(&self, ctx: &Context, fd: Fd, close: Close) -> Flow {
        call(&self.close, ctx, (fd, close))
    }

    fn on_request(&self, ctx: &Context, request: HttpRequest) -> Flow<Option<HttpResponse>> {
        match &self.request {
            Some(hook) => hook(ctx.clone(), request),
            None => Flow::Ready(None),
        }
    }

    fn wants_body(&self, _: &http::request::Parts) -> bool {
        self.request.is_some()
    }

    fn on_worker_message(&self, ctx: &Context, from: Slot, data: Bytes) -> Flow {
        call(&self.worker_message, ctx, (from, data))
    }

    fn freeze(&self, ctx: &Context, fd: Fd) -> Option<Bytes> {
        self.freeze.as_ref().and_then(|freeze| freeze(ctx.clone(), fd))
    }

    fn on_attach(&self, ctx: &Context, request: Rc<Request>, frozen: Option<Bytes>) -> Flow {
        call(&self.attach, ctx, (request, frozen))
    }
}
