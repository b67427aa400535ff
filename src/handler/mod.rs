//! The handlers that come with the stock server.

pub mod app;
pub mod chat;
pub mod echo;

pub use app::AppHandler;
pub use chat::Chat;
pub use echo::Echo;
