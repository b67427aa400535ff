//! A worker is not trusted by the master, the manager or the other workers: each test does by a
//! worker's descriptors what only a worker that was taken over would do.

use wsd::ipc::messages::{LEASE_SERIALS, WorkerToMaster};

use crate::harness::*;

/// The next serial of slot 0, as the master has written it down.
fn next_serial(server: &Server) -> Option<u64> {
    let text = std::fs::read_to_string(server.runtime().join("serials")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0 ")?.parse().ok())
}

#[tokio::test]
async fn a_lease_that_could_not_be_written_is_granted_as_soon_as_it_can() {
    let server = Setup::testbed().set("worker_num", 1).start().await;
    let worker = Stolen::from(server.serving(0, None).await.pid);
    let before = next_serial(&server).unwrap();
    // No file can be put where a directory is, not even by root.
    let file = server.runtime().join("serials");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    worker.tell_master(&WorkerToMaster::NeedLease);
    until("the failure in the log", async || server.log().contains("to lease").then_some(()))
        .await;
    std::fs::remove_dir(&file).unwrap();
    let next = until("the lease", async || next_serial(&server)).await;
    assert_eq!(next, before + LEASE_SERIALS);
    server.client().await.who().await;
}

#[tokio::test]
async fn a_worker_that_died_while_nothing_could_be_written_is_replaced_as_soon_as_it_can_be() {
    let server = Setup::testbed().set("worker_num", 1).start().await;
    let worker = server.serving(0, None).await.pid;
    let file = server.runtime().join("serials");
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    kill(worker, nix::sys::signal::Signal::SIGKILL);
    until("some failed starts", async || {
        (server.log().matches("cannot start a worker").count() > 3).then_some(())
    })
    .await;
    // A worker that could not be started is not one that dies young: no delay builds up.
    assert_eq!(server.status().await["throttled"].as_array().map(Vec::len), Some(0));
    std::fs::remove_dir(&file).unwrap();
    server.serving(0, Some(worker)).await;
    server.client().await.who().await;
}
