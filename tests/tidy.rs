//! The rules of the house, kept by a test: which module may use which, what lives in one place
//! alone, how long things may be, and that what the documents say is there is there.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "tidy/layers.rs"]
mod layers;

/// Which modules a module may use, beside itself: those to its right on the map of `src/lib.rs`.
/// `handler/app` is a module of its own, since it alone of the handlers speaks to processes.
const MODULES: &[(&str, &[&str])] = &[
    (
        "server",
        &[
            "master", "manager", "courier", "worker", "handler", "api", "ipc", "config", "fd",
            "close", "log", "sys", "error",
        ],
    ),
    ("master", &["api", "ipc", "config", "fd", "close", "log", "sys", "error"]),
    ("manager", &["api", "ipc", "config", "fd", "close", "log", "sys", "error"]),
    ("courier", &["api", "ipc", "config", "log", "sys", "error"]),
    ("worker", &["api", "ipc", "websocket", "config", "fd", "close", "log", "sys", "error"]),
    ("handler", &["api", "fd", "close"]),
    ("handler/app", &["handler", "api", "ipc", "config", "fd", "close", "error", "sys"]),
    ("ipc", &["api", "config", "fd", "close", "log", "sys", "error"]),
    ("api", &["fd", "close"]),
    ("websocket", &["api", "close"]),
    ("config", &["sys", "error"]),
    ("log", &["config", "sys", "error"]),
    ("fd", &[]),
    ("close", &[]),
    ("sys", &["error"]),
    ("error", &[]),
];

/// Words of code that may stand only below the paths named: what is hard to get right is in one
/// place, and what a process is promised to be without cannot creep in.
const PLACES: &[(&str, &[&str])] = &[
    ("unsafe", &["src/sys/"]),
    // The macro panics where nobody reads: `log::say` does not.
    ("eprintln", &["bin/", "tests/", "benches/", "examples/", "fuzz/"]),
    ("bincode", &["src/ipc/codec.rs"]),
    ("signal_hook", &["src/master/signals.rs", "src/sys/signal.rs"]),
    (
        "socket2",
        &[
            "src/master/bind.rs",
            "src/master/listen.rs",
            "src/master/mod.rs",
            "tests/",
            "bin/wsd-bench",
        ],
    ),
    ("crossbeam_channel", &["src/worker/", "src/log/"]),
    ("hyper", &["src/worker/", "tests/", "benches/peers/"]),
    ("httparse", &["src/worker/", "bin/wsd-bench/", "tests/", "fuzz/", "benches/"]),
    ("clap", &["src/server/", "bin/"]),
    ("sd_notify", &["src/master/notify.rs"]),
    ("prometheus_client", &["src/worker/peers/api/"]),
    ("subtle", &["src/config/token.rs"]),
    // What the engine of a cluster is called is the courier's to know, and the address's.
    ("redis", &["src/courier/", "src/config/", "tests/", "Cargo.toml"]),
    ("flate2", &["src/websocket/", "bin/wsd-bench/", "tests/", "fuzz/", "benches/"]),
    (
        "tokio",
        &[
            "src/api/",
            "src/ipc/link.rs",
            "src/ipc/master_link.rs",
            "src/sys/watch.rs",
            "src/manager/",
            "src/courier/",
            "src/worker/",
            "src/handler/",
            "src/server/testing/",
            "src/server/command/connect.rs",
            "bin/wsd-bench",
            "tests/",
            "fuzz/",
            "benches/",
        ],
    ),
];

/// What the engine is without: it does no I/O and knows no descriptors.
const NOT_IN_WEBSOCKET: &[&str] =
    &["tokio", "nix", "libc", "std::net", "std::os", "std::io", "std::fs", "std::time::Instant"];

