//! The names of rooms and users in a request: one that is longer than a name may be is nobody's,
//! and whoever asks is told so in place of "nobody is there".

use crate::api::Verdict;
use crate::ipc::control::{Answer, Request, Rooms};
use crate::manager::settings::Settings;

/// Checks the names that the manager itself looks for. What a request gives to the worker of one
/// client is checked there.
///
/// # Errors
/// The answer to a request with a name that is too long.
pub fn check(request: &Request, settings: &Settings) -> Result<(), Answer> {
    let rooms = |text: &str| bounded(text, "the name of a room", settings.room_name_max);
    let user = |text: &str| bounded(text, "a uid", settings.uid_max);
    match request {
        Request::Connections { room, uid, .. } | Request::Members { room, uid, .. } => {
            room.as_deref().map_or(Ok(()), rooms)?;
            uid.as_deref().map_or(Ok(()), user)
        }
        Request::Publish { room, uid, .. } => {
            match room {
                Some(Rooms::One(room)) => rooms(room)?,
                Some(Rooms::Several(names)) => names.iter().try_for_each(|name| rooms(name))?,
                None => {}
            }
            uid.as_deref().map_or(Ok(()), user)
        }
        Request::CloseUser { uid, .. } => user(uid),
        _ => Ok(()),
    }
}

fn bounded(name: &str, what: &str, max: usize) -> Result<(), Answer> {
    if name.len() <= max {
        return Ok(());
    }
    let mut answer = Answer::failed(format!("{what} has at most {max} bytes"));
    answer.verdict = Some(Verdict::TooBig);
    Err(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_too_long_is_refused_wherever_it_stands() {
        let json = serde_json::to_string(&crate::config::Config::default()).unwrap();
        let settings = Settings::from_json(&json).unwrap();
        let (long, short) = ("x".repeat(256), "x".repeat(255));
        let refused = |line: String| {
            let request: Request = serde_json::from_str(&line).unwrap();
            let answer = check(&request, &settings).err();
            answer.map(|answer| (answer.ok, answer.verdict))
        };
        for line in [
            r#"{"cmd":"members","room":"NAME"}"#,
            r#"{"cmd":"members","uid":"NAME"}"#,
            r#"{"cmd":"connections","room":"NAME"}"#,
            r#"{"cmd":"connections","uid":"NAME"}"#,
            r#"{"cmd":"publish","room":"NAME","bytes":0}"#,
            r#"{"cmd":"publish","room":["a","NAME"],"bytes":0}"#,
            r#"{"cmd":"publish","uid":"NAME","bytes":0}"#,
            r#"{"cmd":"close_user","uid":"NAME"}"#,
        ] {
            let is_too_big = Some((false, Some(Verdict::TooBig)));
            assert_eq!(refused(line.replace("NAME", &long)), is_too_big, "{line}");
            assert_eq!(refused(line.replace("NAME", &short)), None, "{line}");
        }
    }
}
