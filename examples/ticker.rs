//! Tells everybody the number of each second, and takes news by HTTP.
//!
//! `cargo run --example ticker -- start`, then
//!
//! ```text
//! curl --data 'the kettle is on' http://127.0.0.1:9504/news          to all
//! curl --data 'only for you' http://127.0.0.1:9504/clients/12345     to one
//! ```
//!
//! The ticker runs in one worker at a time, whichever is the first, so that nothing is told twice;
//! a reload or the death of a worker does not stop it.

use std::process::ExitCode;
use std::time::Duration;

use wsd::Server;
use wsd::api::{Context, HttpRequest, HttpResponse, Message, Verdict};
use wsd::fd::Fd;
use wsd::http::{Method, Response, StatusCode};

fn main() -> ExitCode {
    Server::new()
        .listen("127.0.0.1:9504")
        .on_worker_start(|ctx| {
            let teller = ctx.clone();
            ctx.server_tick("seconds", Duration::from_secs(1), move |number| {
                teller.broadcast(format!("tick {number}"));
            });
        })
        .on_open(|ctx, request| {
            ctx.push(request.fd, format!("you are {}", request.fd));
        })
        .on_message(|_, _| {})
        .on_request(|ctx, request| async move { Some(answer(&ctx, request).await) })
        .run()
}

async fn answer(ctx: &Context, HttpRequest { request, .. }: HttpRequest) -> HttpResponse {
    let path = request.uri().path().to_owned();
    let is_post = request.method() == Method::POST;
    let Ok(text) = String::from_utf8(request.into_body().to_vec()) else {
        return says(StatusCode::BAD_REQUEST, "news are UTF-8\n");
    };
    match (is_post, path.as_str(), path.strip_prefix("/clients/").map(str::parse::<Fd>)) {
        (true, "/news", _) => {
            ctx.broadcast(text);
            says(StatusCode::ACCEPTED, "told to all\n")
        }
        (true, _, Some(Ok(fd))) => tell(ctx, fd, Message::text(text)).await,
        (false, "/news", _) | (false, _, Some(_)) => {
            says(StatusCode::METHOD_NOT_ALLOWED, "POST\n")
        }
        _ => says(StatusCode::NOT_FOUND, "there are /news and /clients/NUMBER\n"),
    }
}

/// The client may be with any worker; the verdict is that of its own.
async fn tell(ctx: &Context, fd: Fd, message: Message<'_>) -> HttpResponse {
    match ctx.push_confirmed(fd, message).await {
        Verdict::Queued => says(StatusCode::OK, "told\n"),
        Verdict::Gone => says(StatusCode::NOT_FOUND, "that client is gone\n"),
        other => says(StatusCode::SERVICE_UNAVAILABLE, &format!("not told: {other}\n")),
    }
}

fn says(status: StatusCode, text: &str) -> HttpResponse {
    let mut response = Response::new(text.to_owned().into());
    *response.status_mut() = status;
    response
}
