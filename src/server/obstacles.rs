//! What would keep a server from starting, as far as that can be seen without starting one.
//! `check` tells it, and `start` before anything is begun.

use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};
use serde::Serialize;

use crate::config::{Config, HandlerName, ListenAddr, Sources};
use crate::error::Result;
use crate::ipc::control::{CONTROL_SOCKET, LOCK_FILE};
use crate::master::{SERIALS_FILE, doubts, engine_password};
use crate::sys::fork::ask_child;

/// Where a program without a slash in its name is looked for where PATH is not set (`execvp`).
const PATH_UNSET: &str = "/bin:/usr/bin";

/// One obstacle.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Obstacle {
    /// The key it is about; empty where it is about none.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub text: String,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key {
            "" => f.write_str(&self.text),
            key => write!(f, "{key}: {}", self.text),
        }
    }
}

pub(super) fn obstacle(key: &'static str, text: impl Into<String>) -> Obstacle {
    Obstacle { key, text: text.into() }
}

/// Everything that a start with this configuration would fail on. `program` is what the server
/// would run.
pub(super) fn obstacles(sources: &Sources, program: &Path, config: &Config) -> Vec<Obstacle> {
    let mut found = Vec::new();
    // What applications have of the others' rights is told of the others.
    let differs = config.app.user.is_some() || config.app.group.is_some();
    let of_apps = differs.then(|| config.app_rights().check("app."));
    let rights = [config.worker_rights().check("")].into_iter().chain(of_apps);
    found.extend(rights.filter_map(Result::err).map(|error| {
        // The sentence names the key itself.
        obstacle("", error.to_string())
    }));
    if let Err(error) = doubts(sources, program, config) {
        found.push(obstacle("", error.to_string()));
    }
    found.extend(places(config));
    found.extend(files(config));
    found.extend(own_files(sources, config));
    found.extend(config.listen.iter().filter_map(|it| address("listen", it)));
    found.extend(config.api.listen.iter().filter_map(|it| address("api.listen", it)));
    if let (Some(_), Err(error)) = (config.node(), engine_password(config)) {
        // The sentence names the key itself.
        found.push(obstacle("", error.to_string()));
    }
    if config.handler == HandlerName::App {
        found.extend(application(config, found.is_empty()));
    }
    found.dedup();
    found
}

/// The directories that a start writes to.
fn places(config: &Config) -> Vec<Obstacle> {
    let own = |path: &Path| path.parent() == Some(&config.runtime_dir);
    let parent = |path: &Path| path.parent().map(Path::to_owned);
    let mut places = vec![("runtime_dir", Some(config.runtime_dir.clone()), true)];
    if !own(&config.pid_file) {
        places.push(("pid_file", parent(&config.pid_file), false));
    }
    let log = config.log_file.as_ref().and_then(|log| parent(log));
    places.push(("log_file", log.filter(|log| log != Path::new("/dev")), true));
    let clients = config.listen.iter().map(|address| ("listen", address));
    let api = config.api.listen.iter().map(|address| ("api.listen", address));
    for (key, address) in clients.chain(api) {
        if let ListenAddr::Unix(path) = address
            && !own(path)
        {
            places.push((key, parent(path), false));
        }
    }
    if config.handler == HandlerName::App {
        places.push(("upload_tmp_dir", Some(config.upload_tmp_dir.clone()), false));
    }
    let judged =
        places.into_iter().map(|(key, place, made)| (key, place.map(|it| judge(&it, made))));
    judged.filter_map(|(key, wrong)| Some(obstacle(key, wrong??))).collect()
}

/// The files that a start writes: none of them may be a directory.
fn files(config: &Config) -> Vec<Obstacle> {
    let files = [("pid_file", Some(&config.pid_file)), ("log_file", config.log_file.as_ref())];
    let directories = files.into_iter().filter_map(|(key, file)| Some((key, file?)));
    let told = |(key, file): (_, &PathBuf)| {
        obstacle(key, format!("{} is a directory; name a file", file.display()))
    };
    directories.filter(|(_, file)| file.is_dir()).map(told).collect()
}

/// The server's own files, of which none may be made anew as something else: the configuration,
/// and what stands in `runtime_dir`.
fn own_files(sources: &Sources, config: &Config) -> Vec<Obstacle> {
    let names = [CONTROL_SOCKET, LOCK_FILE, SERIALS_FILE];
    let own = names.iter().map(|name| config.runtime_dir.join(name));
    let own: Vec<PathBuf> =
        own.chain(sources.file.iter().map(|it| sources.dir.join(it))).collect();
    let sockets = |key, listen: &[ListenAddr]| {
        let path = |address: &ListenAddr| match address {
            ListenAddr::Unix(path) => Some((key, path.clone())),
            ListenAddr::Tcp(_) => None,
        };
        listen.iter().filter_map(path).collect::<Vec<_>>()
    };
    let mut made = vec![("pid_file", config.pid_file.clone())];
    made.extend(config.log_file.clone().map(|log| ("log_file", log)));
    made.extend(sockets("listen", &config.listen));
    made.extend(sockets("api.listen", &config.api.listen));
    let told = |(key, path): (_, PathBuf)| {
        obstacle(key, format!("{} is the server's own; name another path", path.display()))
    };
    made.into_iter().filter(|(_, path)| own.contains(path)).map(told).collect()
}

