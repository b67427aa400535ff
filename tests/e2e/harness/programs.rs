//! Where the tests find this repository, and the programs that cargo built from it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The root of the repository.
pub fn repository() -> &'static Path {
    let member = Path::new(env!("CARGO_MANIFEST_DIR"));
    member.ancestors().nth(2).expect("tests/e2e is two below the root")
}

/// The stock program.
pub fn stock_program() -> PathBuf {
    built("wsd")
}

/// A program of `examples/`.
pub fn example(name: &str) -> PathBuf {
    built(&format!("examples/{name}"))
}

/// A program of another package of the workspace, which cargo does not build for a test by itself.
fn built(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    // target/PROFILE/deps/e2e-HASH
    let program = test.ancestors().nth(2).expect("cargo's directory").join(name);
    let cure = "run `cargo build --bins --examples` first (with --release for release)";
    assert!(program.is_file(), "{} is not there: {cure}", program.display());
    if let Some(source) = newer_source(&program) {
        panic!("{} is older than {source}: {cure}", program.display());
    }
    program
}

/// A source file that was changed after the program was built. Cargo writes down beside each
/// program what the program was made of.
fn newer_source(program: &Path) -> Option<String> {
    let built = modified(program)?;
    let made_of = fs::read_to_string(program.with_extension("d")).ok()?;
    let (_, sources) = made_of.split_once(": ")?;
    let newer = |source: &&str| modified(Path::new(source)).is_some_and(|time| time > built);
    sources.split_whitespace().find(newer).map(str::to_owned)
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).ok()
}
