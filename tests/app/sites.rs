//! Applications as their users run them: a script of its own, Laravel behind nginx, a browser.

use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdout, Command};
use tokio_tungstenite::tungstenite::Error;

use crate::harness::{Client, Closed, Ran, command, soon, stock_program, until};
use crate::support::{copy_laravel, path};

/// A port that was free a moment ago.
pub async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// `php script.php` in the foreground, with what it prints.
pub struct Script {
    pub address: String,
    pub lines: Lines<BufReader<ChildStdout>>,
    process: Child,
    _directory: TempDir,
}

impl Script {
    /// Starts `php`, with these arguments, and returns when it serves.
    pub async fn start(arguments: &[&str]) -> Script {
        Script::start_with(arguments, &[]).await
    }

    /// As [`start`](Self::start), with variables in the environment.
    pub async fn start_with(arguments: &[&str], env: &[(&str, &str)]) -> Script {
        let port = free_port().await;
        let directory = tempfile::tempdir().unwrap();
        let mut php = Command::new("php");
        php.args(arguments).env("PORT", port.to_string()).current_dir(directory.path());
        php.envs(env.iter().copied());
        php.env("WSD_BIN", stock_program()).env("WSD_RUNTIME_DIR", directory.path().join("run"));
        php.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = php.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = format!("127.0.0.1:{port}");
        until("the script to serve", async || TcpStream::connect(&address).await.ok()).await;
        Script { address, lines, process, _directory: directory }
    }

    /// The next line that it prints.
    pub async fn line(&mut self) -> String {
        soon("a line", self.lines.next_line()).await.unwrap().expect("another line")
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) {
        soon("its end", self.process.wait()).await.unwrap();
    }

    /// The process that was started, which is the server's master.
    pub fn pid(&self) -> i32 {
        self.process.id().unwrap() as i32
    }

    /// Ends it as Ctrl-C does, and waits until it is gone.
    pub async fn stop(mut self) {
        let pid = self.process.id().unwrap() as i32;
        crate::harness::kill(pid, nix::sys::signal::Signal::SIGTERM);
        soon("its end", self.process.wait()).await.unwrap();
    }
}

/// The chat page, opened from disk.
fn page_on_disk() -> String {
    format!("file://{}", path("tests/app/fixtures/chat.html"))
}

/// Has a Chromium open that page, say hello over that WebSocket, and see the answer.
async fn chat_in_a_browser(page: &str, socket: &str, answer: &str) {
    let directory = path("tests/browser");
    let installed = Path::new(&directory).join("node_modules").is_dir();
    assert!(installed, "scripts/test runs `npm ci` in tests/browser");
    let page = format!("{page}?socket={socket}");
    let mut node = Command::new("node");
    node.current_dir(&directory).args(["page.mjs", &page, "你好, WebSocket", answer]);
    let ran = command(&mut node).await;
    assert_eq!(ran.stdout, "ok\n", "{ran:?}");
}

#[tokio::test]
async fn a_script_of_a_tutorial_runs_by_itself_and_a_browser_chats_with_it() {
    let mut script = Script::start(&[&path("tests/app/fixtures/chat_server.php")]).await;
    let socket = format!("ws://{}", script.address);
    let answer = "the server heard Ada: 你好, WebSocket";
    chat_in_a_browser(&page_on_disk(), &socket, answer).await;
    let line = until("a line of the script", async || {
        let line = script.line().await;
        line.starts_with("opened ").then_some(line)
    })
    .await;
    let fd = line.strip_prefix("opened ").unwrap();
    assert_eq!(script.line().await, "received Ada: 你好, WebSocket, opcode 1, finish 1");
    assert_eq!(script.line().await, format!("closed {fd}"));
    script.stop().await;
}

/// They are nobody's to copy: `TEST_TUTORIAL` names the directory that has them, as
/// `scripts/tutorial` wants it.
#[tokio::test]
async fn the_files_of_a_tutorial_run_as_they_stand() {
    let Some(directory) = std::env::var_os("TEST_TUTORIAL") else {
        eprintln!("TEST_TUTORIAL names no directory: a tutorial's own files were not run");
        return;
    };
    let mut script = Command::new(path("scripts/tutorial"));
    script.arg(directory).env("WSD_BIN", stock_program());
    let seen = command(&mut script).await.ok();
    assert!(seen.ends_with("seen: no port is left open\n"), "{seen}");
}

