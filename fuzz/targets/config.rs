//! A configuration of any text: each fault names the key or the line and stands on one line of
//! its own; what is taken, shown and read again is the same; and a broken one still leads to a
//! server that runs.
//!
//! Input: what `--set` says, an empty line, the file.

#![no_main]

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use libfuzzer_sys::fuzz_target;
use wsd::config::{Config, ConfigError, Source, Sources};
use wsd::sys::memory::open_memfd;

fuzz_target!(|text: &str| {
    let (sets, file) = text.split_once("\n\n").unwrap_or(("", text));
    let set = sets.lines().filter_map(|line| Sources::parse_set(line).ok()).collect();
    let (_memfd, path) = file_of(file);
    let sources =
        Sources { file: Some(path), set, dir: PathBuf::from("/"), uid: 0, ..Sources::default() };
    let errors = match Config::load(Config::default(), &sources) {
        Ok(config) => return comes_back(&config),
        Err(errors) => errors,
    };
    assert!(!errors.0.is_empty());
    assert_eq!(errors.to_string().lines().count(), errors.0.len(), "{errors}");
    let lines = file.lines().count().max(1);
    errors.0.iter().for_each(|error| points_somewhere(error, lines));
    if let Ok(running) = Config::load_to_find(Config::default(), &sources) {
        assert!(!running.runtime_dir.as_os_str().is_empty());
    }
});

fn file_of(text: &str) -> (File, PathBuf) {
    let mut file = File::from(open_memfd("fuzz").unwrap());
    file.write_all(text.as_bytes()).unwrap();
    let path = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    (file, path)
}

fn points_somewhere(error: &ConfigError, lines: usize) {
    match &error.source {
        Source::File { line, column, .. } => {
            assert!(*line >= 1 && *column >= 1, "{error}");
            // The end of a file is on the line behind its last line end.
            assert!(*line <= lines + 1, "{error}");
        }
        Source::Builtin | Source::Set(_) => assert!(!error.key.is_empty(), "{error}"),
        Source::Environment(_) => panic!("there was none: {error}"),
    }
    assert!(!error.what.wrong.is_empty() && !error.what.right.is_empty(), "{error}");
    assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
}

fn comes_back(config: &Config) {
    let shown = config.shown();
    let text: String = shown.iter().map(|(key, value)| format!("{key} = {value}\n")).collect();
    let (_memfd, path) = file_of(&text);
    let sources = Sources { file: Some(path), dir: PathBuf::from("/"), ..Sources::default() };
    let again = Config::load(Config::default(), &sources)
        .unwrap_or_else(|errors| panic!("{errors}\n{text}"));
    assert_eq!(again.shown(), shown);
}
