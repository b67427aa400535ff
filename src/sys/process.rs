//! Processes: starting them, naming them, and making sure that they end.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{ForkResult, Pid};

use crate::error::{Error, Result, Subject};

/// Opens a descriptor that names a process for good, even after its pid is reused.
pub fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: a plain system call; on success the descriptor is new and ours alone.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// A pidfd of the process at the other end of a Unix socket: of the one that made it listen, where
/// we have connected. `ENOPROTOOPT` on kernels before 6.5, `ESRCH` where it has ended.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let mut raw: RawFd = -1;
    let mut len = size_of::<RawFd>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `raw`, which has that many.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERPIDFD,
            (&raw mut raw).cast(),
            &raw mut len,
        )
    };
    Errno::result(result)?;
    // SAFETY: on success the descriptor is new and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Signals the process a pidfd names: never another one that has its old pid.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a plain system call on a descriptor that is lent to us; a null siginfo is allowed.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as i32, null, 0)
    };
    Errno::result(result).map(|_| ())
}

/// When a process was started, in clock ticks since boot: with its pid it names it for good.
/// `None` when there is no such process.
pub fn start_time(pid: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the fields after it do not.
    let (_, fields) = stat.rsplit_once(") ")?;
    fields.split(' ').nth(19)?.parse().ok()
}

/// The parent of a process and its real user; `None` when there is no such process.
pub fn parent_and_user(pid: Pid) -> Option<(Pid, u32)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u32>().ok()
    };
    let parent = i32::try_from(field("PPid:")?).ok()?;
    Some((Pid::from_raw(parent), field("Uid:")?))
}

/// The descriptor at which a process that becomes an application finds its socket.
pub const APP_SOCKET_RAW_FD: RawFd = 4;

/// What a child starts with. Everything else that is open is closed for it.
pub struct Spawn<'a> {
    /// The program.
    pub image: &'a CStr,
    /// What `ps` shows as its name.
    pub title: &'a str,
    /// The arguments after it.
    pub arguments: &'a [CString],
    /// Becomes its descriptor 3.
    pub link: BorrowedFd<'a>,
    /// Becomes its descriptor 4, if there is one.
    pub socket: Option<BorrowedFd<'a>>,
    /// Becomes its descriptor 1; `None`: ours.
    pub stdout: Option<BorrowedFd<'a>>,
    /// Becomes its descriptor 2; `None`: ours.
    pub stderr: Option<BorrowedFd<'a>>,
    /// The variables of our environment that it does not get.
    pub secrets: &'a [&'a str],
}

/// Starts a child in a process group of its own (so that a terminal's Ctrl-C reaches the master
/// alone), with no signal blocked or ignored.
pub fn spawn(child: &Spawn<'_>) -> Result<Pid> {
    use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
    let prepare = || -> nix::Result<(PosixSpawnFileActions, PosixSpawnAttr)> {
        let mut actions = PosixSpawnFileActions::init()?;
        // 4 before 3: a socket that stands at 3 is moved before it is overwritten.
        let given = [(child.stdout, 1), (child.stderr, 2), (child.socket, APP_SOCKET_RAW_FD)];
        for (descriptor, number) in given {
            if let Some(descriptor) = descriptor {
                actions.add_dup2(descriptor.as_raw_fd(), number)?;
            }
        }
        actions.add_dup2(child.link.as_raw_fd(), crate::sys::LINK_RAW_FD)?;
        let mut attributes = PosixSpawnAttr::init()?;
        attributes.set_flags(
            PosixSpawnFlags::POSIX_SPAWN_SETPGROUP
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
                | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF,
        )?;
        attributes.set_pgroup(Pid::from_raw(0))?;
        attributes.set_sigmask(&SigSet::empty())?;
        attributes.set_sigdefault(&SigSet::all())?;
        Ok((actions, attributes))
    };
    let subject = || format!("start {} as `{}`", child.image.to_string_lossy(), child.title);
    let (actions, attributes) = prepare().subject(subject)?;
    let title = CString::new(child.title).map_err(|_| Error::new("a title has a NUL"))?;
    let arguments = [&title].into_iter().chain(child.arguments).map(CString::as_c_str);
    let arguments: Vec<&CStr> = arguments.collect();
    let mut environment = environment();
    environment.retain(|pair| {
        let name = pair.as_bytes().split(|byte| *byte == b'=').next();
        !child.secrets.iter().any(|secret| name == Some(secret.as_bytes()))
    });
    posix_spawn(child.image, &actions, &attributes, &arguments, &environment).subject(subject)
}

