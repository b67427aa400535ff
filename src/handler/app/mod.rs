//! The application in processes of its own, in any language: `docs/app-protocol.md`.

pub mod codec;
