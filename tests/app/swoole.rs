use bytes::Bytes;
use wsd::api::Opcode;
use wsd::handler::app::AppSettings;

use crate::support::*;

async fn swoole(env: &[(&str, &str)], settings: AppSettings) -> Worker {
    let script = path("tests/app/fixtures/swoole.php");
    Worker::start_with(&["php", "-n", &script], env, settings).await
}

fn body_of(response: &http::Response<Bytes>) -> &str {
    std::str::from_utf8(response.body()).unwrap()
}

#[test]
fn a_swoole_server_runs_as_it_stands() {
    on_worker(async {
        let worker = swoole(&[], AppSettings::default()).await;
        let (fd, _) =
            worker.try_open("/a%20b?x=1", &[("cookie", "c=%41"), ("x", "y")]).await.unwrap();
        let open = worker.hear(fd).await.text();
        assert_eq!(open, r#"["\/a b",{"x":"1"},{"c":"A"},"y","198.51.100.9",40001]"#);
        assert_eq!(worker.ask(fd, "log").await, "start,worker 0");
        assert_eq!(worker.ask(fd, "after").await, "later");
        worker.say(fd, "tick").await;
        for n in 1..=3 {
            assert_eq!(worker.hear(fd).await, said(&format!("tick{n}")));
        }
        assert_eq!(worker.ask(fd, "piece").await, "ab");
        worker.say(fd, "frame").await;
        assert_eq!(
            worker.hear(fd).await,
            Did::Push(Opcode::Binary, Bytes::from_static(b"\0\x01"))
        );
        assert_eq!(worker.ask(fd, "pack").await, "81026869 2");
        let none = worker.ask(fd, "untasked").await;
        assert!(none.starts_with("[false,") && none.contains("task_worker_num"), "{none}");
        assert_eq!(worker.ask(fd, "bye because").await, "close 4000 because");
    });
}

#[test]
fn a_push_to_nobody_is_false_and_warns_as_swoole_does() {
    on_worker(async {
        let worker = swoole(&[], AppSettings::default()).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        let answer = worker.ask(fd, "push 77").await;
        let warning = r"Swoole\\WebSocket\\Server::push(): session#77 does not exists";
        assert_eq!(answer, format!(r#"[false,"{warning}",1005]"#));
    });
}

#[test]
fn clients_are_listed_and_known() {
    on_worker(async {
        let settings = AppSettings { processes: 2, ..AppSettings::default() };
        let worker = swoole(&[], settings).await;
        let (a, b) = (worker.open("/").await, worker.open("/").await);
        worker.hear(a).await;
        worker.hear(b).await;
        assert_eq!(worker.ask(a, "list").await, format!("[[{a},{b}],2,[{a},{b}]]"));
        assert_eq!(worker.ask(a, &format!("exist {b}")).await, "[true,true]");
        assert_eq!(worker.ask(a, "exist 77").await, "[false,false]");
        assert_eq!(worker.ask(a, "stats").await, "2");
        let info = worker.ask(a, &format!("info {b}")).await;
        let known = r#"{"websocket_status":3,"remote_ip":"192.0.2.1","connect_time":1700000000}"#;
        assert_eq!(info, known);
        assert_eq!(worker.ask(a, &format!("push {b}")).await, "[true,null,0]");
        assert_eq!(worker.hear(b).await, said("hi"));
        worker.say(a, "pipe").await;
        // Two processes say these, so that either may come first.
        let mut both = [worker.hear(a).await.text(), worker.hear(a).await.text()];
        both.sort();
        assert_eq!(both, [r#"from 0 in 1: {"to":1}"#, "true"]);
        worker.hear(b).await;
        worker.leave(b).await;
        // It was b's process that was told.
        assert_eq!(worker.ask(a, "log").await, "start,worker 0");
    });
}

#[test]
fn tasks_run_in_processes_of_their_own() {
    on_worker(async {
        let settings = AppSettings { task_processes: 1, ..AppSettings::default() };
        let worker = swoole(&[], settings).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        assert_eq!(worker.ask(fd, "wait").await, "2");
        assert_eq!(worker.ask(fd, "task").await, "task 1 gave 21");
        assert_eq!(worker.ask(fd, "multi").await, "[2,3]");
        // Longer than a frame, both ways.
        assert_eq!(worker.ask(fd, "long").await, (6 << 20).to_string());
        // Two workers of one process each: the task processes are numbered from 2.
        assert_eq!(worker.ask(fd, "where").await, r#"[2,true,0,["worker 2"]]"#);
        let directory = tempfile::tempdir().unwrap();
        let go = directory.path().join("go");
        worker.say(fd, &format!("slow {}", go.display())).await;
        assert_eq!(worker.ask(fd, "log").await, "start,worker 0", "a long task delays nobody");
        std::fs::write(go, "").unwrap();
        assert_eq!(worker.ask(fd, "wait").await, "2");
    });
}

#[test]
fn answers_are_written_ended_later_and_ended_by_nobody_as_in_swoole() {
    on_worker(async {
        let worker = swoole(&[], AppSettings::default()).await;
        let get = |target: String| http::Request::get(target).body(Bytes::new()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        let answer = worker.answer(get(format!("/write?file={}", file.display()))).await.unwrap();
        assert_eq!(answer.headers()["content-type"], "text/html");
        let mut body = answer.into_body();
        assert_eq!(wait("a part", body.part()).await, Some(Ok("one ".into())));
        std::fs::write(&file, "12345").unwrap();
        assert_eq!(wait("a part", body.part()).await, Some(Ok("two".into())));
        assert_eq!(wait("the end", body.part()).await, None);
        for (path, status, text) in [
            ("/nothing", 500, ""),
            ("/status", 204, ""),
            ("/timer", 200, "by a timer"),
            (&format!("/sendfile?file={}", file.display()), 200, "234"),
        ] {
            let answer = worker.http(get(path.to_owned())).await.unwrap();
            assert_eq!((answer.status().as_u16(), body_of(&answer)), (status, text), "{path}");
        }
    });
}

#[test]
fn a_close_comes_as_a_frame_too_where_asked_for() {
    on_worker(async {
        let worker = swoole(&[], AppSettings::default()).await;
        let (a, b) = (worker.open("/").await, worker.open("/").await);
        worker.hear(b).await;
        worker.leave(a).await;
        let log = worker.ask(b, "log").await;
        assert_eq!(log, "start,worker 0,close frame 1000 bye,close 0");
    });
}

#[test]
fn a_handshake_of_ones_own_decides_and_gets_no_open() {
    on_worker(async {
        let worker = swoole(&[("HANDSHAKE", "1")], AppSettings::default()).await;
        let refused = worker.try_open("/?token=bad", &[]).await.unwrap_err();
        assert_eq!((refused.status, &refused.body[..]), (401, &b"no token"[..]));
        let (fd, accept) = worker.try_open("/?token=good", &[]).await.unwrap();
        assert_eq!(accept.subprotocol.as_deref(), Some("chat"));
        assert_eq!(accept.headers, [("x-hello".to_owned(), "1".to_owned())]);
        assert_eq!(worker.ask(fd, "log").await, "start,worker 0");
    });
}

#[test]
fn what_a_handshake_of_ones_own_pushes_follows_it() {
    on_worker(async {
        let worker = swoole(&[("HANDSHAKE", "1")], AppSettings::default()).await;
        let (fd, _) = worker.try_open("/?token=good&push=1", &[]).await.unwrap();
        assert_eq!(worker.hear(fd).await, said("early"));
        assert_eq!(worker.hear(fd).await, said("[true,true,2]"));
        let first = worker.open("/?token=good").await;
        // Of two closes, the second finds nobody.
        let closed = worker.ask(first, "bye-twice").await;
        assert_eq!(closed, "close 4000 once");
        assert_eq!(worker.hear(fd).await.text(), "[true,false,false]");
        // What it sends behind that is not told any more.
        worker.say(first, "bye-twice").await;
        assert_eq!(worker.ask(fd, "exist 7").await, "[false,false]");
    });
}

#[test]
fn http_requests_look_as_in_swoole() {
    on_worker(async {
        let worker = swoole(&[], AppSettings::default()).await;
        let form = http::Request::post("/p?q=1")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from("a=1&b[]=2"))
            .unwrap();
        let response = worker.http(form).await.unwrap();
        assert_eq!(response.status(), 201);
        assert_eq!(response.headers()["x-made"], "by php");
        assert_eq!(
            response.headers()["set-cookie"],
            "a=b+c; path=/; secure; HttpOnly; SameSite=Lax"
        );
        assert_eq!(response.headers()["content-type"], "text/html");
        assert_eq!(body_of(&response), r#"["POST",{"q":"1"},{"a":"1","b":["2"]},"a=1&b[]=2"]"#);
        let upload = "--xx\r\nContent-Disposition: form-data; name=\"t\"\r\n\r\nv\r\n\
                      --xx\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\
                      Content-Type: text/plain\r\n\r\nline\r\n\r\nmore\r\n--xx--\r\n";
        let upload = http::Request::post("/upload")
            .header("content-type", "multipart/form-data; boundary=xx")
            .body(Bytes::from(upload))
            .unwrap();
        let response = worker.http(upload).await.unwrap();
        assert_eq!(
            body_of(&response),
            r#"[{"t":"v"},{"f":["a.txt","text\/plain","line\r\n\r\nmore"]}]"#
        );
    });
}

#[test]
fn pings_are_sent_and_clients_protected() {
    on_worker(async {
        let worker = swoole(&[], AppSettings::default()).await;
        let fd = worker.open("/").await;
        worker.hear(fd).await;
        worker.say(fd, "ping 77").await;
        let ping = Did::Push(Opcode::Ping, Bytes::from_static(b"are you"));
        assert_eq!(worker.hear(fd).await, ping);
        assert_eq!(worker.hear(fd).await, said("[true,false]"));
        worker.say(fd, "pong").await;
        assert_eq!(worker.hear(fd).await, Did::Push(Opcode::Pong, Bytes::from_static(b"there")));
        assert_eq!(worker.ask(fd, "longping").await, "false");
        worker.say(fd, "protect 77").await;
        assert_eq!(worker.hear(fd).await, Did::Protect(true));
        let warning = r"Swoole\\WebSocket\\Server::protect(): session#77 does not exists";
        assert_eq!(worker.hear(fd).await, said(&format!(r#"[true,false,"{warning}"]"#)));
        assert_eq!(worker.ask(fd, "heartbeat").await, "false", "no interval is set");
    });
}

#[test]
fn a_task_comes_as_an_object_where_asked_for() {
    on_worker(async {
        for key in ["task_use_object", "task_object", "task_enable_coroutine"] {
            let settings = AppSettings { task_processes: 1, ..AppSettings::default() };
            let worker = swoole(&[("TASK_OBJECT", key)], settings).await;
            let fd = worker.open("/").await;
            worker.hear(fd).await;
            assert_eq!(worker.ask(fd, "task").await, "task 0 gave 1120", "{key}");
        }
    });
}
