//! Plain HTTP: a connection leaves the table and becomes a task with hyper in it.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Door;
use super::http::{self, End, Limits, Stop};
use super::http_connections::HttpConnection;
use super::listeners::local_address;
use super::refuse::may_be_strangers;
use super::seat::Seat;
use crate::api::{HttpRequest, HttpResponse};
use crate::config::Net;
use crate::fd::Fd;
use crate::ipc::scoreboard::Counter;
use crate::worker::clients::admission::Wait;
use crate::worker::clients::key::Key;
use crate::worker::head::{Authority, RETRY_AFTER, Refusal, check_host, is_forwarded};

/// A plain connection: its place, and the handler as the HTTP side calls it.
struct Plain {
    worker: Rc<Door>,
    http: HttpConnection,
    /// The network it counts for.
    counted: Option<IpAddr>,
    seat: Seat,
    /// Requests so far.
    requests: Cell<usize>,
    peer: Option<SocketAddr>,
    /// Whether it came to a loopback listener.
    to_loopback: bool,
}

impl Plain {
    fn new(
        worker: &Rc<Door>,
        http: HttpConnection,
        peer: Option<SocketAddr>,
        to_loopback: bool,
    ) -> Plain {
        let counted = worker.counted(peer);
        let counted = counted.filter(|_| worker.settings.config.connections_per_ip > 0);
        if let Some(network) = counted {
            worker.gate.admitted.add(network);
        }
        worker.board.add(Counter::Plain, 1);
        Plain {
            worker: worker.clone(),
            http,
            counted,
            seat: Seat::default(),
            requests: Cell::new(0),
            peer,
            to_loopback,
        }
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        http::Service::waits_for(self, None);
        http::Service::let_go(self);
        if let Some(network) = self.counted {
            self.worker.gate.admitted.remove(network);
        }
        if self.seat.yielding.go() {
            self.worker.board.sub(Counter::Plain, 1);
        }
    }
}

/// A request that the handler is to answer, until the answer begins.
struct Running<'a>(&'a Door);

impl<'a> Running<'a> {
    /// `None` where as many are under way as may be. A quarter of its equal share is each
    /// worker's own, whatever the others say they have.
    fn begin(door: &'a Door) -> Option<Running<'a>> {
        let most = door.settings.config.http_requests_max as u64;
        let here = door.board.row.get(Counter::HttpRunning);
        if most > 0
            && here >= door.quarter_of_share(most)
            && here + door.board.others.borrow().running() >= most
        {
            return None;
        }
        door.board.add(Counter::HttpRunning, 1);
        Some(Running(door))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.board.sub(Counter::HttpRunning, 1);
    }
}

impl http::Service for Plain {
    async fn answer(&self, mut request: HttpRequest) -> Option<HttpResponse> {
        let handler = self.worker.handler.clone();
        let Some(_running) = Running::begin(&self.worker) else {
            let why = "the application has too many requests";
            let refusal = Refusal::overloaded(why, RETRY_AFTER).advice("See http_requests_max.");
            self.refused(&refusal);
            let hidden = may_be_strangers(self.peer, request.request.headers());
            return Some(http::to_response(&self.dress(refusal.hide_from_strangers(hidden))));
        };
        self.worker.add(Counter::HttpRequests, 1);
        self.http.mark(&mut request);
        let answer =
            self.worker.call_alone("on_request", |context| handler.on_request(context, request));
        answer.await.unwrap_or_else(|_| {
            let mut broken = HttpResponse::new("the server made a mistake".into());
            *broken.status_mut() = ::http::StatusCode::INTERNAL_SERVER_ERROR;
            Some(broken)
        })
    }

    fn dress(&self, refusal: Refusal) -> Refusal {
        let explained = self.worker.handler.explains(refusal.status);
        Refusal { silent: !explained, ..refusal }
    }

    fn is_websocket_path(&self, path: &str) -> bool {
        self.worker.handler.is_websocket_path(path)
    }

    fn wants_body(&self, request: &::http::request::Parts) -> bool {
        self.worker.handler.wants_body(request)
    }

    fn spool(&self) -> Option<http::Spool> {
        let most = self.worker.handler.body_in_memory_max();
        let context = self.worker.context().filter(|_| most < usize::MAX)?;
        Some(http::Spool::new(context.clone(), &self.worker.disk, most))
    }

    fn waits_for(&self, wait: Option<Wait>) {
        let admitted = &self.worker.gate.admitted;
        if wait == Some(Wait::Request) && self.seat.waits() {
            return; // Since its answer was made, and now that the answer is written.
        }
        self.seat.waits_for(wait, admitted);
        let most = self.worker.settings.config.http_keepalive_max;
        if wait == Some(Wait::Request) && admitted.resting() > most {
            self.worker.plain_yields();
        }
    }

    fn check(
        &self,
        request: &::http::request::Parts,
        client: Option<IpAddr>,
    ) -> Result<(), Refusal> {
        if let Some(client) = client {
            self.worker.check_named(client)?;
        }
        let forwarded = is_forwarded(request.headers.keys().map(|name| name.as_str()));
        let by_trusted = forwarded && self.worker.counted(self.peer).is_none();
        let host = request.headers.get("host").and_then(|host| Authority::parse(host.as_bytes()));
        let hosts = &self.worker.settings.config.allowed_hosts;
        check_host(hosts, host, self.to_loopback, by_trusted)
    }

