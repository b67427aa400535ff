//! Agreeing on a subprotocol (RFC 6455 section 4.2.2).

use std::collections::HashSet;
use std::hash::Hash;

use super::check::is_token;
use super::{Head, Refusal};

/// What the client offers, in its order, over all lines of Sec-WebSocket-Protocol.
///
/// # Errors
///
/// 400 where one is not a token or comes twice (RFC 6455 section 4.1).
pub(super) fn offered<'a>(head: &Head<'a>) -> Result<Vec<&'a str>, Refusal> {
    let name = |element: &'a [u8]| {
        let name = str::from_utf8(element).ok().filter(|_| is_token(element));
        name.ok_or_else(|| Refusal::bad("a subprotocol is not a token"))
    };
    let offered = head.list("sec-websocket-protocol").map(name).collect::<Result<Vec<_>, _>>()?;
    if !are_distinct(&offered) {
        return Err(Refusal::bad("a subprotocol is offered twice"));
    }
    Ok(offered)
}

/// Whether no two are the same. A head has room for thousands, so none is compared with each.
fn are_distinct<T: Eq + Hash>(all: &[T]) -> bool {
    let mut seen = HashSet::new();
    all.iter().all(|one| seen.insert(one))
}

/// The handler chose a subprotocol the client did not offer: a bug in the handler, a 500.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotOffered(pub String);

/// The subprotocol to answer with: the handler's choice where it made one, else the first of
/// the server's own list that is offered. `None` leaves the field out, and the client decides
/// whether it can live without.
///
/// # Errors
///
/// The handler's choice is not among those offered.
pub fn choose<'a>(
    offered: &[&'a str],
    configured: &[String],
    handler: Option<&str>,
) -> Result<Option<&'a str>, NotOffered> {
    let find = |name: &str| offered.iter().copied().find(|&offer| offer == name);
    match handler {
        None => Ok(configured.iter().find_map(|name| find(name))),
        Some(choice) => find(choice).map(Some).ok_or_else(|| NotOffered(choice.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::api::counted::Counted;
    use crate::worker::head::{Limits, Reader, parse};

    #[test]
    fn of_names_that_differ_not_each_is_compared_with_each() {
        let compared = &Cell::new(0);
        let names: Vec<Counted<'_>> = (0..1_000).map(|n| Counted(n, compared)).collect();
        assert!(are_distinct(&names));
        assert!(compared.get() < 4_000, "{}", compared.get());
        assert!(!are_distinct(&[Counted(7, compared), Counted(7, compared)]));
    }

    #[test]
    fn a_head_full_of_them_is_read() {
        let names: Vec<String> = (0..1_000).map(|n| format!("p{n}")).collect();
        let names = names.join(",");
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Protocol: {names}\r\n\r\n");
        let raw = Reader::new().advance(text.as_bytes(), &Limits::default()).unwrap().unwrap();
        assert_eq!(offered(&parse(&raw).unwrap()).unwrap().len(), 1_000);
    }

    #[test]
    fn the_servers_order_decides() {
        let configured = ["mqtt".to_owned(), "chat".to_owned()];
        assert_eq!(choose(&["chat", "mqtt"], &configured, None), Ok(Some("mqtt")));
        assert_eq!(choose(&["chat"], &configured, None), Ok(Some("chat")));
        assert_eq!(choose(&["CHAT"], &configured, None), Ok(None));
        assert_eq!(choose(&[], &configured, None), Ok(None));
        assert_eq!(choose(&["chat"], &[], None), Ok(None));
    }

    #[test]
    fn the_handler_may_choose_only_what_is_offered() {
        let configured = ["mqtt".to_owned()];
        assert_eq!(choose(&["chat", "mqtt"], &configured, Some("chat")), Ok(Some("chat")));
        assert_eq!(choose(&["mqtt"], &[], Some("chat")), Err(NotOffered("chat".to_owned())));
    }
}
