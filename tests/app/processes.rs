use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use wsd::api::{Opcode, Reactor, Verdict};
use wsd::handler::app::{AppSettings, OnCrash};

use crate::support::*;

fn php() -> [String; 4] {
    ["php".into(), "-n".into(), "-dextension=posix".into(), path("tests/app/fixtures/native.php")]
}

async fn php_worker(settings: AppSettings) -> Worker {
    let command = php();
    Worker::start(&command.each_ref().map(String::as_str), settings).await
}

fn settings() -> AppSettings {
    AppSettings { event_timeout: Duration::from_secs(5), ..AppSettings::default() }
}

#[test]
fn a_php_process_answers_its_clients() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let fd = worker.open("/room?x=1").await;
        assert_eq!(worker.hear(fd).await, said("welcome /room?x=1 198.51.100.9"));
        assert_eq!(worker.ask(fd, "echo 你好").await, "你好");
        assert_eq!(worker.ask(fd, "noise").await, "made noise");
        assert_eq!(worker.ask(fd, "after").await, "later");
        assert_eq!(worker.ask(fd, "bad").await, "false");
        assert_eq!(worker.ask(fd, "bye so long").await, "close 4001 so long");
    });
}

#[test]
fn a_message_that_leaves_its_process_no_memory_ends_its_client_alone() {
    on_worker(async {
        let mut command: Vec<String> = php().into();
        command.insert(1, "-dmemory_limit=8M".into());
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let worker = Worker::start(&command, settings()).await;
        let (poison, other) = worker.two_clients().await;
        worker.say(poison, &"x".repeat(5 << 20)).await;
        let why = "the application failed on this client twice".to_owned();
        assert_eq!(worker.hear(poison).await, Did::Close(1008, why));
        assert_eq!(worker.ask(other, "echo still").await, "still");
    });
}

#[test]
fn a_message_that_no_process_takes_in_ends_its_client_alone() {
    on_worker(async {
        for kind in ["blocking", "asyncio"] {
            let script = path("tests/app/fixtures/choosy.py");
            let worker = Worker::start(&["python3", &script, kind], settings()).await;
            let (poison, other) = worker.two_clients().await;
            worker.say(poison, "poison").await;
            let why = "the application failed on this client twice".to_owned();
            assert_eq!(worker.hear(poison).await, Did::Close(1008, why), "{kind}");
            assert_eq!(worker.ask(other, "still").await, "still", "{kind}");
        }
    });
}

/// An event that was counted may not be tried again where a process dies on it.
#[test]
fn what_fails_in_a_handler_is_not_counted_on_the_event_behind() {
    on_worker(async {
        let script = path("tests/app/fixtures/fails_twice.py");
        let worker = Worker::start(&["python3", &script], settings()).await;
        let (first, second) = worker.two_clients().await;
        worker.say(first, "fail when the next is there").await;
        worker.say(second, "die once").await;
        assert_eq!(worker.hear(second).await, said("done"));
    });
}

#[test]
fn a_python_process_answers_its_clients() {
    on_worker(async {
        let script = path("tests/app/fixtures/echo.py");
        let worker = Worker::start(&["python3", &script], settings()).await;
        let fd = worker.open("/").await;
        assert_eq!(worker.hear(fd).await, said("welcome / 198.51.100.9"));
        assert_eq!(worker.ask(fd, "hello").await, "hello");
        assert_eq!(worker.ask(fd, "exists").await, "True");
        assert_eq!(worker.ask(fd, "list").await, "True");
        assert_eq!(worker.try_open("/refused", &[]).await.unwrap_err().body, b"not you");
        let early = worker.open("/early").await;
        assert_eq!(worker.hear(early).await, said("early"), "what a handshake pushes follows it");
        let post = http::Request::post("/form").body(Bytes::from("a=1")).unwrap();
        let response = worker.http(post).await.unwrap();
        assert_eq!(response.headers()["x-from"], "python");
        assert_eq!(response.body(), "POST a=1");
        assert_eq!(worker.ask(fd, "throw").await, "close 1011 the handler failed");
    });
}

