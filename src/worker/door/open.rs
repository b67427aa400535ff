//! From the first byte of a request to an open WebSocket.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::Door;
use super::refuse::is_stranger;
use crate::api::{Accept, Handshake, Request};
use crate::fd::Fd;
use crate::ipc::registry::Entry;
use crate::ipc::scoreboard::{Counter, Histogram};
use crate::sys::clock;
use crate::websocket::{Engine, Params, Role};
use crate::worker::app::dispatch::Panicked;
use crate::worker::clients::connection::Stage;
use crate::worker::clients::key::Key;
use crate::worker::head::{self, KeptRequest, Kind, Reason, Refusal, response, subprotocol};

/// What the answer to a handshake needs of its request besides what handlers see.
struct Asked {
    key: String,
    protocols: Vec<String>,
    extensions: Vec<String>,
    head_bytes: usize,
}

/// What a whole head turned out to be.
enum Verdict {
    More,
    Refused(Refusal),
    Plain,
    Upgrade(Rc<Request>, Box<Asked>),
}

/// How a connection came.
#[derive(Debug, Clone, Copy)]
struct Came {
    peer: Option<SocketAddr>,
    to_loopback: bool,
}

impl Door {
    /// Bytes of a connection: of its request's head, or behind that.
    #[inline]
    pub(in crate::worker) fn feed(self: &Rc<Self>, key: Key, bytes: &mut [u8]) {
        let stage = self.table.borrow().get(key).map(|connection| connection.stage);
        match stage {
            Some(Stage::Head) => self.feed_head(key, bytes),
            _ => self.feed_behind_head(key, bytes),
        }
    }

    /// More bytes of a request.
    pub(in crate::worker) fn feed_head(self: &Rc<Self>, key: Key, bytes: &[u8]) {
        let received = {
            let mut table = self.table.borrow_mut();
            let Some(connection) = table.get_mut(key) else { return };
            let Some(opening) = &mut connection.extra().opening else { return };
            // Nearly every head comes whole, and nothing of that one has to be kept.
            match std::mem::take(&mut opening.bytes) {
                before if before.is_empty() => Cow::Borrowed(bytes),
                mut before => {
                    before.extend_from_slice(bytes);
                    Cow::Owned(before)
                }
            }
        };
        let (verdict, rest) = self.judge(key, &received);
        match verdict {
            Verdict::More => {
                let mut received = received.into_owned();
                received.shrink_to_fit();
                let mut table = self.table.borrow_mut();
                let opening = table.get_mut(key).and_then(|it| it.extra().opening.as_mut());
                if let Some(opening) = opening {
                    opening.bytes = received;
                }
                if let Some(connection) = table.get_mut(key) {
                    self.reckon(connection);
                }
            }
            Verdict::Refused(refusal) => self.refuse_head(key, refusal.answering(&received)),
            Verdict::Plain => self.hand_to_http(key, received.into_owned()),
            Verdict::Upgrade(request, asked) => {
                self.keep_tail(key, &received[rest..]);
                drop(received);
                self.count_client(key, request.client);
                self.handshake(key, request, asked);
                self.resume(key);
            }
        }
    }

    fn local_of(&self, key: Key) -> Option<SocketAddr> {
        let table = self.table.borrow();
        let connection = table.get(key)?;
        let known = connection.opening().and_then(|opening| opening.local);
        known.or_else(|| super::listeners::local_address(connection.socket.as_ref()?))
    }

    /// Says what the bytes so far are, and how many of them are the head.
    fn judge(&self, key: Key, received: &[u8]) -> (Verdict, usize) {
        let mut table = self.table.borrow_mut();
        let Some(connection) = table.get_mut(key) else { return (Verdict::More, 0) };
        let assigned = connection.fd;
        let Some(opening) = &mut connection.extra().opening else { return (Verdict::More, 0) };
        let came = Came { peer: opening.peer, to_loopback: opening.to_loopback };
        let raw = match opening.reader.advance(received, &self.settings.head) {
            Ok(Some(raw)) => raw,
            Ok(None) => return (Verdict::More, 0),
            Err(refusal) => return (Verdict::Refused(refusal), 0),
        };
        drop(table);
        let verdict = self.judge_whole(key, &raw, came, assigned);
        let verdict = verdict.unwrap_or_else(Verdict::Refused);
        (verdict, raw.len())
    }

