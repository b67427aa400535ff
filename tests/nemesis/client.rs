//! A client: it asks at random, in whole, fragmented and compressed messages, and tells the
//! ledger what comes.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{sleep, sleep_until, timeout};
use wsd::api::Opcode;
use wsd::websocket::frame::{close_payload, put_masked};
use wsd::websocket::{Engine, Event, Limits, Op, Role, accept_response, offer};

use crate::ledger::{End, Ledger};
use crate::membership::Topic;
use crate::rng::Rng;
use crate::wire::{Kind, PRESENCE_ROOMS, Packet, ROOMS, UIDS};
use crate::world::{Leave, Seat, World, deflate};

/// A handshake that takes longer has failed. A stopped worker's clients wait for it.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// The time the server has to answer a close frame.
const PARTING: Duration = Duration::from_secs(30);
/// Between two visits of a visitor: 16 of them then come 500 times a second or so, and leave the
/// processors to those who stay.
const VISIT_PAUSE: Duration = Duration::from_millis(30);
/// Asks that may wait for their answers.
const WAITING_MAX: u64 = 32;
/// Between the first clients.
const ARRIVAL: Duration = Duration::from_millis(1);
/// So many clients have a broadcast in 25 asks; of more, each asks for one more rarely, and a
/// shorter one, so that the sum of what is delivered stays.
const FEW: u64 = 16;

struct Line {
    world: Rc<World>,
    seat: Rc<Seat>,
    /// The user that it is bound to for as long as it lives, if it is one that stays.
    stays: Option<u64>,
    fd: u64,
    engine: RefCell<Engine>,
    /// Frames to be sent between messages.
    pongs: RefCell<Vec<u8>>,
    rng: RefCell<Rng>,
    closed: Cell<bool>,
}

/// Lets one client after the other sit on a seat, until all is over.
pub async fn sit(world: Rc<World>, index: usize) {
    let seat = world.seats[index].clone();
    let mut rng = Rng::of(world.seed, 1000 + index as u64);
    let node = world.node_of_seat(index);
    let stays = (index < world.staying as usize).then_some(UIDS + index as u64);
    // One after the other: the server bounds the handshakes it has under way.
    sleep(ARRIVAL * index as u32).await;
    while !world.over.get() {
        match timeout(HANDSHAKE, connect(&world, (&seat, node), &mut rng)).await {
            Ok(Ok((mut line, pid, stream))) => {
                line.stays = stays;
                world.ledger.borrow_mut().opened(line.fd, pid);
                seat.fd.set(line.fd);
                line.live(stream).await;
                seat.fd.set(0);
                seat.leave.set(None);
                seat.stalled.set(None);
            }
            Ok(Err(how)) => failed(&world, node, &how).await,
            Err(_) => failed(&world, node, "no answer in time").await,
        }
    }
}

/// Comes and leaves, again and again, and asks nothing, until all is over.
pub async fn visit(world: Rc<World>, number: usize) {
    let seat = Rc::default();
    let mut rng = Rng::of(world.seed, 1_000_000 + number as u64);
    let node = world.node_of_seat(number);
    while !world.over.get() {
        match timeout(HANDSHAKE, connect(&world, (&seat, node), &mut rng)).await {
            Ok(Ok((_, _, stream))) => {
                world.ledger.borrow_mut().count("visits");
                drop(stream);
                sleep(VISIT_PAUSE).await;
            }
            Ok(Err(how)) => failed(&world, node, &how).await,
            Err(_) => failed(&world, node, "no answer in time").await,
        }
    }
}

async fn failed(world: &World, node: u64, how: &str) {
    world.refused(node, how);
    sleep(Duration::from_millis(50)).await;
}

