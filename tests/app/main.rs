//! Application processes, real ones, driven through the handler: `docs/app-protocol.md`.
//!
//! Needs `php` (8.1 or later, no extension) and `python3`.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod laravel;
mod processes;
mod support;
mod swoole;
