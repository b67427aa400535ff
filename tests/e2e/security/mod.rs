//! Who attacks, and what the attack costs nobody else: one test for each finding.

mod trust;
