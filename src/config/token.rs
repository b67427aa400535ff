//! Tokens of the HTTP API: who may ask, for what. Only hashes are kept, so that a configuration
//! that leaks lets nobody in.

use std::fmt;
use std::path::Path;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::errors::Wrong;
use super::list::Item;
use super::text::quote;

/// What every token begins with, so that scanners of source code find one that was committed.
const PREFIX: &str = "wsd_";
/// Random bytes of a token. As nobody can guess them, one round of SHA-256 hides them well.
pub const SECRET_BYTES: usize = 32;
/// Tokens of one configuration: each request is compared with all.
const TOKENS_MAX: usize = 64;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 64;

/// One thing that a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Metrics, lists, and what is known of a connection.
    Read,
    /// Messages to clients, and closes.
    Push,
    /// Everything.
    Admin,
}

impl Scope {
    /// Every scope, the narrowest first.
    pub const ALL: [Scope; 3] = [Scope::Read, Scope::Push, Scope::Admin];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Push => "push",
            Scope::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// Everything.
    pub const ALL: Scopes = Scopes(0b111);

    /// Reads scopes with `+` between them: `read+push`.
    ///
    /// # Errors
    /// Where a word is no scope.
    pub fn parse(text: &str) -> Result<Scopes, String> {
        let mut bits = 0;
        for word in text.split('+') {
            let scope = Scope::ALL.into_iter().find(|scope| scope.as_str() == word);
            let wrong =
                || format!("{} is no scope: write read, push, admin or read+push", quote(word));
            bits |= scope.ok_or_else(wrong)?.bit();
        }
        Ok(Scopes(bits))
    }

    /// Whether one of them allows this.
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Scope::ALL.into_iter().filter(|scope| self.0 & scope.bit() != 0);
        let words: Vec<_> = words.map(Scope::as_str).collect();
        f.write_str(&words.join("+"))
    }
}

/// Somebody who may ask, written `NAME SCOPES sha256:HASH`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Token {
    /// Whom the log names.
    pub name: String,
    /// What it allows.
    pub scopes: Scopes,
    hash: [u8; 32],
}

impl Token {
    /// The token of a secret, and the text that its holder sends as `Authorization: Bearer`.
    pub fn of_secret(
        name: &str,
        scopes: Scopes,
        secret: &[u8; SECRET_BYTES],
    ) -> Result<(Token, String), String> {
        check_name(name)?;
        let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(secret));
        let hash = Sha256::digest(text.as_bytes()).into();
        Ok((Token { name: name.to_owned(), scopes, hash }, text))
    }

    /// Which of these a text is, if any. All are compared, each in constant time, so that the
    /// time tells nothing.
    pub fn find<'a>(tokens: &'a [Token], text: &[u8]) -> Option<&'a Token> {
        let hash: [u8; 32] = Sha256::digest(text).into();
        let mut found = None;
        for token in tokens {
            if bool::from(token.hash.ct_eq(&hash)) {
                found = Some(token);
            }
        }
        found
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain) {
        true => Ok(()),
        false => Err(format!(
            "{} is no name for a token: use up to {NAME_BYTES_MAX} letters, digits, dots, _ and -",
            quote(name)
        )),
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} sha256:{}", self.name, self.scopes, HEXLOWER.encode(&self.hash))
    }
}

impl From<Token> for String {
    fn from(token: Token) -> String {
        token.to_string()
    }
}

impl TryFrom<String> for Token {
    type Error = String;

    fn try_from(text: String) -> Result<Token, String> {
        // What is wrong is not shown: somebody may have written the token in place of its hash.
        let wrong = || "an entry is not \"NAME SCOPES sha256:HASH\"".to_owned();
        let mut words = text.split_whitespace();
        let (Some(name), Some(scopes), Some(hash), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(wrong());
        };
        check_name(name)?;
        let hash = hash.strip_prefix("sha256:").ok_or_else(wrong)?;
        let hash = HEXLOWER.decode(hash.as_bytes()).map_err(|_| wrong())?;
        let hash = <[u8; 32]>::try_from(hash).map_err(|_| wrong())?;
        Ok(Token { name: name.to_owned(), scopes: Scopes::parse(scopes)?, hash })
    }
}

