//! Echo on tokio-tungstenite, and "broadcast X" to everyone who asked for /all.
//! `tungstenite 127.0.0.1:9001`

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

type Everyone = Rc<RefCell<Vec<mpsc::UnboundedSender<Message>>>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let listener = TcpListener::bind(&address).await?;
    let everyone = Everyone::default();
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let everyone = everyone.clone();
            tokio::task::spawn_local(async move {
                // A client that leaves without a word is how a run ends.
                let _ = connection(stream, everyone).await;
            });
        }
    };
    tokio::task::LocalSet::new().run_until(serve).await
}

async fn connection(stream: TcpStream, everyone: Everyone) -> Result<(), Box<dyn Error>> {
    let mut all = false;
    #[allow(clippy::result_large_err)]
    let look = |request: &Request, response: Response| {
        all = request.uri().path() == "/all";
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async(stream, look).await?;
    let (mut sink, mut source) = socket.split();
    if !all {
        while let Some(message) = source.next().await {
            match message? {
                message if message.is_text() || message.is_binary() => sink.send(message).await?,
                _ => sink.flush().await?,
            }
        }
        return Ok(());
    }
    let (sender, mut receiver) = mpsc::unbounded_channel();
    everyone.borrow_mut().push(sender);
    tokio::task::spawn_local(async move {
        while let Some(message) = receiver.recv().await {
            if sink.feed(message).await.is_err() {
                break;
            }
            while let Ok(message) = receiver.try_recv() {
                if sink.feed(message).await.is_err() {
                    return;
                }
            }
            if sink.flush().await.is_err() {
                break;
            }
        }
    });
    while let Some(message) = source.next().await {
        let message = message?;
        let Some(text) = message.to_text().ok().and_then(|text| text.strip_prefix("broadcast "))
        else {
            continue;
        };
        let message = Message::text(text);
        everyone.borrow_mut().retain(|sender| sender.send(message.clone()).is_ok());
    }
    Ok(())
}
