use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn sources(set: &[(&str, &str)]) -> Sources {
    Sources {
        set: set.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect(),
        dir: PathBuf::from("/srv"),
        uid: 1000,
        ..Sources::default()
    }
}

fn load(set: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    Config::load(Config::default(), &sources(set))
}

/// Loads `text` as a file; the directory is gone afterwards.
fn load_file(text: &str, set: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("wsd.toml"), text).unwrap();
    let file = Some(PathBuf::from("wsd.toml"));
    let sources = Sources { file, dir: dir.path().to_owned(), ..sources(set) };
    Config::load(Config::default(), &sources)
}

fn faults(result: Result<Config, ConfigErrors>) -> Vec<String> {
    result.unwrap_err().to_string().lines().map(str::to_owned).collect()
}

#[test]
fn the_defaults_are_valid_and_resolved() {
    let config = load(&[]).unwrap();
    assert_eq!(config.listen, ["127.0.0.1:8000".parse().unwrap()]);
    assert!(config.worker_num >= 1);
    assert_eq!(config.runtime_dir, PathBuf::from("/tmp/wsd-1000"));
    assert_eq!(config.pid_file, PathBuf::from("/tmp/wsd-1000/wsd.pid"));
    assert_eq!(config.log_file, None);
    assert_eq!(config.package_max_length, 2 << 20);
    assert_eq!(config.heartbeat(), None);
}

#[test]
fn later_sources_win() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), "backlog = 1\ntask_threads = 1\nworker_num = 1")
        .unwrap();
    let base = Config { backlog: 7, reload_jitter: Duration::from_secs(7), ..Config::default() };
    let sources = Sources {
        file: Some("c.toml".into()),
        env: vec![("WSD_TASK_THREADS".into(), "2".into()), ("WSD_WORKER_NUM".into(), "2".into())],
        dir: dir.path().to_owned(),
        ..sources(&[("worker_num", "3"), ("worker_num", "4")])
    };
    let config = Config::load(base, &sources).unwrap();
    assert_eq!((config.backlog, config.task_threads, config.worker_num), (1, 2, 4));
    assert_eq!(config.reload_jitter, Duration::from_secs(7));
}

#[test]
fn values_are_read_from_files_and_from_bare_text_alike() {
    let text = r#"
        listen = ["127.0.0.1:9000", "unix:wsd.sock"]
        ping_interval = "250ms"
        heartbeat_idle_time = 120
        package_max_length = "512K"
        allowed_origins = ["https://a.example", "null"]
        trusted_proxies = "10.0.0.0/8"
        tcp_nodelay = false
        handler = "app"
        app.command = "php 'my server.php'"
        app.env.APP_ENV = "production"
    "#;
    let set = [
        ("listen", "127.0.0.1:9000, unix:wsd.sock"),
        ("ping_interval", "0.25"),
        ("heartbeat_idle_time", "2m"),
        ("package_max_length", "524288"),
        ("allowed_origins", "https://a.example,null"),
        ("trusted_proxies", "[\"10.0.0.0/8\"]"),
        ("tcp_nodelay", "off"),
        ("handler", "app"),
        ("app.command", "[\"php\", \"my server.php\"]"),
        ("app.env.APP_ENV", "production"),
    ];
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("c.toml"), text).unwrap();
    let place = Sources { dir: dir.path().to_owned(), ..sources(&[]) };
    let from_file =
        Config::load(Config::default(), &Sources { file: Some("c.toml".into()), ..place.clone() });
    let from_set =
        Config::load(Config::default(), &Sources { set: sources(&set).set, ..place.clone() });
    let (from_file, from_set) = (from_file.unwrap(), from_set.unwrap());
    assert_eq!(from_file, from_set);
    assert_eq!(from_file.listen[1], ListenAddr::Unix(dir.path().join("wsd.sock")));
    assert_eq!(from_file.app.cwd, dir.path());
}

#[test]
fn a_number_in_bare_text_is_its_digits_alone() {
    let load = |number: &str| Config::load(Config::default(), &sources(&[("worker_num", number)]));
    assert_eq!(load("4").unwrap().worker_num, 4);
    for number in ["+4", "-4"] {
        assert!(load(number).is_err(), "{number}");
    }
}