impl Item for Token {
    const UNIT: &'static str = "list of tokens";

    fn item(text: &str, _: &Path) -> Result<Token, Wrong> {
        let wrong = |wrong| Wrong::new(wrong, "`wsd token NAME --scope read` prints a right one");
        Token::try_from(text.to_owned()).map_err(wrong)
    }

    fn text(&self) -> String {
        self.to_string()
    }
}

/// Names are for people, so that each has to be one token's; and a token has one entry, or one that
/// was taken back or allows less would go on by the other.
pub(super) fn tokens_differ(tokens: &[Token]) -> Result<(), Wrong> {
    if tokens.len() > TOKENS_MAX {
        let wrong = format!("has {} tokens", tokens.len());
        return Err(Wrong::new(wrong, format!("write at most {TOKENS_MAX}")));
    }
    for (index, token) in tokens.iter().enumerate() {
        if tokens[..index].iter().any(|other| other.name == token.name) {
            let wrong = format!("names {} twice", quote(&token.name));
            return Err(Wrong::new(wrong, "give each token a name of its own"));
        }
        if let Some(other) = tokens[..index].iter().find(|other| other.hash == token.hash) {
            let (one, two) = (quote(&other.name), quote(&token.name));
            let wrong = format!("has one token for {one} and {two}");
            return Err(Wrong::new(wrong, "give each of them a token of its own"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(name: &str, scopes: &str, byte: u8) -> (Token, String) {
        Token::of_secret(name, Scopes::parse(scopes).unwrap(), &[byte; SECRET_BYTES]).unwrap()
    }

    #[test]
    fn a_token_is_found_by_its_text_alone() {
        let (reader, read) = token("grafana", "read", 1);
        let (pusher, push) = token("app", "read+push", 2);
        let tokens = [reader.clone(), pusher.clone()];
        assert_eq!(Token::find(&tokens, read.as_bytes()), Some(&reader));
        assert_eq!(Token::find(&tokens, push.as_bytes()), Some(&pusher));
        assert_eq!(Token::find(&tokens, &push.as_bytes()[1..]), None);
        assert_eq!(Token::find(&tokens, b""), None);
        assert!(read.starts_with("wsd_") && read.len() == 47);
    }

    #[test]
    fn a_token_is_written_without_its_text_and_read_again() {
        let (token, text) = token("app-1", "push", 3);
        let line = token.to_string();
        assert!(!line.contains(&text[4..]));
        assert_eq!(Token::try_from(line), Ok(token));
    }

    #[test]
    fn scopes_allow_what_they_name_and_admin_all() {
        let allows = |text: &str| {
            let scopes = Scopes::parse(text).unwrap();
            Scope::ALL.map(|scope| scopes.allow(scope))
        };
        assert_eq!(allows("read"), [true, false, false]);
        assert_eq!(allows("push"), [false, true, false]);
        assert_eq!(allows("read+push"), [true, true, false]);
        assert_eq!(allows("admin"), [true, true, true]);
        assert_eq!(Scopes::ALL.to_string(), "read+push+admin");
        assert!(Scopes::parse("write").is_err());
        assert!(Scopes::parse("").is_err());
    }

    #[test]
    fn a_wrong_entry_is_refused_and_never_shown() {
        let (_, secret) = token("x", "read", 4);
        for wrong in ["", "x", "x read", &secret, &format!("x read {secret}"), "x read sha256:00"]
        {
            let error = Token::item(wrong, Path::new("")).unwrap_err();
            assert!(!error.wrong.contains(&secret[4..]), "{error:?}");
        }
        let (one, _) = token("x", "read", 1);
        let (two, _) = token("x", "push", 2);
        assert!(tokens_differ(&[one.clone(), two]).is_err());
        let (same, _) = token("y", "push", 1);
        assert!(tokens_differ(&[one.clone(), same]).is_err(), "one token, two names");
        let (other, _) = token("y", "push", 2);
        assert!(tokens_differ(&[one, other]).is_ok());
    }
}
