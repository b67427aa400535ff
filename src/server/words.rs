//! The words of the command line that are checked before anything is done.

use std::time::Duration;

use crate::config::Sources;

/// The two ways to push.
pub const PUSH_USAGE: &str = "\
wsd push [OPTIONS] <FD> <TEXT>
       wsd push [OPTIONS] --uid <UID> <TEXT>";

/// Keys that say where the server is, and whether the place may be believed.
const PLACES: [&str; 3] = ["runtime_dir", "unsafe_paths", "pid_file"];

/// Refuses a `--set` by which a reload would change nothing.
///
/// # Errors
/// The refusal, which names the key and the cure.
pub fn check_sets(sources: &Sources) -> Result<(), String> {
    match sources.set.iter().find(|(key, _)| !PLACES.contains(&key.as_str())) {
        None => Ok(()),
        Some((key, _)) => Err(format!(
            "--set {key}: a server keeps the --set of its start, so that this would change \
             nothing; write the key into the configuration file, or restart with the --set"
        )),
    }
}

/// The code of a close.
pub fn close_code(text: &str) -> Result<u16, String> {
    let wrong = "write 1000 to 1003, 1007 to 1014, or 3000 to 4999";
    let code = crate::config::digits(text).filter(|code| crate::close::code_may_be_sent(*code));
    code.ok_or_else(|| wrong.to_owned())
}

/// How long to wait.
pub fn time(text: &str) -> Result<Duration, String> {
    crate::config::duration(text).ok_or_else(|| "write a time such as 500ms or 10s".to_owned())
}

/// The reason of a close.
pub fn close_reason(text: &str) -> Result<String, String> {
    let (length, most) = (text.len(), crate::close::REASON_BYTES_MAX);
    match length <= most {
        true => Ok(text.to_owned()),
        false => Err(format!("the reason has {length} bytes; a close frame takes at most {most}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_close_code_is_digits_that_may_be_sent() {
        assert_eq!(close_code("4000"), Ok(4000));
        for text in ["", "+4000", "-1", "1005", "999", "70000"] {
            assert!(close_code(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_reload_takes_the_set_that_finds_the_server_and_no_other() {
        let with = |key: &str| Sources {
            set: vec![("runtime_dir".into(), "/r".into()), (key.into(), "secret".into())],
            ..Sources::default()
        };
        assert_eq!(check_sets(&with("pid_file")), Ok(()));
        let refused = check_sets(&with("worker_num")).unwrap_err();
        assert!(refused.contains("--set worker_num:") && !refused.contains("secret"), "{refused}");
    }
}
