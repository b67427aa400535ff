//! The answer to a request.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::line;
use crate::api::Verdict;
use crate::fd::Fd;

/// The line that ends an answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Whether it was done.
    pub ok: bool,
    /// Why not: a whole sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What became of a push or close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// What else the command answers.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Answer {
    /// Done.
    pub fn ok() -> Answer {
        Answer { ok: true, ..Answer::default() }
    }

    /// Done, with the fields of a value that serializes to an object.
    pub fn with(value: &impl Serialize) -> Answer {
        match serde_json::to_value(value) {
            Ok(Value::Object(more)) => Answer { more, ..Answer::ok() },
            Ok(_) => Answer::failed("the answer is not an object"),
            Err(error) => Answer::failed(format!("cannot write the answer: {error}")),
        }
    }

    /// Done, and one thing more to say.
    pub fn and(mut self, key: &str, value: impl Into<Value>) -> Answer {
        self.more.insert(key.to_owned(), value.into());
        self
    }

    /// Not done, and why.
    pub fn failed(error: impl Into<String>) -> Answer {
        Answer { error: Some(error.into()), ..Answer::default() }
    }

    /// Whether it was not done, and the reason ends so.
    pub fn says(&self, why: &str) -> bool {
        self.error.as_ref().is_some_and(|error| error.ends_with(why))
    }

    /// What became of a push or close to `fd`.
    pub fn verdict(fd: Fd, verdict: Verdict) -> Answer {
        let error = match verdict {
            Verdict::Queued | Verdict::Relayed => None,
            Verdict::Gone => Some(format!("there is no client {fd}")),
            Verdict::Full => Some(format!("what waits for client {fd} is at its limit")),
            Verdict::TooBig => Some("the message is larger than a message may be".to_owned()),
            Verdict::NoUser => {
                Some(format!("client {fd} is no user's, and that room has presence"))
            }
            Verdict::LocalOnly => {
                Some("the engine of the cluster is away: other nodes were not asked".to_owned())
            }
            Verdict::Unknown => Some(format!(
                "the worker of client {fd} did not answer in time; the request may have \
                 been done or not"
            )),
        };
        Answer { ok: verdict.is_ok(), error, verdict: Some(verdict), more: Map::new() }
    }

    /// As a line, its end included.
    pub fn line(&self) -> String {
        line(self)
    }

    /// The fields of the answer as a value of their own.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_value(Value::Object(self.more.clone()))
    }
}
