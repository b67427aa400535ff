//! What root believes or executes has to be root's: the runtime directory, the configuration
//! file and the program. Whoever else could change one of them could make root do anything.

use std::path::Path;

use nix::unistd::geteuid;

use crate::config::{Config, Sources};
use crate::error::{Error, Result};
use crate::sys::path_walk::{self, Links, Missing, PathWalk, Untrusted, untrusted_part};

/// Refuses what is doubted where root serves with the rights of another user: then somebody is
/// meant not to have root's rights. Where everything is root's anyway, the answer is a warning.
///
/// # Errors
/// The refusal, which names the place and the cure.
pub fn judge(what: &str, doubt: Option<&Untrusted>, config: &Config) -> Result<Option<String>> {
    let Some(doubt) = doubt.filter(|_| geteuid().is_root() && !config.unsafe_paths) else {
        return Ok(None);
    };
    let why = format!(
        "{what}: {doubt}, so that root would do what somebody else says; make it root's with \
         `chown root` and `chmod go-w`, choose another place, or start the server as that user"
    );
    match config.user.as_deref() {
        None | Some("root") => Ok(Some(why)),
        Some(_) => Err(Error::new(format!(
            "{why} (where it is meant, as in a container, `--set unsafe_paths=true`)"
        ))),
    }
}

/// Judges the configuration file and the program that a server runs. The answer is the warnings.
///
/// # Errors
/// As [`judge`]; a file that is not there is somebody else's to tell.
pub fn judge_files(sources: &Sources, program: &Path, config: &Config) -> Result<Vec<String>> {
    // A file that is doubted cannot say that it is not to be doubted.
    let config = &Config { unsafe_paths: sources.allow_unsafe_paths(), ..config.clone() };
    let file = sources.file.as_ref().map(|file| sources.dir.join(file));
    let files = file.iter().map(|file| ("the configuration file", file.as_path()));
    let mut warnings = Vec::new();
    for (what, path) in files.chain([("the program", program)]) {
        if let Ok(doubt) = untrusted_part(path) {
            warnings.extend(judge(what, doubt.as_ref(), config)?);
        }
    }
    Ok(warnings)
}

/// Why somebody else could have written the configuration file of a command, if somebody could.
/// A file of our own that our group may write is ours, but root's is nobody else's.
#[cfg(feature = "cli")]
pub fn doubted_file(sources: &Sources) -> Option<Untrusted> {
    let file = sources.dir.join(sources.file.as_ref()?);
    let doubt = untrusted_part(&file).ok().flatten()?;
    let is_own = path_walk::is_ours(doubt.owner) && !geteuid().is_root();
    (!is_own && !sources.allow_unsafe_paths()).then_some(doubt)
}

/// Refuses a server to which a doubted file leads and that is not its owner's: a command would do
/// to that server what the file's owner may not.
///
/// # Errors
/// The refusal, which names the file and the cure.
#[cfg(feature = "cli")]
pub fn judge_lead(sources: &Sources, runtime_dir: &Path) -> Result<()> {
    let Some(doubt) = doubted_file(sources) else { return Ok(()) };
    use std::os::unix::fs::MetadataExt;
    // Nothing there: no server.
    let Ok(place) = std::fs::metadata(runtime_dir) else { return Ok(()) };
    if place.uid() == doubt.owner && !path_walk::is_ours(doubt.owner) {
        return Ok(());
    }
    Err(Error::new(format!(
        "the configuration file: {doubt}, and leads to {}, which belongs to uid {}: no server \
         there is asked; make the file yours, or name the place by `--set runtime_dir=`",
        runtime_dir.display(),
        place.uid()
    )))
}

/// Judges all that a start would believe or execute, while there is a terminal to tell. The
/// answer is the warnings.
///
/// # Errors
/// As [`judge`].
pub fn doubts(sources: &Sources, program: &Path, config: &Config) -> Result<Vec<String>> {
    let mut warnings = judge_files(sources, program, config)?;
    if let Ok(way) = PathWalk::to(&config.runtime_dir, Links::Ours, Missing::Stop) {
        warnings.extend(judge("runtime_dir", way.untrusted.as_ref(), config)?);
    }
    Ok(warnings)
}
