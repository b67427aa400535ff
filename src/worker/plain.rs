//! Plain HTTP: a connection leaves the table and becomes a task with hyper in it.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use nix::sys::socket::{SockaddrStorage, getsockname};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::Worker;
use super::head::Refusal;
use super::http::{self, End, Limits};
use super::table::Key;
use super::visitors::Visit;
use crate::api::{HttpRequest, HttpResponse};
use crate::config::Net;
use crate::fd::Fd;
use crate::ipc::scoreboard::Counter;

/// The handler as the HTTP side calls it.
struct Plain(Visit, Option<SocketAddr>);

impl http::Service for Plain {
    async fn answer(&self, mut request: HttpRequest) -> Option<HttpResponse> {
        let worker = self.0.worker();
        let handler = worker.handler.clone();
        worker.add(Counter::HttpRequests, 1);
        self.0.mark(&mut request);
        let answer =
            worker.call_alone("on_request", |context| handler.on_request(context, request));
        answer.await.unwrap_or_else(|_| {
            let mut broken = HttpResponse::new("the server made a mistake".into());
            *broken.status_mut() = ::http::StatusCode::INTERNAL_SERVER_ERROR;
            Some(broken)
        })
    }

    fn is_websocket_path(&self, path: &str) -> bool {
        self.0.worker().handler.is_websocket_path(path)
    }

    fn health(&self, path: &str) -> Option<Result<(), String>> {
        let worker = self.0.worker();
        let here = worker.settings.config.health_path.as_deref() == Some(path);
        here.then(|| worker.handler.health())
    }

    fn refused(&self, refusal: &Refusal) {
        self.0.worker().note_refusal(refusal.status, &refusal.for_log(), self.1);
    }

    fn trusted_proxies(&self) -> &[Net] {
        &self.0.worker().settings.config.trusted_proxies
    }
}

impl Worker {
    /// Gives a connection whose first request is no upgrade to hyper, with what was read of it.
    pub(super) fn hand_to_http(self: &Rc<Self>, key: Key, received: Vec<u8>) {
        let taken = {
            let mut table = self.table.borrow_mut();
            if let Some(connection) = table.get_mut(key) {
                self.no_longer_pending(connection);
                self.unwatch(connection);
            }
            table.remove(key)
        };
        let Some(mut connection) = taken else { return };
        let peer = connection.peer();
        let Some(socket) = connection.socket.take() else { return };
        let local = peer.and_then(|_| local_address(&socket));
        let visit = Visit::new(self, peer, local, connection.fd);
        let worker = self.clone();
        tokio::task::spawn_local(async move {
            let served = match peer {
                Some(_) => worker.serve_tcp(socket, received, peer, visit).await,
                None => worker.serve_unix(socket, received, visit).await,
            };
            match served {
                Ok(Some((socket, received, fd))) => worker.admit_again(socket, peer, received, fd),
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
        visit: Visit,
    ) -> std::io::Result<Option<(OwnedFd, Vec<u8>, Option<Fd>)>> {
        let stream = TcpStream::from_std(socket.into())?;
        let Some((stream, received, fd)) = self.serve_http(stream, received, peer, visit).await
        else {
            return Ok(None);
        };
        Ok(Some((stream.into_std()?.into(), received, fd)))
    }

    async fn serve_unix(
        self: &Rc<Self>,
        socket: OwnedFd,
        received: Vec<u8>,
        visit: Visit,
    ) -> std::io::Result<Option<(OwnedFd, Vec<u8>, Option<Fd>)>> {
        let stream = UnixStream::from_std(socket.into())?;
        let Some((stream, received, fd)) = self.serve_http(stream, received, None, visit).await
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
        visit: Visit,
    ) -> Option<(S, Vec<u8>, Option<Fd>)> {
        let mut stop = self.leaving.stop_http.subscribe();
        // The sender lives as long as the worker.
        let left = visit.left();
        let stopped = async move {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => {}
                () = left => {}
            }
        };
        let limits = self.http_limits();
        let service = Plain(visit, peer);
        match http::serve(stream, received, peer, &service, &limits, stopped).await {
            End::Closed => None,
            End::Refused(refusal) => {
                self.note_refusal(refusal.status, &refusal.for_log(), peer);
                None
            }
            End::Upgrade(stream, received) => Some((stream, received, service.0.number())),
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
            idle_timeout: std::time::Duration::from_secs(75),
        }
    }
}

/// The server's end of a TCP connection.
pub(super) fn local_address(socket: &OwnedFd) -> Option<SocketAddr> {
    let address: SockaddrStorage = getsockname(socket.as_raw_fd()).ok()?;
    let v4 =
        address.as_sockaddr_in().map(|address| SocketAddr::from(SocketAddrV4::from(*address)));
    v4.or_else(|| address.as_sockaddr_in6().map(|it| SocketAddrV6::from(*it).into()))
}
