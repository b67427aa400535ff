//! The gate: what hyper reads through.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Limits;
use crate::worker::head::{self, Body, Kind, Reader, Refusal, classify, parse};

/// A stream of which hyper sees only requests whose heads were checked, and of each no more
/// than its head and body. At a head that is not for hyper it sees the end of the stream.
pub(super) struct Gate<S> {
    stream: S,
    /// Read from the stream, not yet given to hyper.
    received: Vec<u8>,
    state: State,
    exit: Option<Exit>,
    limits: Limits,
    deadline: Option<Deadline>,
}

/// Why hyper was shown the end of a stream that had not ended.
#[derive(Debug)]
pub(super) enum Exit {
    /// The head at the front of `received` is an upgrade.
    Upgrade,
    /// The head at the front of `received` is refused.
    Refused(Refusal),
    /// No request came within the idle time.
    Idle,
}

enum State {
    /// Waiting for a whole head.
    Head(Reader),
    /// So many bytes of a checked request are hyper's.
    Open(u64),
    /// A chunked body: all the rest is hyper's, which closes after it.
    Last,
    /// Nothing more is hyper's.
    Shut,
}

/// Runs while a head is awaited.
struct Deadline {
    began: bool,
    timer: Pin<Box<Sleep>>,
}

impl<S> Gate<S> {
    pub(super) fn new(stream: S, received: Vec<u8>, limits: &Limits) -> Gate<S> {
        let state = State::Head(Reader::new());
        Gate { stream, received, state, exit: None, limits: *limits, deadline: None }
    }

    /// The stream, what was read of it and is nobody's yet, and why the gate shut.
    pub(super) fn into_parts(self) -> (S, Vec<u8>, Option<Exit>) {
        (self.stream, self.received, self.exit)
    }

    fn shut(&mut self, exit: Option<Exit>) {
        self.exit = exit;
        self.state = State::Shut;
    }

    /// What follows from the bytes so far: `None` while the head is not whole.
    fn judge(reader: &mut Reader, received: &[u8], limits: &head::Limits) -> Option<Judged> {
        let raw = match reader.advance(received, limits) {
            Ok(raw) => raw?,
            Err(refusal) => return Some(Err(Exit::Refused(refusal))),
        };
        let judged = parse(&raw).and_then(|head| classify(&head).map(|kind| (kind, head.body)));
        Some(match judged {
            Ok((Kind::Plain, Body::Chunked)) => Ok(State::Last),
            Ok((Kind::Plain, Body::Empty)) => Ok(State::Open(raw.len() as u64)),
            Ok((Kind::Plain, Body::Length(body))) => {
                Ok(State::Open(body.saturating_add(raw.len() as u64)))
            }
            Ok((Kind::Upgrade(_), _)) => Err(Exit::Upgrade),
            Err(refusal) => Err(Exit::Refused(refusal)),
        })
    }

    /// Ready when the time for a head is over: idle time before its first byte, then its own.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Exit> {
        let began = !self.received.is_empty();
        let limits = &self.limits;
        let time = if began { limits.head_timeout } else { limits.idle_timeout };
        let deadline = self.deadline.take_if(|deadline| deadline.began == began);
        let deadline = self.deadline.insert(deadline.unwrap_or_else(|| Deadline {
            began,
            timer: Box::pin(sleep_until(Instant::now() + time)),
        }));
        ready!(deadline.timer.as_mut().poll(cx));
        Poll::Ready(if began { Exit::Refused(Refusal::timeout()) } else { Exit::Idle })
    }
}

/// What the gate does after a whole head.
type Judged = Result<State, Exit>;

impl<S: AsyncRead + Unpin> Gate<S> {
    /// Awaits a whole head, then opens or shuts.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let State::Head(reader) = &mut self.state {
            match Gate::<S>::judge(reader, &self.received, &self.limits.head) {
                Some(Ok(state)) => {
                    self.deadline = None;
                    self.state = state;
                }
                Some(Err(exit)) => self.shut(Some(exit)),
                None => match self.poll_fill(cx)? {
                    Poll::Ready(0) => self.shut(None),
                    Poll::Ready(_) => {}
                    Poll::Pending => {
                        let exit = ready!(self.poll_deadline(cx));
                        self.shut(Some(exit));
                    }
                },
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads more from the stream; 0 bytes is its end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let mut chunk = [0; 8192];
        let mut chunk = ReadBuf::new(&mut chunk);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut chunk))?;
        self.received.extend_from_slice(chunk.filled());
        Poll::Ready(Ok(chunk.filled().len()))
    }

    /// Gives hyper at most `left` bytes.
    fn poll_give(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
        left: u64,
    ) -> Poll<io::Result<usize>> {
        if self.received.is_empty() {
            ready!(self.poll_fill(cx))?;
        }
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let count = self.received.len().min(out.remaining()).min(left);
        out.put_slice(&self.received[..count]);
        self.received.drain(..count);
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.state {
                State::Head(_) => ready!(self.poll_head(cx))?,
                State::Open(0) => self.state = State::Head(Reader::new()),
                State::Open(left) => {
                    let given = ready!(self.poll_give(cx, out, left))?;
                    self.state = State::Open(left - given as u64);
                    return Poll::Ready(Ok(()));
                }
                State::Last => return self.poll_give(cx, out, u64::MAX).map_ok(drop),
                State::Shut => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
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

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
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
