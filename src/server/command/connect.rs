//! `connect`: a WebSocket client in the terminal, for trying any server.

use std::io::{self, BufRead, IsTerminal, Read};
use std::time::Duration;

use data_encoding::BASE64;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::http::{HeaderName, HeaderValue};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::style::{Style, Tone, bytes, safe, safe_json};
use super::{ExitStatus, print, say_wrong};

/// Bytes of a line of standard input.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Lines that are read ahead.
const LINES_AHEAD: usize = 16;
/// For the server to accept, and to answer a close.
const PATIENCE: Duration = Duration::from_secs(10);
/// For answers to what a pipe has sent, before the close.
const WAIT: Duration = Duration::from_secs(1);
/// Bytes of a binary message that are shown.
const SHOWN_BYTES_MAX: usize = 64;

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Connects, sends each line of standard input, and shows what comes, until either side closes.
pub(crate) fn connect_to(
    url: &str,
    headers: &[String],
    subprotocols: &[String],
    (binary, wait): (bool, Option<Duration>),
    json: bool,
) -> ExitStatus {
    // Who types sees the answers before the end.
    let wait = wait.unwrap_or(if io::stdin().is_terminal() { Duration::ZERO } else { WAIT });
    let request = match request(url, headers, subprotocols) {
        Ok(request) => request,
        Err(wrong) => {
            say_wrong(&wrong);
            return ExitStatus::Usage;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            say_wrong(&format!("cannot start: {error}"));
            return ExitStatus::Failed;
        }
    };
    let status = runtime.block_on(talk(
        request,
        (binary, wait),
        Screen { style: Style::for_stdout(), json },
    ));
    // A thread may wait for a line that nobody types any more.
    runtime.shutdown_background();
    status
}

fn request(url: &str, headers: &[String], subprotocols: &[String]) -> Result<Request, String> {
    let is_secure = url.starts_with("wss://");
    if is_secure && !cfg!(feature = "tls") {
        return Err("this program was built without the feature tls: connect by ws://".to_owned());
    }
    let right = "write ws://HOST:PORT/PATH or wss://HOST/PATH";
    if !is_secure && !url.starts_with("ws://") {
        return Err(format!("{url} is no address: {right}"));
    }
    let wrong = |error: Error| format!("{url} is no address: {error}; {right}");
    let mut request = url.into_client_request().map_err(wrong)?;
    // A port that is none would be passed over, and another one connected to.
    let authority = request.uri().authority().map_or("", |it| it.as_str());
    let behind_host = authority.rsplit(['@', ']']).next().unwrap_or_default();
    let written = behind_host.split_once(':').is_some_and(|(_, port)| !port.is_empty());
    if written && request.uri().port_u16().is_none() {
        return Err(format!("{url} is no address: a port is at most 65535; {right}"));
    }
    let once: Vec<HeaderName> = request.headers().keys().cloned().collect();
    for header in headers {
        let wrong = || format!("{header:?} is no header: write \"Name: value\"");
        let (name, value) = header.split_once(':').ok_or_else(wrong)?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|_| wrong())?;
        let value = HeaderValue::from_str(value.trim()).map_err(|_| wrong())?;
        // What a handshake has once is what the user says in its place.
        if once.contains(&name) {
            request.headers_mut().insert(name, value);
        } else {
            request.headers_mut().append(name, value);
        }
    }
    if !subprotocols.is_empty() {
        let wrong = |_| "a subprotocol is a word".to_owned();
        let value = HeaderValue::from_str(&subprotocols.join(", ")).map_err(wrong)?;
        request.headers_mut().insert("sec-websocket-protocol", value);
    }
    Ok(request)
}

