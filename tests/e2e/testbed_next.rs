//! The testbed's next build: the same server, but for a session with one field more.

#![allow(clippy::expect_used, reason = "a test's server may die of what a test did")]

#[path = "testbed.rs"]
mod testbed;

fn main() -> std::process::ExitCode {
    testbed::main()
}
