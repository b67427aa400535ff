//! What docs/security.md says that holds: one test for each thing that was found once, in a file
//! for each area of that page.

mod admission;
mod files;
mod minute;
mod names;
mod plain;
mod probes;
mod rates;
pub mod rights;
mod trust;