async fn talk(request: Request, (binary, wait): (bool, Duration), screen: Screen) -> ExitStatus {
    let authority = request.uri().authority().map_or("", |it| it.as_str());
    // Without the name and the password of a user.
    let host = authority.rsplit('@').next().unwrap_or_default().to_owned();
    let (mut stream, response) = match tokio::time::timeout(PATIENCE, connect_async(request)).await
    {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return screen.failed(&format!("{host}: {}", refused(&error))),
        Err(_) => return screen.failed(&format!("{host} did not answer the handshake in time")),
    };
    let subprotocol = response.headers().get("sec-websocket-protocol");
    screen.opened(subprotocol.and_then(|name| name.to_str().ok()));
    let (mut lines, mut ends) = (lines(), None);
    loop {
        let end = async move {
            match ends {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            message = stream.next() => match message {
                Some(Ok(message)) => {
                    if let Some(status) = screen.message(&message) {
                        // Our own close frame is the answer, which still has to go.
                        let _ = stream.close(None).await;
                        return status;
                    }
                }
                Some(Err(error)) => return screen.failed(&error.to_string()),
                None => return screen.failed("the connection ended without a close frame"),
            },
            () = end => return part(stream, &screen).await,
            line = lines.recv(), if ends.is_none() => match line {
                Some(line) => {
                    if let Err(error) = send(&mut stream, line, binary).await {
                        return screen.failed(&error);
                    }
                }
                None => ends = Some(tokio::time::Instant::now() + wait),
            },
        }
    }
}

/// Says goodbye, and shows what comes before the answer to that.
async fn part(mut stream: Stream, screen: &Screen) -> ExitStatus {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    if stream.send(Message::Close(Some(frame))).await.is_err() {
        return screen.failed("the connection ended without a close frame");
    }
    let answers = async {
        while let Some(Ok(message)) = stream.next().await {
            if let Some(status) = screen.message(&message) {
                return status;
            }
        }
        screen.failed("the connection ended without a close frame")
    };
    match tokio::time::timeout(PATIENCE, answers).await {
        Ok(status) => status,
        Err(_) => screen.failed("the server did not answer the close in time"),
    }
}

async fn send(stream: &mut Stream, line: Vec<u8>, binary: bool) -> Result<(), String> {
    let message = match binary {
        true => Message::binary(line),
        false => match String::from_utf8(line) {
            Ok(text) => Message::text(text),
            Err(_) => return Err("a text message must be UTF-8; --binary sends bytes".to_owned()),
        },
    };
    stream.send(message).await.map_err(|error| error.to_string())
}

/// What a refused handshake says.
fn refused(error: &Error) -> String {
    let Error::Http(response) = error else { return error.to_string() };
    let body = response.body().as_deref().unwrap_or_default();
    let body = String::from_utf8_lossy(&body[..body.len().min(1000)]).trim().to_owned();
    format!("the server answered {}: {body}", response.status())
}

/// The lines of standard input, read by a thread: a terminal has no other way.
fn lines() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            if !matches!(read, Ok(1..)) {
                return;
            }
            if line.ends_with(b"\n") {
                line.pop();
            }
            // Nobody receives any more once the connection is over.
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// How what happens is shown.
struct Screen {
    style: Style,
    json: bool,
}

impl Screen {
    fn opened(&self, subprotocol: Option<&str>) {
        let told = subprotocol.map(|name| format!(", subprotocol {name}")).unwrap_or_default();
        let hint = if io::stdin().is_terminal() { "; Ctrl-D closes" } else { "" };
        let value = json!({ "type": "open", "subprotocol": subprotocol });
        self.show(Tone::Faint, &format!("connected{told}{hint}"), &value);
    }

    /// Shows a message; at the end of the connection the answer is the status.
    fn message(&self, message: &Message) -> Option<ExitStatus> {
        match message {
            Message::Text(text) => {
                self.show(Tone::Plain, text, &json!({ "type": "text", "data": text.as_str() }));
            }
            Message::Binary(data) => {
                self.show(Tone::Good, &shown(data), &data_json("binary", data));
            }
            Message::Ping(data) => {
                self.show(Tone::Faint, &format!("ping {}", shown(data)), &data_json("ping", data));
            }
            Message::Pong(data) => {
                self.show(Tone::Faint, &format!("pong {}", shown(data)), &data_json("pong", data));
            }
            Message::Close(frame) => {
                let frame = frame.as_ref();
                let code = frame.map_or(1005, |frame| u16::from(frame.code));
                let reason = frame.map_or("", |frame| frame.reason.as_str());
                let value = json!({ "type": "close", "code": code, "reason": reason });
                self.show(Tone::Odd, &format!("closed with {code} {reason}"), &value);
                return Some(ExitStatus::Done);
            }
            Message::Frame(_) => {}
        }
        None
    }

    fn failed(&self, why: &str) -> ExitStatus {
        say_wrong(why);
        ExitStatus::Failed
    }

    fn show(&self, tone: Tone, text: &str, value: &Value) {
        let line = match self.json {
            true => safe_json(&format!("{value}\n")),
            false => format!("{}\n", self.style.text(tone, &safe(text))),
        };
        // A reader that has gone away is no reason to end the connection.
        let _ = print(&line);
    }
}

fn data_json(kind: &str, data: &[u8]) -> Value {
    json!({ "type": kind, "base64": BASE64.encode(data) })
}

/// Bytes for a person: as text where they are, else in hexadecimal digits.
fn shown(data: &[u8]) -> String {
    match std::str::from_utf8(data) {
        Ok(text) if data.len() <= SHOWN_BYTES_MAX => format!("{text:?}"),
        _ => {
            let start: Vec<_> =
                data.iter().take(SHOWN_BYTES_MAX / 2).map(|byte| format!("{byte:02x}")).collect();
            let more = if data.len() > SHOWN_BYTES_MAX / 2 { " …" } else { "" };
            format!("[{}] {}{more}", bytes(data.len() as u64), start.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_a_header_and_a_subprotocol_are_what_they_seem() {
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let made = request("ws://x:1/p", &words(&["A: b c"]), &words(&["one", "two"])).unwrap();
        assert_eq!(made.headers()["a"], "b c");
        assert_eq!(made.headers()["sec-websocket-protocol"], "one, two");
        let own = words(&["Host: evil.test", "sec-websocket-key: x", "Cookie: a", "Cookie: b"]);
        let made = request("ws://x:1/p", &own, &[]).unwrap();
        let values = |name| made.headers().get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(values("host"), ["evil.test"]);
        assert_eq!(values("sec-websocket-key"), ["x"]);
        assert_eq!(values("cookie"), ["a", "b"]);
        assert_eq!(request("wss://x/", &[], &[]).is_ok(), cfg!(feature = "tls"));
        assert!(request("x", &[], &[]).is_err());
        for wrong in ["ws://x:65536/", "ws://[::1]:99999", "ws://a:b@x:70000/"] {
            assert!(request(wrong, &[], &[]).is_err(), "{wrong}");
        }
        for right in ["ws://x", "ws://[::1]/", "ws://[::1]:65535/", "ws://x:1/a:b"] {
            assert!(request(right, &[], &[]).is_ok(), "{right}");
        }
        assert!(request("ws://x/", &words(&["nothing"]), &[]).is_err());
        assert!(request("ws://x/", &words(&["a: b\nc"]), &[]).is_err());
    }

    #[test]
    fn bytes_are_shown_short() {
        assert_eq!(shown(b"wsd"), "\"wsd\"");
        assert_eq!(shown(&[0xff, 1]), "[2 B] ff 01");
        assert!(shown(&[7; 1000]).ends_with(" …"));
    }
}
