//! A process is served from its start to its end, and cleaned up after.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;

use bytes::{Buf, BytesMut};
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::ReadHalf;

use super::codec::{ANSWER, Broken, Kind, Packet, UNTAKEN, decode, decode_too_long};
use super::commands;
use super::link::{ANSWER_BYTES_MAX, Link};
use super::loss::Loss;
use super::memory::resident_bytes;
use super::shared::Shared;
use super::spawner::{Started, Why};
use crate::api::Context;
use crate::sys::packet;

/// What one read takes at most.
const READ_BYTES: usize = 64 << 10;
/// Events are encoded until so much waits for the socket.
const WRITE_BYTES: usize = 64 << 10;
/// Descriptors that may have come before their frames.
const DESCRIPTORS_MAX: usize = 16;
/// The close code of a client that costs others (RFC 6455 section 7.4.1, policy violation).
const CODE_POLICY: u16 = 1008;

/// Serves a process that was started.
pub fn serve(shared: &Rc<Shared>, ctx: &Context, started: Started) {
    let link = Link::new(shared.clone(), ctx.clone(), &started);
    shared.links.add(link.clone());
    ctx.spawn(attend(shared.clone(), ctx.clone(), link, started));
}

/// Serves one process until its end, and cleans up after it.
async fn attend(shared: Rc<Shared>, ctx: Context, link: Rc<Link>, started: Started) {
    let id = link.id;
    let why = link.serve(started.stream).await;
    link.quiet();
    shared.links.remove(id);
    shared.owes_no_more(id);
    let hung = why == Some(Why::EventTimeout);
    match &why {
        Some(why) => {
            tracing::warn!(app = %id, pid = link.pid, %why, "the application process was killed");
            shared.spawner.blame(id, why);
            shared.spawner.kill(&ctx, id);
        }
        None if link.is_leaving() => {}
        // Its socket is closed, and it may still run.
        None => shared.spawner.kill(&ctx, id),
    }
    let loss = shared.pool.borrow_mut().lost(id, hung, shared.now_ms());
    shared.placed(loss.placed);
    if !link.is_leaving() {
        let (again, dropped) = (loss.again, loss.dropped.len());
        tracing::warn!(
            app = %id, pid = link.pid, again, dropped,
            "the application process is gone; its events go to another"
        );
    }
    after_loss(&shared, &ctx, loss, if hung { 504 } else { 502 });
    // Events that waited may be at another place now.
    shared.wake_all();
    shared.changed.notify_waiters();
}

fn after_loss(shared: &Rc<Shared>, ctx: &Context, loss: Loss, status: u16) {
    for packet in loss.dropped {
        let (kind, fd) = (packet.kind, packet.fd);
        tracing::error!(
            ?kind,
            fd,
            id = packet.id,
            "an event is given up: the process died or hung on that event"
        );
        match kind {
            Kind::Request => shared.unanswered(packet.id, status),
            Kind::Open if packet.flags & ANSWER != 0 => shared.unanswered(packet.id, status),
            _ if loss.deadly.contains(&fd) => {}
            Kind::Open | Kind::Message | Kind::Attach => shared.close_failed(ctx, fd),
            _ => {}
        }
    }
    for fd in loss.deadly {
        tracing::warn!(fd, "the client is closed: two processes died on its events");
        shared.close(ctx, fd, CODE_POLICY, "the application failed on this client twice");
    }
    loss.close.into_iter().for_each(|fd| shared.close_failed(ctx, fd));
}

/// What is looked at now and then.
pub fn sweep(shared: &Rc<Shared>) {
    let now = shared.now_ms();
    shared.pool.borrow_mut().watch(now);
    let overdue = shared.pool.borrow().overdue(now);
    overdue.into_iter().filter_map(|id| shared.links.get(id)).for_each(|link| link.end());
    let touched = shared.pool.borrow_mut().rehome(now);
    touched.into_iter().for_each(|place| shared.wake(place));
    shared.drop_bodies();
    let limit = shared.settings.memory_limit;
    if limit == 0 {
        return;
    }
    for link in shared.links.all() {
        match resident_bytes(link.pid) {
            Some(bytes) if bytes > limit => link.replace(&Why::Memory(bytes)),
            _ => {}
        }
    }
}

