//! What `on_close` still reads of the client that has left.

use std::sync::mpsc::{Sender, channel};

use super::harness::*;
use super::serving::{config, told};
use crate::api::{Context, Flow, Frame, Handler, Verdict};
use crate::close::Close;
use crate::fd::Fd;
use crate::ipc::scoreboard::Counter;

/// Puts a client into a room, binds it and keeps a session when it says so, and tells in
/// `on_close` what is there of it.
struct Remembering(Sender<String>);

fn belongings(ctx: &Context, fd: Fd) -> String {
    format!("{:?} {:?} {:?}", ctx.rooms(fd), ctx.uid(fd), ctx.session::<u32>(fd).ok().flatten())
}

impl Handler for Remembering {
    fn on_message(&self, ctx: &Context, frame: Frame<'_>) -> Flow {
        let fd = frame.fd;
        let said = match frame.text().and_then(|text| text.strip_prefix("of ")) {
            Some(of) => belongings(ctx, of.parse().expect("a client's number")),
            None => {
                assert_eq!(ctx.bind(fd, "ann"), Verdict::Queued);
                assert_eq!(ctx.join(fd, "lobby"), Verdict::Queued);
                assert_eq!(ctx.set_session(fd, &7), Ok(Verdict::Queued));
                belongings(ctx, fd)
            }
        };
        ctx.push(fd, said);
        Flow::default()
    }

    fn on_close(&self, ctx: &Context, fd: Fd, _: Close) -> Flow {
        let (ctx, tell) = (ctx.clone(), self.0.clone());
        Flow::later(async move {
            let at_once = belongings(&ctx, fd);
            tokio::task::yield_now().await;
            assert_eq!(belongings(&ctx, fd), at_once, "as long as it runs");
            let reached = ctx.publish_here("lobby", "who is there").queued;
            let verdicts = [ctx.push(fd, "still?"), ctx.join(fd, "other"), ctx.unbind(fd)];
            let _ = tell.send(format!("{at_once}, {reached}, {verdicts:?}"));
        })
    }
}

#[tokio::test]
async fn on_close_reads_what_the_client_had_and_nobody_reaches_it_or_reads_that_later() {
    let server = Server::new();
    let (tell, heard) = channel();
    let _worker = server.start(FIRST, config(), move || Remembering(tell)).await;
    let mut client = server.connect().await;
    say(&mut client, "enter").await;
    let had = r#"["lobby"] Some("ann") Some(7)"#;
    assert_eq!(text(&mut client).await, had);
    client.close(None).await.unwrap();
    assert_eq!(told(&heard).await, format!("{had}, 0, [Gone, Gone, Gone]"));
    let mut other = server.connect().await;
    say(&mut other, &format!("of {}", fd(0, 1))).await;
    assert_eq!(text(&mut other).await, "[] None None");
    assert_eq!(server.count(Counter::Memberships), 0);
    other.close(None).await.unwrap();
    assert_eq!(told(&heard).await, "[] None None, 0, [Gone, Gone, Gone]");
}
