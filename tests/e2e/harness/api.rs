//! The HTTP API as a client of it sees it: one request a connection, over TCP or a Unix socket.

use std::path::PathBuf;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};

use super::{Server, soon};

/// Where the API is, and with which token it is asked.
#[derive(Debug, Clone)]
pub struct Api {
    at: At,
    token: Option<String>,
}

#[derive(Debug, Clone)]
enum At {
    Tcp(String),
    Unix(PathBuf),
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The `code` of an error.
    pub fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Api {
    /// The first address of `api.listen`, asked without a token.
    pub async fn of(server: &Server) -> Api {
        let status = server.status().await;
        let address = status["api"][0].as_str().expect("an address of the API").to_owned();
        let at = match address.strip_prefix("unix:") {
            Some(path) => At::Unix(path.into()),
            None => At::Tcp(address),
        };
        Api { at, token: None }
    }

    /// The same with a token.
    pub fn with(&self, token: &str) -> Api {
        Api { token: Some(token.to_owned()), ..self.clone() }
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "").await
    }

    /// One request on a connection of its own.
    pub async fn ask(&self, method: &str, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.try_ask(method, path, body).await.expect("an answer")
    }

    /// As [`ask`](Self::ask), where nobody may answer.
    pub async fn try_ask(
        &self,
        method: &str,
        path: &str,
        body: impl AsRef<[u8]>,
    ) -> std::io::Result<Reply> {
        let body = body.as_ref();
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n");
        if let Some(token) = &self.token {
            request.push_str(&format!("Authorization: Bearer {token}\r\n"));
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let request = [request.as_bytes(), body].concat();
        match &self.at {
            At::Tcp(address) => exchange(TcpStream::connect(address).await?, &request).await,
            At::Unix(path) => exchange(UnixStream::connect(path).await?, &request).await,
        }
    }
}

async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    request: &[u8],
) -> std::io::Result<Reply> {
    stream.write_all(request).await?;
    let mut bytes = Vec::new();
    soon("an answer of the API", stream.read_to_end(&mut bytes)).await?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| std::io::Error::other(format!("not an answer: {text:?}")))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Ok(Reply { status, head: head.to_owned(), body: body.to_owned() })
}
