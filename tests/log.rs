//! The log of a real process, with the worst descriptors 2 the world has. The test program runs
//! itself as the process that logs.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::{self, File};
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wsd::config::{LogFormat, LogLevel};
use wsd::log::{self, Output};

/// What the child logs: far more than a pipe holds (64 KiB).
const LINES: u64 = 2000;

/// Names the output to the child; without it this test is not a child.
const OUTPUT: &str = "LOG_TEST_OUTPUT";

#[test]
fn as_a_child() {
    let output = match std::env::var(OUTPUT).as_deref() {
        Ok("direct") => Output::Direct,
        Ok("queued") => Output::Queued,
        _ => return,
    };
    log::init("worker 0", LogLevel::Info, LogFormat::Text, output).unwrap();
    for line in 0..LINES {
        tracing::info!(line, odd = %"a\nb\u{2028}", "{}", "x".repeat(80));
        tracing::debug!("below the level");
    }
    let flushed = log::flush(Duration::from_millis(200));
    println!("done flushed={flushed} dropped={}", log::dropped());
    std::process::exit(0);
}

fn child(output: &str, stderr: Stdio) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "as_a_child", "--nocapture"])
        .env(OUTPUT, output)
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .unwrap()
}

/// Waits for the child's own end and returns (flushed, dropped) as it said.
fn ended(child: Child) -> (bool, u64) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}", output.status);
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text.lines().find_map(|line| line.split_once("done flushed=")).unwrap().1;
    let (flushed, dropped) = line.split_once(" dropped=").unwrap();
    (flushed == "true", dropped.parse().unwrap())
}

#[test]
fn every_line_reaches_a_file_whole() {
    for output in ["direct", "queued"] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let child = child(output, File::create(&path).unwrap().into());
        assert_eq!(ended(child), (true, 0));
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count() as u64, LINES);
        let end = format!(" line={} odd=a\\nb\\u{{2028}}\n", LINES - 1);
        assert!(text.ends_with(&end), "{}", &text[text.len() - 80..]);
    }
}

#[test]
fn a_full_disk_loses_lines_and_nothing_else() {
    for output in ["direct", "queued"] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (flushed, dropped) = ended(child(output, full.into()));
        assert!(flushed);
        assert_eq!(dropped, LINES);
    }
}

#[test]
fn a_reader_that_left_does_not_end_the_process() {
    for output in ["direct", "queued"] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let (_, dropped) = ended(child(output, writer.into()));
        assert_eq!(dropped, LINES);
    }
}

#[test]
fn a_reader_that_hangs_does_not_stop_the_process() {
    for output in ["direct", "queued"] {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let (flushed, dropped) = ended(child(output, writer.into()));
        assert_eq!(flushed, output == "direct");
        assert!(dropped > 0 || output == "queued");
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.lines().all(|line| line.contains(" worker 0: ")));
    }
}