    async fn hurried(&self) {
        self.seat.yielding.answers().await;
    }

    fn is_last(&self) -> bool {
        let most = self.worker.settings.config.http_keepalive_requests;
        self.requests.set(self.requests.get() + 1);
        most > 0 && self.requests.get() >= most || self.worker.summary.is_draining()
    }

    fn refused(&self, refusal: &Refusal) {
        let why = refusal.for_log();
        self.worker.note_refusal(refusal.status, refusal.reason, &why, self.peer);
    }

    fn health(&self, path: &str) -> Option<Result<(), String>> {
        let here = self.worker.settings.config.health_path.as_deref() == Some(path);
        here.then(|| self.worker.readiness())
    }

    fn ends(&self) {
        self.http.end();
    }

    fn makes_room(&self) -> bool {
        self.worker.silent_body_yields()
    }

    fn hold(&self, bytes: usize) -> bool {
        self.seat.hold(bytes, &self.worker.budget)
    }

    fn let_go(&self) {
        self.seat.let_go(&self.worker.budget);
    }

    fn trusted_proxies(&self) -> &[Net] {
        &self.worker.settings.config.trusted_proxies
    }
}

impl Door {
    /// Gives a connection whose first request is no upgrade to hyper, with what was read of it.
    pub(in crate::worker) fn hand_to_http(self: &Rc<Self>, key: Key, received: Vec<u8>) {
        let taken = {
            let mut table = self.table.borrow_mut();
            if let Some(connection) = table.get_mut(key) {
                self.unwatch(connection);
            }
            self.forget(&mut table, key)
        };
        let Some(mut connection) = taken else { return };
        let peer = connection.peer();
        let to_loopback = connection.opening().is_some_and(|opening| opening.to_loopback);
        let Some(socket) = connection.socket.take() else { return };
        let local = peer.and_then(|_| local_address(&socket));
        let http = HttpConnection::new(self, peer, local, connection.fd);
        let plain = Plain::new(self, http, peer, to_loopback);
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            let served = match peer {
                Some(_) => worker.serve_tcp(socket, received, peer, &plain).await,
                None => worker.serve_unix(socket, received, &plain).await,
            };
            let number = plain.http.number();
            // An upgrade takes a place of its own.
            drop(plain);
            if let Some(fd) = number {
                let handler = worker.handler.clone();
                worker.call_aside("on_disconnect", |context| handler.on_disconnect(context, fd));
            }
            match served {
                Ok(Some((socket, received, fd))) => {
                    worker.admit_again(socket, peer, to_loopback, received, fd);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "a plain connection ended"),
            }
        });
    }

    async fn serve_tcp(
        self: &Rc<Self>,
        socket: OwnedFd,
        received: Vec<u8>,
        peer: Option<SocketAddr>,
        plain: &Plain,
    ) -> std::io::Result<Option<(OwnedFd, Vec<u8>, Option<Fd>)>> {
        let stream = TcpStream::from_std(socket.into())?;
        let Some((stream, received, fd)) = self.serve_http(stream, received, peer, plain).await
        else {
            return Ok(None);
        };
        Ok(Some((stream.into_std()?.into(), received, fd)))
    }

    async fn serve_unix(
        self: &Rc<Self>,
        socket: OwnedFd,
        received: Vec<u8>,
        plain: &Plain,
    ) -> std::io::Result<Option<(OwnedFd, Vec<u8>, Option<Fd>)>> {
        let stream = UnixStream::from_std(socket.into())?;
        let Some((stream, received, fd)) = self.serve_http(stream, received, None, plain).await
        else {
            return Ok(None);
        };
        Ok(Some((stream.into_std()?.into(), received, fd)))
    }

    /// Serves plain requests; an upgrade that follows them comes back out.
    async fn serve_http<S: AsyncRead + AsyncWrite + Unpin>(
        self: &Rc<Self>,
        stream: S,
        received: Vec<u8>,
        peer: Option<SocketAddr>,
        plain: &Plain,
    ) -> Option<(S, Vec<u8>, Option<Fd>)> {
        // Held until the end of the connection: the worker waits for every one that holds one.
        let mut stop = self.stop_http.subscribe();
        // The sender lives as long as the worker.
        let left = plain.http.left();
        let stopped = async {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => Stop::Leaves,
                () = left => Stop::Leaves,
                () = plain.seat.yielding.ends() => Stop::Yields,
            }
        };
        let limits = self.http_limits();
        match http::serve(stream, received, peer, plain, &limits, stopped).await {
            End::Closed => None,
            End::Refused(refusal) => {
                self.note_refusal(refusal.status, refusal.reason, &refusal.for_log(), peer);
                None
            }
            End::Upgrade(stream, received) => Some((stream, received, plain.http.number())),
        }
    }

    fn http_limits(&self) -> Limits {
        let config = &self.settings.config;
        Limits {
            head: self.settings.head,
            body_bytes_max: config.package_max_length as usize,
            head_timeout: config.handshake_timeout,
            body_timeout: config.body_timeout,
            body_rate_min: config.body_rate_min,
            idle_timeout: config.http_keepalive_timeout,
            send_timeout: config.http_send_timeout,
        }
    }
}