#[test]
fn a_handler_for_asyncio_decides_who_is_let_in() {
    on_worker(async {
        let script = path("tests/app/fixtures/doorman_asyncio.py");
        let worker = Worker::start(&["python3", &script], settings()).await;
        let refused = worker.try_open("/", &[]).await.unwrap_err();
        assert_eq!((refused.status, &refused.body[..]), (401, &b"not you"[..]));
        assert_eq!(worker.try_open("/fails", &[]).await.unwrap_err().status, 500);
        let (fd, accept) = worker.try_open("/secret", &[]).await.expect("let in");
        assert_eq!(accept.headers, [("x-from".to_owned(), "asyncio".to_owned())]);
        assert_eq!(worker.hear(fd).await, said("early"), "what a handshake pushes follows it");
        assert_eq!(worker.hear(fd).await, said("relayed"));
    });
}

/// The question comes right behind the word that lets the client in.
#[test]
fn a_client_that_was_let_in_is_known_to_its_process() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        for _ in 0..20 {
            let fd = worker.open("/known").await;
            assert_eq!(worker.hear(fd).await, said("[true,true]"));
        }
    });
}

#[test]
fn questions_are_answered_with_the_truth() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let (a, b) = worker.two_clients().await;
        assert_eq!(worker.ask(a, &format!("confirm {b}")).await, "queued");
        assert_eq!(worker.hear(b).await, said("hello"));
        assert_eq!(worker.ask(a, "confirm 99").await, "gone");
        assert_eq!(worker.ask(a, &format!("exists {b}")).await, "yes");
        assert_eq!(worker.ask(a, "exists 99").await, "no");
        assert_eq!(worker.ask(a, "list").await, format!("{a},{b}"));
        assert_eq!(worker.ask(a, "stats").await, "2");
        assert!(
            worker.ask(a, &format!("info {b}")).await.contains("\"connected_at\":1700000000000")
        );
        assert_eq!(worker.ask(a, "no-text").await, "[false,false,false]");
        worker.say(a, "all to the others").await;
        assert_eq!(worker.hear(b).await, said("to the others"));
        worker.say(a, "send 0").await;
        assert_eq!(worker.hear(a).await, said("0 7 piped"));
        worker.say(a, "send 1").await;
        assert_eq!(worker.ask(a, "echo sync").await, "sync");
        let relayed = worker.reactor.relayed.borrow().clone();
        assert_eq!(relayed.len(), 1);
        flow(wsd::api::Handler::on_worker_message(
            &worker.handler,
            &worker.ctx,
            wsd::fd::Slot(1),
            relayed[0].1.clone(),
        ))
        .await;
    });
}

#[test]
fn the_application_decides_who_comes_in() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let refused = worker.try_open("/refused", &[]).await.unwrap_err();
        assert_eq!((refused.status, &refused.body[..]), (403, &b"not you"[..]));
        assert_eq!(worker.try_open("/throws", &[]).await.unwrap_err().status, 500);
        let (_, accept) = worker.try_open("/chat", &[]).await.unwrap();
        assert_eq!(accept.subprotocol.as_deref(), Some("chat"));
        assert_eq!(accept.headers, [("set-cookie".to_owned(), "seen=1".to_owned())]);
    });
}

#[test]
fn a_client_that_leaves_during_the_handshake_is_closed_for_the_application() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        let request = worker.request("/", &[]);
        drop(wsd::api::Handler::on_handshake(&worker.handler, &worker.ctx, &request));
        let request = worker.request("/", &[]);
        let wsd::api::Flow::Pending(mut future) =
            wsd::api::Handler::on_handshake(&worker.handler, &worker.ctx, &request)
        else {
            panic!("the application is asked")
        };
        futures_util::future::poll_immediate(&mut future).await;
        drop(future);
        // The CLOSE is queued when the ACCEPT has come, and the answer to this is later.
        worker.ask(fd, "echo 1").await;
        let seen = worker.ask(fd, "seen").await;
        assert_eq!(seen, "closed:1006::nobody:client_vanished");
    });
}

