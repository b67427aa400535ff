//! One connection of the API, and what the HTTP side asks of it.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ::http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::sleep;

use super::access::{self, scopes};
use super::answer::{Fault, fault};
use super::requests;
use super::route::{Endpoint, Route};
use super::share::shared;
use crate::api::{HttpRequest, HttpResponse};
use crate::config::Net;
use crate::ipc::scoreboard::Counter;
use crate::worker::clients::admission::Wait;
use crate::worker::door::checks::check_denied;
use crate::worker::door::http::{self, End, Limits, Stop};
use crate::worker::door::seat::Seat;
use crate::worker::head::Refusal;
use crate::worker::peers::Peers;

/// How long a client that keeps its connection may take for one more request, once another
/// process takes the next connections: its last answer closes the connection.
const LAST_REQUEST: Duration = Duration::from_secs(2);
/// A connection on which nothing is asked for so long is ended: longer than the usual scrape
/// interval, so that a scraper keeps its connection.
const IDLE: Duration = Duration::from_secs(120);

/// A connection, and its place among those of this worker.
pub(super) struct Connection {
    pub worker: Rc<Peers>,
    /// Who asks; `None` by a Unix socket.
    peer: Option<SocketAddr>,
    seat: Seat,
    /// Whether something was asked on it that may be asked.
    is_known: Cell<bool>,
    /// Among whom it waits for its client.
    waits_as_known: Cell<bool>,
}

impl Connection {
    fn new(worker: &Rc<Peers>, peer: Option<SocketAddr>) -> Connection {
        worker.api.open.set(worker.api.open.get() + 1);
        Connection {
            worker: worker.clone(),
            peer,
            seat: Seat::default(),
            is_known: Cell::new(false),
            waits_as_known: Cell::new(false),
        }
    }

    /// What a request asks, where it may.
    fn admitted(&self, request: &Parts) -> Result<Route, Fault> {
        let config = &self.worker.settings.config;
        let route = Route::of(request);
        if let Ok(Route { endpoint: Endpoint { scope: None, .. }, .. }) = &route {
            return route;
        }
        // Who may ask nothing learns not even which paths there are.
        let scopes = scopes(config, &request.headers, self.peer.is_none())?;
        let route = route?;
        if let Some(scope) = route.endpoint.scope {
            access::check(scopes, scope)?;
        }
        if !self.seat.yielding.is_gone() && !self.is_known.replace(true) {
            let known = &self.worker.api.known_open;
            known.set(known.get() + 1);
        }
        Ok(route)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        http::Service::waits_for(self, None);
        http::Service::let_go(self);
        if self.seat.yielding.go() {
            self.worker.api.left(self.is_known.get());
        }
        self.worker.api_has_room();
    }
}

impl http::Service for Connection {
    async fn answer(&self, request: HttpRequest) -> Option<HttpResponse> {
        let (parts, body) = request.request.into_parts();
        let route = match self.admitted(&parts) {
            Ok(route) => route,
            Err(refused) => {
                let refused = fault(refused);
                self.worker.add(Counter::ApiRefused, 1);
                let status = refused.status().as_u16();
                tracing::info!(status, why = "by the API", "refused");
                return Some(refused);
            }
        };
        self.worker.add(Counter::ApiRequests, 1);
        Some(requests::answer(&self.worker, route, &parts, body).await)
    }

    fn is_websocket_path(&self, _: &str) -> bool {
        false
    }

    fn wants_body(&self, request: &Parts) -> bool {
        self.admitted(request).is_ok_and(|route| route.endpoint.takes_body)
    }

    fn waits_for(&self, wait: Option<Wait>) {
        if wait == Some(Wait::Request) && self.seat.waits() {
            return; // Since its answer was made, and now that the answer is written.
        }
        let api = &self.worker.api;
        self.seat.waits_for(None, api.waiting(self.waits_as_known.get()));
        if wait.is_some() {
            self.waits_as_known.set(self.is_known.get());
            self.seat.waits_for(wait, api.waiting(self.is_known.get()));
        }
    }