const LINE_COLUMNS_MAX: usize = 100;
/// PSR-12's own limit, which PHP's readers are used to.
const PHP_COLUMNS_MAX: usize = 120;
const FUNCTION_LINES_MAX: usize = 70;
/// Without the unit tests at its end.
const FILE_LINES_MAX: usize = 400;
/// One noun that is longer, and why.
const LONG_FILES: &[(&str, &str)] = &[
    ("src/config/keys.rs", "every key, in one table"),
    ("src/ipc/link.rs", "one noun: its lanes, and how the kernel comes to take them"),
    ("src/manager/moving/reload.rs", "one state machine"),
    ("src/master/mod.rs", "the master's state and its loop"),
    (
        "src/worker/clients/outbox.rs",
        "one noun: what waits for one client, and how a socket takes it",
    ),
];
/// Tests read as lists; they may be longer.
const TEST_FILE_LINES_MAX: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What is committed, or about to be.
fn files() -> Vec<String> {
    let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
    let output = Command::new("git").current_dir(root()).args(list).output().expect("run git");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    let there = |name: &&str| !name.is_empty() && root().join(name).is_file();
    let mut files: Vec<String> = names.split('\0').filter(there).map(str::to_owned).collect();
    files.sort();
    files.dedup();
    assert!(files.len() > 20, "this is not the repository: {files:?}");
    files
}

fn read(path: &str) -> String {
    let bytes = fs::read(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    String::from_utf8_lossy(&bytes).into_owned()
}

fn rust_files() -> impl Iterator<Item = (String, String)> {
    files().into_iter().filter(|path| path.ends_with(".rs")).map(|path| {
        let text = read(&path);
        (path, text)
    })
}

/// The lines with code on them, counted from 1, without comments and without what stands between
/// quotation marks.
fn code(text: &str) -> impl Iterator<Item = (usize, String)> {
    text.lines().enumerate().map(|(index, line)| {
        let mut code = String::new();
        let mut quoted = false;
        let mut chars = line.chars().peekable();
        while let Some(char) = chars.next() {
            match char {
                '\\' if quoted => drop(chars.next()),
                '"' => quoted = !quoted,
                '/' if !quoted && chars.peek() == Some(&'/') => break,
                _ if quoted => {}
                char => code.push(char),
            }
        }
        (index + 1, code)
    })
}

fn has_word(code: &str, word: &str) -> bool {
    let part = |char: char| char.is_alphanumeric() || char == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(part) && !code[at + word.len()..].starts_with(part))
}

fn report(faults: Vec<String>) {
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

/// The modules that `use crate::…` and `crate::…` name.
fn modules_used(code: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
    };
    code.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            None => vec![name(rest)],
            Some(list) => top_level(list).iter().map(|item| name(item)).collect(),
        })
        .filter(|name| !name.is_empty())
        .collect()
}

/// The items of a use-list, up to its closing brace.
fn top_level(list: &str) -> Vec<String> {
    let mut depth = 0;
    let mut items = vec![String::new()];
    for char in list.chars() {
        match char {
            '}' if depth == 0 => break,
            ',' if depth == 0 => items.push(String::new()),
            '{' => depth += 1,
            '}' => depth -= 1,
            char if depth == 0 && !char.is_whitespace() => {
                items.last_mut().expect("never empty").push(char);
            }
            _ => {}
        }
    }
    items
}

fn module_of(path: &str) -> Option<&str> {
    let path = path.strip_prefix("src/")?;
    if path.starts_with("handler/app") {
        return Some("handler/app");
    }
    Some(path.split(['/', '.']).next().unwrap_or(path))
}

#[test]
fn a_module_uses_only_modules_to_its_right() {
    let modules: BTreeMap<&str, &[&str]> = MODULES.iter().copied().collect();
    let mut faults = Vec::new();
    for (path, text) in rust_files() {
        let Some(module) = module_of(&path) else { continue };
        if module == "lib" {
            continue;
        }
        let Some(allowed) = modules.get(module) else {
            faults.push(format!("{path}: there is no module `{module}` on the map"));
            continue;
        };
        let own = module.split('/').next().unwrap_or(module);
        let text: String = code(&text).flat_map(|(_, line)| [line, "\n".to_owned()]).collect();
        for used in modules_used(&text) {
            let is_module = modules.contains_key(used.as_str());
            if is_module && used != own && !allowed.contains(&used.as_str()) {
                faults.push(format!("{path}: {module} must not use {used}"));
            }
        }
    }
    report(faults);
}