/// The Laravel application of the tests in a directory of its own, served by `bin/laravels`.
pub struct Laravel {
    pub directory: TempDir,
    port: u16,
}

impl Laravel {
    async fn start() -> Laravel {
        Laravel::start_with("").await
    }

    /// With more lines of its `.env`.
    pub async fn start_with(env: &str) -> Laravel {
        let directory = tempfile::tempdir().unwrap();
        copy_laravel(directory.path());
        let mut file = std::fs::OpenOptions::new();
        let file = file.append(true).create(true).open(directory.path().join(".env"));
        std::io::Write::write_all(&mut file.unwrap(), env.as_bytes()).unwrap();
        let laravel = Laravel { directory, port: free_port().await };
        laravel.php(&["bin/laravels", "start", "-d"]).await;
        laravel
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs PHP in the application; it has to succeed.
    pub async fn php(&self, arguments: &[&str]) -> String {
        self.try_php(arguments).await.ok()
    }

    async fn try_php(&self, arguments: &[&str]) -> Ran {
        let mut php = Command::new("php");
        php.args(arguments).current_dir(self.directory.path());
        php.env("TEST_WSD_PACKAGE", path("clients/php/autoload.php"));
        php.env("LARAVELS_LISTEN_PORT", self.port.to_string()).env("LARAVELS_WORKER_NUM", "2");
        php.env("APP_URL", "https://todo.example/base");
        command(php.env("WSD_BIN", stock_program())).await
    }

    fn log(&self) -> String {
        let log = self.directory.path().join("storage/logs/laravel.log");
        std::fs::read_to_string(log).unwrap_or_default()
    }
}

impl Drop for Laravel {
    fn drop(&mut self) {
        // Where a test failed; else it is stopped already.
        let mut php = std::process::Command::new("php");
        php.args(["bin/laravels", "stop"]).current_dir(self.directory.path());
        php.env("TEST_WSD_PACKAGE", path("clients/php/autoload.php"));
        php.env("LARAVELS_LISTEN_PORT", self.port.to_string());
        let _ = php.env("WSD_BIN", stock_program()).stderr(Stdio::null()).output();
        let _ = std::fs::remove_dir_all(format!("/run/wsd-127.0.0.1-{}", self.port));
    }
}

/// nginx with LaravelS's site before that application.
struct Nginx {
    address: String,
    _process: Child,
}

impl Nginx {
    async fn start(laravel: &Laravel) -> Nginx {
        let directory = laravel.directory.path().display().to_string();
        let address = format!("127.0.0.1:{}", free_port().await);
        let site = std::fs::read_to_string(path("tests/app/fixtures/laravel-site.conf")).unwrap();
        let site = site
            .replace("UPSTREAM", &format!("127.0.0.1:{}", laravel.port))
            .replace("LISTEN", &address)
            .replace("PUBLIC", &format!("{directory}/public"))
            .replace("DIRECTORY", &directory);
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {directory}/{name};\n"))
            .concat();
        let main = format!(
            "daemon off;\nmaster_process off;\npid {directory}/nginx.pid;\n\
             error_log {directory}/nginx.log;\nevents {{}}\nhttp {{\n{temporary}{site}}}\n"
        );
        let file = format!("{directory}/nginx.conf");
        std::fs::write(&file, main).unwrap();
        let mut nginx = Command::new("nginx");
        nginx.args(["-c", &file, "-e", &format!("{directory}/nginx.log")]);
        let programs = std::env::var("PATH").unwrap_or_default();
        nginx.env("PATH", format!("{programs}:/usr/sbin"));
        let process = nginx.stderr(Stdio::null()).kill_on_drop(true).spawn().unwrap();
        until("nginx to listen", async || TcpStream::connect(&address).await.ok()).await;
        Nginx { address, _process: process }
    }
}

/// The answer to a GET, head and body.
async fn get(address: &str, target: &str) -> String {
    get_of("todo.test", address, target).await
}

/// The answer to a GET to a host, head and body.
pub async fn get_of(host: &str, address: &str, target: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon("the answer", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// The status line of the answer to a request for `/` by that name, from nobody's proxy.
async fn called(address: &str, host: &str, more: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\n{more}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon("the answer", stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap().lines().next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn laravel_answers_to_the_host_of_app_url_and_to_no_other_name() {
    let laravel = Laravel::start().await;
    let address = format!("127.0.0.1:{}", laravel.port);
    for host in ["todo.example", "ToDo.example:8080", "localhost", "127.0.0.1"] {
        assert_eq!(called(&address, host, "").await, "HTTP/1.1 200 OK", "{host}");
    }
    for host in ["rebound.example", "www.todo.example", "todo.example.rebound.example"] {
        assert!(called(&address, host, "").await.starts_with("HTTP/1.1 421 "), "{host}");
    }
    let forwarded = "x-forwarded-for: 192.0.2.1\r\n";
    assert_eq!(called(&address, "any.example", forwarded).await, "HTTP/1.1 200 OK");
    laravel.php(&["bin/laravels", "stop"]).await;
}

#[tokio::test]
async fn laravel_serves_pages_and_websocket_through_nginx_and_a_reload_drops_nobody() {
    let laravel = Laravel::start().await;
    let nginx = Nginx::start(&laravel).await;
    assert!(get(&nginx.address, "/").await.contains("<p>Hello from todo</p>"));
    assert!(get(&nginx.address, "/robots.txt").await.contains("User-agent: *"), "of nginx itself");
    // Of a page from disk nobody knows whose it is; this one is of the site itself.
    let public = laravel.directory.path().join("public/chat.html");
    std::fs::copy(path("tests/app/fixtures/chat.html"), public).unwrap();
    let page = format!("http://{}/chat.html", nginx.address);
    let socket = format!("ws://{}/ws", nginx.address);
    chat_in_a_browser(&page, &socket, "you said Ada: 你好, WebSocket").await;

    let mut client = Client::connect(&nginx.address, "/ws?token=good").await;
    assert_eq!(client.receive().await, "welcome /ws 7 unnamed");
    let service = laravel.directory.path().join("app/Services/ChatService.php");
    let code = std::fs::read_to_string(&service).unwrap();
    std::fs::write(&service, code.replace("you said", "now you said")).unwrap();
    assert_eq!(client.ask("hello").await, "you said hello");
    assert!(laravel.php(&["bin/laravels", "reload"]).await.contains("generation 2 serves"));
    assert_eq!(client.ask("hello").await, "now you said hello");
    std::fs::write(&service, code.replace("class ChatService", "clas")).unwrap();
    let broken = laravel.try_php(&["bin/laravels", "reload"]).await;
    assert!(broken.code == Some(1) && broken.stderr.contains("syntax error"), "{broken:?}");
    assert_eq!(client.ask("hello").await, "now you said hello", "the old code goes on");
    let throws = code.replace(
        "__construct()\n    {",
        "__construct()\n    {\n        throw new \\Error('no database');",
    );
    assert_ne!(throws, code);
    std::fs::write(&service, throws).unwrap();
    let broken = laravel.try_php(&["bin/laravels", "reload"]).await;
    assert!(broken.code == Some(1) && broken.stderr.contains("no database"), "{broken:?}");
    assert_eq!(client.ask("hello").await, "now you said hello", "the old code goes on");
    std::fs::write(&service, code).unwrap();

    let status = laravel.php(&["bin/laravels", "info"]).await;
    assert!(status.contains("8.83"), "{status}");
    laravel.php(&["bin/laravels", "stop"]).await;
    assert!(matches!(client.closed().await, Closed::Frame(1001, _)));
    let log = laravel.log();
    assert_eq!(log.matches("local.INFO: opened").count(), 2, "{log}");
    assert_eq!(log.matches("local.INFO: closed").count(), 2, "{log}");
}

#[tokio::test]
async fn a_handler_that_does_not_load_starts_nothing_and_says_why() {
    let laravel = Laravel::start().await;
    laravel.php(&["bin/laravels", "stop"]).await;
    let service = laravel.directory.path().join("app/Services/ChatService.php");
    let code = std::fs::read_to_string(&service).unwrap();
    for (wrong, why) in [
        (code.replace("class ChatService", "class Other"), "no class App\\Services\\ChatService"),
        (
            code.replace(" implements WebSocketHandlerInterface", "").replace("onClose", "onEnd"),
            "ChatService has no method onClose",
        ),
        (code.replace("class ChatService", "clas"), "syntax error"),
    ] {
        std::fs::write(&service, wrong).unwrap();
        let ran = laravel.try_php(&["bin/laravels", "start", "-d"]).await;
        assert_ne!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stderr.contains(why) || ran.stdout.contains(why), "{ran:?}");
    }
}

#[tokio::test]
async fn a_response_that_refuses_reaches_the_client_as_it_is() {
    let laravel = Laravel::start().await;
    let address = format!("127.0.0.1:{}", laravel.port);
    for (path, status, field, value) in
        [("/members", 302, "location", "/login"), ("/forbidden", 403, "content-type", "text/html")]
    {
        let Err(Error::Http(response)) = Client::connect_with(&address, path, &[]).await else {
            panic!("{path} was let in");
        };
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().get_all("date").iter().count(), 1);
        let found = response.headers()[field].to_str().unwrap();
        assert!(found.contains(value), "{path}: {field}: {found}");
        assert!(!response.body().as_ref().unwrap().is_empty());
    }
    let mut member = Client::connect(&address, "/members?token=good").await;
    assert_eq!(member.receive().await, "welcome /members 7 unnamed");
}

#[tokio::test]
async fn an_artisan_command_pushes_to_a_client() {
    let laravel = Laravel::start().await;
    let mut client = Client::connect(&format!("127.0.0.1:{}", laravel.port), "/ws").await;
    client.receive().await;
    let address = format!("127.0.0.1:{}", laravel.port);
    let list = ["-r", CONTROL, &address];
    let fd = laravel.php(&list).await;
    assert_eq!(laravel.php(&["artisan", "say", &fd, "from artisan"]).await, "pushed\n");
    assert_eq!(client.receive().await, "from artisan");
    assert_eq!(laravel.php(&["artisan", "say", "99", "nobody"]).await, "gone\n");
}

/// Who is signed in at the upgrade is the connection's user, without a word in the handler.
#[tokio::test]
async fn a_user_who_is_signed_in_is_pushed_to_from_a_page_a_queue_and_artisan() {
    let laravel = Laravel::start().await;
    let address = laravel.address();
    let mut users = Vec::new();
    // Two tabs of user 7, and a guest.
    for path in ["/ws?token=good", "/ws?token=good", "/ws"] {
        let mut client = Client::connect(&address, path).await;
        client.receive().await;
        users.push(client);
    }
    let mut guest = users.pop().unwrap();
    let pushed = get_of(&address, &address, "/tell/7").await;
    assert!(pushed.ends_with(r#"{"pushed":true}"#), "{pushed}");
    assert!(get_of(&address, &address, "/tell-later/7").await.ends_with(r#"{"queued":1}"#));
    laravel.php(&["artisan", "work"]).await;
    assert_eq!(laravel.php(&["artisan", "tell", "7", "from artisan"]).await, "pushed\n");
    for user in &mut users {
        for source in ["a page", "a queue", "artisan"] {
            assert_eq!(user.receive().await, format!("from {source}"));
        }
    }
    assert_eq!(guest.ask("hello").await, "you said hello", "a guest was told nothing");
    laravel.php(&["bin/laravels", "stop"]).await;
}

/// Prints the one connection there is, and asks a few things of the native class on the way.
const CONTROL: &str = r#"
    require getenv('TEST_WSD_PACKAGE');
    $directory = Wsd\RuntimeDir::of($argv[1]);
    (fileperms($directory) & 0777) === 0700 || exit('mode');
    $control = new Wsd\Control(['runtime_dir' => $directory]);
    $fd = $control->connections()[0]['fd'];
    $control->info($fd)['fd'] === $fd || exit('info');
    $control->info(99) === null || exit('info of nobody');
    $control->pushConfirmed(99, 'x') === 'gone' || exit('gone');
    $control->status()['connections'] === 1 || exit('status');
    try {
        $control->push($fd, "\xff");
        exit('text');
    } catch (RuntimeException) {
        echo $fd;
    }
"#;
