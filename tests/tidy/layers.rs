//! Which file may use which: layers within the worker, types that stay in one folder, and no
//! circles of files.

use std::collections::{BTreeMap, BTreeSet};

use super::{code, report, rust_files};

/// The folders of `src/worker` from the highest to the lowest, and the struct of each. A folder
/// uses only folders below. The files beside the folders are the loop, above all of them.
const LAYERS: &[(&str, &str)] = &[
    ("", "Worker"),
    ("peers", "Peers"),
    ("moving", "Moving"),
    ("door", "Door"),
    ("app", "App"),
    ("clients", "Clients"),
    ("base", "Base"),
    ("head", ""),
];

/// Files that know each other, and why that is left so. A file may always name its parent.
const CIRCLES: &[(&[&str], &str)] = &[
    (
        &[
            "worker/app/closing",
            "worker/app/dispatch",
            "worker/app/frames",
            "worker/app/meter",
            "worker/app/resume",
        ],
        "a handler that has ended has the next bytes read, and these call the handler",
    ),
    (
        &["worker/door/open", "worker/door/plain"],
        "a request that is no upgrade goes to hyper, and an upgrade behind it comes back",
    ),
    (
        &[
            "config/addr",
            "config/command",
            "config/engine",
            "config/errors",
            "config/hosts",
            "config/keys",
            "config/list",
            "config/load",
            "config/mode",
            "config/origin",
            "config/sources",
            "config/token",
            "config/value",
        ],
        "the table of keys names the type of each value, and a value that is wrong names its key",
    ),
    (
        &["websocket/deflate", "websocket/extension"],
        "what was agreed on says how to compress, and which compressors there are is agreed on",
    ),
    (
        &["websocket/engine", "websocket/state", "websocket/whole"],
        "one state machine: its steps, its state as bytes, and the short way through it",
    ),
    (
        &["handler/app/link", "handler/app/links", "handler/app/shared"],
        "a link to a process has what all links share, and that has the links",
    ),
    (
        &["manager/moving/carry", "manager/moving/mover"],
        "a reload begins passes, and the end of a pass is an event of the reload",
    ),
    (
        &["manager/cluster/presence", "manager/cluster/topics", "manager/relay/rooms"],
        "what workers say of rooms goes to other nodes, and what those say goes to workers",
    ),
    (
        &["manager/cluster/single", "manager/relay/switch"],
        "a message for a client of another node leaves, and one from there arrives",
    ),
    (
        &["manager/cluster/wide", "manager/gathering"],
        "a command asks other nodes as well, and a question of theirs is asked here",
    ),
    (
        &["master/courier", "master/start"],
        "a start waits for the courier, which says when the server may serve",
    ),
];

/// The files of `src` without tests, by module path: `worker/clients/table`. The path of a
/// `mod.rs` is its folder.
fn sources() -> BTreeMap<String, String> {
    let shipped = rust_files().filter_map(|(path, text)| {
        let path = path.strip_prefix("src/")?.strip_suffix(".rs")?.to_owned();
        let is_test =
            path.contains("/tests") || path.ends_with("tests") || path == "worker/head/table";
        let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let lines = code(text).map(|(_, line)| line + "\n");
        let module = path.strip_suffix("/mod").unwrap_or(&path).to_owned();
        (!is_test).then(|| (module, lines.collect()))
    });
    shipped.collect()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !char.is_alphanumeric() && char != '_').filter(|word| !word.is_empty())
}

#[test]
fn a_layer_of_the_worker_uses_only_layers_below() {
    let place = |name: &str| LAYERS.iter().position(|(layer, _)| *layer == name);
    let mut faults = Vec::new();
    for (module, text) in sources() {
        let Some(rest) = module.strip_prefix("worker/") else { continue };
        let own = rest.split('/').next().and_then(place).unwrap_or(0);
        let named = text.split("worker::").skip(1).filter_map(|rest| words(rest).next());
        for used in named {
            if place(used).unwrap_or(0) < own {
                faults.push(format!("src/{module}.rs: {} must not use {used}", LAYERS[own].0));
            }
        }
    }
    report(faults);
}

/// The blocks `impl Type {` of a file: the type and the body.
fn impls(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match &mut open {
            None if line.starts_with("impl") && !line.contains(" for ") && line.ends_with('{') => {
                let name = line.trim_start_matches("impl").trim_start();
                let name = match name.strip_prefix('<') {
                    Some(generic) => generic.split_once("> ").map_or(generic, |(_, rest)| rest),
                    None => name,
                };
                open = words(name).next().map(|name| (name.to_owned(), String::new()));
            }
            Some(_) if line == "}" => found.extend(open.take()),
            Some((_, body)) => {
                body.push_str(line);
                body.push('\n');
            }
            None => {}
        }
    }
    found
}

/// The names that stand behind a word at the beginning of some line: `struct Name`, `fn name`.
fn named(text: &str, keyword: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let (before, after) = line.split_once(&format!("{keyword} "))?;
        let is_start = before.split_whitespace().all(|word| {
            ["pub", "async", "const", "unsafe", "crate", "in", "super"]
                .iter()
                .any(|known| word.trim_start_matches('(').starts_with(known))
        });
        words(after).next().filter(|_| is_start).map(str::to_owned)
    };
    text.lines().filter_map(|line| name(line.trim_start())).collect()
}

fn folder<'a>(module: &'a str, folders: &BTreeSet<&str>) -> &'a str {
    match folders.contains(module) {
        true => module,
        false => module.rsplit_once('/').map_or("", |(folder, _)| folder),
    }
}

