//! A message finds its owner.
//!
//! - [`message`]: what is relayed. [`router`] says who owns a client.
//! - [`switch`] brings one message there, [`broadcast`] one to many. [`hold`] is where messages
//!   wait while connections move, [`release`] sends them on. [`commands`] is what waits for the
//!   answers.
//! - [`interest`] says which workers have members of a room, [`presence`] who is in a room, and
//!   [`rooms`] is what workers say of both. [`holders`] bounds what is said of presence.
//! - [`direct`] makes and ends links between workers that need not go by here.

pub(super) mod broadcast;
pub(super) mod commands;
pub(super) mod direct;
pub(super) mod hold;
pub(super) mod holders;
pub(super) mod interest;
pub(super) mod message;
pub(super) mod presence;
pub(super) mod release;
pub(super) mod rooms;
pub(super) mod router;
pub(super) mod switch;
