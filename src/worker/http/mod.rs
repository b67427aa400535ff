//! Plain HTTP on the WebSocket port, through hyper.
//!
//! Connections are kept alive, as nginx's `upstream` wants. Each head passes the same checks as
//! the first, for hyper reads through a [`Gate`] that lets one checked request through at a
//! time. A later request that is an upgrade comes back out, for the worker to answer.

mod body;
mod gate;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use self::body::Outgoing;
use self::gate::{Exit, Gate};
use super::head::{self, Refusal, client_address};
use crate::api::{HttpRequest, HttpResponse, is_reserved};
use crate::config::Net;

/// How much a plain HTTP connection may send, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Of each head.
    pub head: head::Limits,
    /// Of each body in bytes; more is a 413.
    pub body_bytes_max: usize,
    /// From the first byte of a head to its last; more is a 408.
    pub head_timeout: Duration,
    /// From the head to the last byte of its body; more is a 408.
    pub body_timeout: Duration,
    /// Between requests; then the connection is closed without a word. Longer than the
    /// `keepalive_timeout` of nginx's upstream (60 s), lest it reuse what we are closing.
    pub idle_timeout: Duration,
}

/// What answers plain requests: the handler, as the worker wraps it.
pub trait Service {
    /// The handler's `on_request`; `None` means that it is not the handler's.
    fn answer(&self, request: HttpRequest) -> impl Future<Output = Option<HttpResponse>>;

    /// Whether a plain request for `path` deserves 426 instead of 404.
    fn is_websocket_path(&self, path: &str) -> bool;

    /// Whose X-Forwarded-For is believed.
    fn trusted_proxies(&self) -> &[Net];
}

/// How a plain HTTP connection ended.
#[derive(Debug)]
pub enum End<S> {
    /// By either side, with nothing to say about it.
    Closed,
    /// A later head was refused; the answer is sent and the connection closed.
    Refused(Refusal),
    /// A later head is an upgrade: a fresh start, with the bytes since that head began.
    Upgrade(S, Vec<u8>),
}

