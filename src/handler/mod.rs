//! The handlers that come with the stock server.

pub mod app;
pub mod chat;
pub mod echo;
#[cfg(test)]
pub(crate) mod fake;

pub use app::AppHandler;
pub use chat::Chat;
pub use echo::Echo;
