//! Lets in whoever has a token, and knows ever after who that is.
//!
//! The file that TOKENS names has a token and a name in each line. A client brings its token in
//! the query (`/?token=...`) or in a cookie called `token`; without a good one it gets 401.
//!
//! `TOKENS=tokens.txt cargo run --example token -- start`
//!
//! Each worker has a memory of its own. What this server knows of a client moves with the client:
//! `freeze` writes the name down when a reload moves the connection to a new process, `on_attach`
//! reads it there. After a crash the client comes again, with its token.

use std::cell::RefCell;
use std::collections::HashMap;
use std::process::ExitCode;
use std::rc::Rc;

use wsd::Server;
use wsd::api::{Accept, Context, Frame, Handshake, Refuse, Request};
use wsd::bytes::Bytes;
use wsd::fd::Fd;

/// Name by token.
#[derive(Default)]
struct Tokens(HashMap<String, String>);

/// Who the clients of this worker are.
#[derive(Default)]
struct Users(RefCell<HashMap<Fd, String>>);

/// Who a client is, from its handshake to `on_open`.
#[derive(Clone)]
struct User(String);

fn main() -> ExitCode {
    Server::new()
        .listen("127.0.0.1:9503")
        .state(|_| Tokens::read())
        .state(|_| Users::default())
        .on_handshake(handshake)
        .on_open(open)
        .on_message(message)
        .on_close(|ctx, fd, _| {
            ctx.expect_state::<Users>().0.borrow_mut().remove(&fd);
        })
        .freeze(|ctx, fd| {
            let users = ctx.expect_state::<Users>();
            users.0.borrow_mut().remove(&fd).map(Bytes::from)
        })
        .on_attach(|ctx, request, frozen| {
            let name = frozen.map(|name| String::from_utf8_lossy(&name).into_owned());
            let users = ctx.expect_state::<Users>();
            users.0.borrow_mut().insert(request.fd, name.unwrap_or_default());
        })
        .run()
}

impl Tokens {
    fn read() -> Tokens {
        let path = std::env::var_os("TOKENS").unwrap_or("tokens.txt".into());
        let text = std::fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("the file of TOKENS, {}: {error}", path.display()));
        let pairs = text.lines().filter_map(|line| line.split_once(' '));
        Tokens(pairs.map(|(token, name)| (token.to_owned(), name.trim().to_owned())).collect())
    }
}

fn handshake(ctx: Context, request: Rc<Request>) -> Handshake {
    let cookie = || request.cookie("token").map(str::to_owned);
    let token = request.query_param("token").or_else(cookie).unwrap_or_default();
    match ctx.expect_state::<Tokens>().0.get(&token) {
        Some(name) => Ok(Accept::new().extension(User(name.clone()))),
        None => Err(Refuse::new(401, "a token is wanted\n")),
    }
}

fn open(ctx: Context, request: Rc<Request>) {
    let Some(User(name)) = request.extension::<User>().cloned() else { return };
    ctx.push(request.fd, format!("hello, {name}"));
    ctx.expect_state::<Users>().0.borrow_mut().insert(request.fd, name);
}

fn message(ctx: Context, frame: Frame<'_>) {
    let users = ctx.expect_state::<Users>();
    let users = users.0.borrow();
    let name = users.get(&frame.fd).map_or("nobody", String::as_str);
    ctx.push(frame.fd, format!("{name} says {}", frame.text().unwrap_or("something")));
}
