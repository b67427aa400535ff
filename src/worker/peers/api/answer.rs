//! What the API answers: JSON, also where something is wrong.
//!
//! Clients' libraries repeat a 429 and a 5xx by themselves. So these say that nothing was done;
//! what may have been done or not is a 409.

use http::header::{self, HeaderValue};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::api::rooms::{EngineWord, Tally};
use crate::api::{HttpResponse, Verdict};
use crate::config::Scope;

/// Why a request is not done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fault {
    /// 400: what it asks cannot be read.
    Bad(String),
    /// 401: no token, or none that is known.
    Unauthorized(&'static str),
    /// 403: the token does not allow this.
    Forbidden(Scope),
    /// 404: there is nothing of that path.
    NotFound,
    /// 405: the path takes these methods.
    Method(Vec<Method>),
    /// 409, 410, 413 or 429: what became of a message or a close.
    Verdict(Verdict),
    /// 503: the server cannot tell now.
    Unavailable(&'static str),
}

impl Fault {
    /// What is asked cannot be read.
    pub fn bad(why: impl Into<String>) -> Fault {
        Fault::Bad(why.into())
    }

    fn status(&self) -> u16 {
        match self {
            Fault::Bad(_) => 400,
            Fault::Unauthorized(_) => 401,
            Fault::Forbidden(_) => 403,
            Fault::NotFound => 404,
            Fault::Method(_) => 405,
            Fault::Verdict(Verdict::Gone) => 410,
            Fault::Verdict(Verdict::TooBig) => 413,
            Fault::Verdict(Verdict::Full) => 429,
            Fault::Verdict(_) => 409,
            Fault::Unavailable(_) => 503,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Fault::Bad(_) => "bad_request",
            Fault::Unauthorized(_) => "unauthorized",
            Fault::Forbidden(_) => "forbidden",
            Fault::NotFound => "not_found",
            Fault::Method(_) => "method",
            Fault::Verdict(verdict) => verdict.as_str(),
            Fault::Unavailable(_) => "unavailable",
        }
    }

    fn message(&self) -> String {
        let text = match self {
            Fault::Bad(why) => why,
            Fault::Unauthorized(why) | Fault::Unavailable(why) => *why,
            Fault::Forbidden(scope) => {
                return format!("the token lacks the scope {}", scope.as_str());
            }
            Fault::NotFound => "there is nothing here",
            Fault::Method(_) => "this path takes another method",
            Fault::Verdict(Verdict::Gone) => "there is no such client",
            Fault::Verdict(Verdict::TooBig) => "the message is larger than a message may be",
            Fault::Verdict(Verdict::Full) => {
                "what waits for the client is at its limit; nothing was queued"
            }
            Fault::Verdict(_) => "no answer came in time; the request may have been done or not",
        };
        text.to_owned()
    }
}

/// The answer to a request that is not done.
pub(super) fn fault(fault: Fault) -> HttpResponse {
    let mut response = error(fault.status(), fault.code(), &fault.message());
    let headers = response.headers_mut();
    match fault {
        Fault::Unauthorized(_) => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        Fault::Method(methods) => {
            let names: Vec<_> = methods.iter().map(Method::as_str).collect();
            if let Ok(names) = HeaderValue::from_str(&names.join(", ")) {
                headers.insert(header::ALLOW, names);
            }
        }
        Fault::Unavailable(_) | Fault::Verdict(Verdict::Full) => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        _ => {}
    }
    response
}

/// An error as every part of the API tells it.
pub(super) fn error(status: u16, code: &str, message: &str) -> HttpResponse {
    reply(status, &json!({ "error": { "code": code, "message": message } }))
}

/// What became of a message or a close.
pub(super) fn told(verdict: Verdict) -> HttpResponse {
    match verdict.is_ok() {
        true => reply(200, &json!({ "verdict": verdict })),
        false => fault(Fault::Verdict(verdict)),
    }
}

/// What became of a message to a room or a user, or of the close of a user. Where nothing was
/// queued for anybody, this may be asked again; where some have it and of others nobody knows, or
/// they could not be asked, this may not.
pub(super) fn tallied(tally: &Tally, of_user: bool) -> HttpResponse {
    // What the engine did not take no other node has.
    let is_away = tally.engine == Some(EngineWord::Away);
    let is_known =
        tally.answered + tally.refused >= tally.workers && (is_away || tally.nodes.is_none());
    match tally {
        Tally { queued: 0, full: 0, .. } if tally.is_whole() && of_user => {
            error(410, "gone", "the user has no connection now")
        }
        tally if tally.is_whole() && (tally.queued > 0 || tally.full == 0) => {
            reply(200, &json!(tally))
        }
        Tally { queued: 0, full: 0, refused: 0, .. } if is_known && is_away => {
            fault(Fault::Unavailable("the engine is away; nothing was done"))
        }
        Tally { queued: 0, .. } if is_known => fault(Fault::Verdict(Verdict::Full)),
        tally => {
            let why = format!("{tally}; the request may have been done for more or not");
            let error = json!({ "code": "unknown", "message": why });
            reply(409, &json!({ "error": error, "tally": tally }))
        }
    }
}

/// A JSON answer.
pub(super) fn reply(status: u16, body: &Value) -> HttpResponse {
    raw(status, format!("{body}\n"))
}

/// An answer of JSON that is written already.
pub(super) fn raw(status: u16, json: impl Into<crate::api::Body>) -> HttpResponse {
    let mut response = HttpResponse::new(json.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(queued: u64, full: u64, (workers, answered, refused): (u32, u32, u32)) -> [u16; 2] {
        let tally = Tally { queued, full, workers, answered, refused, ..Tally::default() };
        [false, true].map(|of_user| tallied(&tally, of_user).status().as_u16())
    }

    #[test]
    fn what_may_be_asked_again_was_done_for_nobody() {
        assert_eq!(status(3, 1, (2, 2, 0)), [200, 200]);
        assert_eq!(status(0, 0, (2, 2, 0)), [200, 410]);
        assert_eq!(status(0, 2, (2, 2, 0)), [429, 429]);
        assert_eq!(status(0, 0, (2, 1, 1)), [429, 429]);
        // Some have it.
        assert_eq!(status(1, 0, (2, 1, 1)), [409, 409]);
        // Of some nobody knows.
        assert_eq!(status(0, 0, (2, 1, 0)), [409, 409]);
        assert_eq!(status(5, 0, (3, 2, 0)), [409, 409]);
    }

    #[test]
    fn what_other_nodes_may_have_is_not_asked_for_again() {
        let status = |queued, engine, nodes: (Option<u32>, u32)| {
            let nodes = json!({ "asked": nodes.0, "answered": nodes.1 });
            let tally = json!({
                "queued": queued, "full": 0, "workers": 1, "answered": 1, "refused": 0,
                "engine": engine, "nodes": nodes,
            });
            let tally: Tally = serde_json::from_value(tally).unwrap();
            [false, true].map(|of_user| tallied(&tally, of_user).status().as_u16())
        };
        assert_eq!(status(0, "away", (None, 0)), [503, 503], "nobody has it");
        assert_eq!(status(1, "away", (None, 0)), [409, 409]);
        assert_eq!(status(0, "ok", (None, 0)), [409, 409]);
        assert_eq!(status(0, "ok", (Some(2), 1)), [409, 409]);
        assert_eq!(status(0, "ok", (Some(2), 2)), [200, 410]);
    }
}
