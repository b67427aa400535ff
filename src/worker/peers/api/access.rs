//! Who may ask what.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::answer::Fault;
use crate::config::{Config, Scope, Scopes, Token};

/// What a request may do, by the token it carries. On a Unix socket one without a token may do
/// all: who may connect there is decided by the permissions of the socket.
///
/// # Errors
/// The answer, where the token is missing, unknown or written wrongly.
pub(super) fn scopes(
    config: &Config,
    headers: &HeaderMap,
    on_unix: bool,
) -> Result<Scopes, Fault> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (field, more) = (fields.next(), fields.next());
    let Some(field) = field else {
        return match on_unix {
            true => Ok(Scopes::ALL),
            false => Err(Fault::Unauthorized("a token is needed: Authorization: Bearer TOKEN")),
        };
    };
    let text = field.as_bytes().trim_ascii();
    let (scheme, token) = text.split_at_checked(7).unwrap_or((text, b""));
    if more.is_some() || !scheme.eq_ignore_ascii_case(b"bearer ") {
        return Err(Fault::Unauthorized("write one field Authorization: Bearer TOKEN"));
    }
    let found = Token::find(&config.api.tokens, token.trim_ascii_start());
    found.map(|token| token.scopes).ok_or(Fault::Unauthorized("there is no such token"))
}

/// Whether these allow that.
pub(super) fn check(scopes: Scopes, scope: Scope) -> Result<(), Fault> {
    if scopes.allow(scope) { Ok(()) } else { Err(Fault::Forbidden(scope)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> (Config, String) {
        let scopes = Scopes::parse("read").unwrap();
        let (token, text) = Token::of_secret("x", scopes, &[7; 32]).unwrap();
        let mut config = Config::default();
        config.api.tokens = vec![token];
        (config, text)
    }

    fn with(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|field| (AUTHORIZATION, field.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_opens_and_only_a_unix_socket_opens_without() {
        let (config, token) = config();
        let read = Scopes::parse("read").unwrap();
        for field in [format!("Bearer {token}"), format!("bearer   {token} ")] {
            for on_unix in [true, false] {
                assert_eq!(scopes(&config, &with(&[&field]), on_unix).ok(), Some(read));
            }
        }
        assert_eq!(scopes(&config, &with(&[]), true).ok(), Some(Scopes::ALL));
        assert!(scopes(&config, &with(&[]), false).is_err());
    }

    #[test]
    fn what_is_no_token_opens_nothing_anywhere() {
        let (config, token) = config();
        let good = format!("Bearer {token}");
        let wrong = ["", "Bearer", "Bearer ", "Bearer x", &token, &format!("Basic {token}")];
        for on_unix in [true, false] {
            for field in wrong {
                assert!(scopes(&config, &with(&[field]), on_unix).is_err(), "{field}");
            }
            assert!(scopes(&config, &with(&[&good, &good]), on_unix).is_err());
            let mut extended = with(&[]);
            extended.append(AUTHORIZATION, format!("{good}x").parse().unwrap());
            assert!(scopes(&config, &extended, on_unix).is_err());
        }
    }
}
