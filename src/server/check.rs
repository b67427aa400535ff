//! `check`: everything that a start would fail on, told without a start.

use serde_json::json;

use super::command::ExitStatus;
use super::launcher::invoked_path;
use super::obstacles::obstacles;
use crate::config::{Config, ConfigErrors, Sources};

/// Checks a configuration that was read without a fault.
pub(super) fn check(sources: &Sources, config: &Config, json: bool) -> ExitStatus {
    let found = obstacles(sources, &invoked_path(), config);
    found.iter().for_each(|obstacle| eprintln!("wsd: {obstacle}"));
    if json {
        let errors: Vec<_> = found
            .iter()
            .map(|it| json!({ "place": "", "key": it.key, "text": it.to_string() }))
            .collect();
        println!(
            "{}",
            json!({
                "ok": found.is_empty(),
                "errors": errors,
                "doubts": config.doubts(),
                "config": config,
            })
        );
    }
    if !found.is_empty() {
        return ExitStatus::Failed;
    }
    if !json {
        println!("the configuration is good");
        for doubt in config.doubts() {
            println!("but {doubt}");
        }
    }
    ExitStatus::Done
}

/// Tells the faults of a configuration as JSON.
pub(super) fn print_errors(errors: &ConfigErrors) {
    let errors: Vec<_> = errors
        .0
        .iter()
        .map(|error| {
            json!({
                "place": error.source.to_string(),
                "key": error.key,
                "wrong": error.what.wrong,
                "right": error.what.right,
                "text": error.to_string(),
            })
        })
        .collect();
    println!("{}", json!({ "ok": false, "errors": errors }));
}