/// Connects and waits for the server's first word: the client, the process it came to, and the
/// stream.
async fn connect(
    world: &Rc<World>,
    (seat, node): (&Rc<Seat>, u64),
    rng: &mut Rng,
) -> Result<(Line, i32, TcpStream), String> {
    let address = world.addresses.borrow()[node as usize].clone();
    let stream = TcpStream::connect(&address).await;
    let mut stream = stream.map_err(|error| format!("connect: {error}"))?;
    // The second piece of an ask is not to wait for the first one's acknowledgement.
    stream.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
    let options = deflate();
    let extension = offer(&options).filter(|_| rng.percent(60));
    let mut head = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );
    if let Some(extension) = &extension {
        head += &format!("Sec-WebSocket-Extensions: {extension}\r\n");
    }
    head += "\r\n";
    let broken = |error: std::io::Error| format!("handshake: {error}");
    stream.write_all(head.as_bytes()).await.map_err(broken)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.map_err(broken)?);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    if !answer.starts_with("HTTP/1.1 101 ") {
        return Err(format!("answered with {:?}", answer.lines().next().unwrap_or_default()));
    }
    let agreed = answer.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-extensions").then(|| value.trim().to_owned())
    });
    let params =
        accept_response(agreed.as_deref(), &options).map_err(|fault| fault.to_string())?;
    let mut engine = Engine::new(Role::Client, params);
    let hello = hello(world, &mut stream, &mut engine).await?;
    let line = Line {
        world: world.clone(),
        seat: seat.clone(),
        stays: None,
        fd: hello.to,
        engine: RefCell::new(engine),
        pongs: RefCell::default(),
        rng: RefCell::new(Rng::of(rng.next(), 1)),
        closed: Cell::new(false),
    };
    Ok((line, hello.pid(), stream))
}

async fn hello(
    world: &World,
    stream: &mut TcpStream,
    engine: &mut Engine,
) -> Result<Packet, String> {
    loop {
        // One byte at a time, so that nothing behind the first message is taken.
        let mut byte = [stream.read_u8().await.map_err(|error| format!("hello: {error}"))?];
        let step = engine.next(&mut byte, &Limits::default(), &mut world.codec.borrow_mut());
        match step.map_err(|fault| fault.to_string())?.event {
            Some(Event::Message { opcode, data, .. }) => {
                let packet = Packet::decode(opcode, data.bytes(&byte));
                let hello = packet.filter(|packet| packet.kind == Kind::Hello && packet.to > 0);
                return hello.ok_or_else(|| "the first message is no hello".to_owned());
            }
            Some(Event::Close { code, .. }) => return Err(format!("closed with {code:?}")),
            Some(Event::Ping(_) | Event::Pong(_)) | None => {}
        }
    }
}

impl Line {
    async fn live(&self, stream: TcpStream) {
        let (reader, writer) = stream.into_split();
        let mut reading = pin!(self.read(reader));
        let how = tokio::select! {
            how = &mut reading => how,
            leave = self.write(writer) => match leave {
                Leave::Abruptly => return,
                Leave::Politely => match timeout(PARTING, reading).await {
                    Ok(how) => how,
                    Err(_) => {
                        let fd = self.fd;
                        return self.world.violation(format!("{fd}: its close has no answer"));
                    }
                },
            },
        };
        let life = self.world.ledger.borrow().lives.get(&self.fd).and_then(|life| life.ended);
        if life.is_none() {
            self.world.dropped(self.fd, &how);
        } else if !self.closed.get() {
            // A kill may come between our close frame and its answer.
            self.world.ledger.borrow_mut().count("closes cut short");
        }
    }

    /// Reads until the end; how it ended.
    async fn read(&self, mut reader: OwnedReadHalf) -> String {
        let mut buf = vec![0; 64 * 1024];
        loop {
            if let Some(until) = self.seat.stalled.get() {
                sleep_until(until.into()).await;
                self.seat.stalled.set(None);
            }
            let mut rest = match reader.read(&mut buf).await {
                Ok(0) => return "the end of the stream".to_owned(),
                Ok(count) => &mut buf[..count],
                Err(error) => return error.to_string(),
            };
            while !rest.is_empty() {
                let mut codec = self.world.codec.borrow_mut();
                let mut engine = self.engine.borrow_mut();
                let step = match engine.next(rest, &Limits::default(), &mut codec) {
                    Ok(step) => step,
                    Err(fault) => {
                        self.world.violation(format!("{}: the server's frames: {fault}", self.fd));
                        return fault.to_string();
                    }
                };
                if let Some(event) = step.event
                    && let Some(how) = self.take(event, rest)
                {
                    return how;
                }
                rest = &mut rest[step.used..];
            }
        }
    }

