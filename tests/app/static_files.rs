//! Files beside a script: enable_static_handler, and http_compression.

use std::os::unix::fs::symlink;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Client, soon, until};
use crate::sites::{Script, free_port};
use crate::support::path;

/// A directory with files, beside one that nobody may see, and the script that serves the first.
async fn start(directory: &Path) -> Script {
    start_at(directory, "").await
}

/// The same; where `location` is not empty, only what stands below that is served.
async fn start_at(directory: &Path, location: &str) -> Script {
    let root = directory.join("root");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    std::fs::create_dir_all(directory.join("root-of-another")).unwrap();
    for (name, content) in [
        ("root/index.html", "<p>index</p>"),
        ("root/a b.txt", "0123456789"),
        ("root/sub/index.html", "<p>sub</p>"),
        ("root/style.css", "p {}"),
        ("root/.env", "SECRET"),
        ("root/server.php", "<?php // SECRET"),
        ("secret.txt", "SECRET"),
        ("root-of-another/x.txt", "SECRET"),
    ] {
        std::fs::write(directory.join(name), content).unwrap();
    }
    symlink(directory.join("secret.txt"), root.join("link.txt")).unwrap();
    symlink(directory, root.join("up")).unwrap();
    let script = path("tests/app/fixtures/scripts/files.php");
    let env = [("ROOT", root.to_str().unwrap()), ("LOCATION", location)];
    Script::start_with(&[&script], &env).await
}

/// Ways that public lists name out of a directory, and names in it that are nobody's to see.
const TRAVERSALS: &[&str] = &[
    "/../secret.txt",
    "/..%2fsecret.txt",
    "/%2e%2e/secret.txt",
    "/%2e%2e%2fsecret.txt",
    "/sub/../../secret.txt",
    "/sub/..%2f..%2fsecret.txt",
    "/..%5csecret.txt",
    "/..%255c..%255csecret.txt",
    "/....//secret.txt",
    "/..;/secret.txt",
    "/.%00./secret.txt",
    "/index.html%00.txt",
    "//../secret.txt",
    "/%2f../secret.txt",
    "/link.txt",
    "/up/secret.txt",
    "/up",
    "/../root-of-another/x.txt",
    "/.env",
    "/%2eenv",
    "/sub/../.env",
    "/server.php",
    "/%c0%ae%c0%ae/secret.txt",
    "/proc/self/environ",
    "/../../../../../../etc/passwd",
];

