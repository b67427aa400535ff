//! `token`: makes a token for the HTTP API. It asks no server.

use std::fs::File;
use std::io::Read;

use super::{ExitStatus, print, say_wrong};
use crate::config::{Scopes, TOKEN_SECRET_BYTES, Token};

/// Makes a token and prints it, once, with the line that lets its holder in.
pub(crate) fn token(name: &str, scopes: Scopes, json: bool) -> ExitStatus {
    let mut secret = [0; TOKEN_SECRET_BYTES];
    // Once the kernel has randomness at all, which is long before anybody types, this device
    // never waits and never runs out (random(4)).
    let random = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut secret));
    if let Err(error) = random {
        say_wrong(&format!("cannot read /dev/urandom: {error}"));
        return ExitStatus::Failed;
    }
    let (token, text) = match Token::of_secret(name, scopes, &secret) {
        Ok(made) => made,
        Err(wrong) => {
            say_wrong(&wrong);
            return ExitStatus::Usage;
        }
    };
    let entry = token.to_string();
    let told = match json {
        true => format!("{}\n", serde_json::json!({ "token": text, "entry": entry })),
        false => format!(
            "{text}\n\nThis is the token; it is not shown again. Its holder sends it as\n\n  \
             Authorization: Bearer {text}\n\nLet it in by adding to the configuration, and \
             reload:\n\n  [api]\n  tokens = [\"{entry}\"]\n"
        ),
    };
    match print(&told) {
        Ok(()) => ExitStatus::Done,
        Err(_) => ExitStatus::Failed,
    }
}
