//! Answers to plain HTTP requests, as a process sends them: in one piece, in parts, as a file, at
//! once or when the event is long over.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use tokio::sync::mpsc;

use super::codec::{self, BODY_WINDOW, Broken, FILE, Kind, MORE, Packet, take_fields};
use super::held::{Outgoing, Part, Unread};
use super::link::Link;
use super::shared::Answer;
use crate::api::{Body, BodyWriter, Context, HttpResponse, NobodyReads, ProcessId};
use crate::config::digits;

/// What one read of a file takes. Three of them wait for a client that does not read.
const FILE_PART_BYTES: u64 = 64 << 10;

/// A shorter answer does not fill the memory of a worker while its client does not read.
const SHORT_BYTES: usize = 4096;

/// RESPONSE.
pub fn respond(link: &Rc<Link>, ctx: &Context, packet: Packet) -> Result<(), Broken> {
    let file = if packet.flags & FILE != 0 { Some(link.descriptor()?) } else { None };
    if packet.code == 0 {
        link.shared.respond(packet.id, None);
        return Ok(());
    }
    if !(200..=599).contains(&packet.code) {
        return Err(Broken::Answer(format!("status {} is not 200 to 599", packet.code)));
    }
    let mut payload = packet.body;
    let range = match file {
        Some(file) => Some(Range::take(&mut payload, file)?),
        None => None,
    };
    let fields = take_fields(&mut payload).ok_or(Broken::Payload(Kind::Response))?;
    let (writer, body) = match &range {
        Some(range) => {
            let (writer, body) = Body::in_parts(Some(range.length));
            (Some(writer), body)
        }
        None if packet.flags & MORE != 0 => {
            let (outgoing, limit) = (&link.shared.outgoing, link.shared.settings.client_memory);
            if !outgoing.has_room(&Unread::default(), payload.len(), limit) {
                let what = "other answers that wait for their clients take client_memory";
                return Err(Broken::Answer(what.to_owned()));
            }
            let (writer, body) = Body::in_parts(content_length(&fields)?);
            (Some(writer), body)
        }
        None => (None, alone(payload.split_off(0)).into()),
    };
    let response = head(packet.code, &fields, body)?;
    if !link.shared.respond(packet.id, Some(response)) {
        // Whoever asked is gone.
        link.taken(packet.id, 0, true);
        return Ok(());
    }
    match (writer, range) {
        (Some(writer), Some(range)) => ctx.spawn(send_file(ctx.clone(), range, writer)),
        (Some(writer), None) => begin(link, ctx, packet.id, writer, payload),
        _ => {}
    }
    Ok(())
}

/// A long body in memory of its own. What was read with it would be kept as well, and the worker
/// would not count it within `client_memory`, as little as a body that many clients are sent.
fn alone(body: Bytes) -> Bytes {
    if body.len() > SHORT_BYTES { Bytes::copy_from_slice(&body) } else { body }
}

/// BODY.
pub fn part(link: &Rc<Link>, packet: Packet) -> Result<(), Broken> {
    let outgoing = &link.shared.outgoing;
    let mut bodies = outgoing.bodies.borrow_mut();
    let Some(body) = bodies.get(&packet.id).filter(|body| body.owner == link.id) else {
        return Ok(()); // The client is gone, as the process was told or will be.
    };
    let more = packet.body.len();
    let unread = body.unread.get() + more;
    let has_room = outgoing.has_room(&body.unread, more, link.shared.settings.client_memory);
    if unread > BODY_WINDOW.max(more) || !has_room {
        bodies.remove(&packet.id);
        let what = format!("an answer's body with {unread} bytes that nobody has taken yet");
        return Err(Broken::Answer(what));
    }
    body.unread.add(more);
    // Where the other end is gone, the entry goes as well, once its task has ended.
    if !packet.body.is_empty() {
        body.add(packet.body);
    }
    if packet.flags & MORE == 0 {
        if packet.code == 0 {
            let _ = body.parts.send(Part::End);
        }
        bodies.remove(&packet.id);
    }
    Ok(())
}

/// Passes the parts of a body on at the client's pace, and tells the process.
fn begin(link: &Rc<Link>, ctx: &Context, id: u32, writer: BodyWriter, first: Bytes) {
    let (parts, mut waiting) = mpsc::unbounded_channel();
    let (unread, joined) = (link.shared.outgoing.unread(), Rc::default());
    unread.add(first.len());
    if !first.is_empty() {
        let _ = parts.send(Part::Bytes(first));
    }
    let body = Outgoing { owner: link.id, parts, joined, unread: unread.clone() };
    let joined = body.joined.clone();
    link.shared.outgoing.bodies.borrow_mut().insert(id, body);
    let link = link.clone();
    ctx.spawn(async move {
        loop {
            let part = tokio::select! {
                part = waiting.recv() => part,
                () = writer.unread() => break,
            };
            let bytes = match part {
                Some(Part::Bytes(bytes)) => bytes,
                Some(Part::Joined) => joined.take().freeze(),
                Some(Part::End) => {
                    writer.finish().await;
                    break;
                }
                // The process died, or broke it off.
                None => return link.shared.changed.notify_waiters(),
            };
            let len = bytes.len();
            if writer.send(bytes).await.is_err() {
                break;
            }
            unread.take(len);
            link.taken(id, len, false);
        }
        let gone = link.shared.outgoing.bodies.borrow_mut().remove(&id).is_some();
        if gone {
            link.taken(id, 0, true);
        }
        link.shared.changed.notify_waiters();
    });
}

