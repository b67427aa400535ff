//! Application processes, real ones, driven through the handler: `docs/app-protocol.md`.
//!
//! Needs `php` (8.1 or later, no extension), `python3`, Debian's php-laravel-framework, nginx and
//! Chromium. `daemon`, `sites` and `traffic` run the whole server, the others a stand-in for its
//! worker.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod daemon;
mod development;
#[allow(dead_code, unused_imports)]
#[path = "../e2e/harness/mod.rs"]
mod harness;
mod laravel;
mod laravel_tasks;
mod life;
mod names;
mod plays;
mod processes;
mod rooms;
mod scripts;
mod shared;
mod sites;
mod starts;
mod static_files;
mod support;
mod swoole;
mod swoole_http;
mod traffic;
mod transcript;
mod uploads;
mod visits;