/// The environment as `exec` takes it.
pub fn environment() -> Vec<CString> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            let pair = [name.as_bytes(), b"=", value.as_bytes()].concat();
            CString::new(pair).ok()
        })
        .collect()
}

/// The arguments of this process after its name, as `exec` takes them.
pub fn arguments() -> Vec<CString> {
    std::env::args_os().skip(1).filter_map(|a| CString::new(a.as_bytes()).ok()).collect()
}

/// The path by which `exec` reaches the file a descriptor of ours names, wherever it has been
/// moved to meanwhile.
pub fn descriptor_path(descriptor: BorrowedFd<'_>) -> CString {
    let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
    CString::new(path).unwrap_or_default()
}

/// Replaces this process by `image` with `title` for a name. Returns only if that failed.
pub fn exec(image: &CStr, title: &str, arguments: &[CString]) -> Error {
    let Ok(title) = CString::new(title) else { return Error::new("a title has a NUL") };
    let arguments: Vec<&CString> = [&title].into_iter().chain(arguments).collect();
    match nix::unistd::execve(image, &arguments, &environment()) {
        Ok(never) => match never {},
        Err(errno) => Error::io(format!("execute {}", image.to_string_lossy()), errno),
    }
}

/// Names this process for `top` and `pgrep`, at most 15 bytes.
pub fn set_name(name: &CStr) {
    // Only cosmetic: an old kernel may go without.
    let _ = nix::sys::prctl::set_name(name);
}

/// Takes a reopened log file as the standard error, and in a daemon as the standard output too.
pub fn take_log(log: BorrowedFd<'_>, daemon: bool) -> Result<()> {
    redirect(log, 2)?;
    if daemon { redirect(log, 1) } else { Ok(()) }
}

/// Asks that this process dies with its parent: a second after the parent's death it is ended
/// by SIGALRM, unless it has left by itself before. Call it after rights were dropped, which
/// clears the wish, and before any thread is started.
pub fn die_with_parent(parent: Pid) -> Result<()> {
    extern "C" fn parent_died(_: libc::c_int) {
        // SAFETY: alarm is async-signal-safe, and SIGALRM has its default action.
        unsafe { libc::alarm(1) };
    }
    let action = nix::sys::signal::SigAction::new(
        nix::sys::signal::SigHandler::Handler(parent_died),
        nix::sys::signal::SaFlags::SA_RESTART,
        SigSet::empty(),
    );
    // SAFETY: the handler calls one async-signal-safe function and touches nothing else.
    unsafe { nix::sys::signal::sigaction(PARENT_DEATH, &action) }
        .subject(|| "handle the parent's death".to_owned())?;
    nix::sys::prctl::set_pdeathsig(PARENT_DEATH).subject(|| "PR_SET_PDEATHSIG".to_owned())?;
    if nix::unistd::getppid() != parent {
        return Err(Error::new("the master died before this process was set up"));
    }
    Ok(())
}

/// As [`die_with_parent`], for a process that is to become a foreign program: KILL, at once.
pub fn kill_with_parent(parent: Pid) -> Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).subject(|| "PR_SET_PDEATHSIG".to_owned())?;
    match nix::unistd::getppid() == parent {
        true => Ok(()),
        false => Err(Error::new("the master died before this process was set up")),
    }
}

/// The signal that tells of the parent's death. One that nobody else sends.
const PARENT_DEATH: Signal = Signal::SIGVTALRM;

/// Leaves signals meant for the master alone: a `kill` of the whole group, or a terminal's
/// Ctrl-C, must not end a worker behind the master's back.
pub fn ignore_master_signals() -> Result<()> {
    for signal in [
        Signal::SIGINT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGPIPE,
        // A log that may not grow is an error of the write.
        Signal::SIGXFSZ,
    ] {
        // SAFETY: ignoring a signal runs no code.
        unsafe { nix::sys::signal::signal(signal, nix::sys::signal::SigHandler::SigIgn) }
            .subject(|| format!("ignore {signal}"))?;
    }
    Ok(())
}

/// Marks every descriptor from 3 on as close-on-exec: what the shell or a supervisor left open
/// is not for our children.
pub fn close_inherited_on_exec() {
    const CLOSE_RANGE_CLOEXEC: libc::c_uint = 4;
    // SAFETY: a plain system call which only sets flags. Kernels before 5.11 refuse it, and then
    // the descriptors of whoever started us stay open in our children, as they would anywhere.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC);
    }
}