    fn check(&self, _: &Parts, _: Option<IpAddr>) -> Result<(), Refusal> {
        let config = &self.worker.settings.config;
        self.peer.map_or(Ok(()), |peer| check_denied(config, peer.ip()))
    }

    async fn hurried(&self) {
        self.seat.yielding.answers().await;
    }

    fn is_last(&self) -> bool {
        *self.worker.stop_http.borrow()
    }

    fn refused(&self, refusal: &Refusal) {
        self.worker.add(Counter::ApiRefused, 1);
        let (status, why) = (refusal.status, refusal.for_log());
        tracing::info!(status, why = %why, "refused");
    }

    fn dress(&self, refusal: Refusal) -> Refusal {
        match refusal.status {
            413 => refusal.advice("The limit is api.body_max.").told_as_json(),
            _ => refusal.told_as_json(),
        }
    }

    fn health(&self, _: &str) -> Option<Result<(), String>> {
        None
    }

    fn hold(&self, bytes: usize) -> bool {
        self.seat.hold(bytes, &self.worker.budget)
    }

    fn let_go(&self) {
        self.seat.let_go(&self.worker.budget);
    }

    fn trusted_proxies(&self) -> &[Net] {
        &[]
    }
}

impl Peers {
    /// Serves a connection of the API until it ends.
    pub(super) fn serve_api(self: &Rc<Self>, socket: OwnedFd, peer: Option<SocketAddr>) {
        let connection = Connection::new(self, peer);
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            let serving = pin!(async {
                match peer {
                    Some(_) => {
                        let stream = TcpStream::from_std(socket.into())?;
                        worker.speak_http(stream, peer, &connection).await;
                    }
                    None => {
                        let stream = UnixStream::from_std(socket.into())?;
                        worker.speak_http(stream, None, &connection).await;
                    }
                }
                std::io::Result::Ok(())
            });
            if let Err(error) = shared(&worker, &connection.seat.yielding, serving).await {
                tracing::debug!(%error, "a connection of the API ended");
            }
        });
    }

    async fn speak_http<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: S,
        peer: Option<SocketAddr>,
        connection: &Connection,
    ) {
        // The runtime hears now whether a request is there already. Only who was read once can be
        // said to be waited for, and gives the place to another.
        tokio::task::yield_now().await;
        http::Service::waits_for(connection, Some(Wait::Request));
        // Held until the end of the connection: the worker waits for every one that holds one.
        let mut stop = self.stop_http.subscribe();
        let stopped = async {
            let leaves = async {
                // The sender lives as long as the worker.
                let _ = stop.wait_for(|stop| *stop).await;
                sleep(LAST_REQUEST).await;
            };
            tokio::select! {
                () = leaves => Stop::Leaves,
                () = connection.seat.yielding.ends() => Stop::Yields,
            }
        };
        let limits = self.api_limits();
        match http::serve(stream, Vec::new(), peer, connection, &limits, stopped).await {
            End::Closed => {}
            End::Refused(refusal) => http::Service::refused(connection, &refusal),
            End::Upgrade(mut stream, received) => {
                let refusal = Refusal::new(404, "the API speaks no WebSocket");
                let refusal = refusal.answering(&received).told_as_json();
                http::Service::refused(connection, &refusal);
                // The client may be gone; there is nobody else to tell.
                let _ = stream.write_all(&refusal.to_bytes(SystemTime::now())).await;
                http::close(stream).await;
            }
        }
    }

    fn api_limits(&self) -> Limits {
        let config = &self.settings.config;
        Limits {
            head: self.settings.head,
            body_bytes_max: config.api.body_max as usize,
            head_timeout: config.handshake_timeout,
            body_timeout: config.body_timeout,
            body_rate_min: config.body_rate_min,
            idle_timeout: IDLE,
            send_timeout: config.http_send_timeout,
        }
    }
}
