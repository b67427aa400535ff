//! The stock server.
fn main() {}
