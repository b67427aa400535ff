//! handler.
