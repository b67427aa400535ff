//! Swoole's names alone: those of every age that are there, and what is said of those that are not.

use tokio::process::Command;
use wsd::handler::app::AppSettings;

use crate::harness::command;
use crate::support::*;

#[test]
fn a_server_on_the_names_of_older_swoole_and_of_openswoole_runs() {
    on_worker(async {
        let prepend = format!("auto_prepend_file={}", path("clients/php/autoload.php"));
        let script = path("tests/app/fixtures/old_names.php");
        let php = ["php", "-n", "-d", &prepend, &script];
        let worker = Worker::start_with(&php, &[], AppSettings::default()).await;
        let fd = worker.open("/").await;
        assert_eq!(worker.hear(fd).await, said("hello"));
        for (words, answer) in [
            ("kinds", "[true,true]"),
            ("versions", "[true,true,true]"),
            ("hooks", "[514,2]"),
            ("constants", r#"[3,2,2,"heartbeat_idle_time"]"#),
            ("errors", r#"[false,1005,"Session not exist",null,0]"#),
            ("named", r#"[true,"chat worker"]"#),
            ("class", "[false,true]"),
            ("timers", "[2,true,1,true]"),
        ] {
            assert_eq!(worker.ask(fd, words).await, answer, "{words}");
        }
        assert_eq!(worker.hear(fd).await, said("[true,true,false]"));
    });
}

#[tokio::test]
async fn names_that_are_not_there_are_all_said_at_the_start_with_where_to_read() {
    let mut php = Command::new("php");
    let prepend = format!("auto_prepend_file={}", path("clients/php/autoload.php"));
    php.args(["-d", "display_errors=stderr", "-d", &prepend]);
    php.arg(path("tests/app/fixtures/missing_names.php"));
    let ran = command(&mut php).await;
    assert_eq!(ran.code, Some(255), "{ran:?}");
    for missing in [
        r":7: wsd has no class Hhxsv5\LaravelS\Swoole\Process\NoSuchProcess",
        r":8: wsd has no class Swoole\Http\NoSuchResponse",
        r":9: wsd has no class Swoole\Process\Pool",
        r":10: wsd has no function Swoole\NoSuch\run()",
        r":12: wsd has no function swoole_no_such_function()",
        r":12: wsd has no constant SWOOLE_NO_SUCH_CONSTANT",
        r":15: wsd has no class swoole_no_such_class",
        r":21: wsd has no class Swoole\No\Such\Class4",
    ] {
        let sentence = format!("missing_names.php{missing}: docs/swoole.md says what there is");
        assert_eq!(ran.stderr.matches(&sentence).count(), 1, "{sentence}: {}", ran.stderr);
    }
    let moved = "missing_names.php:20: move_uploaded_file() is always false here";
    assert!(ran.stderr.contains(moved), "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("wsd: ").count(), 9, "{}", ran.stderr);
    let thrown = r"Uncaught Error: wsd has no class Swoole\No\Such\Class4: docs/swoole.md";
    assert!(ran.stderr.contains(thrown), "{}", ran.stderr);
}

#[tokio::test]
async fn functions_that_a_prepended_file_declares_itself_stay_its_own() {
    let mut php = Command::new("php");
    let prepend = format!("auto_prepend_file={}", path("tests/app/fixtures/own_functions.php"));
    let print = "class_exists('Nothing'); echo swoole_cpu_num(), ' ', swoole_strerror(1005);";
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script.php");
    std::fs::write(&script, format!("<?php {print}")).unwrap();
    php.args(["-d", &prepend]).arg(&script);
    let ran = command(&mut php).await;
    assert_eq!((ran.stdout.as_str(), ran.code), ("1234 Session not exist", Some(0)), "{ran:?}");
}

#[tokio::test]
async fn a_misspelt_key_of_set_is_said_with_the_nearest_one() {
    let mut php = Command::new("php");
    let load = format!("require '{}';", path("clients/php/autoload.php"));
    let keys = "['worker_nun' => 1, 'HEARTBEAT_idle' => 1, 'chroot' => '/', 'zzzzzz' => 1]";
    php.args(["-r", &format!(
        "{load} echo implode('|', (new Wsd\\SwooleSettings({keys}, 'localhost', 1, 1))->notices);"
    )]);
    let ran = command(&mut php).await;
    let none = "there is no such key, and it is ignored";
    let said = [
        format!("worker_nun: {none}; did you mean worker_num?"),
        format!("HEARTBEAT_idle: {none}; did you mean heartbeat_idle_time?"),
        "chroot: does not apply here and is ignored".to_owned(),
        format!("zzzzzz: {none}"),
    ];
    assert_eq!(ran.stdout, said.join("|"), "{ran:?}");
}

#[tokio::test]
async fn sizes_are_read_as_in_php_ini_and_keys_of_a_port_are_looked_at() {
    let mut php = Command::new("php");
    let load = format!("require '{}';", path("clients/php/autoload.php"));
    let keys = "['package_max_length' => '1M', 'socket_buffer_size' => '64k']";
    let of_a_port = "['open_http_protocol' => true, 'pakage_max_length' => 1]";
    php.args([
        "-r",
        &format!(
            "{load} $settings = new Wsd\\SwooleSettings({keys}, 'localhost', 1, 1); \
         $settings->add('localhost', 2, 1, {of_a_port}); $wsd = $settings->wsd; \
         echo $wsd['package_max_length'], ' ', $wsd['buffer_output_size'], ' ', \
         implode('|', $settings->notices);"
        ),
    ]);
    let ran = command(&mut php).await;
    let said = "listen(localhost:2): pakage_max_length: there is no such key, and it is ignored; \
                did you mean package_max_length?";
    assert_eq!(ran.stdout, format!("1048576 65536 {said}"), "{ran:?}");
}

#[tokio::test]
async fn the_clients_read_and_write_the_golden_frames() {
    for (program, script) in [("php", "check.php"), ("python3", "check.py")] {
        let script = path(&format!("tests/app-protocol/{script}"));
        let said = command(Command::new(program).arg(script)).await.ok();
        assert!(said.contains(" frames, 2 requests"), "{program}: {said}");
    }
}

#[tokio::test]
async fn a_php_process_that_gets_many_messages_at_once_answers_in_order() {
    let said = command(Command::new("php").arg(path("tests/app-protocol/order.php"))).await.ok();
    assert_eq!(said, "in order\n");
}

#[tokio::test]
async fn a_program_that_is_missing_is_told_in_one_sentence() {
    let run =
        "php=$(command -v php); PATH=/nowhere exec \"$php\" -d \"auto_prepend_file=$1\" \"$0\"";
    let mut sh = Command::new("sh");
    sh.args(["-c", run]).arg(path("tests/app/fixtures/upload_server.php"));
    sh.arg(path("clients/php/autoload.php")).env_remove("WSD_BIN");
    let ran = command(&mut sh).await;
    assert!(ran.stderr.contains("wsd: wsd is not on PATH; install it, or name it in WSD_BIN\n"));
    assert!(!ran.stderr.contains('#') && !ran.stdout.contains("Uncaught"), "{ran:?}");
}
