//! Clients that do not read are found, by command and by the API.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Api, Raw, Setup, kill, until};

#[tokio::test]
async fn a_client_that_reads_nothing_is_found_with_what_waits_for_it() {
    let server = Setup::testbed().with_api().set("buffer_policy", r#""drop""#).start().await;
    let mut reader = server.client_on(0).await;
    let mut stuck = Raw::narrow(&server.address).await;
    server.has_connections(2).await;
    let mut flooder = server.client_on(1).await;
    let own = [reader.who().await.fd, flooder.who().await.fd];
    let listed = server.connections().await;
    let fd =
        listed.iter().filter_map(|it| it["fd"].as_u64()).find(|fd| !own.contains(fd)).unwrap();
    assert_eq!(server.wsd(["connections", "--slow"]).await.ok(), "every client reads\n");

    let info = until("a client that is stuck", async || {
        flooder.ask(format!("big {fd} 500000")).await;
        let told = server.wsd(["connections", "--slow", "--json"]).await.ok();
        let told: Value = serde_json::from_str(&told).unwrap();
        told.as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!(info["fd"], fd);
    assert!(info["queued_bytes"].as_u64().unwrap() > 100_000, "{info}");
    assert!(info["rtt_us"].is_u64() && info["unacked"].is_u64(), "{info}");
    assert_eq!(info["path"], "/");
    let table = server.wsd(["connections", "--slow"]).await.ok();
    assert!(table.contains(&fd.to_string()) && table.contains("queued"), "{table}");
    let card = server.wsd(["info", &fd.to_string()]).await.ok();
    assert!(card.contains("queued") && card.contains("rtt"), "{card}");
    let told = Api::of(&server).await.get("/v1/connections?slow=true").await.json();
    assert_eq!(told["connections"][0]["fd"], fd);
    assert_eq!(told["connections"].as_array().unwrap().len(), 1);

    // Once it reads, it is slow no more.
    let reads = async {
        let mut chunk = [0; 65_536];
        loop {
            use tokio::io::AsyncReadExt;
            let _ = stuck.stream.read(&mut chunk).await.unwrap();
        }
    };
    let is_well = until("every client reads", async || {
        let told = server.wsd(["connections", "--slow", "--json"]).await.ok();
        (told == "[]\n").then_some(())
    });
    tokio::select! {
        () = reads => {}
        () = is_well => {}
    }
}

#[tokio::test]
async fn a_list_in_which_a_worker_had_no_part_is_not_told_as_whole() {
    let server = Setup::testbed().start().await;
    let mut bound = server.client_on(0).await;
    bound.ask("bind me ann").await;
    assert!(server.connections().await.iter().any(|it| it["uid"] == "ann"));
    let hung = server.serving(0, None).await.pid;
    kill(hung, Signal::SIGSTOP);
    // It is there, and whose it is nobody says.
    for words in [&["connections"][..], &["connections", "--json"]] {
        let ran = server.wsd(words).await;
        assert_eq!(ran.code, Some(6), "{ran:?}");
        assert!(ran.stderr.contains("users may be missing: 1 of 2 workers"), "{ran:?}");
        assert!(ran.stdout.contains("127.0.0.1"), "{ran:?}");
    }
    for words in [&["connections", "--slow"][..], &["connections", "--slow", "--json"]] {
        let ran = server.wsd(words).await;
        assert_eq!(ran.code, Some(6), "{ran:?}");
        assert!(ran.stderr.contains("1 worker did not answer"), "{ran:?}");
        assert!(!ran.stdout.contains("every client reads"), "{ran:?}");
    }
    kill(hung, Signal::SIGCONT);
}
