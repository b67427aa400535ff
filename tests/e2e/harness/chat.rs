//! The chats with rooms and names, in whatever language: eight clients of one room, whatever dies.

use nix::sys::signal::SIGKILL;
use tokio_tungstenite::tungstenite::Message;

use super::{Client, Server, kill, until};

/// A client with a name, in the room.
async fn enter(server: &Server, name: usize) -> Client {
    let mut client = Client::connect(&server.address, &format!("/?name=client-{name}")).await;
    client.send("/join room").await;
    hears(&mut client, &format!("room * client-{name} is here")).await;
    client
}

/// Each says something, and all hear each.
async fn speak_to_all(clients: &mut [Client], text: &str) {
    for speaker in 0..clients.len() {
        clients[speaker].send(format!("room {text}")).await;
        for client in clients.iter_mut() {
            hears(client, &format!("room client-{speaker}: {text}")).await;
        }
    }
}

/// Waits for a line, past what was said before.
async fn hears(client: &mut Client, line: &str) {
    while client.receive().await != line {}
}

/// Eight of eight, before and after a reload, after the death of a worker, whose clients come back
/// by themselves, and of the manager; and a word to one by name.
pub async fn all_of_eight_hear_each_whatever_dies(server: &Server) {
    let mut clients = Vec::new();
    for name in 0..8 {
        clients.push(enter(server, name).await);
    }
    speak_to_all(&mut clients, "before").await;
    server.wsd(["reload"]).await.ok();
    speak_to_all(&mut clients, "after a reload").await;
    let victim = server.serving(1, None).await;
    kill(victim.pid, SIGKILL);
    server.serving(1, Some(victim.pid)).await;
    for (name, client) in clients.iter_mut().enumerate() {
        let asks = Message::text("room is it there?");
        if client.send_message(asks).await.is_err() || client.next().await.is_err() {
            *client = enter(server, name).await;
        }
    }
    speak_to_all(&mut clients, "after a kill").await;
    let manager = server.manager().await;
    kill(manager, SIGKILL);
    until("another manager", async || (server.manager().await != manager).then_some(())).await;
    speak_to_all(&mut clients, "after another").await;
    clients[0].send("/to client-3 in confidence").await;
    hears(&mut clients[3], "(client-0) in confidence").await;
    clients[0].send("/to nobody hello").await;
    hears(&mut clients[0], "* nobody is not here").await;
}