#[test]
fn what_lives_in_one_place_is_nowhere_else() {
    let mut faults = Vec::new();
    for (path, text) in rust_files() {
        for (line, code) in code(&text) {
            for (word, places) in PLACES {
                let here = places.iter().any(|place| path.starts_with(place));
                if !here && path != "tests/tidy.rs" && has_word(&code, word) {
                    faults.push(format!("{path}:{line}: `{word}` lives in {}", places.join(", ")));
                }
            }
        }
    }
    report(faults);
}

#[test]
fn the_engine_does_no_io() {
    let mut faults = Vec::new();
    for (path, text) in rust_files().filter(|(path, _)| path.starts_with("src/websocket/")) {
        for (line, code) in code(&text) {
            for word in NOT_IN_WEBSOCKET.iter().filter(|word| has_word(&code, word)) {
                faults.push(format!("{path}:{line}: `{word}` in the engine"));
            }
        }
    }
    report(faults);
}

#[test]
fn every_unsafe_says_why_it_is_sound() {
    let mut faults = Vec::new();
    for (path, text) in rust_files() {
        let lines: Vec<&str> = text.lines().collect();
        for (number, code) in code(&text) {
            let code = code.trim();
            if !has_word(code, "unsafe") || code.starts_with("#!") || path == "tests/tidy.rs" {
                continue;
            }
            let above = lines[..number - 1].iter().rev();
            let mut comment = above
                .map(|line| line.trim_start())
                .take_while(|line| line.starts_with("//") || line.starts_with("#["));
            if !comment.any(|line| line.starts_with("// SAFETY: ")) {
                faults.push(format!("{path}:{number}: no `// SAFETY:` above"));
            }
        }
    }
    report(faults);
}

#[test]
fn nothing_that_ships_unwraps() {
    let manifest = read("Cargo.toml");
    assert!(manifest.contains("unwrap_used = \"deny\""), "clippy keeps this rule");
    for manifest in members().map(|member| member.join("Cargo.toml")) {
        let text = read(&manifest.display().to_string());
        assert!(text.contains("[lints]\nworkspace = true"), "{}", manifest.display());
    }
    let allows = |(path, text): (String, String)| {
        let allowed = code(&text).any(|(_, code)| code.contains("allow(clippy::unwrap_used"));
        (path.starts_with("src/") && allowed).then_some(path)
    };
    report(rust_files().filter_map(allows).collect());
}

/// The directories of the workspace's packages, the root's among them.
fn members() -> impl Iterator<Item = PathBuf> {
    let manifests = files().into_iter().filter(|path| path.ends_with("Cargo.toml"));
    let own = |path: &String| !read(path).contains("\n[workspace]\n") || path == "Cargo.toml";
    manifests.filter(own).map(|path| Path::new(&path).parent().unwrap().to_owned())
}

