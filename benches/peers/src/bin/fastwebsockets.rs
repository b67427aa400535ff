//! Echo on fastwebsockets, and "broadcast X" to everyone who asked for /all.
//! `fastwebsockets 127.0.0.1:9001`

use std::cell::RefCell;
use std::error::Error;
use std::rc::Rc;

use fastwebsockets::{
    FragmentCollector, FragmentCollectorRead, Frame, OpCode, Payload, WebSocket,
};
use fastwebsockets::{WebSocketError, upgrade};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

type Everyone = Rc<RefCell<Vec<mpsc::UnboundedSender<Rc<[u8]>>>>>;

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
                let service = service_fn(move |request| answer(request, everyone.clone()));
                let served = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                // A client that leaves without a word is how a run ends.
                let _ = served.await;
            });
        }
    };
    tokio::task::LocalSet::new().run_until(serve).await
}

async fn answer(
    mut request: Request<Incoming>,
    everyone: Everyone,
) -> Result<Response<Empty<Bytes>>, WebSocketError> {
    let all = request.uri().path() == "/all";
    let (response, upgraded) = upgrade::upgrade(&mut request)?;
    tokio::task::spawn_local(async move {
        let Ok(socket) = upgraded.await else { return };
        let _ = match all {
            false => echo(socket).await,
            true => broadcast(socket, everyone).await,
        };
    });
    Ok(response)
}

async fn echo<S: AsyncRead + AsyncWrite + Unpin>(
    mut socket: WebSocket<S>,
) -> Result<(), WebSocketError> {
    socket.set_writev(false);
    let mut socket = FragmentCollector::new(socket);
    loop {
        let frame = socket.read_frame().await?;
        match frame.opcode {
            OpCode::Close => return Ok(()),
            OpCode::Text | OpCode::Binary => socket.write_frame(frame).await?,
            _ => {}
        }
    }
}

async fn broadcast<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    socket: WebSocket<S>,
    everyone: Everyone,
) -> Result<(), WebSocketError> {
    let (source, mut sink) = socket.split(tokio::io::split);
    let mut source = FragmentCollectorRead::new(source);
    let (sender, mut receiver) = mpsc::unbounded_channel::<Rc<[u8]>>();
    everyone.borrow_mut().push(sender);
    tokio::task::spawn_local(async move {
        while let Some(data) = receiver.recv().await {
            let frame = Frame::text(Payload::Borrowed(&data));
            if sink.write_frame(frame).await.is_err() {
                break;
            }
        }
    });
    loop {
        // Whatever has to be answered is left unanswered: a run is short.
        let frame = source.read_frame(&mut |_| async { Ok::<(), WebSocketError>(()) }).await?;
        if frame.opcode == OpCode::Close {
            return Ok(());
        }
        if let Some(data) = frame.payload.strip_prefix(b"broadcast ") {
            let data: Rc<[u8]> = data.into();
            everyone.borrow_mut().retain(|sender| sender.send(data.clone()).is_ok());
        }
    }
}