/// A part of an open file.
struct Range {
    file: Arc<File>,
    offset: u64,
    length: u64,
}

impl Range {
    fn take(payload: &mut Bytes, file: OwnedFd) -> Result<Range, Broken> {
        if payload.len() < 16 {
            return Err(Broken::Payload(Kind::Response));
        }
        let (offset, length) = (payload.get_u64_le(), payload.get_u64_le());
        let file = File::from(file);
        let size = match file.metadata() {
            // Reading anything else may wait for ever.
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => return Err(Broken::Answer("a descriptor that is no regular file".to_owned())),
        };
        if offset.checked_add(length).is_none_or(|end| end > size) {
            return Err(Broken::Answer(format!("bytes beyond the end of a file of {size} bytes")));
        }
        Ok(Range { file: Arc::new(file), offset, length })
    }
}

/// Reads a file on a task thread, and sends it at the client's pace. A file that becomes shorter
/// meanwhile breaks the answer off.
async fn send_file(ctx: Context, range: Range, writer: BodyWriter) {
    let Range { file, mut offset, length } = range;
    let end = offset + length;
    while offset < end {
        let (file, most) = (file.clone(), FILE_PART_BYTES.min(end - offset));
        let read = ctx.task(move || {
            let mut part = vec![0; usize::try_from(most).unwrap_or(0)];
            file.read_at(&mut part, offset).map(|len| {
                part.truncate(len);
                part
            })
        });
        let part = match read.await {
            Ok(Ok(part)) if !part.is_empty() => part,
            Ok(Ok(_)) => return tracing::warn!("a file became shorter while it was sent"),
            Ok(Err(error)) => return tracing::warn!(%error, "a file cannot be read on"),
            Err(error) => return tracing::warn!(%error, "a file is not read on"),
        };
        offset += part.len() as u64;
        if writer.send(part).await == Err(NobodyReads) {
            return;
        }
    }
    writer.finish().await;
}

fn head(status: u16, fields: &codec::Fields, body: Body) -> Result<HttpResponse, Broken> {
    let mut response = http::Response::builder().status(status);
    for (name, value) in fields {
        let shown = || format!("the header field {:?}", String::from_utf8_lossy(name));
        let name = http::HeaderName::from_bytes(name)
            .map_err(|_| Broken::Answer(format!("{} has a name that is no token", shown())))?;
        let value = http::HeaderValue::from_bytes(value)
            .map_err(|_| Broken::Answer(format!("{} has a control character", shown())))?;
        response = response.header(name, value);
    }
    response.body(body).map_err(|error| Broken::Answer(error.to_string()))
}

/// What an answer in parts says of its length.
fn content_length(fields: &codec::Fields) -> Result<Option<u64>, Broken> {
    let said = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
    let Some((_, value)) = said else { return Ok(None) };
    let length = std::str::from_utf8(value).ok().and_then(|text| digits(text.trim()));
    length.map(Some).ok_or_else(|| {
        Broken::Answer(format!("a content-length of {:?}", String::from_utf8_lossy(value)))
    })
}

impl super::shared::Shared {
    /// Answers a request; `None` leaves it to the server. False where nobody waits any more.
    fn respond(&self, id: u32, response: Option<HttpResponse>) -> bool {
        match self.answers.borrow_mut().remove(&id) {
            Some(Answer::Response { answer, .. }) => answer.send(response).is_ok(),
            _ => false,
        }
    }

    /// DONE came of an event whose answer comes later, from that process.
    pub fn answers_later(&self, id: u32, process: ProcessId) {
        if let Some(Answer::Response { owner, .. }) = self.answers.borrow_mut().get_mut(&id) {
            *owner = Some(process);
        }
    }

    /// A process is gone, and with it what it owed.
    pub fn owes_no_more(&self, process: ProcessId) {
        self.outgoing.lost(process);
        let owed = |answer: &Answer| match answer {
            Answer::Response { owner, .. } => *owner == Some(process),
            _ => false,
        };
        let ids: Vec<u32> = {
            let answers = self.answers.borrow();
            answers.iter().filter(|(_, answer)| owed(answer)).map(|(id, _)| *id).collect()
        };
        ids.into_iter().for_each(|id| self.unanswered(id, 502));
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn a_long_answer_is_in_memory_of_its_own() {
        let mut read = BytesMut::from(&[b'x'; 3 * SHORT_BYTES][..]);
        let long = read.split_to(2 * SHORT_BYTES).freeze();
        assert!(!long.is_unique(), "the rest of what was read is in that memory");
        let long = alone(long);
        assert!(long.is_unique() && long.len() == 2 * SHORT_BYTES);
        let short = alone(read.split_to(SHORT_BYTES).freeze());
        assert_eq!(short.len(), SHORT_BYTES);
    }
}