/// Serves plain HTTP until the connection ends or, after `stop`, the running request is done.
///
/// `received` is what was read of the stream so far, from the first byte of a head; `peer` is
/// `None` on a `unix:` listener.
pub async fn serve<S, V>(
    stream: S,
    received: Vec<u8>,
    peer: Option<SocketAddr>,
    service: &V,
    limits: &Limits,
    stop: impl Future<Output = ()>,
) -> End<S>
where
    S: AsyncRead + AsyncWrite + Unpin,
    V: Service,
{
    let io = TokioIo::new(Gate::new(stream, received, limits));
    let service = service_fn(|request| Box::pin(respond(service, peer, limits, request)));
    // A refused later head ends what hyper reads while it may still be writing the answer
    // before, hence half_close. The gate keeps the deadlines that hyper's timer would.
    let mut http = http1::Builder::new();
    http.half_close(true).header_read_timeout(None).max_headers(limits.head.fields_max);
    http.max_buf_size(limits.head.head_bytes_max.max(8192));
    let mut connection = http.serve_connection(io, service);

    let (mut stop, mut stopping) = (pin!(stop), false);
    let ended = poll_fn(|cx| {
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        match connection.poll_without_shutdown(cx) {
            Poll::Ready(result) => Poll::Ready(result.is_ok()),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    let (mut stream, received, exit) = connection.into_parts().io.into_inner().into_parts();
    match exit {
        Some(Exit::Upgrade) if ended => return End::Upgrade(stream, received),
        Some(Exit::Refused(refusal)) if ended => {
            // The client may be gone; there is nobody else to tell.
            let _ = stream.write_all(&refusal.to_bytes(SystemTime::now())).await;
            close(stream).await;
            return End::Refused(refusal);
        }
        _ => {}
    }
    close(stream).await;
    End::Closed
}

/// How long, in time and in bytes, [`close`] listens to a client that still sends.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 256 * 1024);

/// Closes so that the last answer arrives: a socket closed with unread bytes in it sends a
/// reset, which may overtake the answer. What still comes is thrown away unparsed.
pub async fn close<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) {
    if stream.shutdown().await.is_ok() {
        let mut rest = (&mut stream).take(LINGER.1);
        // However it ends, the stream is dropped.
        let _ = timeout(LINGER.0, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    }
}

async fn respond<V: Service>(
    service: &V,
    peer: Option<SocketAddr>,
    limits: &Limits,
    request: http::Request<Incoming>,
) -> Result<http::Response<Outgoing>, Infallible> {
    // Where a chunked body ends only hyper knows, so the gate cannot tell where the next head
    // begins: such a request is its connection's last.
    let last = request.headers().contains_key(header::TRANSFER_ENCODING);
    let mut response = match collect(request, limits).await {
        Ok(request) => answer(service, peer, request).await,
        Err(status) => closing(text(status, "")),
    };
    if last {
        response = closing(response);
    }
    Ok(response.map(Outgoing))
}

/// Reads the body; the status is 413, 408, or 400 where it broke off or is malformed.
async fn collect(
    request: http::Request<Incoming>,
    limits: &Limits,
) -> Result<http::Request<Bytes>, StatusCode> {
    let (parts, body) = request.into_parts();
    if body.size_hint().lower() > limits.body_bytes_max as u64 {
        return Err(StatusCode::PAYLOAD_TOO_LARGE);
    }
    let whole = Limited::new(body, limits.body_bytes_max).collect();
    match timeout(limits.body_timeout, whole).await {
        Ok(Ok(body)) => Ok(http::Request::from_parts(parts, body.to_bytes())),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Ok(Err(_)) => Err(StatusCode::BAD_REQUEST),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

/// The built-ins around the handler.
async fn answer<V: Service>(
    service: &V,
    peer: Option<SocketAddr>,
    request: http::Request<Bytes>,
) -> HttpResponse {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if reads && request.uri().path() == "/healthz" {
        return text(StatusCode::OK, "ok");
    }
    let path = request.uri().path().to_owned();
    // Each request of a proxy's connection may be another client's.
    let client = client(service, peer, request.headers());
    let is_head = request.method() == Method::HEAD;
    match service.answer(HttpRequest { request, peer, client, fd: None, local: None }).await {
        Some(response) => checked(response, is_head),
        None if service.is_websocket_path(&path) => upgrade_required(),
        None => text(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

fn client<V: Service>(
    service: &V,
    peer: Option<SocketAddr>,
    headers: &HeaderMap,
) -> Option<IpAddr> {
    client_address(
        peer.map(|peer| peer.ip()),
        service.trusted_proxies(),
        headers.get_all("x-forwarded-for").iter().map(HeaderValue::as_bytes),
        headers.get_all("x-real-ip").iter().map(HeaderValue::as_bytes),
    )
}

/// Takes out of a handler's answer what is the server's own to say.
fn checked(mut response: HttpResponse, is_head: bool) -> HttpResponse {
    if response.status().is_informational() {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "the handler's answer is informational");
    }
    // The answer to HEAD has no body to count: what the handler says is all there is to know
    // (RFC 9110 section 9.3.2).
    let length = |name: &header::HeaderName| is_head && name == header::CONTENT_LENGTH;
    let reserved = response.headers().keys();
    let reserved = reserved.filter(|name| is_reserved(name.as_str()) && !length(name));
    for name in reserved.cloned().collect::<Vec<_>>() {
        response.headers_mut().remove(name);
    }
    response
}

fn upgrade_required() -> HttpResponse {
    let why = "this path speaks WebSocket; connect with ws:// or wss://";
    let mut response = text(StatusCode::UPGRADE_REQUIRED, why);
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// A line of text; without one, the status's own words.
fn text(status: StatusCode, line: &'static str) -> HttpResponse {
    let line = if line.is_empty() { status.canonical_reason().unwrap_or_default() } else { line };
    let mut response = HttpResponse::new(format!("{line}\n").into());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

fn closing(mut response: HttpResponse) -> HttpResponse {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
