use bytes::Bytes;
use tempfile::TempDir;
use wsd::handler::app::AppSettings;

use crate::support::*;

/// A Laravel application in a directory of its own, and its processes.
struct Laravel {
    worker: Worker,
    dir: TempDir,
}

impl Laravel {
    async fn start() -> Laravel {
        Laravel::start_with(&[]).await
    }

    async fn start_with(env: &[(&str, &str)]) -> Laravel {
        let dir = tempfile::tempdir().unwrap();
        copy_laravel(dir.path());
        let script = dir.path().join("bin/laravels").display().to_string();
        let package = path("clients/php/autoload.php");
        let env = [&[("TEST_WSD_PACKAGE", package.as_str())], env].concat();
        let command = ["php", script.as_str(), "start"];
        let worker = Worker::start_with(&command, &env, AppSettings::default()).await;
        Laravel { worker, dir }
    }

    async fn get(&self, target: &str) -> http::Response<Bytes> {
        self.get_with(target, "").await
    }

    async fn get_with(&self, target: &str, cookie: &str) -> http::Response<Bytes> {
        let request = http::Request::get(target).header("host", "todo-s.test");
        let request = request.header("cookie", cookie).body(Bytes::new()).unwrap();
        self.worker.http(request).await.unwrap()
    }

    async fn text(&self, target: &str) -> String {
        body(&self.get(target).await)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("storage/logs/laravel.log")).unwrap()
    }
}

fn body(response: &http::Response<Bytes>) -> String {
    String::from_utf8(response.body().to_vec()).unwrap()
}

/// The Cookie header a browser sends after that response.
fn cookie(response: &http::Response<Bytes>) -> String {
    let lines = response.headers().get_all("set-cookie").iter();
    let pairs = lines.map(|line| line.to_str().unwrap().split(';').next().unwrap());
    pairs.collect::<Vec<_>>().join("; ")
}

#[test]
fn pages_come_from_the_kernel() {
    on_worker(async {
        let laravel = Laravel::start().await;
        let page = laravel.get("/").await;
        assert_eq!(body(&page), "<p>Hello from todo</p>\n");
        assert!(page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
        // By listeners of LaravelS's events, and by laravels.server.
        assert_eq!(page.headers()["x-generated"], "todo");
        assert_eq!(page.headers()["server"], "todo");
        let squeezed = http::Request::get("/").header("host", "todo-s.test");
        let squeezed = squeezed.header("accept-encoding", "gzip").body(Bytes::new()).unwrap();
        let squeezed = laravel.worker.http(squeezed).await.unwrap();
        assert_eq!(squeezed.headers()["content-encoding"], "gzip");
        assert_eq!(laravel.text("/stream").await, "one two");
        assert_eq!(laravel.text("/echoed").await, "said done");
        assert_eq!(laravel.get("/none").await.status(), 404);
        assert_eq!(laravel.get("/throws").await.status(), 500);
        assert_eq!(laravel.text("/robots.txt").await, "User-agent: *\n");
        let head = http::Request::head("/robots").header("host", "todo-s.test");
        let head = laravel.worker.http(head.body(Bytes::new()).unwrap()).await.unwrap();
        assert_eq!(head.headers()["content-length"], "14");
        assert_eq!(laravel.get("/../.env").await.status(), 404);
        let form = http::Request::post("/echo")
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from("a=b+c"))
            .unwrap();
        let answer = laravel.worker.http(form).await.unwrap();
        assert_eq!(body(&answer), "b c 192.0.2.7");
        let upload = "--xx\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\
                      Content-Type: text/plain\r\n\r\nline\r\n--xx--\r\n";
        let upload = http::Request::post("/upload")
            .header("content-type", "multipart/form-data; boundary=xx")
            .body(Bytes::from(upload))
            .unwrap();
        assert_eq!(body(&laravel.worker.http(upload).await.unwrap()), "a.txt line");
    });
}

#[test]
fn no_request_sees_another() {
    on_worker(async {
        let laravel = Laravel::start().await;
        for n in 1..=3 {
            assert_eq!(laravel.text(&format!("/fresh?n={n}")).await, format!("1 {n} {n}"));
            assert_eq!(laravel.text("/count").await, "1");
            laravel.text("/spoil").await;
            assert_eq!(laravel.text("/spoiled").await, "todo en [false,null]");
        }
        let first = laravel.get("/name/Ann").await;
        let again = laravel.get("/opened").await;
        assert_ne!(cookie(&first), cookie(&again), "a session of one's own");
        assert_eq!(laravel.get_with("/members?token=good", "").await.status(), 200);
        assert_eq!(laravel.get("/members").await.status(), 302);
    });
}