/// Why nothing can listen on an address, whoever else does so now.
fn address(key: &'static str, address: &ListenAddr) -> Option<Obstacle> {
    let text = match address {
        ListenAddr::Unix(path) => {
            let there = path.symlink_metadata().ok()?;
            let what = "exists and is no socket; remove that, or name another path";
            (!there.file_type().is_socket()).then(|| format!("{} {what}", path.display()))?
        }
        ListenAddr::Tcp(addr) => {
            // With a port of the kernel's choice, so that nothing is taken from anybody.
            let any = SocketAddr::new(addr.ip(), 0);
            let error = UdpSocket::bind(any).err()?;
            let is_foreign = error.kind() == ErrorKind::AddrNotAvailable;
            is_foreign.then(|| format!("no interface of this machine has {}", addr.ip()))?
        }
    };
    Some(obstacle(key, text))
}

/// What is wrong with a directory that files are to be made in. `made` says that it is made where
/// it is missing.
fn judge(directory: &Path, made: bool) -> Option<String> {
    let shown = directory.display();
    let there = directory.ancestors().find(|path| path.symlink_metadata().is_ok())?;
    let is_there = there == directory;
    if !there.is_dir() {
        return Some(format!("{} is no directory; name another place", there.display()));
    }
    if !is_there && !made {
        return Some(format!(
            "there is no directory {shown}; make that directory, or name another"
        ));
    }
    let errno = access(there, AccessFlags::W_OK | AccessFlags::X_OK).err()?;
    Some(match is_there {
        true => format!("nothing can be made in {shown}: {}; name another place", errno.desc()),
        false => format!(
            "{shown} cannot be made, since nothing can be made in {}: {}; name another place",
            there.display(),
            errno.desc()
        ),
    })
}

/// Whether the application's program would be found and executed. With `as_user` the kernel is
/// asked with the application's rights.
fn application(config: &Config, as_user: bool) -> Vec<Obstacle> {
    let look = || program(config).err().map_or_else(String::new, |it| it.to_record());
    let said = match as_user {
        true => ask_child(|| match config.app_rights().take() {
            Ok(()) => look(),
            Err(error) => obstacle("", error.to_string()).to_record(),
        }),
        false => Ok(look()),
    };
    match said {
        Ok(record) => Obstacle::of_record(&record).into_iter().collect(),
        Err(error) => vec![obstacle("app.command", error.to_string())],
    }
}

impl Obstacle {
    /// For the way from a child.
    fn to_record(&self) -> String {
        format!("{}\n{}", self.key, self.text)
    }

    fn of_record(record: &str) -> Option<Obstacle> {
        let (key, text) = record.split_once('\n')?;
        let key = ["app.command", "app.cwd"].into_iter().find(|known| *known == key);
        Some(obstacle(key.unwrap_or_default(), text))
    }
}

/// Finds the program as `execvp` does, from the application's working directory on.
fn program(config: &Config) -> std::result::Result<(), Obstacle> {
    let cwd = &config.app.cwd;
    if let Err(errno) = nix::unistd::chdir(cwd) {
        let right = match errno {
            Errno::ENOENT | Errno::ENOTDIR => "name a directory that is there",
            _ => "name a directory that the application may enter",
        };
        let text = format!("{}: {}; {right}", cwd.display(), errno.desc());
        return Err(obstacle("app.cwd", text));
    }
    let Some(program) = config.app.command.0.first() else { return Ok(()) };
    let wrong = |what: &str| Err(obstacle("app.command", what));
    if program.contains('/') {
        return match executable(Path::new(program)) {
            Ok(()) => interpreter(Path::new(program)).map_or(Ok(()), |missing| {
                wrong(&format!("{program} is to be run by {missing}, which is not there"))
            }),
            Err(Errno::ENOENT) => wrong(&format!(
                "there is no {program} (seen from {}); name a program that is there",
                cwd.display()
            )),
            Err(errno) => wrong(&refused(Path::new(program), errno)),
        };
    }
    let path = config.app.env.get("PATH").map(OsString::from);
    let path = path.or_else(|| std::env::var_os("PATH")).unwrap_or_else(|| PATH_UNSET.into());
    let mut first: Option<(PathBuf, Errno)> = None;
    for directory in std::env::split_paths(&path) {
        let candidate = directory.join(program);
        match executable(&candidate) {
            Ok(()) => return Ok(()),
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => drop(first.get_or_insert((candidate, errno))),
        }
    }
    match first {
        Some((candidate, errno)) => wrong(&refused(&candidate, errno)),
        None => wrong(&format!(
            "there is no program {program} on PATH ({}); install it, or write its whole path",
            path.to_string_lossy()
        )),
    }
}

/// What is told of a program that is there and may not be executed.
fn refused(program: &Path, errno: Errno) -> String {
    let shown = program.display();
    match program.is_dir() {
        true => format!("{shown} is a directory; name a program"),
        false => format!(
            "{shown} cannot be executed: {}; name another program, or give this one the \
             permission with `chmod +x`",
            errno.desc()
        ),
    }
}

/// The program that the first line of a script names, where that program is not there.
fn interpreter(script: &Path) -> Option<String> {
    let mut line = Vec::new();
    let file = std::fs::File::open(script).ok()?;
    BufReader::new(file.take(256)).read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8_lossy(line.strip_prefix(b"#!")?).into_owned();
    let named = line.split_whitespace().next()?;
    (!Path::new(named).exists()).then(|| named.to_owned())
}

/// Whether this process may execute a file.
fn executable(path: &Path) -> nix::Result<()> {
    access(path, AccessFlags::X_OK)?;
    // A directory may be entered, and not executed.
    if path.is_dir() { Err(Errno::EACCES) } else { Ok(()) }
}
