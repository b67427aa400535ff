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
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ipc/messages");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let source: String = files.map(|file| fs::read_to_string(file).unwrap()).collect();
    let messages = directions(&source);
    assert!(messages.len() >= 8, "{messages:?}");
    assert_eq!(tables(&read("docs/ipc.md")), messages);
}

#[test]
fn the_ipc_document_lists_every_request_of_the_control_protocol() {
    let source = read("src/ipc/control.rs");
    let (_, body) = source.split_once("pub enum Request {\n").unwrap();
    let (body, _) = body.split_once("\n}\n").unwrap();
    let variants = body.lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?.split(' ').next()?;
        name.starts_with(|first: char| first.is_ascii_uppercase()).then(|| snake_case(name))
    });
    let document = read("docs/ipc.md");
    let (_, section) = document.split_once("## The control protocol").unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let listed = rows.flat_map(|cell| cell.split(", ").map(|name| name.trim_matches('`')));
    let listed: BTreeSet<String> =
        listed.filter(|name| *name != "cmd").map(str::to_owned).collect();
    assert_eq!(listed, variants.collect());
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
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
    for kind in ["EVENTS = [", "SILENT = [", "KEPT = ["] {
        missing.extend(list(&server, kind).into_iter().filter(|event| !events.contains(event)));
    }
    let settings = read("clients/php/src/SwooleSettings.php");
    let keys =
        list(&settings, "NOTHING_TO_DO = [").into_iter().chain(list(&settings, "$known = ["));
    missing.extend(keys.filter(|key| !told.contains(key) && key != "wsd" && key != "socket_type"));
    // Other names, and what PHP's foreach calls.
    let aliases = [
        "connection_info",
        "connection_list",
        "wsd",
        "clients",
        "leaving",
        "delete",
        "belong",
        "run",
        "opensWebSockets",
    ];
    let foreach = ["rewind", "valid", "current", "key", "next"];
    let classes =
        ["Server", "WebSocket/Server", "Server/Port", "Table", "Atomic", "Lock", "Process"];
    for source in classes.map(|class| read(&format!("clients/php/swoole/{class}.php"))) {
        let public = ["public function ", "public static function "];
        let names = public.iter().flat_map(|start| source.split(start).skip(1));
        let names = names.filter_map(|rest| rest.split('(').next());
        missing.extend(
            names
                .filter(|name| name.chars().all(char::is_alphanumeric))
                .filter(|name| !aliases.contains(name) && !foreach.contains(name))
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

/// Every source file below a directory, by its path from the root.
fn sources(below: &str) -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.join(below)];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    found
}

/// Whether a source has a function, type or variant of that name.
fn defines(source: &str, name: &str) -> bool {
    let is_word = |at: usize| {
        let after = source[at + name.len()..].chars().next();
        !after.is_some_and(|char| char.is_alphanumeric() || char == '_')
    };
    let found = |start: &str| {
        let wanted = format!("{start}{name}");
        source.match_indices(&wanted).any(|(at, _)| is_word(at + start.len()))
    };
    let kinds = ["fn ", "struct ", "enum ", "trait ", "type ", "const "];
    kinds.iter().any(|kind| found(kind)) || (name.starts_with(char::is_uppercase) && found("    "))
}

/// Parts of a page's line between backticks, with the text that stands before each.
fn quoted(line: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = line.split('`').collect();
    parts.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}

/// Pages that lead into the code.
const PAGES: [&str; 6] = [
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/cluster.md",
    "docs/failures.md",
    "docs/glossary.md",
    "docs/ipc.md",
];

/// Every file that these pages name is there, and where they name a file and
/// then a name of it (`src/a.rs`, `run`), or a name in a file (`Run` in `src/a.rs`), so is that.
#[test]
fn what_the_pages_say_is_in_a_file_is_there() {
    let code = sources("src");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut faults, mut pairs) = (Vec::new(), 0);
    for page in PAGES {
        let text = read(page);
        for (number, line) in text.lines().enumerate() {
            let mut fault = |what: String| faults.push(format!("{page}:{}: {what}", number + 1));
            let (mut file, mut name) = (None, None);
            for (before, part) in quoted(line) {
                let is_path = ["src/", "tests/", "clients/", "fuzz/", "bin/", "docs/"]
                    .iter()
                    .any(|start| part.starts_with(start));
                if is_path && !root.join(part).exists() {
                    fault(format!("{part} is not there"));
                }
                let told = match (before, file, name) {
                    (", ", Some(file), _) if !is_path => Some((file, part)),
                    (" in ", _, Some(name)) if is_path => Some((part, name)),
                    _ => None,
                };
                if let Some((file, name)) = told
                    && let Some(source) = code.get(file)
                {
                    pairs += 1;
                    if !defines(source, name) {
                        fault(format!("{file} has no {name}"));
                    }
                }
                file = (is_path && part.ends_with(".rs")).then_some(part);
                name = (!is_path).then_some(part);
            }
        }
    }
    assert!(pairs >= 60, "only {pairs} names were looked for");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A name of so many words between backticks is a test's.
const TEST_WORDS: usize = 5;

/// A page that says which test keeps a promise names one that is there.
#[test]
fn every_test_that_a_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let code: String = ["src", "tests"].into_iter().flat_map(sources).map(|file| file.1).collect();
    let pages = ["docs", "docs/decisions"].map(|folder| fs::read_dir(root.join(folder)).unwrap());
    let pages = pages.into_iter().flatten().map(|page| page.unwrap().path());
    let pages: Vec<_> =
        pages.filter(|page| page.extension().is_some_and(|end| end == "md")).collect();
    // The names of metrics are as long.
    let is_test = |name: &&str| {
        let plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
        name.split('_').count() >= TEST_WORDS
            && name.chars().all(plain)
            && !name.starts_with("wsd_")
    };
    let (mut missing, mut found) = (BTreeSet::new(), 0);
    for page in pages {
        let text = fs::read_to_string(page).unwrap();
        for name in text.lines().flat_map(quoted).map(|(_, part)| part).filter(is_test) {
            found += 1;
            if !code.contains(&format!("fn {name}(")) {
                missing.insert(name.to_owned());
            }
        }
    }
    assert!(found >= 60, "only {found} names were looked for");
    assert!(missing.is_empty(), "no test has the name {missing:?}");
}

/// A term of the glossary that looks like a type is one.
#[test]
fn every_type_of_the_glossary_is_in_the_source() {
    let code: String = sources("src").into_values().collect();
    let page = read("docs/glossary.md");
    let is_type = |word: &&str| {
        word.starts_with(char::is_uppercase) && word.chars().all(char::is_alphanumeric)
    };
    let types: BTreeSet<&str> =
        page.lines().flat_map(quoted).map(|(_, part)| part).filter(is_type).collect();
    assert!(types.len() >= 30, "{types:?}");
    let missing: Vec<_> = types.iter().filter(|name| !defines(&code, name)).collect();
    assert!(missing.is_empty(), "docs/glossary.md names {missing:?}");
}

#[test]
fn the_js_client_has_the_version_of_the_program() {
    let package: serde_json::Value =
        serde_json::from_str(&read("clients/js/package.json")).unwrap();
    assert_eq!(package["version"], env!("CARGO_PKG_VERSION"));
}
