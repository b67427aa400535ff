//! What docs/security.md says that holds: one test for each thing that was found once, in a file
//! for each area of that page.

mod files;
mod rights;
mod trust;