#[test]
fn every_fault_is_told_at_once_with_its_place_and_the_remedy() {
    let text = "worker_num = 300\nheartbeat_idel_time = 5\n\n  backlog = \"many\"\n[app]\nx = 1\n";
    let faults = faults(load_file(text, &[("log_level", "inof"), ("nonsense", "1")]));
    let expected = [
        "wsd.toml:2:1: heartbeat_idel_time: there is no such key; did you mean \
         \"heartbeat_idle_time\"?",
        "wsd.toml:4:3: backlog: is the text \"many\"; write a whole number, without quotes",
        "wsd.toml:6:1: app.x: there is no such key; etc/wsd.toml lists all keys",
        "--set log_level: log_level: is inof; did you mean \"info\"? (one of \"error\", \
         \"warn\", \"info\", \"debug\", \"trace\")",
        "--set nonsense: nonsense: there is no such key; etc/wsd.toml lists all keys",
        "wsd.toml:1:1: worker_num: is 300; write 0 to 256",
    ];
    assert_eq!(faults, expected);
}

#[test]
fn a_password_in_the_address_of_an_engine_is_refused_and_not_repeated() {
    let faults = faults(load_file("", &[("cluster.engine", "redis://u:hush@h")]));
    assert!(faults[0].starts_with("--set cluster.engine: "), "{faults:?}");
    assert!(!faults.iter().any(|fault| fault.contains("hush")), "{faults:?}");
}

#[test]
fn broken_files_are_faults_with_a_line() {
    let below = faults(load_file("[app]\nbacklog = 1\n", &[]));
    assert_eq!(
        below,
        ["wsd.toml:2:1: app.backlog: is no key of [app]; write backlog above [app]"]
    );
    assert!(faults(load_file("a = \n", &[]))[0].starts_with("wsd.toml:1:"));
    assert!(faults(load_file("backlog = 1\nbacklog = 2", &[]))[0].starts_with("wsd.toml:2:"));
    let missing = Sources { file: Some("none.toml".into()), ..sources(&[]) };
    let fault = Config::load(Config::default(), &missing).unwrap_err().to_string();
    assert!(fault.starts_with("none.toml: cannot be read: "), "{fault}");
}

#[test]
fn an_unknown_variable_is_a_fault_but_those_of_others_are_not() {
    let env = |name: &str| Sources { env: vec![(name.into(), "1".into())], ..sources(&[]) };
    let load = |name: &str| Config::load(Config::default(), &env(name));
    let fault = load("WSD_WORKERNUM").unwrap_err().to_string();
    assert!(fault.ends_with("did you mean \"WSD_WORKER_NUM\"?"), "{fault}");
    for other in ["WSD_BIN", "WSD_SERVICE_HOST", "WSD_PORT_8000_TCP", "PATH"] {
        assert!(load(other).is_ok(), "{other}");
    }
}

#[test]
fn a_removed_key_says_that_it_was_removed_and_what_happens_instead() {
    let file = load_file("backlog = 1\ncrash_proof = true", &[]).unwrap_err().to_string();
    assert!(file.starts_with("wsd.toml:2:1: crash_proof: was removed: "), "{file}");
    let env = [("WSD_CRASH_PROOF".to_owned(), "false".to_owned())];
    let env = Sources { env: env.into(), ..sources(&[]) };
    let env = Config::load(Config::default(), &env).unwrap_err().to_string();
    let set = load(&[("crash_proof", "true")]).unwrap_err().to_string();
    assert!(env.starts_with("environment WSD_CRASH_PROOF: was removed: "), "{env}");
    assert!(set.starts_with("--set crash_proof: crash_proof: was removed: "), "{set}");
    for fault in [&file, &env, &set] {
        assert!(fault.contains("1006") && fault.ends_with("; take the key out"), "{fault}");
        assert!(!fault.contains('\n'), "{fault}");
    }
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (set, key) in [
        (vec![("head_bytes_max", "4K")], "head_bytes_max"),
        (vec![("handshakes_max", "10")], "handshakes_max"),
        (vec![("handler", "app")], "handler"),
        (vec![("log_file", "/tmp/wsd-1000/wsd.pid")], "log_file"),
        (vec![("listen", "unix:/tmp/wsd-1000/wsd.pid")], "listen"),
        (vec![("log_file", "x"), ("listen", "unix:x")], "log_file"),
    ] {
        let errors = load(&set).unwrap_err();
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert_eq!(errors.0[0].key, key);
    }
}

