//! What the fuzz targets, and some tests of the crate, have in common.

pub mod oracle;
pub mod said;
