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

/// What stands between backticks in the tables of a document.
fn named(document: &str) -> BTreeSet<String> {
    let rows = document.lines().filter(|line| line.starts_with('|'));
    rows.flat_map(|row| row.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// The words in quotation marks of the lines from the one with `first` to the next with `];`.
fn list(source: &str, first: &str) -> BTreeSet<String> {
    let from = source.find(first).unwrap_or_else(|| panic!("no {first}"));
    let text = &source[from..from + source[from..].find("];").unwrap()];
    text.split('\'').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_swoole_page_has_every_event_method_and_setting_of_the_classes() {
    let page = read("docs/swoole.md");
    let told = named(&page);
    let prose = page.replace('`', " ");
    let events: BTreeSet<String> =
        prose.split(|char: char| !char.is_alphanumeric()).map(str::to_lowercase).collect();
    let server = read("clients/php/swoole/Server.php");
    let mut missing = BTreeSet::new();
    for event in list(&server, "EVENTS = [").iter().chain(&list(&server, "SILENT = [")) {
        if !events.contains(event) {
            missing.insert(event.clone());
        }
    }
    let settings = read("clients/php/src/SwooleSettings.php");
    let keys =
        list(&settings, "NOTHING_TO_DO = [").into_iter().chain(list(&settings, "$known = ["));
    missing.extend(keys.filter(|key| !told.contains(key) && key != "wsd" && key != "socket_type"));
    let aliases = ["connection_info", "connection_list", "wsd"];
    for source in [&server, &read("clients/php/swoole/WebSocket/Server.php")] {
        let public = ["public function ", "public static function "];
        let names = public.iter().flat_map(|start| source.split(start).skip(1));
        let names = names.filter_map(|rest| rest.split('(').next());
        missing.extend(
            names
                .filter(|name| name.chars().all(char::is_alphanumeric) && !aliases.contains(name))
                .filter(|name| {
                    !told.iter().any(|told| told == name || *told == format!("{name}()"))
                })
                .map(str::to_owned),
        );
    }
    assert!(missing.is_empty(), "docs/swoole.md does not tell of {missing:?}");
}

#[test]
fn the_php_package_has_the_version_of_the_program() {
    // Without one, composer takes the branch's name, which a stock Laravel refuses as unstable.
    let package: serde_json::Value =
        serde_json::from_str(&read("clients/php/composer.json")).unwrap();
    assert_eq!(package["version"], env!("CARGO_PKG_VERSION"));
}