    fn judge_whole(
        &self,
        key: Key,
        raw: &head::RawHead<'_>,
        came: Came,
        assigned: Option<Fd>,
    ) -> Result<Verdict, Refusal> {
        let head = head::parse(raw)?;
        let peer = came.peer;
        // Who forwards a request may do so for a stranger.
        let forwarded = head::is_forwarded(head.fields().map(|(name, _)| name));
        let hidden = |refusal: Refusal| refusal.hide_from_strangers(forwarded);
        let upgrade = match head::classify(&head).map_err(hidden)? {
            Kind::Plain => return Ok(Verdict::Plain),
            Kind::Upgrade(upgrade) => upgrade,
        };
        self.check_names(&head, came, forwarded).map_err(hidden)?;
        if !self.accepts_more() {
            return Err(Refusal::stopping());
        }
        self.check_memory().map_err(hidden)?;
        // One that came over from another process in mid-request has its number already.
        let fd = assigned.or_else(|| self.next_fd());
        let fd = fd.ok_or_else(|| Refusal::overloaded("no number is free", 1))?;
        let client = self.client_address(&head, peer);
        if let (None, Some(client)) = (self.counted(peer), client) {
            self.check_client(client).map_err(hidden)?;
        }
        let request =
            Request { local: self.local_of(key), ..head::request(&head, fd, None, peer, client) };
        let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
        let asked = Asked {
            key: upgrade.key.to_owned(),
            protocols: upgrade.protocols.iter().map(|name| (*name).to_owned()).collect(),
            extensions: head.all("sec-websocket-extensions").map(text).collect(),
            head_bytes: raw.len(),
        };
        Ok(Verdict::Upgrade(Rc::new(request), Box::new(asked)))
    }

    /// Whether the page and the name that a handshake comes with are allowed.
    fn check_names(
        &self,
        head: &head::Head<'_>,
        came: Came,
        forwarded: bool,
    ) -> Result<(), Refusal> {
        let (config, host) = (&self.settings.config, head.host);
        let by_trusted = forwarded && self.counted(came.peer).is_none();
        head::check_host(&config.allowed_hosts, host, came.to_loopback, by_trusted)?;
        let way = head::Came {
            host,
            scheme: head.get("x-forwarded-proto").filter(|_| by_trusted),
            is_local: !is_stranger(came.peer) && !forwarded,
        };
        if head::check_origin(&config.allowed_origins, head.get("origin"), way)? {
            if self.is_first(Counter::OpenedNull) {
                tracing::warn!(
                    "a page without an origin of its own was let in; any page of a browser on this \
                     machine can be one (allowed_origins has local-null)"
                );
            }
            self.add(Counter::OpenedNull, 1);
        }
        Ok(())
    }

    /// The client's address: the peer's, or what a trusted proxy says.
    fn client_address(&self, head: &head::Head<'_>, peer: Option<SocketAddr>) -> Option<IpAddr> {
        head::client_address(
            peer.map(|peer| peer.ip()),
            &self.settings.config.trusted_proxies,
            head.all("x-forwarded-for"),
            head.all("x-real-ip"),
        )
    }

    fn handshake(self: &Rc<Self>, key: Key, request: Rc<Request>, asked: Box<Asked>) {
        let fd = request.fd;
        if let Some(connection) = self.table.borrow_mut().get_mut(key) {
            connection.stage = Stage::Handshaking;
            connection.fd = Some(fd);
            if let Some(opening) = &mut connection.extra().opening {
                opening.head_bytes = asked.head_bytes;
            }
            self.reckon(connection);
        }
        let (handler, shown) = (self.handler.clone(), request.clone());
        let door = self.clone();
        self.call(
            key,
            fd,
            "on_handshake",
            move |context| handler.on_handshake(context, &shown),
            move |_, key, answer| door.handshaken(key, request, asked, answer),
        );
    }

    /// The handler has decided.
    fn handshaken(
        self: &Rc<Self>,
        key: Key,
        request: Rc<Request>,
        asked: Box<Asked>,
        answer: Result<Handshake, Panicked>,
    ) {
        let here = self.table.borrow().get(key).map(|connection| connection.stage);
        match (here, answer) {
            (Some(Stage::Handshaking), Ok(Ok(accept))) => {
                self.let_in(key, request, &asked, accept)
            }
            (Some(Stage::Handshaking), Ok(Err(refuse))) => {
                match response::refuse(&refuse, SystemTime::now()) {
                    Ok(bytes) => {
                        self.refuse(key, refuse.status, Reason::Handler, "by the handler", &bytes);
                    }
                    Err(bad) => self.refuse_bug(key, &bad.to_string()),
                }
            }
            (Some(Stage::Handshaking), Err(Panicked)) => self.refuse_bug(key, "a panic"),
            // The client left meanwhile; `resume` clears up.
            _ => {}
        }
    }

