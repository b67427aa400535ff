//! The gate: what hyper reads through.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Limits;
use super::chunks::{Chunks, Next};
use crate::worker::head::{self, Body, Kind, Reader, Refusal, classify, is_forwarded, parse};

/// A stream of which hyper sees only requests that were checked, written anew: hyper refuses
/// nothing by itself, since it would do so without an answer. Of each request it sees no more
/// than its head and body. At a head that is not for hyper, and where a body breaks a rule, it
/// sees the end of the stream.
pub(super) struct Gate<'a, S> {
    stream: S,
    /// Read from the stream; what is not yet looked at begins at `used`.
    received: Vec<u8>,
    /// How much of `received` is done with. It is taken away with the next read, and not with
    /// every chunk of a body, which would move all behind it.
    used: usize,
    /// What hyper is given before anything else.
    ready: Vec<u8>,
    state: State,
    exit: Exit,
    /// Called where a request is waited for of which nothing has come. Hyper asks for one only when
    /// all of the answer before is written.
    rests: &'a dyn Fn(),
    limits: Limits,
    wait: Option<Wait>,
    /// Ends no later than what is waited for. A timer that ends too early costs less than one for
    /// each request.
    timer: Option<Pin<Box<Sleep>>>,
    pace: Pace,
}

/// Why hyper was shown the end of a stream that had not ended, once that is so.
pub(super) type Exit = Rc<RefCell<Option<Outcome>>>;

/// A way out.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The head at the front of `received` is an upgrade.
    Upgrade,
    /// What the client sends is refused.
    Refused(Refusal),
    /// No request came within the idle time.
    Idle,
}

enum State {
    /// Waiting for a whole head.
    Head(Reader),
    /// So many bytes are hyper's as they come, and then this.
    Data(u64, Then),
    /// The frame of a chunked body.
    Chunked(Chunks),
    /// Nothing more is hyper's.
    Shut,
}

enum Then {
    Head,
    Chunked(Chunks),
}

/// A wait for bytes.
struct Wait {
    began: Instant,
    /// Whether it is for more of a request, not for its first byte.
    begun: bool,
}

/// How a body comes.
#[derive(Default)]
struct Pace {
    /// For how long it was waited for.
    waited: Duration,
    bytes: u64,
}

impl<'a, S> Gate<'a, S> {
    pub(super) fn new(
        stream: S,
        received: Vec<u8>,
        limits: &Limits,
        exit: Exit,
        rests: &'a dyn Fn(),
    ) -> Gate<'a, S> {
        let (state, limits) = (State::Head(Reader::new()), *limits);
        let (ready, pace) = (Vec::new(), Pace::default());
        let (wait, timer) = (None, None);
        Gate { stream, received, used: 0, ready, state, exit, rests, limits, wait, timer, pace }
    }

    /// The stream, what was read of it and is nobody's yet, and whether that is the beginning of
    /// a request.
    pub(super) fn into_parts(mut self) -> (S, Vec<u8>, bool) {
        self.drop_used();
        let begun = match &self.state {
            State::Head(reader) => reader.has_begun(&self.received),
            _ => false,
        };
        (self.stream, self.received, begun)
    }

    /// Read from the stream, not yet looked at.
    fn rest(&self) -> &[u8] {
        &self.received[self.used..]
    }

    fn drop_used(&mut self) {
        self.received.drain(..std::mem::take(&mut self.used));
    }

    fn shut(&mut self, way: Option<Outcome>) {
        self.state = State::Shut;
        *self.exit.borrow_mut() = way;
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.shut(Some(Outcome::Refused(refusal)));
    }

    /// What follows from the bytes so far: `None` while the head is not whole.
    fn judge(reader: &mut Reader, received: &[u8], limits: &Limits) -> Option<Judged> {
        let raw = match reader.advance(received, &limits.head) {
            Ok(raw) => raw?,
            Err(refusal) => return Some(Err(Outcome::Refused(refusal.answering(received)))),
        };
        let judged = Gate::<S>::judge_whole(&raw, limits);
        Some(judged.unwrap_or_else(|refusal| Err(Outcome::Refused(refusal.answering(received)))))
    }

    fn judge_whole(raw: &head::RawHead<'_>, limits: &Limits) -> Result<Judged, Refusal> {
        let head = parse(raw)?;
        // Who forwards a request may do so for a stranger.
        let hidden = |refusal: Refusal| {
            refusal.hide_from_strangers(is_forwarded(head.fields().map(|(name, _)| name)))
        };
        if let Kind::Upgrade(_) = classify(&head).map_err(hidden)? {
            return Ok(Err(Outcome::Upgrade));
        }
        let state = match head.body {
            Body::Empty => State::Data(0, Then::Head),
            Body::Length(length) if length > limits.body_bytes_max as u64 => {
                return Err(hidden(Refusal::too_large()));
            }
            Body::Length(length) => State::Data(length, Then::Head),
            Body::Chunked => State::Chunked(Chunks::new()),
        };
        Ok(Ok(Whole { len: raw.len(), bytes: head.to_bytes(), state }))
    }

    /// How long may be waited now, from the beginning of the wait.
    fn patience(&self, begun: bool) -> Duration {
        let limits = &self.limits;
        match &self.state {
            State::Head(_) if begun => limits.head_timeout,
            State::Head(_) => limits.idle_timeout,
            _ => {
                let earned = self.pace.bytes as f64 / limits.body_rate_min.max(1) as f64;
                let all = limits.body_timeout + Duration::from_secs_f64(earned);
                limits.body_timeout.min(all.saturating_sub(self.pace.waited))
            }
        }
    }

    /// Ready when the time for what is awaited is over.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        let begun = match &self.state {
            State::Head(reader) => reader.has_begun(self.rest()),
            _ => true,
        };
        if !begun {
            (self.rests)();
        }
        let wait = self.wait.take_if(|wait| wait.begun == begun);
        let wait = self.wait.insert(wait.unwrap_or_else(|| Wait { began: Instant::now(), begun }));
        let end = wait.began + self.patience(begun);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(end)));
        if timer.deadline() > end {
            timer.as_mut().reset(end);
        }
        ready!(timer.as_mut().poll(cx));
        while timer.deadline() < end {
            timer.as_mut().reset(end);
            ready!(timer.as_mut().poll(cx));
        }
        let refusal = Refusal::timeout().answering(self.rest());
        Poll::Ready(if begun { Outcome::Refused(refusal) } else { Outcome::Idle })
    }
}

