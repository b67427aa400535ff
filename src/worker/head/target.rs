//! The target of a request line.

use std::borrow::Cow;

use http::uri::PathAndQuery;

use super::Refusal;
use super::origin::Authority;

/// The longest target that the http crate holds.
const TARGET_BYTES_MAX: usize = 65_534;

/// What a request is for (RFC 9112 section 3.2).
#[derive(Debug)]
pub(super) struct Target<'a> {
    /// Path and query, visible ASCII; `*` for an OPTIONS about the server itself.
    pub path: Cow<'a, str>,
    /// The host and port of an absolute form, which stand in the place of Host.
    pub authority: Option<&'a [u8]>,
}

/// Checks a target. Bytes above 127 come out percent-encoded: nginx lets them through, and a
/// browser that sends them means UTF-8. Whatever else stands raw that must not is refused, as the
/// http crate would refuse it without an answer.
///
/// # Errors
///
/// 400, and 414 for what is too long for the http crate.
pub(super) fn check<'a>(method: &[u8], target: &'a [u8]) -> Result<Target<'a>, Refusal> {
    if target.iter().any(u8::is_ascii_control) {
        return Err(must_be_encoded());
    }
    if target.contains(&b'#') {
        return Err(Refusal::bad("the target has a fragment"));
    }
    let (authority, rest) = match absolute(target)? {
        Some((authority, rest)) => (Some(authority), rest),
        None => (None, target),
    };
    let path = match (authority, rest) {
        (Some(_), b"") if method == b"OPTIONS" => Cow::Borrowed("*"),
        (None, b"*") if method == b"OPTIONS" => Cow::Borrowed("*"),
        (Some(_), [] | [b'?', ..]) => Cow::Owned(format!("/{}", encoded(rest))),
        (_, [b'/', ..]) => encoded(rest),
        _ => return Err(Refusal::bad("the target is not a path")),
    };
    if path.len() > TARGET_BYTES_MAX {
        return Err(Refusal::new(414, "the target is too long"));
    }
    // The http crate takes these wherever they stand; of others it is asked, which takes a copy.
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/?&=-._~".contains(&byte);
    if path.bytes().all(is_plain) || PathAndQuery::try_from(&*path).is_ok() {
        return Ok(Target { path, authority });
    }
    Err(must_be_encoded())
}

fn must_be_encoded() -> Refusal {
    Refusal::bad("the target has a character that must be percent-encoded")
}

/// Splits the absolute form (RFC 9112 section 3.2.2) into its authority and the rest. `None`
/// where it is another form.
#[allow(clippy::type_complexity, reason = "two slices of the target")]
fn absolute(target: &[u8]) -> Result<Option<(&[u8], &[u8])>, Refusal> {
    let is_path = |byte: &u8| matches!(byte, b'/' | b'?');
    let colon = target.windows(3).position(|window| window == b"://");
    let Some((scheme, rest)) = colon.map(|at| (&target[..at], &target[at + 3..])) else {
        return Ok(None);
    };
    if scheme.iter().any(is_path) {
        return Ok(None);
    }
    let schemes: [&[u8]; 4] = [b"http", b"https", b"ws", b"wss"];
    if !schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
        return Err(Refusal::bad("the target is of another scheme than http and https"));
    }
    let end = rest.iter().position(is_path).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    match Authority::parse(authority) {
        Some(_) => Ok(Some((authority, rest))),
        None => Err(Refusal::bad("the target names no host and port")),
    }
}

/// With bytes above 127 percent-encoded.
fn encoded(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = str::from_utf8(bytes)
        && text.is_ascii()
    {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(bytes.len() + 16);
    for &byte in bytes {
        if byte.is_ascii() {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(method: &str, target: &str) -> Result<(String, Option<String>), u16> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let target = check(method.as_bytes(), target.as_bytes());
        target
            .map(|target| (target.path.into_owned(), target.authority.map(text)))
            .map_err(|refusal| refusal.status)
    }

    #[test]
    fn each_form_gives_a_path_and_perhaps_a_host() {
        for (method, target, path, host) in [
            ("GET", "/a?b=http://c/", "/a?b=http://c/", None),
            ("GET", "//a.example/b", "//a.example/b", None),
            ("GET", "/é?é=\u{20ac}", "/%C3%A9?%C3%A9=%E2%82%AC", None),
            ("GET", "/?{|}\\^`'[]", "/?{|}\\^`'[]", None),
            ("OPTIONS", "*", "*", None),
            ("OPTIONS", "http://a", "*", Some("a")),
            ("OPTIONS", "http://a/", "/", Some("a")),
            ("GET", "http://a", "/", Some("a")),
            ("GET", "HTTPS://a:8000?b=/", "/?b=/", Some("a:8000")),
            ("GET", "ws://[::1]:80/b", "/b", Some("[::1]:80")),
        ] {
            assert_eq!(is(method, target), Ok((path.to_owned(), host.map(str::to_owned))));
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for (method, target) in [
            ("GET", "*"),
            ("GET", "a"),
            ("GET", "?a"),
            ("GET", "a:80"),
            ("GET", "/a#b"),
            ("GET", "/<"),
            ("GET", "/>"),
            ("GET", "/`"),
            ("GET", "/?q=<b>"),
            ("GET", "/?\""),
            ("GET", "ftp://a/"),
            ("GET", "http:///a"),
            ("GET", "http://user@a/"),
            ("GET", "http://a:b/"),
            ("GET", "http://a:99999/"),
            ("GET", "http:/a"),
        ] {
            assert_eq!(is(method, target), Err(400), "{method} {target}");
        }
        assert_eq!(is("GET", &format!("/{}", "a".repeat(TARGET_BYTES_MAX))), Err(414));
    }
}