#[test]
fn an_idle_time_alone_is_enough_also_one_shorter_than_the_ping_interval() {
    let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
    for (idle, interval, means) in [
        ("1", "60", Some((second, second))),
        ("25", "60", Some((25 * second, 25 * second))),
        ("600", "60", Some((10 * minute, minute))),
        ("600", "601", Some((10 * minute, 10 * minute))),
        ("600", "0", None),
        ("0", "60", None),
    ] {
        let set = [("heartbeat_idle_time", idle), ("heartbeat_check_interval", interval)];
        assert_eq!(load(&set).unwrap().heartbeat(), means, "{set:?}");
    }
}

#[test]
fn each_wrong_value_is_refused_by_its_key() {
    for (key, value) in [
        ("listen", ""),
        ("listen", "80,80"),
        ("worker_num", "257"),
        ("worker_num", "-1"),
        ("handler", "Chat"),
        ("daemonize", "maybe"),
        ("task_threads", "0"),
        ("log_format", "xml"),
        ("max_connection", "1e9"),
        ("package_max_length", "0"),
        ("package_max_length", "2MB"),
        ("package_max_length", "99999999999GiB"),
        ("handshake_timeout", "0"),
        ("handshake_timeout", "-1s"),
        ("ping_interval", "soon"),
        ("ping_interval", "1e400"),
        ("max_wait_time", "10 years"),
        ("allowed_origins", ""),
        ("allowed_origins", "example.com"),
        ("trusted_proxies", "10.0.0.1/8"),
        ("rooms_presence", "[\"\"]"),
        ("subprotocols", "a b"),
        ("keep_headers", "x:y"),
        ("backlog", "0"),
        ("compression_window_bits", "8"),
        ("worker_timeout", "1s"),
        ("runtime_dir", "a\0b"),
        ("app.command", "'"),
        ("app.env", "A=1"),
        ("app.env.", "1"),
        ("app.memory_limit", "5"),
    ] {
        let errors = load(&[(key, value)]).unwrap_err();
        assert_eq!(errors.0.len(), 1, "{errors}");
        assert_eq!(errors.0[0].key, key.trim_end_matches('.'), "{errors}");
        assert!(!errors.0[0].what.right.is_empty());
    }
}

#[test]
fn every_value_survives_being_shown_and_read_again() {
    let config = load(&[("app.env.A", "1\"2"), ("handshake_timeout", "1234ms")]).unwrap();
    let text: String =
        keys().map(|key| format!("{} = {}\n", key.name, (key.show)(&config))).collect();
    assert_eq!(load_file(&text, &[]).unwrap(), config);
}

#[test]
fn the_config_travels_as_json_between_versions() {
    let config = load(&[("handler", "app"), ("app.command", "a b"), ("listen", "[::1]:0")]);
    let config = config.unwrap();
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
    let newer = json.replacen('{', "{\"key_of_tomorrow\":1,", 1);
    assert_eq!(serde_json::from_str::<Config>(&newer).unwrap(), config);
    assert_eq!(serde_json::from_str::<Config>("{\"app\":{}}").unwrap(), Config::default());
}