/// Goes on in a child that has left the terminal and the session; the answer in the parent is
/// the child's pid. Only for a process with one thread, before anything else exists.
pub fn fork_away() -> Result<Option<Pid>> {
    // SAFETY: the caller has one thread, so the child's memory is whole.
    match unsafe { nix::unistd::fork() }.subject(|| "fork".to_owned())? {
        ForkResult::Parent { child } => Ok(Some(child)),
        ForkResult::Child => {
            nix::unistd::setsid().subject(|| "setsid".to_owned())?;
            Ok(None)
        }
    }
}

/// Makes `from` this process's descriptor `number` (0, 1 or 2), and keeps it over an exec.
pub fn redirect(from: BorrowedFd<'_>, number: RawFd) -> Result<()> {
    // SAFETY: dup2 onto a standard stream: whatever was there is replaced on purpose, and no
    // OwnedFd of ours ever names 0, 1 or 2.
    Errno::result(unsafe { libc::dup2(from.as_raw_fd(), number) })
        .map(|_| ())
        .subject(|| format!("redirect descriptor {number}"))
}

/// Puts `from` at descriptor 3, over an exec, whatever was there before. The caller execs next.
pub fn place_link(from: OwnedFd) -> Result<()> {
    place(from, crate::sys::LINK_RAW_FD)
}

/// Puts `from` at a descriptor of that number, over an exec, whatever was there before. The
/// caller execs next.
pub fn place(from: OwnedFd, number: RawFd) -> Result<()> {
    // SAFETY: the caller is about to exec, so that nothing that owned 3 is used again; when
    // `from` is 3 itself, dup2 would keep its close-on-exec flag, so that is cleared apart.
    let result = unsafe {
        match from.as_raw_fd() == number {
            true => libc::fcntl(number, libc::F_SETFD, 0),
            false => libc::dup2(from.as_raw_fd(), number),
        }
    };
    // Its place at 3 has to outlive the value.
    std::mem::forget(from);
    Errno::result(result).map(|_| ()).subject(|| format!("place descriptor {number}"))
}

/// Keeps descriptor `number` taken, by a duplicate of descriptor 3 that closes on exec, so that
/// nothing long-lived ever stands where [`place`] will put something.
pub fn reserve(number: RawFd) -> Result<()> {
    // SAFETY: the caller vouches that nobody owns what stands there.
    let reserved = unsafe { libc::dup3(crate::sys::LINK_RAW_FD, number, libc::O_CLOEXEC) };
    Errno::result(reserved).map(|_| ()).subject(|| format!("reserve descriptor {number}"))
}

/// Closes a descriptor that no value owns: one that [`place`] put there, or that the image before
/// this one left and that was duplicated since.
pub fn close_number(number: RawFd) {
    // SAFETY: the caller vouches that nobody owns it; closing a number that is not open is
    // harmless.
    unsafe { libc::close(number) };
}

/// Takes descriptor 3, which our launcher put there, as ours. Call it once, first of all.
pub fn take_link() -> Result<OwnedFd> {
    let number = crate::sys::LINK_RAW_FD;
    // SAFETY: F_GETFD and F_SETFD on any number are harmless; they tell whether it is open.
    let open = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    Errno::result(open).subject(|| "descriptor 3 (the launcher's link)".to_owned())?;
    // SAFETY: the launcher opened it for us and nothing in this process has taken it yet.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Takes a descriptor that whoever executed us left open and named by its number.
pub fn adopt_descriptor(number: RawFd) -> OwnedFd {
    // SAFETY: F_SETFD on any number is harmless. The launch record names each descriptor once,
    // and this is the only place that takes them.
    unsafe {
        libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC);
        OwnedFd::from_raw_fd(number)
    }
}

/// A duplicate of a descriptor known by its number only. Whatever it names, the original stays.
pub fn duplicate_number(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: duplicating any number is harmless: it fails where nothing is open.
    let raw = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 10) };
    let raw = Errno::result(raw).subject(|| format!("duplicate descriptor {number}"))?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Lets a descriptor outlive the next exec; the answer is its number.
pub fn keep_over_exec(descriptor: BorrowedFd<'_>) -> Result<RawFd> {
    let keep = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
    nix::fcntl::fcntl(descriptor, keep).subject(|| "keep a descriptor over exec".to_owned())?;
    Ok(descriptor.as_raw_fd())
}

/// How many descriptors this process may have.
pub fn descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit};
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft)
}

/// Raises the soft limit of descriptors to the hard one. The answer is what is allowed now.
pub fn raise_descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 1024 };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_start_time() {
        let own = nix::unistd::getpid();
        assert!(start_time(own).unwrap() > 0);
        assert_eq!(start_time(own), start_time(own));
        assert_eq!(start_time(Pid::from_raw(i32::MAX)), None);
    }
}