impl Link {
    /// END came: the process leaves by itself, and another takes its place.
    pub fn leaves(&self, packet: &Packet) {
        let why = if packet.code == 0 { "the process ended its own run" } else { "a fatal error" };
        tracing::info!(app = %self.id, pid = self.pid, why, "the application process ends");
        let by_itself = !self.leaving.replace(true);
        let loss = {
            let mut pool = self.shared.pool.borrow_mut();
            pool.ended(self.id, by_itself, packet.flags & UNTAKEN != 0);
            pool.lost(self.id, false, self.shared.now_ms())
        };
        self.shared.placed(loss.placed);
        after_loss(&self.shared, &self.ctx, loss, 502);
        // It may take a while to exit, and its clients need not wait for that.
        self.shared.spawner.succeed(&self.ctx, self.id);
        // Events that waited may be at another place now.
        self.shared.wake_all();
    }

    /// Serves until the process is gone. Gives the reason where it is our doing.
    async fn serve(self: &Rc<Self>, mut stream: UnixStream) -> Option<Why> {
        let (reader, mut writer) = stream.split();
        let mut buffer = vec![0; READ_BYTES];
        let mut input = BytesMut::new();
        let mut sending = BytesMut::with_capacity(WRITE_BYTES);
        loop {
            self.fill(&mut sending);
            if self.out.borrow().len() > ANSWER_BYTES_MAX {
                return Some(Why::Protocol("many questions, and no answer is read".to_owned()));
            }
            tokio::select! {
                biased;
                sent = writer.write(&sending), if !sending.is_empty() => match sent {
                    Ok(bytes) => sending.advance(bytes),
                    // The read says why, after it has given what the process sent before.
                    Err(_) => sending.clear(),
                },
                read = self.read(&reader, &mut buffer), if self.may_ask() => match read {
                    Ok(0) | Err(_) => return None,
                    Ok(len) => input.extend_from_slice(&buffer[..len]),
                },
                () = self.wake.notified() => {
                    if self.ended.get() {
                        return Some(Why::EventTimeout);
                    }
                    if self.exited.get() {
                        let stream: &UnixStream = reader.as_ref();
                        // What it has sent is read, and then the end.
                        let _ = shutdown(stream.as_raw_fd(), Shutdown::Read);
                    }
                }
            }
            if let Err(broken) = self.receive(&mut input) {
                return Some(Why::Protocol(broken.to_string()));
            }
        }
    }

    /// Waits for bytes, and takes descriptors that come beside them.
    async fn read(&self, reader: &ReadHalf<'_>, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            reader.readable().await?;
            let stream: &UnixStream = reader.as_ref();
            let mut got = None;
            let tried = stream.try_io(Interest::READABLE, || {
                let read = got.insert(packet::receive(stream.as_fd(), buffer)?);
                // A read ends early behind descriptors; else a short one was all there was, and to
                // ask again would be in vain.
                let was_all = read.len < buffer.len() && read.fds.is_empty();
                if was_all { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
            });
            if let Some(read) = got {
                let mut descriptors = self.descriptors.borrow_mut();
                descriptors.extend(read.fds);
                descriptors.truncate(DESCRIPTORS_MAX);
                return Ok(read.len);
            }
            match tried {
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => {}
            }
        }
    }

    /// Moves what waits to the write buffer.
    fn fill(&self, sending: &mut BytesMut) {
        if sending.len() < WRITE_BYTES {
            let mut out = self.out.borrow_mut();
            if !out.is_empty() {
                sending.extend_from_slice(&out);
                out.clear();
            }
        }
        if sending.len() < WRITE_BYTES {
            let now = self.shared.now_ms();
            let unwanted = self.shared.pool.borrow_mut().take(self.id, now, sending, WRITE_BYTES);
            self.shared.unwanted(&unwanted);
        }
    }

    fn receive(self: &Rc<Self>, input: &mut BytesMut) -> Result<(), Broken> {
        while self.may_ask() {
            let skipped = self.skip.get().min(input.len());
            self.skip.set(self.skip.get() - skipped);
            input.advance(skipped);
            let packet = match decode(input, self.shared.settings.frame_max) {
                Ok(None) => return Ok(()),
                Ok(Some(packet)) => packet,
                Err(Broken::Length(bytes)) => {
                    let Some((packet, skip)) = decode_too_long(input) else { return Ok(()) };
                    self.skip.set(skip);
                    commands::wrong(self, &packet, Broken::Length(bytes))?;
                    continue;
                }
                Err(broken) => return Err(broken),
            };
            let head = packet.head();
            if let Err(broken) = commands::execute(self, &self.ctx, packet) {
                commands::wrong(self, &head, broken)?;
            }
        }
        Ok(())
    }
}
