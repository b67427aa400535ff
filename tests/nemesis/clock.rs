//! The wall clock of a host, which can be moved under the programs that run there. No other clock
//! moves with it: what waits for a while goes on waiting.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("clock.c");

const MONTH: i64 = 30 * 86_400;
/// A clock that says nothing of what the programs have done so far.
pub const BACK: i64 = -MONTH;
/// By how many seconds a clock is ahead. Two of them differ by more than a lease lasts.
const SETTINGS: [i64; 7] = [0, 60, -60, 3_600, -3_600, MONTH, BACK];

/// A setting that is left to chance.
pub fn setting(dice: u64) -> i64 {
    SETTINGS[(dice % SETTINGS.len() as u64) as usize]
}

/// Compiles the library that programs with a clock of their own are started with.
pub fn compile(directory: &Path) -> Result<PathBuf, String> {
    let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
    fs::write(&source, SOURCE).map_err(|error| format!("{}: {error}", source.display()))?;
    let mut compiler = Command::new("cc");
    compiler.args(["-O2", "-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
    match compiler.output() {
        Err(error) => Err(format!("cc, which the fault move-clock needs: {error}")),
        Ok(output) if output.status.success() => {
            open_to_all(&library, 0o755)?;
            Ok(library)
        }
        Ok(output) => Err(format!("cc: {}", String::from_utf8_lossy(&output.stderr))),
    }
}

/// Workers may be another user's.
fn open_to_all(file: &Path, mode: u32) -> Result<(), String> {
    let opened = fs::set_permissions(file, fs::Permissions::from_mode(mode));
    opened.map_err(|error| format!("{}: {error}", file.display()))
}

/// A clock that is right at first.
#[derive(Clone)]
pub struct Clock {
    library: PathBuf,
    /// By how many seconds it is ahead, for the library.
    file: PathBuf,
}

impl Clock {
    /// Makes one, with the library that [`compile`] has made.
    pub fn new(library: &Path, file: PathBuf) -> Result<Clock, String> {
        // The kernel names it so among the maps of a process.
        let made = fs::write(&file, 0_i64.to_ne_bytes()).and_then(|()| file.canonicalize());
        let file = made.map_err(|error| format!("{}: {error}", file.display()))?;
        open_to_all(&file, 0o644)?;
        Ok(Clock { library: library.to_owned(), file })
    }

    /// What a program and all that it starts need in their environment to have this clock.
    pub fn environment(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", self.library.as_path()), ("NEMESIS_CLOCK", self.file.as_path())]
    }

    /// By how many seconds it is ahead.
    pub fn ahead(&self) -> i64 {
        let bytes = fs::read(&self.file).unwrap_or_default();
        bytes.try_into().map_or(0, i64::from_ne_bytes)
    }

    /// Has it be ahead by so many seconds, for every program at once.
    pub fn set(&self, ahead: i64) -> std::io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(&self.file)?;
        file.write_all_at(&ahead.to_ne_bytes(), 0)
    }

    /// Whether a process has it.
    pub fn is_of(&self, pid: i32) -> bool {
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        maps.lines().any(|line| line.ends_with(&*self.file.to_string_lossy()))
    }
}