/// The answer to a request with these lines besides: status, head in small letters, body.
async fn ask(address: &str, method: &str, target: &str, lines: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("{method} {target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    stream.write_all(format!("{head}{lines}\r\n").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon("the answer", stream.read_to_end(&mut answer)).await.unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    (head[9..12].parse().unwrap(), head, answer[end + 4..].to_vec())
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[tokio::test]
async fn files_below_document_root_are_served_with_types_ranges_and_dates() {
    let directory = tempfile::tempdir().unwrap();
    let script = start(directory.path()).await;
    let address = &script.address;
    for (target, kind, content) in [
        ("/", "text/html; charset=utf-8", "<p>index</p>"),
        ("/index.html?v=1", "text/html; charset=utf-8", "<p>index</p>"),
        ("/sub", "text/html; charset=utf-8", "<p>sub</p>"),
        ("/style.css", "text/css", "p {}"),
        ("/a%20b.txt", "text/plain; charset=utf-8", "0123456789"),
    ] {
        let (status, head, body) = ask(address, "GET", target, "").await;
        assert_eq!((status, field(&head, "content-type")), (200, Some(kind)), "{target}: {head}");
        assert_eq!(body, content.as_bytes(), "{target}");
    }
    for (range, status, part, content) in [
        ("bytes=0-3", 206, Some("bytes 0-3/10"), "0123"),
        ("bytes=8-", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=8-100", 206, Some("bytes 8-9/10"), "89"),
        ("bytes=-3", 206, Some("bytes 7-9/10"), "789"),
        ("bytes=10-", 416, Some("bytes */10"), ""),
        ("bytes=-0", 416, Some("bytes */10"), ""),
        ("bytes=3-2", 200, None, "0123456789"),
        ("bytes=0-1,4-5", 200, None, "0123456789"),
        ("lines=0-1", 200, None, "0123456789"),
    ] {
        let line = format!("range: {range}\r\n");
        let (said, head, body) = ask(address, "GET", "/a%20b.txt", &line).await;
        assert_eq!((said, field(&head, "content-range")), (status, part), "{range}: {head}");
        assert_eq!(body, content.as_bytes(), "{range}");
    }
    let (status, head, body) = ask(address, "HEAD", "/a%20b.txt", "").await;
    assert_eq!((status, field(&head, "content-length"), body.len()), (200, Some("10"), 0));
    let modified = field(&head, "last-modified").unwrap().to_owned();
    let line = format!("if-modified-since: {modified}\r\n");
    assert_eq!(ask(address, "GET", "/a%20b.txt", &line).await.0, 304);
    let old = "if-modified-since: Mon, 01 Jan 2001 00:00:00 GMT\r\n";
    assert_eq!(ask(address, "GET", "/a%20b.txt", old).await.0, 200);
    let other = "range: bytes=0-1\r\nif-range: \"tag\"\r\n";
    assert_eq!(ask(address, "GET", "/a%20b.txt", other).await.0, 200);
    assert_eq!(Client::connect(address, "/").await.ask("still a socket").await, "still a socket");
    script.stop().await;
}

#[tokio::test]
async fn no_path_leads_out_of_document_root() {
    let directory = tempfile::tempdir().unwrap();
    let script = start(directory.path()).await;
    for target in TRAVERSALS {
        let (status, head, body) = ask(&script.address, "GET", target, "").await;
        let body = String::from_utf8_lossy(&body).into_owned();
        assert!(!body.contains("SECRET") && !body.contains("root:"), "{target}: {head} {body}");
        // What is no file is PHP's to answer, and what is no target the server's.
        assert!(body.starts_with("by PHP") || status == 400, "{target}: {head} {body}");
    }
    script.stop().await;
}

/// nginx with the same root.
async fn nginx(directory: &Path) -> (String, tokio::process::Child) {
    let address = format!("127.0.0.1:{}", free_port().await);
    let at = directory.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("{name}_temp_path {at}/{name};\n"))
        .concat();
    let config = format!(
        "daemon off;\nmaster_process off;\nuser root;\npid {at}/nginx.pid;\nevents {{}}\nhttp {{\n\
         {temporary}include /etc/nginx/mime.types;\naccess_log off;\nmax_ranges 1;\n\
         server {{ listen {address}; root {at}/root; index index.html; }}\n}}\n"
    );
    let file = directory.join("nginx.conf");
    std::fs::write(&file, config).unwrap();
    let mut nginx = tokio::process::Command::new("nginx");
    nginx.arg("-c").arg(&file).arg("-e").arg(directory.join("nginx.log"));
    let programs = std::env::var("PATH").unwrap_or_default();
    nginx.env("PATH", format!("{programs}:/usr/sbin")).stderr(std::process::Stdio::null());
    let process = nginx.kill_on_drop(true).spawn().unwrap();
    until("nginx to listen", async || TcpStream::connect(&address).await.ok()).await;
    (address, process)
}

#[tokio::test]
async fn nginx_serves_the_same_files_types_and_ranges_and_refuses_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let script = start(directory.path()).await;
    let (beside, _nginx) = nginx(directory.path()).await;
    let said = async |address: &str, method: &str, target: &str, lines: &str| {
        let (status, head, body) = ask(address, method, target, lines).await;
        let kind = field(&head, "content-type").map(|kind| kind.split(';').next().unwrap());
        // What PHP answers is nobody's file.
        let is_file = matches!(status, 200 | 206) && !body.starts_with(b"by PHP");
        let kind = kind.filter(|_| is_file).map(str::to_owned);
        let range = field(&head, "content-range").map(str::to_owned);
        let length = field(&head, "content-length").map(str::to_owned).filter(|_| is_file);
        let status = if is_file || matches!(status, 304 | 416) { status } else { 404 };
        let body = if is_file { body } else { Vec::new() };
        (status, kind, range, length, String::from_utf8_lossy(&body).into_owned())
    };
    let line = "range: bytes=";
    let mut asked: Vec<(&str, &str, String)> = Vec::new();
    for target in ["/", "/index.html?v=1", "/sub/", "/style.css", "/a%20b.txt"] {
        asked.extend(["GET", "HEAD"].map(|method| (method, target, String::new())));
    }
    asked.push(("GET", "/none.txt", String::new()));
    for range in ["0-3", "8-", "8-100", "-3", "-100", "0-", "9-9", "10-", "-0", "0-1,4-5"] {
        asked.push(("GET", "/a%20b.txt", format!("{line}{range}\r\n")));
    }
    let old = "if-modified-since: Mon, 01 Jan 2001 00:00:00 GMT\r\n";
    asked.push(("GET", "/style.css", old.to_owned()));
    asked.push(("GET", "/style.css", format!("{line}0-1\r\nif-range: \"tag\"\r\n")));
    // Not the dot files, links and sources that nginx serves where nobody tells it otherwise.
    let served_there = ["/link.txt", "/up/secret.txt", "/.env", "/%2eenv", "/sub/../.env"];
    let traversals = TRAVERSALS.iter().filter(|target| !served_there.contains(target));
    let traversals = traversals.filter(|target| **target != "/server.php" && **target != "/up");
    asked.extend(traversals.map(|target| ("GET", *target, String::new())));
    for (method, target, lines) in asked {
        let (ours, theirs) = (
            said(&script.address, method, target, &lines).await,
            said(&beside, method, target, &lines).await,
        );
        assert_eq!(ours, theirs, "{method} {target} {lines}");
    }
    script.stop().await;
}

#[tokio::test]
async fn no_path_leads_from_a_location_to_what_stands_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let script = start_at(directory.path(), "/sub").await;
    let (status, _, body) = ask(&script.address, "GET", "/sub/index.html", "").await;
    assert_eq!((status, body.as_slice()), (200, b"<p>sub</p>".as_slice()));
    for target in [
        "/sub/../server.php",
        "/sub/..%2fserver.php",
        "/sub/%2e%2e/a%20b.txt",
        "/sub/./../style.css",
        "/sub/..",
    ] {
        let (status, head, _) = ask(&script.address, "GET", target, "").await;
        assert_eq!(status, 404, "{target}: {head}");
    }
    script.stop().await;
}

#[tokio::test]
async fn bodies_of_php_are_compressed_for_clients_that_take_it() {
    let directory = tempfile::tempdir().unwrap();
    let script = start(directory.path()).await;
    for (accept, encoding) in [
        ("gzip, deflate", Some("gzip")),
        ("deflate", Some("deflate")),
        ("gzip;q=0, deflate;q=0.5", Some("deflate")),
        ("br", None),
        ("identity", None),
    ] {
        let line = format!("accept-encoding: {accept}\r\n");
        let (status, head, body) = ask(&script.address, "GET", "/page", &line).await;
        assert_eq!(
            (status, field(&head, "content-encoding")),
            (200, encoding),
            "{accept}: {head}"
        );
        assert_eq!(body.len() < 100, encoding.is_some(), "{accept}: {} bytes", body.len());
    }
    script.stop().await;
}
