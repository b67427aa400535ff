//! A client of a test.

use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as WsMessage;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::PATIENCE;

/// Why a client of a test got no answer.
pub type ClientError = tokio_tungstenite::tungstenite::Error;

/// A client of a test.
pub struct TestClient(pub(super) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl TestClient {
    /// Sends a text message.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send(&mut self, text: &str) -> std::result::Result<(), ClientError> {
        futures_util::SinkExt::send(&mut self.0, WsMessage::text(text)).await
    }

    /// Sends a binary message.
    ///
    /// # Errors
    /// The connection has ended.
    pub async fn send_binary(&mut self, data: Vec<u8>) -> std::result::Result<(), ClientError> {
        futures_util::SinkExt::send(&mut self.0, WsMessage::binary(data)).await
    }

    /// Waits for the next text message. Pings are answered on the way.
    ///
    /// # Errors
    /// The connection has ended, nothing came for 20 seconds, or the message is binary.
    pub async fn receive(&mut self) -> std::result::Result<String, ClientError> {
        match self.next().await? {
            WsMessage::Text(text) => Ok(text.to_string()),
            other => Err(broken(&format!("a text was expected, and {other:?} came"))),
        }
    }

    /// Waits for the end of the connection. The answer is the close frame of the server, if one
    /// came; messages that come before are dropped.
    ///
    /// # Errors
    /// Nothing came for 20 seconds.
    pub async fn closed(&mut self) -> std::result::Result<Option<CloseFrame>, ClientError> {
        loop {
            match self.next().await {
                Ok(WsMessage::Close(frame)) => return Ok(frame),
                Ok(_) => {}
                Err(ClientError::ConnectionClosed | ClientError::AlreadyClosed) => {
                    return Ok(None);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn next(&mut self) -> std::result::Result<WsMessage, ClientError> {
        loop {
            let next = futures_util::StreamExt::next(&mut self.0);
            let message = tokio::time::timeout(PATIENCE, next)
                .await
                .map_err(|_| broken("nothing came for 20 seconds"))?
                .ok_or(ClientError::ConnectionClosed)??;
            if !matches!(message, WsMessage::Ping(_) | WsMessage::Pong(_)) {
                return Ok(message);
            }
        }
    }
}

fn broken(why: &str) -> ClientError {
    ClientError::Io(std::io::Error::other(why))
}
