//! Where a server can listen.

use std::collections::HashSet;

use tokio::net::UnixStream;
use tokio_tungstenite::client_async;

use crate::harness::*;

#[tokio::test]
async fn several_addresses_serve_and_status_tells_the_real_ones() {
    let setup = Setup::testbed();
    let socket = setup.path().join("http.sock");
    let listen = format!(r#"["127.0.0.1:0", "[::1]:0", "unix:{}"]"#, socket.display());
    let server = setup.set("listen", listen).start().await;
    let status = server.status().await;
    let listen: Vec<&str> =
        status["listen"].as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert_eq!(listen.len(), 3);
    for address in &listen[..2] {
        assert!(!address.ends_with(":0"), "{address}");
        assert!(Client::connect(address, "/").await.ask("echo hello").await == "echo hello");
    }
    assert_eq!(listen[2], format!("unix:{}", socket.display()));
    let stream = UnixStream::connect(&socket).await.unwrap();
    let (_stream, response) = client_async("ws://localhost/", stream).await.unwrap();
    assert_eq!(response.status(), 101);
    let peers: Vec<String> =
        server.connections().await.iter().map(|c| c["peer"].to_string()).collect();
    assert!(peers.contains(&r#""unix:""#.to_owned()), "{peers:?}");
}

#[tokio::test]
async fn the_kernel_spreads_clients_over_every_worker() {
    let server = Setup::testbed().set("worker_num", 4).start().await;
    let mut slots = HashSet::new();
    until("a client on each worker", async || {
        slots.insert(server.client().await.who().await.slot);
        (slots.len() == 4).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_slot_without_a_worker_lends_its_listener() {
    let server = Setup::testbed().set("worker_timeout", r#""60s""#).start().await;
    let mut bystander = server.client_on(1).await;
    let who = bystander.who().await;
    for _ in 0..3 {
        let worker = server.serving(0, None).await;
        kill(worker.pid, nix::sys::signal::SIGKILL);
        // Every one of these connects, whichever slot the kernel gives it to.
        for _ in 0..40 {
            server.client().await.who().await;
        }
    }
    assert_eq!(bystander.who().await, who);
}