/// A head that is hyper's: how many bytes it was, what hyper sees of it, and what follows.
struct Whole {
    len: usize,
    bytes: Vec<u8>,
    state: State,
}

type Judged = Result<Whole, Outcome>;

impl<S: AsyncRead + Unpin> Gate<'_, S> {
    /// Looks at what was received until there is something for hyper, or nothing more will be.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ready.is_empty() {
            let rest = &self.received[self.used..];
            match &mut self.state {
                State::Head(reader) => match Gate::<S>::judge(reader, rest, &self.limits) {
                    Some(Ok(whole)) => self.begin(whole),
                    Some(Err(way)) => self.shut(Some(way)),
                    None => ready!(self.poll_more(cx))?,
                },
                State::Data(0, then) => match std::mem::replace(then, Then::Head) {
                    Then::Head => self.state = State::Head(Reader::new()),
                    Then::Chunked(chunks) => {
                        self.ready.extend_from_slice(b"\r\n");
                        self.state = State::Chunked(chunks);
                    }
                },
                State::Data(..) if rest.is_empty() => ready!(self.poll_more(cx))?,
                State::Data(..) | State::Shut => return Poll::Ready(Ok(())),
                State::Chunked(chunks) => {
                    match chunks.next(rest, self.limits.body_bytes_max as u64) {
                        Ok(Next::More) => ready!(self.poll_more(cx))?,
                        Ok(next) => self.unframe(next),
                        Err(refusal) => self.refuse(refusal),
                    }
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// A whole head is hyper's.
    fn begin(&mut self, whole: Whole) {
        (self.wait, self.pace) = (None, Pace::default());
        self.used += whole.len;
        self.ready = whole.bytes;
        self.state = whole.state;
    }

    /// Some of the frame of a chunked body was understood, and is written anew.
    fn unframe(&mut self, next: Next) {
        match next {
            Next::More => {}
            Next::Skip(used) => self.used += used,
            Next::Data(used, size) => {
                self.used += used;
                self.ready.extend_from_slice(format!("{size:x}\r\n").as_bytes());
                if let State::Chunked(chunks) = std::mem::replace(&mut self.state, State::Shut) {
                    self.state = State::Data(size, Then::Chunked(chunks));
                }
            }
            Next::End(used) => {
                self.used += used;
                self.ready.extend_from_slice(b"0\r\n\r\n");
                self.state = State::Head(Reader::new());
            }
        }
    }

    /// Reads more from the stream, or shuts the gate.
    fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut chunk = [MaybeUninit::uninit(); 8192];
        let mut chunk = ReadBuf::uninit(&mut chunk);
        let read = match Pin::new(&mut self.stream).poll_read(cx, &mut chunk) {
            Poll::Ready(read) => read.map(|()| chunk.filled()),
            Poll::Pending => {
                let way = ready!(self.poll_deadline(cx));
                self.shut(Some(way));
                return Poll::Ready(Ok(()));
            }
        };
        let read = read?;
        if !matches!(self.state, State::Head(_)) {
            let waited = self.wait.take().map_or(Duration::ZERO, |wait| wait.began.elapsed());
            self.pace.waited += waited.min(self.limits.body_timeout);
            self.pace.bytes += read.len() as u64;
        }
        if !read.is_empty() {
            self.drop_used();
            self.received.extend_from_slice(read);
            return Poll::Ready(Ok(()));
        }
        match &self.state {
            State::Head(reader) if !reader.has_begun(self.rest()) => self.shut(None),
            _ => self.refuse(Refusal::cut().answering(self.rest())),
        }
        Poll::Ready(Ok(()))
    }

    /// Gives hyper what is its own.
    fn give(&mut self, out: &mut ReadBuf<'_>) {
        if !self.ready.is_empty() {
            let count = self.ready.len().min(out.remaining());
            out.put_slice(&self.ready[..count]);
            self.ready.drain(..count);
        } else if let State::Data(left, _) = &mut self.state {
            let most = usize::try_from(*left).unwrap_or(usize::MAX);
            let rest = &self.received[self.used..];
            let count = rest.len().min(out.remaining()).min(most);
            out.put_slice(&rest[..count]);
            self.used += count;
            *left -= count as u64;
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<'_, S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?;
        self.give(out);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<'_, S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Hyper is done with the stream; what follows needs it still.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
