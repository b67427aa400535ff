//! What the server says when it refuses, as an operator is told it: in the server's own words, with
//! the cure where there is one.

use redis::{ErrorKind, RedisError};

use crate::error::Error;

const RIGHTS: &str =
    "the engine's user lacks a right: docs/cluster.md has the rights that are enough";

const CLUSTER_MODE: &str =
    "the engine runs in cluster mode, which wsd does not speak: name an engine that does not";

/// What a refusal has in it, and the cure.
const CURES: [(&str, &str); 12] = [
    (
        "DENIED",
        "give the engine's own user `default` a password (requirepass): without one the engine \
         answers its own host alone",
    ),
    (
        "NOAUTH",
        "the engine asks for a password: write the password into a file, and the file's path as \
         cluster.password_file",
    ),
    ("WRONGPASS", "look at the password of cluster.password_file and the user of cluster.engine"),
    ("NOPERM", RIGHTS),
    ("The user executing the script can't", RIGHTS),
    ("READONLY", "the engine is a replica: name its master, or its Sentinels, as cluster.engine"),
    (
        "OOM command not allowed",
        "the engine is full: raise its maxmemory, or give the cluster an engine of its own",
    ),
    (
        "MISCONF",
        "the engine cannot write to its disk, which a cluster does not need: write `save \"\"` \
         into its configuration",
    ),
    ("CLUSTERDOWN", CLUSTER_MODE),
    ("CROSSSLOT", CLUSTER_MODE),
    ("MOVED ", CLUSTER_MODE),
    ("DB index is out of range", "name a database that the engine has in cluster.engine"),
];

/// An error as an operator is told it.
pub fn told(error: &RedisError) -> Error {
    let words = words(error);
    match cure(&words) {
        Some(cure) => Error::new(format!("{words}; {cure}")),
        None => Error::new(words),
    }
}

fn cure(words: &str) -> Option<&'static str> {
    CURES.iter().find(|(part, _)| words.contains(part)).map(|(_, cure)| *cure)
}

/// The fault in one line.
pub fn words(error: &RedisError) -> String {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::RESP3NotSupported => {
            "the engine does not know HELLO: wsd needs a Redis 6 or later, or a Valkey".to_owned()
        }
        ErrorKind::Parse => {
            let first = text.lines().next().unwrap_or_default();
            format!("the engine answers as no Redis does ({first})")
        }
        _ => refusal(error).unwrap_or(text),
    }
}

/// What the server itself has said: its first sentence, without the place in a script of ours.
fn refusal(error: &RedisError) -> Option<String> {
    let errors = error.clone().into_server_errors()?;
    let (_, first) = errors.first()?;
    let detail = first.details().unwrap_or_default();
    let detail = detail.split_once(" script: ").map_or(detail, |(before, _)| before);
    let sentence = detail.split_once(". ").map_or(detail, |(first, _)| first);
    Some(format!("{} {}", first.code(), sentence.trim_end_matches('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an operator is told of a server's answer.
    fn of(answer: &str) -> String {
        let value = redis::parse_redis_value(format!("{answer}\r\n").as_bytes());
        let error = match value.and_then(redis::Value::extract_error) {
            Ok(value) => panic!("no error: {value:?}"),
            Err(error) => error,
        };
        told(&error).to_string()
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words_with_its_cure() {
        let told = of("-OOM command not allowed. script: d4d9, on @user_script:1.");
        assert!(told.starts_with("OOM command not allowed; the engine is full"), "{told}");
        let told = of("-DENIED Redis is running in protected mode. In this mode 1) disable it");
        assert!(told.contains("a password") && !told.contains("disable"), "{told}");
        for (answer, cure) in [
            ("-NOAUTH HELLO must be called", "cluster.password_file"),
            ("-WRONGPASS invalid username-password pair", "cluster.password_file"),
            ("-NOPERM this user has no permissions to run the 'eval' command", "docs/cluster.md"),
            ("-ERR The user executing the script can't run this command", "docs/cluster.md"),
            ("-READONLY You can't write against a read only replica.", "Sentinels"),
            ("-ERR Error running script (call to f_d4): @user_script: 1: -READONLY", "Sentinels"),
            ("-CROSSSLOT Keys in request don't hash to the same slot", "cluster mode"),
            ("-MISCONF Redis is configured to save RDB snapshots", "save \"\""),
        ] {
            assert!(of(answer).contains(cure), "{answer}: {}", of(answer));
        }
        assert_eq!(of("-LOADING Redis loads"), "LOADING Redis loads", "that ends by itself");
    }
}
