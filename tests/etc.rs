//! What stands in `etc/` and `docs/operations.md` is true: equal to the code, and taken by the
//! programs it is written for. `BLESS=1 cargo test --test etc` rewrites what is generated.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use wsd::config::{AppConfig, Config, Sources, keys, markdown_table, toml_manual};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn blessing() -> bool {
    std::env::var_os("BLESS").is_some()
}

/// Runs a program that has to be there.
fn run(command: &mut Command, package: &str) -> (Output, String) {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}: install the package {package}"));
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    (output, String::from_utf8_lossy(&text).into_owned())
}

/// Loads `text` as a configuration file; `app.cwd`, which depends on where it is, is left out.
fn load(text: &str) -> Config {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wsd.toml");
    fs::write(&file, text).unwrap();
    let sources = Sources { file: Some(file), uid: 1, ..Sources::default() };
    let config = Config::load(Config::default(), &sources);
    let config = config.unwrap_or_else(|errors| panic!("in\n{text}\n{errors}"));
    Config { app: AppConfig { cwd: PathBuf::new(), ..config.app }, ..config }
}

/// The unit with the built binary in place of the installed one, in a directory of its own.
fn unit() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wsd.service");
    let text = read("etc/systemd/wsd.service");
    assert!(text.contains("=/usr/bin/wsd start "));
    fs::write(&path, text.replace("/usr/bin/wsd", env!("CARGO_BIN_EXE_wsd"))).unwrap();
    (dir, path)
}

#[test]
fn the_sample_configuration_is_the_one_the_code_describes() {
    if blessing() {
        fs::write(repository("etc/wsd.toml"), toml_manual()).unwrap();
    }
    assert_eq!(read("etc/wsd.toml"), toml_manual(), "BLESS=1 rewrites it");
}

#[test]
fn the_sample_configuration_sets_every_key_to_its_default() {
    let sample = toml_manual();
    let name_of = |line: &str| {
        let (name, _) = line.strip_prefix("# ")?.split_once(" = ")?;
        keys().any(|key| key.name.rsplit('.').next() == Some(name)).then(|| name.to_owned())
    };
    let set: Vec<String> = sample.lines().filter_map(name_of).collect();
    let all: Vec<&str> =
        keys().map(|key| key.name.rsplit('.').next().unwrap_or_default()).collect();
    assert_eq!(set, all);
    let uncommented: String = sample
        .lines()
        .map(|line| if name_of(line).is_some() { &line[2..] } else { line })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(load(&uncommented), load(&sample));
}

#[test]
fn the_profile_for_the_internet_says_the_defaults_as_they_are() {
    let (sample, mut profile) = (toml_manual(), String::new());
    for line in sample.lines().filter_map(|line| line.strip_prefix("#     ")) {
        let (setting, told) = line.split_once("# [").expect("the default in brackets");
        let (name, _) = setting.split_once(" = ").expect("a setting");
        let told = told.split([']', ',', ':']).next().unwrap_or_default();
        let default = sample.lines().find_map(|line| line.strip_prefix(&format!("# {name} = ")));
        assert_eq!(default.map(|default| default.trim_matches('"')), Some(told), "{name}");
        profile.push_str(&format!("{setting}\n"));
    }
    assert!(profile.lines().count() > 10);
    assert_ne!(load(&profile), load(""));
}

#[test]
fn the_manual_has_the_table_of_all_keys() {
    const BEGIN: &str = "<!-- keys: generated, see tests/etc.rs -->\n";
    const END: &str = "<!-- end of keys -->\n";
    let manual = read("docs/operations.md");
    let (before, rest) = manual.split_once(BEGIN).expect("the mark before the table");
    let (table, after) = rest.split_once(END).expect("the mark after the table");
    if blessing() {
        let text = [before, BEGIN, &markdown_table(), END, after].concat();
        fs::write(repository("docs/operations.md"), text).unwrap();
        return;
    }
    assert_eq!(table, markdown_table(), "BLESS=1 rewrites it");
}

#[test]
fn every_example_in_the_manual_loads() {
    let manual = read("docs/operations.md");
    let blocks: Vec<&str> =
        manual.split("```toml").skip(1).filter_map(|part| part.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        load(block);
    }
}

#[test]
fn systemd_takes_the_unit() {
    let (_dir, unit) = unit();
    let mut verify = Command::new("systemd-analyze");
    let (output, text) = run(verify.args(["verify", "--man=no"]).arg(&unit), "systemd");
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("wsd.service"), "{text}");
}

#[test]
fn systemd_rates_the_unit_at_most_1_5() {
    let (_dir, unit) = unit();
    let mut rate = Command::new("systemd-analyze");
    rate.args(["security", "--offline=true", "--threshold=15", "--no-pager"]);
    let (output, text) = run(rate.arg(&unit), "systemd");
    assert!(output.status.success(), "{text}");
}

