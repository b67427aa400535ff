//! What one sender asks for is done in the order of its calls.

use super::clients_on;
use crate::harness::*;

/// A join of another worker's client is interest at once: what is published in the same breath
/// finds the member.
#[tokio::test]
async fn what_follows_a_join_of_anothers_client_finds_the_member() {
    let server = Setup::testbed().set("worker_num", 3).start().await;
    let mut clients = clients_on(&server, &[0, 1, 2]).await;
    let (other, third) = (clients[1].1, clients[2].1);
    for round in 0..50 {
        let script = format!(
            "script join {other} r{round}; publish r{round} to r; leave {other} r{round}; \
             publish r{round} lost; bind {third} u{round}; push-uid u{round} to u; \
             unbind {third}; push-uid u{round} lost"
        );
        clients[0].0.ask(script).await;
        assert_eq!(clients[1].0.receive().await, "to r");
        assert_eq!(clients[2].0.receive().await, "to u");
    }
    for (client, _) in &mut clients {
        assert_eq!(client.ask("echo no more").await, "echo no more");
    }
}

/// Enough pushes for a direct link, and then both ways in turn. A publish that went another way
/// than the pushes around it would come before or behind them.
#[tokio::test]
async fn pushes_and_publishes_of_one_sender_keep_their_order_when_they_go_directly() {
    let setup = Setup::testbed().set("worker_num", 3).set("log_level", r#""debug""#);
    let server = setup.start().await;
    let mut clients = clients_on(&server, &[0, 1, 2]).await;
    let fds = [clients[1].1, clients[2].1];
    for (client, _) in &mut clients[1..] {
        client.ask("join-confirmed me lobby").await;
    }
    // Between two rounds time passes, in which a link is made, or one may be lost.
    for round in 0..20 {
        let mut script = "script".to_owned();
        for number in (0..60).step_by(3) {
            let _ = std::fmt::Write::write_fmt(
                &mut script,
                format_args!(
                    " push {0} {round}.{number}; push {1} {round}.{number}; \
                     publish lobby {round}.{2}; join {0} x{round}; publish x{round} {round}.{3}; \
                     push {1} {round}.{3}; leave {0} x{round};",
                    fds[0],
                    fds[1],
                    number + 1,
                    number + 2,
                ),
            );
        }
        let said = clients[0].0.ask(script.trim_end_matches(';')).await;
        assert!(!said.contains("full"), "{said}");
        for (client, _) in &mut clients[1..] {
            for number in 0..60 {
                assert_eq!(client.receive().await, format!("{round}.{number}"));
            }
        }
    }
    assert!(server.log().contains("sending directly"), "there was a direct link");
}

/// Clients of a slot that was removed are with the worker of another slot, and pushes to them go by
/// the manager. A publish that reached that worker directly would come before these.
#[tokio::test]
async fn a_publish_does_not_overtake_a_push_to_a_client_of_a_removed_slot() {
    let mut server = Setup::testbed().set("worker_num", 3).start().await;
    let mut clients = clients_on(&server, &[0, 1, 2]).await;
    let [near, removed] = [clients[0].1, clients[2].1];
    clients[2].0.ask("join-confirmed me lobby").await;
    server.configure("worker_num", 2);
    server.wsd(["reload"]).await.ok();
    // Enough for a direct link to the worker of slot 0, which has both now.
    for round in 0..20 {
        let script = format!("script {}", vec![format!("push {near} {round}"); 20].join("; "));
        clients[1].0.ask(script).await;
        for _ in 0..20 {
            assert_eq!(clients[0].0.receive().await, round.to_string());
        }
    }
    let manager = server.manager().await;
    kill(manager, nix::sys::signal::SIGSTOP);
    clients[1].0.ask(format!("script push {removed} first; publish lobby second")).await;
    kill(manager, nix::sys::signal::SIGCONT);
    assert_eq!(clients[2].0.receive().await, "first");
    assert_eq!(clients[2].0.receive().await, "second");
}
