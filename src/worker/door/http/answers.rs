//! Answers that are the server's own.

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderValue};

use crate::api::{HttpResponse, is_reserved};
use crate::worker::head::Refusal;

/// Takes out of a handler's answer what is the server's own to say.
pub(super) fn checked(mut response: HttpResponse, is_head: bool) -> HttpResponse {
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
    // hyper would write `<none>` behind a status without a name.
    if response.status().canonical_reason().is_none() {
        response.extensions_mut().insert(hyper::ext::ReasonPhrase::from_static(b""));
    }
    response
}

pub(super) fn health_response(health: Result<(), String>) -> HttpResponse {
    match health {
        Ok(()) => text(StatusCode::OK, "ok"),
        Err(why) => {
            let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "");
            *response.body_mut() = format!("{why}\n").into();
            response
        }
    }
}

/// What the server itself answers to OPTIONS (RFC 9110 section 9.3.7).
pub(super) fn options() -> HttpResponse {
    let mut response = HttpResponse::new(Bytes::new().into());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let methods = HeaderValue::from_static("GET, HEAD, OPTIONS");
    response.headers_mut().insert(header::ALLOW, methods);
    response
}

pub(super) const SPEAKS_WEBSOCKET: &str =
    "this path speaks WebSocket; connect with ws:// or wss://";

pub(super) fn upgrade_required() -> HttpResponse {
    let mut response = text(StatusCode::UPGRADE_REQUIRED, SPEAKS_WEBSOCKET);
    let headers = response.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    response
}

/// A line of text; without one, the status's own words.
pub(super) fn text(status: StatusCode, line: &'static str) -> HttpResponse {
    let line = if line.is_empty() { status.canonical_reason().unwrap_or_default() } else { line };
    let mut response = HttpResponse::new(format!("{line}\n").into());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    response
}

/// A refusal as an answer for hyper to write.
pub fn to_response(refusal: &Refusal) -> HttpResponse {
    let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = text(status, "");
    *response.body_mut() = refusal.body().into();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(refusal.content_type()));
    for (name, value) in &refusal.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(*name, value);
        }
    }
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