#[test]
fn the_unit_waits_longer_than_a_stop_may_take() {
    let unit = read("etc/systemd/wsd.service");
    let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    let config = Config::default();
    let needed = config.max_wait_time + config.reload_jitter + std::time::Duration::from_secs(5);
    assert!(stop.parse::<u64>().unwrap() > needed.as_secs());
}

#[test]
fn nginx_takes_the_site() {
    nginx_takes("etc/nginx/wsd.conf");
}

#[test]
fn nginx_takes_the_site_with_tls() {
    nginx_takes("etc/nginx/wsd-tls.conf");
}

fn nginx_takes(site: &str) {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    // Testing opens the listeners and logs: move them out of the way of a real nginx.
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]);
    openssl.args(["-keyout", &at("privkey.pem"), "-out", &at("fullchain.pem")]);
    let (output, text) = run(&mut openssl, "openssl");
    assert!(output.status.success(), "{text}");
    let site = read(site)
        .replace("listen 443 ssl;", &format!("listen unix:{} ssl;", at("4s.sock")))
        .replace("listen [::]:443 ssl;", &format!("listen unix:{} ssl;", at("6s.sock")))
        .replace("/etc/ssl/wsd", &dir.path().display().to_string())
        .replace("listen 80;", &format!("listen unix:{};", at("4.sock")))
        .replace("listen [::]:80;", &format!("listen unix:{};", at("6.sock")))
        .replace("/var/log/nginx", &dir.path().display().to_string());
    fs::write(at("site.conf"), site).unwrap();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!(" {name}_temp_path {};\n", at(name)))
        .collect();
    let main = format!(
        "pid {};\nerror_log {};\nevents {{}}\nhttp {{\n{temporary} include {};\n}}\n",
        at("pid"),
        at("error.log"),
        at("site.conf")
    );
    fs::write(at("nginx.conf"), main).unwrap();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut test = Command::new("sh");
    test.env("PATH", format!("{path}:/usr/sbin")).args(["-c", "exec nginx -t -q -c \"$0\""]);
    let (output, text) = run(test.arg(at("nginx.conf")), "nginx");
    assert!(output.status.success(), "{text}(without nginx: install the package nginx)");
}

#[test]
fn haproxy_takes_the_sections() {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut check = Command::new("sh");
    check.env("PATH", format!("{path}:/usr/sbin")).args(["-c", "exec haproxy -c -f \"$0\""]);
    let (output, text) = run(check.arg(repository("etc/haproxy/wsd.cfg")), "haproxy");
    assert!(output.status.success(), "{text}(without haproxy: install the package haproxy)");
    assert!(!text.contains("[WARNING]"), "{text}");
}

#[test]
fn the_kernel_knows_every_setting_of_the_sysctl_file() {
    let text = read("etc/sysctl.d/60-wsd.conf");
    let settings: Vec<&str> = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| line.split_once(" = ").expect("key = value").0)
        .collect();
    assert!(!settings.is_empty());
    for setting in settings {
        let path = Path::new("/proc/sys").join(setting.replace('.', "/"));
        assert!(path.exists(), "{setting}");
    }
}

#[test]
fn a_rotated_log_is_opened_anew_by_command() {
    let text = read("etc/logrotate.d/wsd");
    assert!(text.contains("/usr/bin/wsd reopen -c /etc/wsd/wsd.toml"));
    assert!(!text.contains("kill"), "no number in a file names the process that is meant");
    let (_, script) = text.split_once("postrotate\n").unwrap();
    let (script, _) = script.split_once("endscript").unwrap();
    let (output, text) = run(Command::new("sh").args(["-n", "-c", script]), "dash");
    assert!(output.status.success(), "{text}");
}

#[test]
fn prometheus_takes_the_rules_and_the_scrape_example() {
    let rules = repository("etc/prometheus/wsd.rules.yml");
    let config = repository("etc/prometheus/prometheus.yml");
    for (words, file) in [(&["rules"][..], rules), (&["config", "--syntax-only"], config)] {
        let mut promtool = Command::new("promtool");
        let (output, text) = run(promtool.arg("check").args(words).arg(file), "prometheus");
        assert!(output.status.success(), "{text}");
    }
}

#[test]
fn each_alert_fires_on_what_it_is_for() {
    let tests = repository("tests/wsd.rules.test.yml");
    let mut promtool = Command::new("promtool");
    let (output, text) = run(promtool.args(["test", "rules"]).arg(tests), "prometheus");
    assert!(output.status.success(), "{text}");
}
