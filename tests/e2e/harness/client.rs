//! A WebSocket client: tungstenite, with a patience for every wait.

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::soon;

/// An open connection.
pub struct Client {
    stream: WebSocketStream<TcpStream>,
    /// The server's 101.
    pub response: Response,
}

/// Who a client of the testbed is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    pub fd: u64,
    pub slot: u64,
    pub pid: i32,
}

/// How a connection ended: with a close frame, or without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    Frame(u16, String),
    Abruptly,
}

impl Client {
    /// Connects, which has to work.
    pub async fn connect(address: &str, path: &str) -> Client {
        Client::connect_with(address, path, &[]).await.expect("the handshake")
    }

    /// Connects with these headers more.
    pub async fn connect_with(
        address: &str,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Client, Error> {
        let stream = soon("a TCP connection", TcpStream::connect(address)).await?;
        let mut request = format!("ws://{address}{path}").into_client_request()?;
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("a header value"));
        }
        let (stream, response) = soon("the handshake", client_async(request, stream)).await?;
        Ok(Client { stream, response })
    }

    /// Sends a text.
    pub async fn send(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into())).await.expect("send");
    }

    /// Sends any message.
    pub async fn send_message(&mut self, message: Message) -> Result<(), Error> {
        soon("a send", self.stream.send(message)).await
    }

    /// The next data message, which has to be a text.
    pub async fn receive(&mut self) -> String {
        match self.next().await {
            Ok(Message::Text(text)) => text.to_string(),
            other => panic!("a text was to come, not {other:?}"),
        }
    }

    /// The next data message or close frame; pings are answered on the way, and lengthen no wait.
    pub async fn next(&mut self) -> Result<Message, Error> {
        let next = async {
            loop {
                match self.stream.next().await {
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    Some(result) => return result,
                    None => return Err(Error::ConnectionClosed),
                }
            }
        };
        soon("a message", next).await
    }

    /// The next frame of any kind, however long it takes.
    pub async fn next_ever(&mut self) -> Option<Result<Message, Error>> {
        self.stream.next().await
    }

    /// The next frame of any kind.
    pub async fn next_frame(&mut self) -> Option<Result<Message, Error>> {
        soon("a frame", self.stream.next()).await
    }

    /// Sends a text and takes the answer.
    pub async fn ask(&mut self, text: impl Into<String>) -> String {
        self.send(text).await;
        self.receive().await
    }

    /// Asks the testbed who this client is.
    pub async fn who(&mut self) -> Who {
        let answer = self.ask("who").await;
        let mut words = answer.split(' ').skip(1);
        let mut word = || words.next().unwrap_or_else(|| panic!("{answer}"));
        Who {
            fd: word().parse().expect("fd"),
            slot: word().parse().expect("slot"),
            pid: word().parse().expect("pid"),
        }
    }

    /// Closes and waits for the answer.
    pub async fn close(mut self, code: u16, reason: &str) -> Closed {
        let frame = CloseFrame { code: CloseCode::from(code), reason: reason.to_owned().into() };
        self.send_message(Message::Close(Some(frame))).await.expect("send the close");
        self.closed().await
    }

    /// Waits for the end, past any messages.
    pub async fn closed(&mut self) -> Closed {
        loop {
            match self.next().await {
                Ok(Message::Close(Some(frame))) => {
                    return Closed::Frame(frame.code.into(), frame.reason.to_string());
                }
                Ok(Message::Close(None)) => return Closed::Frame(1005, String::new()),
                Ok(_) => {}
                Err(_) => return Closed::Abruptly,
            }
        }
    }
}