#[test]
fn the_runtime_directory_is_the_first_that_fits() {
    let at = |env: &[(&str, &str)], uid| {
        let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let sources = Sources { env, uid, ..sources(&[]) };
        Config::load(Config::default(), &sources).unwrap().runtime_dir.display().to_string()
    };
    let all = [("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("XDG_RUNTIME_DIR", "/run/user/5")];
    assert_eq!(at(&all, 0), "/run/a");
    assert_eq!(at(&all[1..], 0), "/run/wsd");
    assert_eq!(at(&all[1..], 5), "/run/user/5/wsd");
    assert_eq!(at(&[("TMPDIR", "/var/tmp")], 5), "/var/tmp/wsd-5");
}

#[test]
fn a_daemon_has_a_log_of_its_own_with_a_limit_outside_its_runtime_directory() {
    let at = |env: &[(&str, &str)], uid, set: &[(&str, &str)]| {
        let env = env.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let sources = Sources { env, uid, ..sources(&[set, &[("daemonize", "true")]].concat()) };
        let config = Config::load(Config::default(), &sources).unwrap();
        (config.log_file.unwrap().display().to_string(), config.log_size_max)
    };
    let log = |env: &[(&str, &str)], uid| at(env, uid, &[]).0;
    assert_eq!(at(&[], 0, &[]), ("/var/log/wsd/wsd.log".to_owned(), 64 << 20));
    let other = at(&[], 0, &[("runtime_dir", "run")]).0;
    assert_eq!(other, "/var/log/wsd/srv-run.log");
    let all = [("LOGS_DIRECTORY", "/var/log/a:/b"), ("XDG_STATE_HOME", "/state"), ("HOME", "/")];
    assert_eq!(log(&all, 5), "/var/log/a/wsd.log");
    assert_eq!(log(&all[1..], 5), "/state/wsd/wsd.log");
    // The home of somebody else.
    assert_eq!(log(&all[2..], 5), "/tmp/wsd-5-log/wsd.log");
    let named = [("log_file", "/x/y.log")];
    assert_eq!(at(&all, 5, &named), ("/x/y.log".to_owned(), 0));
}

#[test]
fn a_fault_that_could_hide_the_server_is_one_also_for_whoever_only_looks_for_it() {
    let find = |text: &str| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("c.toml"), text).unwrap();
        let file = Some(PathBuf::from("c.toml"));
        let sources = Sources { file, dir: dir.path().to_owned(), ..sources(&[]) };
        Config::load_to_find(Config::default(), &sources)
    };
    for text in [
        "runtime_dir = ",
        "runtime_dir = 5",
        "runtimedir = \"/x\"",
        "\u{1}",
        "[app]\nruntime_dir = \"/x\"\n",
        "[server]\nruntime_dir = \"/x\"\n",
        "run_dir = \"/x\"\n",
        "pid_file = \"/x/pid\"\nsocket = \"/x/socket\"\n",
    ] {
        assert!(find(text).is_err(), "{text}");
    }
    let found = find("runtime_dir = \"/x\"\nworker_num = 300\nno_key = 1\n").unwrap();
    assert_eq!(found.runtime_dir, PathBuf::from("/x"));
    // What is no name of a key hides nothing.
    assert!(find("worker_num = 300\n").is_ok());
    assert!(find("worker_mun = 3\n").is_ok(), "another key is meant");
    let nowhere = Sources { file: Some("/nowhere.toml".into()), ..sources(&[]) };
    assert!(Config::load_to_find(Config::default(), &nowhere).is_err());
}

