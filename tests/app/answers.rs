//! Answers to plain requests: in parts, later, of any size, as files.

use bytes::Bytes;
use wsd::api::{Body, BrokeOff};
use wsd::handler::app::AppSettings;

use crate::support::*;

async fn native(flags: &[&str]) -> Worker {
    let script = path("tests/app/fixtures/native.php");
    let command: Vec<&str> = ["php", "-n", "-dextension=posix"]
        .into_iter()
        .chain(flags.iter().copied())
        .chain([script.as_str()])
        .collect();
    Worker::start(&command, AppSettings::default()).await
}

async fn get(worker: &Worker, target: &str) -> http::Response<Bytes> {
    worker.http(request(target)).await.unwrap()
}

fn request(target: &str) -> http::Request<Bytes> {
    http::Request::get(target).body(Bytes::new()).unwrap()
}

async fn part(body: &mut Body) -> Option<Result<Bytes, BrokeOff>> {
    wait("a part", body.part()).await
}

#[test]
fn what_is_written_leaves_while_the_handler_goes_on() {
    on_worker(async {
        let worker = native(&[]).await;
        let directory = tempfile::tempdir().unwrap();
        let go = directory.path().join("go");
        let answer = worker.answer(request(&format!("/steps?file={}", go.display()))).await;
        let mut body = answer.unwrap().into_body();
        assert_eq!(part(&mut body).await.unwrap().unwrap(), "first");
        std::fs::write(go, "").unwrap();
        assert_eq!(part(&mut body).await.unwrap().unwrap(), " second");
        assert_eq!(part(&mut body).await, None);
    });
}

#[test]
fn an_answer_of_any_size_arrives_whole() {
    on_worker(async {
        let worker = native(&[]).await;
        for bytes in [0, 1000, 256 << 10, (256 << 10) + 1, 9 << 20, 20 << 20] {
            let answer = get(&worker, &format!("/large?n={bytes}")).await;
            assert_eq!(answer.body().len(), bytes);
        }
        assert!(worker.reactor.killed.borrow().is_empty());
    });
}

#[test]
fn a_slow_client_slows_the_handler_and_one_that_leaves_ends_it() {
    on_worker(async {
        let worker = native(&[]).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        let answer = worker.answer(request("/stream?n=1000000")).await;
        let mut body = answer.unwrap().into_body();
        assert_eq!(part(&mut body).await.unwrap().unwrap().len(), 100_000);
        worker.say(fd, "echo after").await;
        drop(body);
        assert_eq!(worker.hear(fd).await, said("after"), "the handler has heard of it and ended");
    });
}

#[test]
fn an_answer_lives_until_it_is_ended() {
    on_worker(async {
        let worker = native(&[]).await;
        assert_eq!(get(&worker, "/later").await.body(), "by a timer");
        let (held, released) = tokio::join!(get(&worker, "/held"), get(&worker, "/release"));
        assert_eq!(
            (&held.body()[..], &released.body()[..]),
            (&b"by another request"[..], &b"released"[..])
        );
    });
}

#[test]
fn an_answer_that_is_owed_by_a_dead_process_is_a_502() {
    on_worker(async {
        let worker = native(&[]).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        let kill = async {
            worker.ask(fd, "echo held by now").await;
            worker.rest(fd).await;
            worker.kill(0);
        };
        let (held, ()) = tokio::join!(get(&worker, "/held"), kill);
        assert_eq!(held.status(), 502);
    });
}

#[test]
fn what_was_answered_stays_answered() {
    on_worker(async {
        let worker = native(&[]).await;
        for path in ["/ended", "/ended-throws"] {
            let answer = get(&worker, path).await;
            assert_eq!(
                (answer.status().as_u16(), &answer.body()[..]),
                (200, &b"sent"[..]),
                "{path}"
            );
        }
        let mut body = worker.answer(request("/broken")).await.unwrap().into_body();
        assert_eq!(part(&mut body).await, Some(Ok("half".into())));
        assert_eq!(part(&mut body).await, Some(Err(BrokeOff)), "no proper end");
    });
}

#[test]
fn a_file_is_sent_as_a_file_and_in_parts() {
    on_worker(async {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("numbers");
        let numbers: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        std::fs::write(&file, &numbers).unwrap();
        for flags in [&["-dextension=sockets"][..], &[]] {
            let worker = native(flags).await;
            for (from, length) in [(0, 3_000_000), (1, 2_000_000), (2_999_999, 1), (5, 0)] {
                let target = format!("/file?file={}&from={from}&length={length}", file.display());
                let answer = get(&worker, &target).await;
                assert_eq!(answer.status(), 206);
                assert!(
                    answer.body() == &numbers[from..from + length],
                    "{flags:?} {from} {length}"
                );
            }
            let target = format!("/file?file={}&from=1&length=3000000", file.display());
            assert_eq!(get(&worker, &target).await.status(), 416);
            assert!(worker.reactor.killed.borrow().is_empty());
        }
    });
}

#[test]
fn python_answers_in_parts_later_and_with_files_too() {
    on_worker(async {
        let script = path("tests/app/fixtures/echo.py");
        let worker = Worker::start(&["python3", &script], AppSettings::default()).await;
        assert_eq!(get(&worker, "/parts").await.body(), "one two");
        assert_eq!(get(&worker, "/large").await.body().len(), 9 << 20);
        assert!(get(&worker, "/file").await.body().starts_with(b"\"\"\"The application"));
        let (held, _) = tokio::join!(get(&worker, "/held"), get(&worker, "/release"));
        assert_eq!(held.body(), "released");
        assert_eq!(get(&worker, "/exit").await.status(), 500);
        assert_eq!(get(&worker, "/parts").await.body(), "one two");
    });
}

#[test]
fn a_push_leaves_while_the_handler_goes_on_and_is_true_only_for_what_is_queued() {
    on_worker(async {
        let script = path("tests/app/fixtures/echo.py");
        let python = Worker::start(&["python3", &script], AppSettings::default()).await;
        for worker in [native(&[]).await, python] {
            let directory = tempfile::tempdir().unwrap();
            let go = directory.path().join("go");
            let fd = worker.open("/").await;
            worker.hear(fd).await;
            worker.say(fd, &format!("slowly {}", go.display())).await;
            assert_eq!(worker.hear(fd).await, said("first"));
            std::fs::write(go, "").unwrap();
            assert_eq!(worker.hear(fd).await, said("second"));
        }
        let worker = native(&[]).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        assert_eq!(worker.ask(fd, "big 3000000").await, "false");
        for bytes in [2 << 20, 300_000, 300_000] {
            worker.say(fd, &format!("big {bytes}")).await;
            assert_eq!(worker.hear(fd).await.text().len(), bytes);
            assert_eq!(worker.hear(fd).await, said("true"));
        }
    });
}