#[test]
fn a_close_says_who_and_why() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let (a, b) = (worker.open("/").await, worker.open("/").await);
        worker.hear(b).await;
        worker.leave(a).await;
        assert_eq!(worker.ask(b, "seen").await, "closed:1000:bye:client:client_closed");
    });
}

#[test]
fn http_goes_to_the_application_too() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let post = http::Request::post("/page?q=1").body(Bytes::from("body")).unwrap();
        let response = worker.http(post).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.body()[..]),
            (200, &b"<p>POST 1 body"[..])
        );
        let get = http::Request::get("/none").body(Bytes::new()).unwrap();
        assert!(worker.http(get).await.is_none());
    });
}

async fn get(worker: &Worker, path: &str) -> http::Response<Bytes> {
    worker.http(http::Request::get(path).body(Bytes::new()).unwrap()).await.unwrap()
}

#[test]
fn a_wrong_answer_costs_that_answer_and_no_process() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        let pid = worker.ask(fd, "pid").await;
        for path in ["/header", "/name", "/status"] {
            assert_eq!(get(&worker, path).await.status(), 500, "{path}");
        }
        assert_eq!(worker.try_open("/oddly", &[]).await.unwrap_err().status, 500);
        worker.say(fd, "oddly").await;
        assert_eq!(worker.ask(fd, "pid").await, pid);
        assert!(worker.reactor.killed.borrow().is_empty());
    });
}

#[test]
fn a_script_that_ends_itself_ends_its_event_alone() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let (a, b) = worker.two_clients().await;
        assert_eq!(get(&worker, "/dies").await.status(), 500);
        worker.say(a, "exit").await;
        worker.say(b, "echo still here").await;
        assert_eq!(worker.hear(b).await, said("still here"));
        assert_eq!(worker.ask(a, "echo here too").await, "here too");
        worker.say(a, "memory").await;
        assert_eq!(worker.hear(a).await, Did::Close(1011, "the handler failed".into()));
        assert_eq!(worker.ask(b, "echo and still").await, "and still");
    });
}

#[test]
fn a_request_is_tried_once_and_its_death_is_told() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        let pid = worker.ask(fd, "pid").await;
        assert_eq!(get(&worker, "/killed").await.status(), 502);
        let next = worker.ask(fd, "pid").await;
        assert_ne!(next, pid);
        assert_eq!(worker.ask(fd, "pid").await, next, "only one process died of it");
    });
}

#[test]
fn the_death_of_a_quick_process_costs_what_it_was_to_answer_together_at_most() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        // On a machine that is too slow for it, the process is sent two ahead, and one is lost.
        for _ in 0..350 {
            join_all((0..16).map(|_| get(&worker, "/page?q=1"))).await;
        }
        let path = |at| if at == 7 { "/killed" } else { "/page?q=1" };
        let answers = join_all((0..40).map(|at| get(&worker, path(at)))).await;
        assert_eq!(answers[7].status(), 502);
        let lost = answers.iter().filter(|answer| answer.status() == 502).count();
        assert!(lost <= 16, "{lost}");
        let whole = answers.iter().filter(|answer| answer.body() == "<p>GET 1 ").count();
        assert_eq!(whole + lost, 40, "the others are answered by the next process");
    });
}

#[test]
fn what_was_sent_before_a_crash_is_done_once() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        assert_eq!(worker.ask(fd, "say-and-die").await, "said");
        assert_eq!(worker.hear(fd).await, Did::Close(1011, "the application failed".into()));
    });
}

#[test]
fn a_throwing_handler_costs_its_own_connection() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let (a, b) = worker.two_clients().await;
        let pid = worker.ask(b, "pid").await;
        assert_eq!(worker.ask(a, "throw").await, "close 1011 the handler failed");
        assert_eq!(worker.ask(b, "pid").await, pid);
    });
}