    fn let_in(self: &Rc<Self>, key: Key, request: Rc<Request>, asked: &Asked, accept: Accept) {
        let offered: Vec<&str> = asked.protocols.iter().map(String::as_str).collect();
        let configured = &self.settings.config.subprotocols;
        let chosen = subprotocol::choose(&offered, configured, accept.subprotocol.as_deref());
        let subprotocol = match chosen {
            Ok(chosen) => chosen,
            Err(not) => return self.refuse_bug(key, &format!("{:?} was not offered", not.0)),
        };
        let offers = asked.extensions.iter().map(String::as_str);
        let agreed = self.codec.borrow_mut().negotiate(offers);
        let (params, extensions) = agreed.map_or((None, None), |(p, e)| (Some(p), Some(e)));
        let with = response::Acceptance {
            subprotocol,
            extensions: extensions.as_deref(),
            headers: &accept.headers,
        };
        let answer = match response::accept(&asked.key, &with) {
            Ok(answer) => answer,
            Err(bad) => {
                self.codec.borrow_mut().release(params);
                return self.refuse_bug(key, &bad.to_string());
            }
        };
        let subprotocol = subprotocol.map(str::to_owned);
        let mut request = request;
        let whole = Rc::make_mut(&mut request);
        (whole.subprotocol, whole.extensions) = (subprotocol, accept.extensions);
        self.open(key, request, params, &answer);
    }

    /// The connection is a WebSocket from here on.
    fn open(
        self: &Rc<Self>,
        key: Key,
        request: Rc<Request>,
        params: Option<Params>,
        answer: &[u8],
    ) {
        let (fd, opened_at) = (request.fd, clock::unix_ms());
        {
            let mut table = self.table.borrow_mut();
            let Some(connection) = table.get_mut(key) else { return };
            self.no_longer_pending(connection);
            connection.stage = Stage::Open;
            connection.opened = true;
            connection.engine = Engine::new(Role::Server, params);
            connection.kept = Some(KeptRequest::new(&request, &self.settings.config.keep_headers));
            connection.opened_at = opened_at;
            // Nothing has counted as received yet: this is when it was accepted.
            let took_ms = self.now_ms.get().saturating_sub(connection.received_at);
            self.board.row.measure(Histogram::Handshake, Duration::from_millis(took_ms));
            connection.received_at = self.now_ms.get();
            if let Some(extra) = &mut connection.extra {
                extra.opening = None;
            }
            self.reckon(connection);
            connection.bytes_out = -(answer.len() as i64);
            self.queue_control(key, connection, answer);
            self.start_timers(key, connection, fd);
            table.name(fd, key);
        }
        self.registry.opened(
            key.index as usize,
            &Entry {
                fd,
                closing: false,
                connected_at: opened_at,
                received_at: self.now_ms.get(),
                peer: request.peer,
            },
        );
        self.add(Counter::Connections, 1);
        self.add(Counter::Opened, 1);
        let peer = request.peer.map(tracing::field::display);
        // No path: some have a token in theirs.
        tracing::debug!(fd = fd.as_u64(), peer, "opened");
        let handler = self.handler.clone();
        self.call(
            key,
            fd,
            "on_open",
            move |context| handler.on_open(context, request),
            |worker, key, answer| worker.panic_closes(key, answer),
        );
    }

    /// A handler's answer that cannot be sent.
    fn refuse_bug(self: &Rc<Self>, key: Key, bug: &str) {
        tracing::error!(bug = ?bug, "the answer of on_handshake cannot be sent");
        let refusal = Refusal::new(500, "the server made a mistake");
        self.refuse_head(key, refusal.because(Reason::Handler));
    }

    /// A connection comes back from plain HTTP: its next request is an upgrade.
    pub(in crate::worker) fn admit_again(
        self: &Rc<Self>,
        socket: OwnedFd,
        peer: Option<SocketAddr>,
        to_loopback: bool,
        mut received: Vec<u8>,
        fd: Option<Fd>,
    ) {
        if let Some(key) = self.admit(socket, peer, to_loopback) {
            if let Some(connection) = self.table.borrow_mut().get_mut(key) {
                connection.fd = fd;
            }
            self.feed(key, &mut received);
        }
    }
}