#[test]
fn a_type_and_its_methods_stand_in_one_folder() {
    let sources = sources();
    let modules: BTreeSet<&str> = sources.keys().map(String::as_str).collect();
    let has_parts = |module: &&str| modules.iter().any(|it| it.starts_with(&format!("{module}/")));
    let folders: BTreeSet<&str> = modules.iter().copied().filter(has_parts).collect();
    let mut homes: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (module, text) in &sources {
        // A macro makes the configuration.
        let config = text.contains("struct $name").then(|| "Config".to_owned());
        let types = named(text, "struct").into_iter().chain(named(text, "enum")).chain(config);
        types.for_each(|name| {
            homes.entry(name).or_default().insert(folder(module, &folders));
        });
    }
    let mut faults = Vec::new();
    for (module, text) in &sources {
        let here = folder(module, &folders);
        for (name, _) in impls(text) {
            let of = homes.get(&name).into_iter().flatten();
            let is_home = |home: &&&str| here == **home || here.starts_with(&format!("{home}/"));
            if of.clone().next().is_some() && !of.clone().any(|home| is_home(&home)) {
                faults.push(format!("src/{module}.rs: methods of {name}, which is elsewhere"));
            }
        }
    }
    report(faults);
}

/// The modules that a file names by a path.
fn imports(module: &str, text: &str, sources: &BTreeMap<String, String>) -> BTreeSet<String> {
    let known = |path: &[String]| {
        (1..=path.len()).rev().map(|len| path[..len].join("/")).find(|it| sources.contains_key(it))
    };
    let mut found = BTreeSet::new();
    let own: Vec<String> = module.split('/').map(str::to_owned).collect();
    for (root, depth) in [("crate::", 0), ("self::", own.len()), ("super::", own.len() - 1)] {
        for rest in text.split(root).skip(1) {
            let mut base = own[..depth].to_vec();
            let mut rest = rest;
            while let Some(higher) = rest.strip_prefix("super::") {
                base.pop();
                rest = higher;
            }
            let path = rest.split(|char: char| !char.is_alphanumeric() && !"_:".contains(char));
            let path = path.clone().next().unwrap_or_default();
            let names = path.split("::").filter(|name| !name.is_empty()).map(str::to_owned);
            base.extend(names);
            match rest[path.len()..].strip_prefix('{') {
                None => found.extend(known(&base)),
                Some(list) => {
                    for item in super::top_level(list) {
                        let first = words(&item).next().map(str::to_owned);
                        let path: Vec<String> = base.iter().cloned().chain(first).collect();
                        found.extend(known(&path));
                    }
                }
            }
        }
    }
    found
}

/// The struct that a method is looked for in, and those it is dereferenced to.
fn chain(name: &str) -> Vec<&str> {
    let from = LAYERS.iter().position(|(_, layer)| *layer == name);
    match from {
        Some(from) => LAYERS[from..].iter().map(|(_, layer)| *layer).collect(),
        None => vec![name],
    }
}

/// Which file calls a method that another one has, of the type whose method it is in.
fn calls(sources: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    let mut methods: BTreeMap<(String, String), BTreeSet<&String>> = BTreeMap::new();
    for (module, text) in sources {
        for (name, body) in impls(text) {
            let indented = body.lines().filter(|line| line.len() - line.trim_start().len() == 4);
            for method in named(&indented.collect::<Vec<_>>().join("\n"), "fn") {
                methods.entry((name.clone(), method)).or_default().insert(module);
            }
        }
    }
    let mut calls: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, text) in sources {
        for (name, body) in impls(text) {
            for called in body.split("self.").skip(1).chain(body.split("worker.").skip(1)) {
                let Some(method) = words(called).next() else { continue };
                if !called[method.len()..].starts_with('(') {
                    continue;
                }
                let of = |name: &&str| methods.get(&((*name).to_owned(), method.to_owned()));
                let of = chain(&name).iter().find_map(of);
                // A name that two files have is of two types.
                if let Some(of) = of.filter(|of| of.len() == 1 && !of.contains(module)) {
                    calls
                        .entry(module.clone())
                        .or_default()
                        .extend(of.iter().map(|it| (*it).clone()));
                }
            }
        }
    }
    calls
}

#[test]
fn no_files_stand_in_a_circle() {
    let sources = sources();
    let calls = calls(&sources);
    let mut uses: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (module, text) in &sources {
        let mut used = imports(module, text, &sources);
        used.extend(calls.get(module).into_iter().flatten().cloned());
        // A part and its parent are one.
        used.retain(|it| it != module && !module.starts_with(&format!("{it}/")));
        uses.insert(module, used);
    }
    let reach = |from: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(module) = next.pop() {
            for used in uses.get(module.as_str()).into_iter().flatten() {
                if seen.insert(used.clone()) {
                    next.push(used.clone());
                }
            }
        }
        seen
    };
    let reaches: BTreeMap<&str, BTreeSet<String>> =
        uses.keys().map(|module| (*module, reach(module))).collect();
    let mut circles: BTreeSet<BTreeSet<&str>> = BTreeSet::new();
    for (module, reach) in &reaches {
        let others =
            reaches.iter().filter(|(it, back)| reach.contains(**it) && back.contains(*module));
        let circle: BTreeSet<&str> = others.map(|(it, _)| *it).collect();
        if circle.len() > 1 {
            circles.insert(circle);
        }
    }
    let known: BTreeSet<&str> = CIRCLES.iter().flat_map(|(files, _)| *files).copied().collect();
    let new = circles.iter().filter(|circle| !circle.is_subset(&known));
    let mut faults: Vec<String> =
        new.map(|circle| format!("a circle of {}: {circle:?}", circle.len())).collect();
    let there: BTreeSet<&str> = circles.iter().flatten().copied().collect();
    faults.extend(known.difference(&there).map(|file| format!("{file}: in no circle any more")));
    report(faults);
}