#[test]
fn a_handler_class_sees_session_and_user() {
    on_worker(async {
        let laravel = Laravel::start().await;
        let named = cookie(&laravel.get("/name/Ann").await);
        let headers = [("cookie", named.as_str()), ("host", "todo-s.test")];
        let (fd, accept) = laravel.worker.try_open("/ws?token=good", &headers).await.unwrap();
        assert_eq!(laravel.worker.hear(fd).await, said("welcome /ws 7 Ann"));
        assert!(accept.headers.iter().any(|(_, value)| value.starts_with("todo_session=")));
        assert_eq!(laravel.worker.ask(fd, "hello").await, "you said hello");
        let opened = laravel.get_with("/opened", &named).await;
        assert_eq!(body(&opened), "1", "what onOpen put into the session is kept");
        let (other, _) = laravel.worker.try_open("/ws", &[]).await.unwrap();
        assert_eq!(laravel.worker.hear(other).await, said("welcome /ws nobody unnamed"));
        let pushed = laravel.text(&format!("/push/{fd}")).await;
        assert_eq!(pushed, r#"{"pushed":true}"#);
        assert_eq!(laravel.worker.hear(fd).await, said("from a page"));
        laravel.worker.leave(fd).await;
        assert_eq!(laravel.worker.ask(other, "still").await, "you said still");
        let log = laravel.log();
        assert_eq!(log.matches("local.INFO: opened").count(), 2, "{log}");
        assert_eq!(log.matches("local.INFO: closed").count(), 1, "{log}");
    });
}

#[test]
fn a_response_that_refuses_refuses_the_handshake() {
    on_worker(async {
        let laravel = Laravel::start().await;
        let refused = laravel.worker.try_open("/members", &[]).await.unwrap_err();
        assert_eq!(refused.status, 302);
        assert!(
            refused.headers.iter().any(|(name, to)| name == "location" && to.ends_with("/login"))
        );
        assert_eq!(laravel.worker.try_open("/forbidden", &[]).await.unwrap_err().status, 403);
        assert!(laravel.worker.try_open("/members?token=good", &[]).await.is_ok());
        // There need be no route for a WebSocket.
        assert!(laravel.worker.try_open("/no-such-route", &[]).await.is_ok());
    });
}

#[test]
fn an_exception_is_reported_and_the_client_stays() {
    on_worker(async {
        let laravel = Laravel::start().await;
        let fd = laravel.worker.open("/ws").await;
        laravel.worker.hear(fd).await;
        laravel.worker.say(fd, "throw").await;
        assert_eq!(laravel.worker.ask(fd, "still here").await, "you said still here");
        assert!(laravel.log().contains("local.ERROR: as told"));
    });
}

#[test]
fn laravels_cleaners_clean_after_each_request() {
    on_worker(async {
        let laravel = Laravel::start().await;
        for _ in 0..3 {
            assert_eq!(laravel.text("/visit").await, "visit", "nothing of the request before");
        }
        let log = laravel.dir.path().join("storage/logs/laravel.log");
        assert!(!log.exists(), "{}", laravel.log());
    });
}

#[test]
fn a_controller_broadcasts() {
    on_worker(async {
        let laravel = Laravel::start().await;
        let (a, b) = (laravel.worker.open("/ws").await, laravel.worker.open("/ws").await);
        laravel.worker.hear(a).await;
        laravel.worker.hear(b).await;
        assert_eq!(laravel.text("/broadcast").await, r#"{"broadcast":true}"#);
        assert_eq!(laravel.worker.hear(a).await, said("to everybody"));
        assert_eq!(laravel.worker.hear(b).await, said("to everybody"));
    });
}

#[test]
fn a_dump_and_die_runs_once_and_ends_its_request_alone() {
    on_worker(async {
        let laravel = Laravel::start().await;
        assert_eq!(laravel.get("/dd").await.status(), 500);
        let ran = std::fs::read_to_string(laravel.dir.path().join("storage/dd")).unwrap();
        assert_eq!(ran, "ran\n", "it was not tried again");
        assert_eq!(laravel.text("/count").await, "1");
    });
}
