//! The server of Swoole's tutorial, as a whole daemon: `cargo run --example tutorial -- start`.
use std::process::ExitCode;

fn main() -> ExitCode {
    wsd::Server::new()
        .listen("127.0.0.1:9501")
        .on_open(|ctx, request| {
            println!("server: handshake success with fd {}", request.fd);
            ctx.push(request.fd, "hello, welcome\n");
        })
        .on_message(|ctx, frame| {
            println!("receive from {}: {}", frame.fd, frame.text().unwrap_or("(binary)"));
            ctx.push(frame.fd, "this is server");
        })
        .on_close(|_, fd, _| println!("client {fd} closed"))
        .run()
}
