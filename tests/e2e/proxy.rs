//! Behind a real nginx and a real HAProxy, with the files that ship.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::*;

/// The server in the sites that ship.
const SERVER: &str = "server 127.0.0.1:8000;";

/// nginx with a site of `etc/nginx`, its addresses and paths moved.
pub struct Nginx {
    _process: Child,
    pub address: String,
}

impl Nginx {
    /// In front of `upstream`, with its files in `directory` and these lines more at `/ws`.
    pub async fn start(directory: &Path, upstream: &str, more: &str) -> Nginx {
        let location = format!("location = /ws {{\n{more}");
        let server = format!("server {upstream};");
        let changes = [(SERVER, &*server), ("location = /ws {", &*location)];
        Nginx::site(directory, "wsd.conf", &changes).await
    }

    /// In front of several servers, between which nginx chooses as it does by default.
    pub async fn balancing(directory: &Path, upstreams: &[String]) -> Nginx {
        let servers = upstreams.iter().map(|upstream| format!("server {upstream};\n"));
        let servers = servers.collect::<String>();
        Nginx::site(directory, "wsd.conf", &[(SERVER, &*servers)]).await
    }

    /// In front of `upstream` with TLS and a certificate of its own.
    pub async fn with_tls(directory: &Path, upstream: &str) -> Nginx {
        let at = |name: &str| directory.join(name).display().to_string();
        let mut openssl = Command::new("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]);
        openssl.args(["-addext", "subjectAltName=DNS:localhost"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
        openssl.args(["-keyout", &at("privkey.pem"), "-out", &at("fullchain.pem")]);
        assert_eq!(command(&mut openssl).await.code, Some(0), "the package openssl");
        let server = format!("server {upstream};");
        let plain = format!("listen unix:{};", at("80.sock"));
        let changes = [
            (SERVER, &*server),
            ("listen 80;", &*plain),
            ("listen [::]:443 ssl;", ""),
            ("/etc/ssl/wsd", directory.to_str().expect("a path")),
        ];
        Nginx::site(directory, "wsd-tls.conf", &changes).await
    }

    /// In front of `upstream` as it ships: for example.com alone, and with its limits.
    pub async fn as_shipped(directory: &Path, upstream: &str) -> Nginx {
        Nginx::run(directory, "wsd.conf", &[(SERVER, &*format!("server {upstream};"))]).await
    }

    /// As it ships, but by every name and without limits on one client.
    async fn site(directory: &Path, shipped: &str, changes: &[(&str, &str)]) -> Nginx {
        let text = Nginx::shipped(shipped);
        let (_, stranger) = text.split_once("# Who calls this machine").expect("its default");
        let (stranger, _) = stranger.split_once("\n}\n").expect("its end");
        let stranger = format!("# Who calls this machine{stranger}\n}}\n");
        let mut changes = changes.to_vec();
        changes.insert(0, (&stranger, ""));
        let limits = text.lines().filter(|line| line.starts_with("    limit_"));
        changes.extend(limits.map(|line| (line, "")));
        Nginx::run(directory, shipped, &changes).await
    }

    fn shipped(name: &str) -> String {
        std::fs::read_to_string(repository().join("etc/nginx").join(name)).unwrap()
    }

    async fn run(directory: &Path, shipped: &str, changes: &[(&str, &str)]) -> Nginx {
        let port = free_port().await;
        let at = |name: &str| directory.join(name).display().to_string();
        let mut site = Nginx::shipped(shipped);
        for (old, new) in changes {
            assert!(site.contains(old), "{old}");
            site = site.replace(old, new);
        }
        let site = site
            .replace("listen 80;", &format!("listen 127.0.0.1:{port};"))
            .replace("listen 443 ssl;", &format!("listen 127.0.0.1:{port} ssl;"))
            .replace("listen [::]:80;", "")
            .replace("/var/log/nginx", &directory.display().to_string());
        std::fs::write(at("site.conf"), site).unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {};\n", at(name)))
            .concat();
        let main = format!(
            "daemon off;\nmaster_process off;\npid {};\nerror_log {};\nevents {{}}\n\
             http {{\n{temporary}include {};\n}}\n",
            at("nginx.pid"),
            at("nginx.log"),
            at("site.conf")
        );
        std::fs::write(at("nginx.conf"), main).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut nginx = Command::new("nginx");
        nginx.args(["-c", &at("nginx.conf"), "-e", &at("nginx.log")]);
        nginx.env("PATH", format!("{path}:/usr/sbin")).stderr(Stdio::null()).kill_on_drop(true);
        let process = nginx.spawn().expect("the package nginx");
        let address = format!("127.0.0.1:{port}");
        until("nginx to listen", async || TcpStream::connect(&address).await.ok()).await;
        Nginx { _process: process, address }
    }
}

/// HAProxy with the sections of `etc/haproxy`, its address and servers moved, and impatient.
pub struct HaProxy {
    _process: Child,
    /// Where it answers questions about itself.
    socket: PathBuf,
    pub address: String,
}

impl HaProxy {
    /// In front of several servers, which it asks whether they are ready.
    pub async fn balancing(directory: &Path, servers: &[String]) -> HaProxy {
        let address = format!("127.0.0.1:{}", free_port().await);
        let socket = directory.join("haproxy.sock");
        let shipped = std::fs::read_to_string(repository().join("etc/haproxy/wsd.cfg")).unwrap();
        let (sections, _) = shipped.split_once("    server ").expect("its servers");
        let (mut sections, bind) = (sections.to_owned(), format!("bind {address}\n"));
        for (old, new) in [("bind :80\n", bind.as_str()), ("inter 1s ", "inter 100ms ")] {
            assert!(sections.contains(old), "{old}");
            sections = sections.replace(old, new);
        }
        let servers = servers.iter().enumerate();
        let servers = servers.map(|(index, server)| format!("    server node-{index} {server}\n"));
        let servers = servers.collect::<String>();
        let global = format!("global\n    stats socket {}\n\n", socket.display());
        let file = directory.join("haproxy.cfg");
        std::fs::write(&file, [global, sections, servers].concat()).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut haproxy = Command::new("haproxy");
        haproxy.arg("-f").arg(&file).arg("-db").env("PATH", format!("{path}:/usr/sbin"));
        haproxy.stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        let process = haproxy.spawn().expect("the package haproxy");
        until("HAProxy to listen", async || TcpStream::connect(&address).await.ok()).await;
        HaProxy { _process: process, socket, address }
    }

    /// Waits until HAProxy takes a server to be `UP`, or `DOWN`.
    pub async fn takes(&self, server: usize, to_be: &str) {
        until("HAProxy to learn of a server", async || {
            self.state(server).await.filter(|state| state.starts_with(to_be))
        })
        .await;
    }

    /// What HAProxy says of a server: the column `status` of its table.
    async fn state(&self, server: usize) -> Option<String> {
        let mut stream = UnixStream::connect(&self.socket).await.ok()?;
        stream.write_all(b"show stat\n").await.ok()?;
        let mut table = String::new();
        stream.read_to_string(&mut table).await.ok()?;
        let mut lines = table.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let column = lines.next()?.iter().position(|name| *name == "status")?;
        let name = format!("node-{server}");
        let row = lines.find(|row| row.starts_with(&["wsd", name.as_str()]))?;
        row.get(column).map(|state| (*state).to_owned())
    }
}

/// A port of this machine that nobody has.
pub async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

/// What the handler takes for the address of a client that comes from `from` through `to`.
async fn seen_address(to: &str, from: &str, headers: &[(&'static str, &str)]) -> String {
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
    let stream = socket.connect(to.parse().unwrap()).await.unwrap();
    let mut request = format!("ws://{to}/ws").into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let (mut stream, _) = soon("the handshake", client_async(request, stream)).await.unwrap();
    let mut ask = async |text: String| {
        stream.send(Message::text(text)).await.unwrap();
        loop {
            match soon("an answer", stream.next()).await.unwrap().unwrap() {
                Message::Text(text) => return text.split_once(' ').unwrap().1.to_owned(),
                _ => continue,
            }
        }
    };
    let who = ask("who".to_owned()).await;
    let info = ask(format!("info {}", who.split(' ').next().unwrap())).await;
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    info["client"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_handler_sees_the_real_client_and_no_pretended_one() {
    let server = Setup::testbed().set("trusted_proxies", r#"["127.0.0.1"]"#).start().await;
    let nginx = Nginx::start(server.path(), &server.address, "").await;
    let haproxy = HaProxy::balancing(server.path(), std::slice::from_ref(&server.address)).await;
    let spoofed: [&[_]; 3] = [
        &[],
        &[("x-forwarded-for", "6.6.6.6")],
        &[("x-real-ip", "6.6.6.6"), ("x-forwarded-for", "6.6.6.6, 7.7.7.7")],
    ];
    for headers in spoofed {
        for address in [&nginx.address, &haproxy.address, &server.address] {
            let seen = seen_address(address, "127.0.0.2", headers).await;
            assert_eq!(seen, "127.0.0.2", "by {address} with {headers:?}");
        }
    }
}

#[tokio::test]
async fn pings_keep_a_silent_client_connected_through_nginx() {
    let server = Setup::testbed().set("ping_interval", r#""500ms""#).start().await;
    // nginx would cut a connection that is silent for two seconds.
    let nginx = Nginx::start(server.path(), &server.address, "proxy_read_timeout 2s;").await;
    let mut client = Client::connect(&nginx.address, "/ws").await;
    let who = client.who().await;
    stays_silent(&mut client, Duration::from_secs(5)).await;
    assert_eq!(client.who().await, who);
}

/// Reads for so long, so that pings are answered, and sends nothing by itself.
pub async fn stays_silent(client: &mut Client, time: Duration) {
    let end = tokio::time::Instant::now() + time;
    while let Ok(frame) = tokio::time::timeout_at(end, client.next_frame()).await {
        let frame = frame.expect("still connected").expect("still connected");
        assert!(matches!(frame, Message::Ping(_)), "{frame:?}");
    }
}

#[tokio::test]
async fn plain_http_goes_through_nginx_to_the_same_server() {
    let server = Setup::testbed().start().await;
    let nginx = Nginx::start(server.path(), &server.address, "").await;
    for _ in 0..3 {
        let mut raw = Raw::connect(&nginx.address).await;
        raw.send("GET /healthz HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").await;
        let answer = String::from_utf8_lossy(&raw.rest().await).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

/// What nginx passes on of a request for example.com with these header lines more.
async fn passed_on(nginx: &Nginx, upstream: &TcpListener, more: &str) -> String {
    let mut raw = Raw::connect(&nginx.address).await;
    raw.send(format!("GET / HTTP/1.1\r\nHost: example.com\r\n{more}\r\n")).await;
    let (stream, _) = soon("nginx", upstream.accept()).await.unwrap();
    let mut upstream = Raw { stream };
    let head = upstream.head().await;
    head.to_ascii_lowercase()
}

#[tokio::test]
async fn the_site_that_ships_passes_websocket_and_no_other_upgrade() {
    let directory = tempfile::tempdir().unwrap();
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = upstream.local_addr().unwrap().to_string();
    let nginx = Nginx::as_shipped(directory.path(), &address).await;
    let more = "Upgrade: WebSocket\r\nConnection: Upgrade\r\n";
    let head = passed_on(&nginx, &upstream, more).await;
    assert!(head.contains("\r\nupgrade: websocket\r\n"), "{head}");
    assert!(head.contains("\r\nconnection: upgrade\r\n"), "{head}");
    for other in ["h2c", "websocket, h2c", "TLS/1.0", "websocketx"] {
        let more = format!("Upgrade: {other}\r\nConnection: Upgrade, HTTP2-Settings\r\n");
        let head = passed_on(&nginx, &upstream, &more).await;
        assert!(!head.contains("upgrade"), "{other}: {head}");
    }
}

#[tokio::test]
async fn the_site_that_ships_serves_its_name_alone_and_bounds_one_client() {
    let server = Setup::testbed().set("trusted_proxies", r#"["127.0.0.1"]"#).start().await;
    let nginx = Nginx::as_shipped(server.path(), &server.address).await;
    for host in ["server", "127.0.0.1", "www.example.com"] {
        let mut raw = Raw::connect(&nginx.address).await;
        raw.send(format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!(raw.rest().await, b"", "{host}");
    }
    let mut clients = Vec::new();
    for _ in 0..64 {
        let mut raw = Raw::from("127.0.0.2", &nginx.address).await;
        raw.upgrade("example.com", "").await;
        clients.push(raw);
    }
    let mut one_more = Raw::from("127.0.0.2", &nginx.address).await;
    one_more.send(handshake("example.com", "")).await;
    let head = one_more.head().await;
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    Raw::from("127.0.0.3", &nginx.address).await.upgrade("example.com", "").await;
    let mut hasty = Raw::from("127.0.0.4", &nginx.address).await;
    let request = "GET /healthz HTTP/1.1\r\nHost: example.com\r\n\r\n";
    let last = "GET /healthz HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n";
    hasty.send(format!("{}{last}", request.repeat(600))).await;
    let answers = String::from_utf8_lossy(&hasty.rest().await).into_owned();
    let of = |status: &str| answers.matches(&format!("HTTP/1.1 {status} ")).count();
    assert!(of("200") >= 100 && of("429") > 0, "{} and {}", of("200"), of("429"));
}