    fn take(&self, event: Event, buf: &[u8]) -> Option<String> {
        match event {
            Event::Message { opcode, data, .. } => {
                match Packet::decode(opcode, data.bytes(buf)) {
                    Some(packet) => self.world.ledger.borrow_mut().came(self.fd, &packet),
                    None => self.world.violation(format!("{}: garbled message", self.fd)),
                }
                None
            }
            Event::Ping(data) => {
                let mut pongs = self.pongs.borrow_mut();
                put_masked(&mut *pongs, Op::Pong, true, false, data.bytes(buf), [1, 2, 3, 4]);
                None
            }
            Event::Pong(_) => None,
            Event::Close { code, reason } => {
                self.closed.set(true);
                Some(format!("closed with {code:?} {reason:?}"))
            }
        }
    }

    /// Asks until it is time to leave. A broken connection is the reader's to tell.
    async fn write(&self, mut writer: OwnedWriteHalf) -> Leave {
        loop {
            let pause = self.rng.borrow_mut().between(0, 2 * self.world.pause_micros);
            sleep(Duration::from_micros(pause)).await;
            let pongs = std::mem::take(&mut *self.pongs.borrow_mut());
            if !pongs.is_empty() && writer.write_all(&pongs).await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(leave) = self.seat.leave.get() {
                self.world.ledger.borrow_mut().ended(self.fd, End::Left);
                if leave == Leave::Politely {
                    let mut bytes = Vec::new();
                    let payload = close_payload(Some(1000), "enough");
                    put_masked(&mut bytes, Op::Close, true, false, &payload, [4, 3, 2, 1]);
                    // Where this fails, the reader sees the end.
                    let _ = writer.write_all(&bytes).await;
                    // Dropping the half would shut it down, before what is in it was answered.
                    writer.forget();
                }
                return leave;
            }
            if self.world.quiet.get() || self.is_waiting() {
                continue;
            }
            let pieces = self.ask();
            let last = pieces.len() - 1;
            for (index, piece) in pieces.into_iter().enumerate() {
                if index == last {
                    self.world.ledger.borrow_mut().sends(self.fd);
                }
                if writer.write_all(&piece).await.is_err() {
                    std::future::pending::<()>().await;
                }
                if index < last && self.rng.borrow_mut().percent(25) {
                    let pause = self.rng.borrow_mut().between(0, 40_000);
                    sleep(Duration::from_micros(pause)).await;
                }
            }
        }
    }

    fn is_waiting(&self) -> bool {
        let ledger = self.world.ledger.borrow();
        let life = ledger.lives.get(&self.fd);
        life.is_none_or(|life| life.asked - life.answered >= WAITING_MAX)
    }

    /// The pieces of a new ask, to be written one after the other.
    fn ask(&self) -> Vec<Vec<u8>> {
        let rng = &mut *self.rng.borrow_mut();
        let broadcasts = self.world.broadcasts();
        let mut ledger = self.world.ledger.borrow_mut();
        let hot = self.world.hot.get().filter(|(_, until)| Instant::now() < *until);
        let kind = match rng.between(0, 100) {
            0..35 => Kind::Echo,
            35..60 => Kind::Push,
            60..80 => topical(rng),
            96.. if broadcasts && rng.between(0, self.world.seats.len() as u64) < FEW => {
                Kind::Broadcast
            }
            _ => Kind::Confirmed,
        };
        let len = match (hot, rng.between(0, 100)) {
            (Some(_), _) if matches!(kind, Kind::Echo | Kind::Push | Kind::Confirmed) => {
                rng.between(20_000, 60_000)
            }
            (_, 0..70) => rng.between(0, 200),
            (_, 70..90) => rng.between(200, 4_000),
            (_, 90..99) => rng.between(4_000, 64_000),
            _ => rng.between(64_000, 200_000),
        };
        let many = (self.world.seats.len() as u64).max(FEW);
        let len = match kind {
            Kind::Broadcast => len * FEW / many,
            // Each goes to half of all.
            Kind::Publish | Kind::Tallied | Kind::PushUid | Kind::Enlist => len / 8 * FEW / many,
            _ => len,
        };
        let to = match (kind, hot) {
            (Kind::Echo, _) => self.fd,
            (Kind::Broadcast, _) => 0,
            (Kind::Join | Kind::Leave | Kind::Publish | Kind::Tallied, _) => rng.between(0, ROOMS),
            (Kind::Bind | Kind::PushUid, _) => rng.between(0, UIDS),
            (_, Some((fd, _))) if kind != Kind::Enlist && rng.percent(70) => fd,
            _ if rng.percent(3) => rng.pick(&ledger.left).copied().unwrap_or(self.fd),
            _ => {
                let fd = rng.pick(&self.world.seats).map_or(0, |seat| seat.fd.get());
                if fd == 0 { self.fd } else { fd }
            }
        };
        let extra = if kind == Kind::Enlist { rng.between(PRESENCE_ROOMS, ROOMS) } else { 0 };
        let (kind, to) = self.possible(&ledger, kind, to, extra);
        let n = ledger.asks(kind, self.fd, to, extra);
        drop(ledger);
        let opcode = if rng.percent(20) { Opcode::Text } else { Opcode::Binary };
        let mut ask = Packet::new(kind, n, self.fd, to).filled(len as usize);
        ask.extra = extra;
        self.frames(rng, opcode, &ask.encode(opcode))
    }