#[test]
fn killed_processes_lose_no_event_and_no_order() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let fds = [worker.open("/").await, worker.open("/").await, worker.open("/").await];
        for fd in fds {
            worker.hear(fd).await;
        }
        let mut closed = 0;
        for round in 0..5 {
            for i in 0..200 {
                for fd in fds {
                    worker.say(fd, &format!("echo {round}.{i}")).await;
                }
                if i == 100 {
                    worker.kill(0);
                }
            }
            for fd in fds {
                let mut last = -1;
                while last < 199 {
                    let did = worker.hear(fd).await;
                    let text = did.text();
                    let Did::Push(..) = did else {
                        // The process died between its answer and its DONE.
                        closed += 1;
                        continue;
                    };
                    let i: i32 = text.split_once('.').unwrap().1.parse().unwrap();
                    assert_eq!(i, last + 1, "{text} after {last}");
                    last = i;
                }
            }
        }
        assert!(closed <= 5, "{closed} clients closed by 5 deaths");
    });
}

#[test]
fn the_next_process_is_told_of_its_clients() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let (fd, _) = worker.try_open("/a", &[("cookie", "k=1"), ("x", "y")]).await.unwrap();
        worker.hear(fd).await;
        worker.ask(fd, "keep me").await;
        worker.rest(fd).await;
        worker.kill(0);
        assert_eq!(worker.ask(fd, "seen").await, "attached:/a:k=1:me");
    });
}

#[test]
fn a_client_on_whose_event_two_processes_die_is_closed() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let (a, b) = worker.two_clients().await;
        let file = tempfile::tempdir().unwrap();
        let once = file.path().join("died");
        assert_eq!(worker.ask(a, &format!("die-once {}", once.display())).await, "survived");
        worker.say(a, "die").await;
        worker.say(b, "echo still here").await;
        let why = "the application failed on this client twice".to_owned();
        assert_eq!(worker.hear(a).await, Did::Close(1008, why));
        assert_eq!(worker.hear(b).await, said("still here"));
    });
}

#[test]
fn a_process_that_died_is_missed_though_a_child_of_it_has_its_socket() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let (a, b) = worker.two_clients().await;
        worker.say(a, "leave-a-child-and-die").await;
        worker.say(b, "echo still here").await;
        let why = "the application failed on this client twice".to_owned();
        assert_eq!(worker.hear(a).await, Did::Close(1008, why));
        assert_eq!(worker.hear(b).await, said("still here"));
    });
}

#[test]
fn a_hung_process_is_ended_and_its_other_clients_go_on() {
    on_worker(async {
        let settings = AppSettings { event_timeout: Duration::from_millis(300), ..settings() };
        let worker = php_worker(settings).await;
        let (a, b) = worker.two_clients().await;
        worker.say(a, "hang").await;
        worker.say(b, "echo still here").await;
        assert_eq!(worker.hear(a).await, Did::Close(1011, "the application failed".into()));
        assert_eq!(worker.hear(b).await, said("still here"));
        assert_eq!(worker.reactor.killed.borrow().len(), 1);
    });
}

#[test]
fn a_busy_process_delays_only_its_own_clients() {
    on_worker(async {
        let worker = php_worker(AppSettings { processes: 2, ..settings() }).await;
        let (a, b) = worker.two_clients().await;
        worker.say(a, "hang").await;
        assert_eq!(worker.ask(b, "echo quick").await, "quick");
    });
}

#[test]
fn a_full_queue_stops_the_reading_of_its_clients() {
    on_worker(async {
        let settings = AppSettings { queue_events: 4, ..settings() };
        let worker = php_worker(settings).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        worker.rest(fd).await;
        let frame = || wsd::api::Frame::new(fd, Opcode::Text, "echo 1");
        let mut pending = Vec::new();
        for _ in 0..10 {
            let handler = &worker.handler;
            match wsd::api::Handler::on_message(handler, &worker.ctx, frame()) {
                wsd::api::Flow::Ready(()) => {}
                wsd::api::Flow::Pending(future) => pending.push(future),
            }
        }
        assert_eq!(pending.len(), 6);
        join_all(pending).await;
        for _ in 0..10 {
            assert_eq!(worker.hear(fd).await, said("1"));
        }
    });
}

