//! A chat with rooms and names: `cargo run --example rooms -- start`, then open
//! `ws://127.0.0.1:9503/?name=ann` and write `/join ROOM`, `/leave ROOM`, `/to NAME TEXT` or
//! `ROOM TEXT`. It is right with any number of workers, over reloads, upgrades and deaths.

use std::process::ExitCode;
use std::rc::Rc;

use wsd::api::{Context, Frame, Request};

fn main() -> ExitCode {
    wsd::Server::new().listen("127.0.0.1:9503").on_open(open).on_message(message).run()
}

fn open(ctx: Context, request: Rc<Request>) {
    let name = request.query_param("name").unwrap_or_else(|| format!("guest-{}", request.fd));
    ctx.bind(request.fd, &name);
    ctx.join(request.fd, "lobby");
    ctx.publish("lobby", format!("lobby * {name} is here"));
}

async fn message(ctx: Context, frame: Frame<'_>) {
    let (Some(text), Some(name)) = (frame.text(), ctx.uid(frame.fd)) else { return };
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let (to, words) = rest.split_once(' ').unwrap_or((rest, ""));
    match word {
        "/join" => match ctx.join_confirmed(frame.fd, rest).await {
            Ok(_) => drop(ctx.publish(rest, format!("{rest} * {name} is here"))),
            Err(why) => drop(ctx.push(frame.fd, format!("* {rest}: {why}"))),
        },
        "/leave" => drop(ctx.leave(frame.fd, rest)),
        "/to" => match ctx.push_uid_confirmed(to, format!("({name}) {words}")).await {
            Ok(tally) if tally.queued > 0 => {}
            _ => drop(ctx.push(frame.fd, format!("* {to} is not here"))),
        },
        room if ctx.rooms(frame.fd).iter().any(|it| it == room) => {
            ctx.publish(room, format!("{room} {name}: {rest}"));
        }
        room => drop(ctx.push(frame.fd, format!("* join {room} first"))),
    }
}