    /// An echo in the place of a change that would overtake another, and a bind in the place of a
    /// join that only a user may ask for.
    fn possible(&self, ledger: &Ledger, kind: Kind, to: u64, extra: u64) -> (Kind, u64) {
        let memberships = &ledger.memberships;
        let (kind, to) = match (self.stays.map(|uid| memberships.missing_of(self.fd, uid)), kind) {
            (Some(Some(missing)), _) => missing,
            (Some(None), Kind::Join | Kind::Leave | Kind::Bind) => (Kind::Echo, self.fd),
            _ => (kind, to),
        };
        let kind = match kind {
            Kind::Join if to < PRESENCE_ROOMS && !memberships.is_user(self.fd) => Kind::Bind,
            kind => kind,
        };
        let may = match (kind, Topic::of(kind, to, extra)) {
            (Kind::Join | Kind::Leave | Kind::Bind, Some(topic)) => {
                memberships.may_change(self.fd, topic)
            }
            (Kind::Enlist, _) => memberships.may_enlist(to, extra),
            _ => true,
        };
        if may { (kind, to) } else { (Kind::Echo, self.fd) }
    }

    /// A message as frames of a client, cut anywhere, with pings between them.
    fn frames(&self, rng: &mut Rng, opcode: Opcode, message: &[u8]) -> Vec<Vec<u8>> {
        let compressed = if rng.percent(70) {
            self.engine.borrow_mut().compress(message, &mut self.world.codec.borrow_mut())
        } else {
            None
        };
        let (rsv1, mut rest) = (compressed.is_some(), compressed.as_deref().unwrap_or(message));
        let mut ledger = self.world.ledger.borrow_mut();
        ledger.count(if rsv1 { "compressed messages" } else { "plain messages" });
        let fragments = if rng.percent(40) { rng.between(2, 6) } else { 1 };
        if fragments > 1 {
            ledger.count("fragmented messages");
        }
        let mut bytes = Vec::with_capacity(rest.len() + 64);
        for index in 0..fragments {
            let last = index + 1 == fragments;
            let take =
                if last { rest.len() } else { rng.between(0, rest.len() as u64 + 1) as usize };
            let (piece, behind) = rest.split_at(take);
            let op = if index == 0 { opcode.into() } else { Op::Continuation };
            let key = (rng.next() as u32).to_be_bytes();
            put_masked(&mut bytes, op, last, rsv1 && index == 0, piece, key);
            if !last && rng.percent(20) {
                put_masked(&mut bytes, Op::Ping, true, false, b"between", key);
            }
            rest = behind;
        }
        // Cut where no frame ends, so that a handover finds them half read.
        let cut = if rng.percent(30) { rng.between(0, bytes.len() as u64) as usize } else { 0 };
        let behind = bytes.split_off(cut);
        [bytes, behind].into_iter().filter(|piece| !piece.is_empty()).collect()
    }
}

/// An ask that is about rooms or users.
fn topical(rng: &mut Rng) -> Kind {
    match rng.between(0, 20) {
        0..5 => Kind::Join,
        5..8 => Kind::Leave,
        8..12 => Kind::Publish,
        12..15 => Kind::Tallied,
        15..17 => Kind::Bind,
        17..19 => Kind::PushUid,
        _ => Kind::Enlist,
    }
}