#[test]
fn a_process_is_replaced_after_max_requests_without_a_gap() {
    on_worker(async {
        let worker = php_worker(AppSettings { max_requests: 50, ..settings() }).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        let first = worker.ask(fd, "pid").await;
        let mut later = first.clone();
        for i in 0..2000 {
            assert_eq!(worker.ask(fd, &format!("echo {i}")).await, i.to_string());
            if i % 100 == 99 {
                later = worker.ask(fd, "pid").await;
            }
        }
        assert_ne!(first, later);
        assert!(worker.reactor.killed.borrow().is_empty());
    });
}

#[test]
fn a_process_that_stands_by_takes_the_place_of_one_that_dies() {
    on_worker(async {
        let worker = php_worker(AppSettings { spare: 1, ..settings() }).await;
        for _ in 0..3 {
            let fd = worker.open("/a").await;
            worker.hear(fd).await;
            let first: i32 = worker.ask(fd, "pid").await.parse().unwrap();
            worker.rest(fd).await;
            let spare = worker.reactor.pid(0);
            assert_ne!(spare.as_raw(), first);
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::SIGKILL)
                .unwrap();
            assert_eq!(worker.ask(fd, "pid").await, spare.to_string());
            assert!(worker.ask(fd, "seen").await.contains("attached:/a"));
            let another = async {
                while worker.reactor.pid(0) == spare {
                    tokio::task::yield_now().await;
                }
            };
            wait("another that stands by", another).await;
        }
    });
}

#[test]
fn clients_may_be_closed_with_their_process() {
    on_worker(async {
        let worker = php_worker(AppSettings { on_crash: OnCrash::Close, ..settings() }).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        worker.kill(0);
        assert_eq!(worker.hear(fd).await, Did::Close(1011, "the application failed".into()));
    });
}

#[test]
fn clients_of_a_place_that_stays_empty_move() {
    on_worker(async {
        let worker = php_worker(AppSettings { processes: 2, ..settings() }).await;
        let (a, b) = (worker.open("/a").await, worker.open("/b").await);
        worker.hear(a).await;
        worker.hear(b).await;
        let other = worker.ask(b, "pid").await;
        worker.rest(a).await;
        worker.reactor.stop_starting();
        worker.kill(0);
        worker.say(a, "pid").await;
        assert_eq!(worker.hear(a).await.text(), other);
        assert_eq!(worker.ask(a, "seen").await, "attached:/a::");
    });
}

#[test]
fn garbage_on_the_socket_ends_the_process() {
    on_worker(async {
        let script = "import os,socket\ns=socket.socket(fileno=int(os.environ['WSD_APP_FD']))\n\
                      s.sendall(b'\\x7fELF' * 9)\nimport time\ntime.sleep(60)";
        let command = ["python3", "-c", script];
        let worker = Worker::start(&command, settings()).await;
        let why = wsd::api::Handler::health(&worker.handler).expect_err("no process was ready");
        assert!(why.contains("its process 0 ended before it was ready"), "{why}");
    });
}

#[test]
fn a_worker_that_stops_lets_events_end() {
    on_worker(async {
        let worker = php_worker(settings()).await;
        let fd = worker.open("/").await;
        for i in 0..100 {
            worker.say(fd, &format!("echo {i}")).await;
        }
        flow(wsd::api::Handler::on_worker_stop(&worker.handler, &worker.ctx)).await;
        worker.hear(fd).await;
        for i in 0..100 {
            assert_eq!(worker.hear(fd).await, said(&i.to_string()));
        }
        let kept = wsd::api::Handler::freeze(&worker.handler, &worker.ctx, fd);
        assert_eq!(kept, None);
        assert_eq!(worker.reactor.push(fd, Opcode::Text, &"x".into()), Verdict::Queued);
    });
}