#[test]
fn a_value_of_the_command_line_may_be_quoted_as_in_the_file() {
    let quoted = [
        ("log_level", r#""warn""#),
        ("buffer_output_size", r#""16MiB""#),
        ("runtime_dir", r#""/x y""#),
        ("handler", "app"),
        ("app.command", r#""php" "a b.php""#),
    ];
    let config = load(&quoted).unwrap();
    assert_eq!(config.buffer_output_size, 16 << 20);
    assert_eq!(config.runtime_dir, PathBuf::from("/x y"));
    assert_eq!(config.app.command.0, ["php", "a b.php"]);
    assert!(load(&[("worker_num", r#""two""#)]).is_err());
}

#[test]
fn an_application_without_its_handler_is_a_fault() {
    let command = ("app.command", "php server.php");
    let errors = load(&[command]).unwrap_err();
    assert_eq!(errors.0.len(), 1);
    let said = errors.0[0].to_string();
    assert!(said.contains("app.command: is set and handler is not; write handler"), "{said}");
    for handler in ["app", "echo"] {
        assert!(load(&[command, ("handler", handler)]).is_ok(), "{handler}");
    }
}

#[test]
fn the_descriptor_limit_is_default_and_ceiling_of_max_connection() {
    let fit = |asked: &str, limit| {
        let mut config = load(&[("worker_num", "2"), ("max_connection", asked)]).unwrap();
        let warning = config.fit_descriptors(limit);
        (config.max_connection, warning.is_some())
    };
    // 32 of its own, 2 listeners, 2 links, 64 for a batch that moves and 64 who are refused.
    assert_eq!(fit("0", 1036), (2 * (1036 - 164), false));
    assert_eq!(fit("1500", 1036), (1500, false));
    assert_eq!(fit("2001", 1036), (2 * (1036 - 164), true));
    assert_eq!(fit("0", 66), (2 * (66 - 48), false));
    assert_eq!(fit("0", 1), (2, false));
    assert_eq!(fit("0", u64::MAX), (1_000_000, false));
}

#[test]
fn a_reload_refuses_what_cannot_change_by_name() {
    let old = load(&[]).unwrap();
    let new = load(&[("user", "wsd"), ("pid_file", "/x"), ("backlog", "1")]).unwrap();
    assert_eq!(old.reload_refusals(&new), ["pid_file", "user"]);
    assert_eq!(old.changes(&new), ["pid_file", "user", "backlog"]);
}

#[test]
fn the_nearest_key_is_found() {
    for (typed, meant) in [
        ("workers_num", Some("worker_num")),
        ("heartbeat_idle", Some("heartbeat_idle_time")),
        ("pidfile", Some("pid_file")),
        ("max_conn", Some("max_connection")),
        ("command", Some("app.command")),
        ("Listen", Some("listen")),
        ("zzzzzzzzzz", None),
    ] {
        assert_eq!(nearest(typed, keys().map(|key| key.name)), meant, "{typed}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_loading_panic(text in "\\PC{0,200}|[a-z_ =\\[\\]{}\"'.,0-9\n]{0,200}") {
        let _ = load_file(&text, &[]);
    }

    #[test]
    fn no_value_of_any_key_makes_the_loading_panic(
        index in 0..keys().count(),
        value in "\\PC{0,40}|[0-9a-zA-Z.:/*\\[\\]{}\"'-]{0,40}",
    ) {
        let key = keys().nth(index).unwrap().name;
        let _ = load(&[(key, &value)]);
        let _ = load_file(&format!("{key} = {value}"), &[]);
    }
}

/// Found by fuzzing: each of a file's thousands of unknown names was compared with every key.
#[test]
fn near_names_are_looked_for_a_few_times_and_then_no_more() {
    let text: String = (0..30_000).map(|n| format!("worker_nun{n} = 1\n")).collect();
    let faults = faults(load_file(&text, &[]));
    assert_eq!(faults.len(), 30_000);
    let near = faults.iter().filter(|fault| fault.contains("did you mean"));
    assert!((1..100).contains(&near.count()));
    assert!(faults[29_999].ends_with("there is no such key; etc/wsd.toml lists all keys"));
}

#[test]
fn keys_of_other_servers_are_told_by_our_names() {
    let text =
        "port = 80\nworkers = 4\ntls_cert = \"a\"\nbind = \"0.0.0.0\"\n[app]\nworkers = 2\n";
    let set = [("max_clients", "5"), ("max-payload", "1M")];
    let faults = faults(load_file(text, &set));
    let named = ["listen = ", "worker_num", "no TLS", "listen = ", "app.processes"];
    let named = named.into_iter().chain(["max_connection", "package_max_length"]);
    for (fault, name) in faults.iter().zip(named) {
        assert!(fault.contains("there is no such key; ") && fault.contains(name), "{fault}");
    }
    assert_eq!(faults.len(), 7);
    let env = vec![("WSD_WORKERS".to_owned(), "4".to_owned())];
    let wrong = Config::load(Config::default(), &Sources { env, ..sources(&[]) });
    assert!(wrong.unwrap_err().to_string().contains("worker_num"));
}

#[test]
fn a_url_in_listen_is_told_the_address_in_it() {
    for (url, address) in [
        ("ws://127.0.0.1:9000/chat", "\"127.0.0.1:9000\""),
        ("http://*:80", "\"*:80\""),
        ("wss://example.com", "\"example.com:8000\", the address alone; the server speaks no TLS"),
        ("tcp://", "\"127.0.0.1:8000\""),
    ] {
        let fault = ListenAddr::parse(url, std::path::Path::new("/")).unwrap_err();
        assert!(fault.wrong.contains("a URL"), "{fault:?}");
        assert!(fault.right.contains(address), "{fault:?}");
    }
}

#[test]
fn values_are_told_as_they_were_written() {
    let set = [("worker_timeout", "1000ms"), ("ping_interval", "2d"), ("listen", "a\"b\\c:x")];
    let faults = faults(load(&set));
    assert!(
        faults.iter().any(|it| it.contains("is 1000ms; write \"2s\" to \"1h\"")),
        "{faults:?}"
    );
    assert!(
        faults.iter().any(|it| it.contains("is 2d; write 0, or \"100ms\" to \"1d\"")),
        "{faults:?}"
    );
    assert!(faults.iter().any(|it| it.contains("has 'a\"b\\c:x', whose port")), "{faults:?}");
    assert!(faults.iter().all(|it| !it.contains("\\\"")), "{faults:?}");
}

#[test]
fn a_node_that_names_no_engine_is_doubted() {
    let cases: [(&[(&str, &str)], bool); 5] = [
        (&[], false),
        (&[("cluster.node", "0")], false),
        (&[("cluster.node", "1")], true),
        (&[("cluster.name", "prod")], true),
        (&[("cluster.node", "1"), ("cluster.engine", "redis://h")], false),
    ];
    for (set, is_doubted) in cases {
        let doubts = load(set).unwrap().doubts();
        let told = doubts.iter().any(|doubt| doubt.contains("[cluster] names no engine"));
        assert_eq!(told, is_doubted, "{set:?}: {doubts:?}");
    }
}

#[test]
fn a_cluster_that_is_written_as_one_key_is_told_the_table() {
    let faults = faults(load_file("cluster = \"redis://h\"\n", &[]));
    assert!(faults[0].contains("[cluster]"), "{faults:?}");
}

#[test]
fn white_space_at_an_end_of_a_value_is_seen_in_the_message() {
    let set = [("worker_num", "4 "), ("log_level", " info")];
    let faults = faults(load(&set));
    assert!(faults[0].contains("is \"4 \"; write"), "{faults:?}");
    assert!(faults[1].contains("is \" info\"; did you mean \"info\"?"), "{faults:?}");
}

#[test]
fn a_capability_that_does_not_exist_is_told_as_such() {
    let faults = faults(load(&[("capabilities", "CAP_NET_ADMINN")]));
    let told = "has \"CAP_NET_ADMINN\", which is no capability; did you mean \"CAP_NET_ADMIN\"?";
    assert!(faults[0].ends_with(told), "{faults:?}");
}

#[test]
fn a_key_below_another_table_than_its_own_is_told_where_it_belongs() {
    let text = "[api]\nhandler = \"echo\"\nname = \"a\"\n[cluster]\nlisten = \"x:1\"\n";
    let told = [
        "wsd.toml:2:1: api.handler: is no key of [api]; write handler above [api]",
        "wsd.toml:3:1: api.name: is no key of [api]; write name below [cluster]",
        "wsd.toml:5:1: cluster.listen: is no key of [cluster]; write listen above [cluster]",
        "--set app.engine: app.engine: is no key of [app]; the key is cluster.engine",
    ];
    assert_eq!(faults(load_file(text, &[("app.engine", "redis://h")])), told);
}

#[test]
fn a_table_that_does_not_exist_is_told_which_there_are() {
    let told = faults(load_file("[server]\nworker_num = 2\n", &[]));
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("server: there is no such key; the tables are [api]"), "{told:?}");
}
