//! The message that a request brings, whom it leaves out, and with what a close is to be told.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::request::Parts;

use super::answer::Fault;
use super::query::Query;
use crate::api::{Message, Opcode};
use crate::close::{REASON_BYTES_MAX, code_may_be_sent};
use crate::fd::Fd;

/// The message that a body is: binary where its type says so, else text.
pub(super) fn message(parts: &Parts, body: Bytes) -> Result<Message<'static>, Fault> {
    plain(parts)?;
    let kind = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|kind| kind.as_bytes().split(|byte| *byte == b';').next());
    let is_binary = kind
        .is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"application/octet-stream"));
    if is_binary {
        return Ok(Message { opcode: Opcode::Binary, data: body.into() });
    }
    match std::str::from_utf8(&body) {
        Ok(_) => Ok(Message { opcode: Opcode::Text, data: body.into() }),
        Err(_) => Err(Fault::bad(
            "a text message must be UTF-8; a binary one has Content-Type: application/octet-stream",
        )),
    }
}

/// A body that is encoded would be pushed as it is, since nothing decodes one here.
pub(super) fn plain(parts: &Parts) -> Result<(), Fault> {
    let mut codings = parts.headers.get_all(CONTENT_ENCODING).iter();
    match codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        true => Err(Fault::bad("the body has a Content-Encoding: send it without one")),
        false => Ok(()),
    }
}

/// With what a close is to be told.
pub(super) fn closing(query: &Query) -> Result<(u16, &str), Fault> {
    let code = query.get("code", "1000 to 1003, 1007 to 1014 or 3000 to 4999")?.unwrap_or(1000);
    if !code_may_be_sent(code) {
        let right = "use 1000 to 1003, 1007 to 1014 or 3000 to 4999";
        return Err(Fault::bad(format!("code {code} may not be sent: {right}")));
    }
    let reason = query.text("reason").unwrap_or_default();
    if reason.len() > REASON_BYTES_MAX {
        return Err(Fault::bad(format!("a reason has at most {REASON_BYTES_MAX} bytes")));
    }
    Ok((code, reason))
}

/// The client that a message is not for.
pub(super) fn except(query: &Query) -> Result<Option<Fd>, Fault> {
    let except = query.get::<u64>("except", "a client number")?.map(Fd::try_from).transpose();
    except.map_err(|_| Fault::bad("except names no client number"))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn of(fields: &[(&str, &str)]) -> Result<Opcode, Fault> {
        let request =
            fields.iter().fold(Request::builder(), |it, (name, value)| it.header(*name, *value));
        let (parts, ()) = request.body(()).unwrap().into_parts();
        message(&parts, Bytes::from_static(b"x")).map(|message| message.opcode)
    }

    #[test]
    fn a_type_is_one_in_any_case_and_with_parameters() {
        for kind in [
            "application/octet-stream",
            "Application/Octet-Stream",
            "application/octet-stream ; a=b",
        ] {
            assert_eq!(of(&[("content-type", kind)]), Ok(Opcode::Binary), "{kind}");
        }
        for kind in ["", "text/plain", "application/octet-streams", "image/png"] {
            assert_eq!(of(&[("content-type", kind)]), Ok(Opcode::Text), "{kind}");
        }
    }

    #[test]
    fn a_body_that_is_encoded_is_no_message() {
        assert_eq!(of(&[("content-encoding", "identity")]), Ok(Opcode::Text));
        for coding in ["gzip", "identity, gzip", "x"] {
            assert!(of(&[("content-encoding", coding)]).is_err(), "{coding}");
        }
    }
}
