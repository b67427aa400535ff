//! How many pushes of small messages the manager brings from one worker to another.

use super::*;

/// A measurement, not a test: `cargo test --release --lib -- --ignored --nocapture relay`.
#[test]
#[ignore = "a measurement"]
fn relay_of_small_pushes() {
    const PUSHES: usize = 2_000_000;
    let (to_sender, sender_end) = packet::pair().unwrap();
    let (to_receiver, receiver_end) = packet::pair().unwrap();
    let on_reactor = |work: std::pin::Pin<Box<dyn Future<Output = ()>>>| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work);
    };
    let sender = std::thread::spawn(move || {
        on_reactor(Box::pin(async move {
            let link = Link::new(sender_end, id(0, 1)).unwrap();
            let message = WorkerToManager::Push { id: 0, fd: fd(1, 5), opcode: Opcode::Text };
            for _ in 0..PUSHES {
                let body = Body::Inline(&[b'x'; 100]);
                let _ = link.send(Lane::Data, &message, body, vec![]).unwrap();
                if link.data_bytes() > 256 * 1024 {
                    link.flush().await.unwrap();
                }
            }
            link.flush().await.unwrap();
            std::future::pending::<()>().await;
        }));
    });
    let (done, finished) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        on_reactor(Box::pin(async move {
            let link = Link::new(receiver_end, id(1, 1)).unwrap();
            let mut buffer = vec![0; crate::ipc::PACKET_BYTES_MAX * 2];
            let mut got = 0;
            let begun = std::time::Instant::now();
            while got < PUSHES {
                let Ok(arrival) =
                    tokio::time::timeout(Duration::from_secs(2), link.receive(&mut buffer)).await
                else {
                    break;
                };
                let mut arrival = arrival.unwrap().unwrap();
                let mut frames = Frames::new(&buffer[..arrival.len]).unwrap();
                while let Some(frame) = frames.next::<ManagerToWorker>(&mut arrival.fds).unwrap() {
                    got += usize::from(matches!(frame.message, ManagerToWorker::Push { .. }));
                }
            }
            let _ = done.send((got, begun.elapsed()));
        }));
    });
    story(async {
        let master = Master::boot(1, None).await;
        for (id, end) in [(id(0, 1), to_sender), (id(1, 1), to_receiver)] {
            let (_, registry) = Registry::create(64).unwrap();
            let record = WorkerRecord { id, generation: 1, pid: 1, ready: true };
            master.tell(&MasterToManager::Attach(record), &[end, registry]);
        }
        let (got, took) = finished.await.unwrap();
        let rate = got as f64 / took.as_secs_f64();
        println!("{got} of {PUSHES} pushes of 100 bytes in {took:?}: {rate:.0} a second");
    });
    drop(sender);
}
