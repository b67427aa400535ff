//! Holds the documents to the code.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The variants of every enum that is a direction of messages.
fn directions(source: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut current = None;
    for line in source.lines() {
        if let Some(rest) = line.strip_prefix("pub enum ") {
            let name = rest.trim_end_matches(" {");
            current = name.contains("To").then(|| name.to_owned());
        } else if line == "}" {
            current = None;
        } else if let (Some(name), Some(rest)) = (&current, line.strip_prefix("    "))
            && rest.starts_with(|first: char| first.is_ascii_uppercase())
        {
            let end = rest.find(|c: char| !c.is_alphanumeric()).unwrap_or(rest.len());
            found.entry(name.clone()).or_default().insert(rest[..end].to_owned());
        }
    }
    found
}

/// The first cells of the tables under `### Name` headings.
fn tables(document: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut current = None;
    for line in document.lines() {
        if line.starts_with('#') {
            current = line.strip_prefix("### ").map(str::to_owned);
        } else if let (Some(name), Some(rest)) = (&current, line.strip_prefix("| `")) {
            let variant = rest.split('`').next().unwrap().to_owned();
            found.entry(name.clone()).or_default().insert(variant);
        }
    }
    found
}

#[test]
fn the_ipc_document_lists_every_message_and_no_other() {
    let messages = directions(&read("src/ipc/messages.rs"));
    assert!(messages.len() >= 8, "{messages:?}");
    assert_eq!(tables(&read("docs/ipc.md")), messages);
}