/// The packages that are compiled with the library, as `cargo tree` names them.
fn packages_of_the_library(features: &[&str]) -> BTreeSet<String> {
    let tree = ["tree", "--locked", "--offline", "--package", "wsd-server"];
    let only = ["--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let mut cargo = Command::new(env!("CARGO"));
    let output = cargo.current_dir(root()).args(tree).args(only).args(features).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn a_library_user_compiles_neither_the_command_line_nor_what_is_for_tools() {
    let with = packages_of_the_library(&[]);
    let without = packages_of_the_library(&["--no-default-features"]);
    assert!(with.contains("clap") && with.contains("mimalloc"), "{with:?}");
    assert!(!with.contains("hdrhistogram"), "it is for tools");
    // `wsd connect` is a client.
    for package in ["clap", "clap_mangen", "mimalloc", "tungstenite", "rustls", "ring"] {
        assert!(!without.contains(package), "{package} is behind a feature");
    }
}

#[test]
fn lines_are_at_most_100_columns_wide() {
    let mut faults = Vec::new();
    let wide =
        [".md", ".toml", ".html", ".json", ".lock", "LICENSE", "LICENSE-APACHE", "LICENSE-MIT"];
    let binary = [".png", ".ico", ".bin"];
    for path in files() {
        if wide.iter().chain(&binary).any(|end| path.ends_with(end)) || is_generated(&path) {
            continue;
        }
        for (index, line) in read(&path).lines().enumerate() {
            let most = if path.ends_with(".php") { PHP_COLUMNS_MAX } else { LINE_COLUMNS_MAX };
            if line.chars().count() > most {
                faults.push(format!("{path}:{}: {} columns", index + 1, line.chars().count()));
            }
        }
    }
    report(faults);
}

/// Recorded by a tool, as it was, or bytes for the wire, a request to a line.
fn is_generated(path: &str) -> bool {
    let places = ["tests/fixtures/", "tests/golden/", "fuzz/seeds/", "tests/e2e/http-rfc.txt"];
    places.iter().any(|place| path.starts_with(place))
}

#[test]
fn functions_are_at_most_70_lines_long() {
    let mut faults = Vec::new();
    for (path, text) in rust_files() {
        let mut open: Option<(usize, usize)> = None;
        for (index, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match open {
                None if is_function(line.trim_start()) && !line.ends_with(['}', ';']) => {
                    open = Some((index, indent));
                }
                // A declaration without a body, or the end of the function.
                Some((start, at)) if indent == at && line.trim() == "}" => {
                    if index - start + 1 > FUNCTION_LINES_MAX {
                        faults.push(format!("{path}:{}: {} lines", start + 1, index - start + 1));
                    }
                    open = None;
                }
                Some((_, at)) if indent <= at && line.ends_with(';') => open = None,
                _ => {}
            }
        }
    }
    report(faults);
}

fn is_function(line: &str) -> bool {
    let words = ["pub", "const", "async", "unsafe", "extern"];
    let mut rest = line.split_whitespace();
    loop {
        match rest.next() {
            Some("fn") => return true,
            Some(word) if words.iter().any(|known| word.starts_with(known)) => {}
            _ => return false,
        }
    }
}

#[test]
fn a_file_is_one_noun_of_at_most_400_lines() {
    let mut faults = Vec::new();
    for (path, text) in rust_files() {
        let body = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(&text);
        let listed = LONG_FILES.iter().any(|(long, _)| *long == path);
        let count = body.lines().count();
        let tests =
            path.starts_with("tests/") || path.contains("/tests") || path.contains("table");
        let max = if tests { TEST_FILE_LINES_MAX } else { FILE_LINES_MAX };
        match (count > max, listed) {
            (true, false) => faults.push(format!("{path}: {count} lines")),
            (false, true) => faults.push(format!("{path}: not long any more")),
            _ => {}
        }
    }
    for (long, _) in LONG_FILES {
        assert!(root().join(long).is_file(), "LONG_FILES names {long}");
    }
    report(faults);
}

#[test]
fn nothing_committed_names_this_machine_or_a_registry() {
    // Put together here, so that this file does not name them either.
    let hosts = [
        concat!("crates", ".io"),
        concat!("npmjs", ".org"),
        concat!("npmjs", ".com"),
        concat!("pypi", ".org"),
        concat!("python", "hosted.org"),
        concat!("packa", "gist.org"),
        concat!("debian", ".org"),
        concat!("proxy.golang", ".org"),
    ];
    let paths = [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let unfinished = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X:"),
        concat!("todo", "!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
    ];
    let mut faults = Vec::new();
    for path in files() {
        let text = read(&path);
        // The copyright file names its own format by an address, which is no place to ask.
        let lock = path.ends_with("Cargo.lock")
            || path.ends_with("package-lock.json")
            || path == "packaging/debian/copyright";
        let hosts = hosts.iter().filter(|_| !lock);
        for needle in hosts.chain(&paths).chain(&unfinished) {
            for (index, _) in text.lines().enumerate().filter(|(_, line)| line.contains(needle)) {
                faults.push(format!("{path}:{}: {needle}", index + 1));
            }
        }
    }
    report(faults);
}

// ---------------------------------------------------------------- the documents

/// The lines between ``` and ```, of blocks without a language or with that of a shell.
fn commands(markdown: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let mut block: Option<bool> = None;
    for line in markdown.lines() {
        match (line.strip_prefix("```"), block) {
            (Some(language), None) => block = Some(matches!(language, "" | "sh" | "console")),
            (Some(_), Some(_)) => block = None,
            (None, Some(true)) if !line.trim().is_empty() => {
                commands.push(line.trim_start_matches("$ ").to_owned());
            }
            _ => {}
        }
    }
    commands
}

fn links(markdown: &str) -> Vec<String> {
    let ends = markdown.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = ends.filter(|link| !link.contains("://") && !link.starts_with('#'));
    local.map(|link| link.split('#').next().unwrap_or(link).to_owned()).collect()
}

#[test]
fn the_readme_begins_with_one_command_to_run_and_one_to_test() {
    let commands = commands(&read("README.md"));
    let first: Vec<&str> = commands.iter().take(2).map(String::as_str).collect();
    assert_eq!(first, ["cargo run --profile quick -- start", "scripts/test"]);
    assert!(read("README.md").contains("http://127.0.0.1:8000/"));
}

#[test]
fn every_command_of_the_readme_exists() {
    let help = Command::new(env!("CARGO_BIN_EXE_wsd")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let subcommands: BTreeSet<&str> =
        help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let mut faults = Vec::new();
    for command in commands(&read("README.md")) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let good = match words.as_slice() {
            ["wsd", subcommand, ..] => subcommands.contains(subcommand),
            ["cargo", "run", "--profile", profile, "--", subcommand, ..] => {
                read("Cargo.toml").contains(&format!("[profile.{profile}]"))
                    && subcommands.contains(subcommand)
            }
            ["cargo", "run", "--example", example, ..] => {
                root().join(format!("examples/{example}.rs")).is_file()
            }
            [script, ..] if script.starts_with("scripts/") => is_executable(&root().join(script)),
            _ => false,
        };
        if !good {
            faults.push(format!("README.md: {command}"));
        }
    }
    report(faults);
}

fn is_executable(path: &PathBuf) -> bool {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[test]
fn every_page_is_linked_and_every_link_leads_somewhere() {
    let pages: Vec<String> = files().into_iter().filter(|path| path.ends_with(".md")).collect();
    let mut linked = BTreeSet::from(["README.md".to_owned()]);
    let mut faults = Vec::new();
    for page in pages.iter().filter(|page| !page.contains("node_modules")) {
        let directory = root().join(page).parent().unwrap().to_owned();
        for link in links(&read(page)) {
            match directory.join(&link).canonicalize() {
                Ok(target) => {
                    let home = root().canonicalize().unwrap();
                    let target = target.strip_prefix(home).unwrap_or(&target).to_owned();
                    linked.insert(target.display().to_string());
                }
                Err(_) => faults.push(format!("{page}: {link} leads nowhere")),
            }
        }
    }
    let lonely = |page: &&String| page.starts_with("docs/") && !linked.contains(*page);
    faults.extend(pages.iter().filter(lonely).map(|page| format!("{page}: no page links to it")));
    report(faults);
}

#[test]
fn every_test_that_the_architecture_names_exists() {
    let tests: String = rust_files().map(|(_, text)| text).collect();
    let page = read("docs/architecture.md");
    let named: Vec<&str> =
        page.split("Kept by `").skip(1).filter_map(|rest| rest.split('`').next()).collect();
    assert!(named.len() >= 10, "every invariant names what keeps it");
    let missing = named.iter().filter(|name| !tests.contains(&format!("fn {name}(")));
    report(missing.map(|name| format!("docs/architecture.md: {name}")).collect());
}

#[test]
fn the_page_of_signals_has_what_the_master_handles() {
    let source = read("src/master/signals.rs");
    let handled = source.lines().filter_map(|line| {
        let pair = line.trim().strip_prefix('(')?.strip_suffix("),")?;
        let (signal, request) = pair.split_once(", Request::")?;
        let signal = signal.trim_start_matches("SIG").to_uppercase();
        (request != "Reap").then(|| (signal, request.to_lowercase()))
    });
    let page = read("docs/signals.md");
    let documented = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split('|').map(str::trim);
        let signal = cells.next()?.trim_end_matches('`').to_owned();
        let request = cells.next()?.trim_matches('`').to_owned();
        Some((signal, request))
    });
    let handled: BTreeSet<_> = handled.collect();
    assert!(handled.len() >= 7, "{handled:?}");
    assert_eq!(documented.collect::<BTreeSet<_>>(), handled);
}
