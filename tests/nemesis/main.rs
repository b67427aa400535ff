//! A short run of the nemesis, and the proof that its checker sees what is broken.
//!
//! `scripts/nemesis` runs it for as long as you like.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::{Command, Output};

mod addresses;

fn nemesis(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nemesis")).args(arguments).output().expect("run the nemesis")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// How often something was done, as the report has it.
fn count_of(said: &str, what: &str) -> u64 {
    let count = |line: &str| line.trim().strip_suffix(what)?.trim().parse::<u64>().ok();
    said.lines().find_map(count).unwrap_or(0)
}

#[test]
fn no_deployment_costs_a_message_that_nothing_accounts_for() {
    let faults = "reload,upgrade,churn";
    let output = nemesis(&["--seconds", "8", "--seed", "5", "--only", faults]);
    println!("{}", said(&output));
    assert!(output.status.success(), "see above; the first line has the seed");
}

#[test]
fn no_fault_costs_a_message_that_nothing_accounts_for() {
    let output = nemesis(&["--seconds", "20", "--seed", "7"]);
    println!("{}", said(&output));
    assert!(output.status.success(), "see above; the first line has the seed");
}

/// The server does one thing wrong, on purpose, while it is reloaded.
fn is_seen(broken: &str, as_what: &str) {
    let output = nemesis(&["--seconds", "5", "--only", "reload,churn", "--break", broken]);
    let said = said(&output);
    let seen = said.lines().any(|line| line.contains("VIOLATION") && line.contains(as_what));
    assert!(seen && output.status.code() == Some(1), "{broken} was not seen:\n{said}");
}

#[test]
fn a_dropped_message_is_seen() {
    is_seen("drop", "lost at");
}

#[test]
fn a_doubled_message_is_seen() {
    is_seen("double", "doubled at");
}

#[test]
fn two_messages_that_swapped_places_are_seen() {
    is_seen("swap", "out of order at");
}

#[test]
fn a_corrupt_message_is_seen() {
    is_seen("corrupt", "corrupt at");
}

#[test]
fn a_message_at_another_client_is_seen() {
    is_seen("misroute", "wrong addressee");
}

#[test]
fn an_open_without_its_close_is_seen() {
    is_seen("unclosed", "opens or closes without the other");
}

#[test]
fn a_publish_that_does_not_come_is_seen() {
    is_seen("unpublished", "lost at");
}

#[test]
fn a_publish_at_one_who_is_no_member_is_seen() {
    is_seen("stranger", "no member");
}

#[test]
fn a_presence_event_that_comes_twice_is_seen() {
    is_seen("presence", "presence twice");
}

#[test]
fn no_fault_of_nodes_or_engine_costs_a_message_that_nothing_accounts_for() {
    let faults = "churn,stall,kill-courier,stop-courier,kill-engine,stop-engine,cut,stall-link,\
                  slow-link,freeze-node,kill-node,restart-node,twin";
    let load = ["--nodes", "3", "--clients", "9", "--pause-ms", "100", "--seconds", "10"];
    let output = nemesis(&[&load[..], &["--seed", "11", "--only", faults]].concat());
    println!("{}", said(&output));
    assert!(output.status.success(), "see above; the first line has the seed");
}

#[test]
fn no_failover_and_no_moved_clock_costs_a_message_that_nothing_accounts_for() {
    // The seed begins with two ways of a failover, clocks that go forward and back, of a node and
    // of the engine, and a node that has lost its file of numbers.
    let faults = ["--seed", "314", "--only", "failover,move-clock,restart-node"];
    let load = ["--nodes", "3", "--clients", "9", "--pause-ms", "100", "--seconds", "25"];
    let output = nemesis(&[&load[..], &faults].concat());
    let said = said(&output);
    println!("{said}");
    assert!(output.status.success(), "see above; the first line has the seed");
    for fault in ["failovers by Sentinels", "clocks that were moved"] {
        assert!(count_of(&said, fault) > 0, "no {fault}: see above");
    }
}

/// Two nodes do one thing wrong, on purpose.
fn is_seen_of_nodes(broken: &str, as_what: &str) {
    let faults = ["--only", "churn,slow-link", "--break", broken];
    let load = ["--nodes", "2", "--clients", "16", "--pause-ms", "20", "--seconds", "14"];
    let output = nemesis(&[&load[..], &faults].concat());
    let said = said(&output);
    let seen = said.lines().any(|line| line.contains("VIOLATION") && line.contains(as_what));
    assert!(seen && output.status.code() == Some(1), "{broken} was not seen:\n{said}");
}

#[test]
fn a_publish_that_comes_twice_from_another_node_is_seen() {
    is_seen_of_nodes("twice", "doubled at");
}

#[test]
fn a_presence_event_of_a_user_that_stayed_is_seen() {
    is_seen_of_nodes("ghost", "stayed, and");
}
