//! Pushes to a client from a worker that does not hold its connection.
//!
//! A client sends any text. Its own worker passes the text and the client's number to the next
//! worker, and that one pushes the answer: it knows nothing but the number.
//!
//! `cargo run --example push_from_another_worker -- start --set worker_num=2`

use std::process::ExitCode;

use wsd::api::{Context, Frame};
use wsd::fd::{Fd, Slot};

fn main() -> ExitCode {
    wsd::Server::new()
        .listen("127.0.0.1:9502")
        .on_message(pass_on)
        .on_worker_message(|ctx, from, data| answer(ctx, from, data.to_vec()))
        .run()
}

fn pass_on(ctx: Context, frame: Frame<'_>) {
    let here = ctx.worker().slot;
    let Some(next) = ctx.workers().cycle().nth(here.index() + 1) else { return };
    let mut letter = frame.fd.as_u64().to_be_bytes().to_vec();
    letter.extend_from_slice(&frame.data);
    ctx.send_to_worker(next, letter);
}

async fn answer(ctx: Context, from: Slot, letter: Vec<u8>) {
    let Some((number, text)) = letter.split_first_chunk::<8>() else { return };
    let Ok(fd) = Fd::try_from(u64::from_be_bytes(*number)) else { return };
    let text = String::from_utf8_lossy(text);
    let here = ctx.worker().slot;
    let message = format!("worker {here} answers for worker {from}: {text}");
    let verdict = ctx.push_confirmed(fd, message).await;
    println!("pushed to client {fd}: {verdict}");
}
