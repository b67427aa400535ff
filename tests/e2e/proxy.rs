//! Behind a real nginx, with the site that ships.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket};
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

    async fn site(directory: &Path, shipped: &str, changes: &[(&str, &str)]) -> Nginx {
        let port = free_port().await;
        let at = |name: &str| directory.join(name).display().to_string();
        let shipped = repository().join("etc/nginx").join(shipped);
        let mut site = std::fs::read_to_string(shipped).unwrap();
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
        until("nginx to listen", async || tokio::net::TcpStream::connect(&address).await.ok())
            .await;
        Nginx { _process: process, address }
    }
}

async fn free_port() -> u16 {
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
    let spoofed: [&[_]; 3] = [
        &[],
        &[("x-forwarded-for", "6.6.6.6")],
        &[("x-real-ip", "6.6.6.6"), ("x-forwarded-for", "6.6.6.6, 7.7.7.7")],
    ];
    for headers in spoofed {
        assert_eq!(seen_address(&nginx.address, "127.0.0.2", headers).await, "127.0.0.2");
        assert_eq!(seen_address(&server.address, "127.0.0.3", headers).await, "127.0.0.3");
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
