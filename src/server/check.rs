//! `check`: everything that a start would fail on, told without a start.

use std::fmt;
use std::io::{self, Write};

use serde_json::json;

use super::command::ExitStatus;
use super::launcher::invoked_path;
use super::obstacles::{Obstacle, obstacle, obstacles};
use crate::config::{Config, ConfigErrors, Sources};
use crate::courier::{self, Description};
use crate::error::Error;
use crate::master::{doubted_file, engine_password};

/// Checks a configuration that was read without a fault.
pub(super) fn check(sources: &Sources, config: &Config, connect: bool, json: bool) -> ExitStatus {
    let mut found = obstacles(sources, &invoked_path(), config);
    let engine = match connect && found.is_empty() {
        true => ask_engine(sources, config).map_err(|obstacle| found.push(obstacle)).ok(),
        false => None,
    };
    let engine_doubts = engine.as_ref().map_or(&[][..], |engine| &engine.doubts);
    let doubts: Vec<String> =
        config.doubts().into_iter().chain(engine_doubts.iter().cloned()).collect();
    found.iter().for_each(|obstacle| crate::log::say(format_args!("wsd: {obstacle}")));
    if json {
        let errors: Vec<_> = found
            .iter()
            .map(|it| json!({ "place": "", "key": it.key, "text": it.to_string() }))
            .collect();
        show(json!({
            "ok": found.is_empty(),
            "errors": errors,
            "doubts": doubts,
            "engine": engine.as_ref().map(|engine| &engine.what),
            "config": without_secrets(config),
        }));
    }
    if !found.is_empty() {
        return ExitStatus::Failed;
    }
    if !json {
        show("the configuration is good");
        if let Some(engine) = &engine {
            show(&engine.what);
        }
        for doubt in doubts {
            show(format_args!("but {doubt}"));
        }
    }
    ExitStatus::Done
}

/// Prints a line. A reader that has gone is no failure: the status says how the check went.
fn show(text: impl fmt::Display) {
    let _ = io::stdout().write_all(format!("{text}\n").as_bytes());
}

/// The configuration as it may be shown.
fn without_secrets(config: &Config) -> Config {
    let mut shown = config.clone();
    shown.app.env.values_mut().for_each(|value| "***".clone_into(value));
    shown
}

/// What the engine of the cluster says, in a sentence, and what is doubtful about it.
fn ask_engine(sources: &Sources, config: &Config) -> Result<Description, Obstacle> {
    if let Some(doubt) = doubted_file(sources) {
        let text =
            format!("{doubt}, and could have the password told to any engine; make it yours");
        return Err(obstacle("", format!("the configuration file: {text}")));
    }
    let Some(address) = &config.cluster.engine else {
        return Err(obstacle("cluster.engine", "is empty, so there is no engine to connect to"));
    };
    let told = |error: Error| obstacle("cluster.engine", format!("{address}: {error}"));
    let password = engine_password(config).map_err(told)?;
    let unasked = address.user.as_ref().filter(|_| password.is_none());
    let (mut engine, nodes) = courier::check(config, password).map_err(told)?;
    engine.doubts.extend(unasked.map(|user| {
        format!(
            "cluster.engine names the user {user} and there is no password: the engine takes this \
             server for its default user; name a cluster.password_file"
        )
    }));
    let name = &config.cluster.name;
    engine.what = format!(
        "{} answers at {address}; nodes of the cluster {name} that are there: {}",
        engine.what,
        nodes.len()
    );
    Ok(engine)
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
    show(json!({ "ok": false, "errors": errors }));
}
