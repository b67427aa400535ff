//! The way back from an upgrade: until the new image has adopted the server, whatever ends this
//! process executes the old image again instead.
//!
//! The old master leaves its own program at [`OLD_IMAGE_RAW_FD`] and an alarm running. The guard
//! is armed before `main`, so that it also holds for a program whose `main` exits, panics or
//! hangs before it comes to us.

use std::ffi::{CStr, c_char, c_int};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// The descriptor of the old image, open only between an upgrade's exec and its adoption.
pub const OLD_IMAGE_RAW_FD: i32 = 4;
/// The name under which a master is executed.
pub const MASTER_TITLE: &CStr = c"wsd: master";
/// Seconds a new image has to adopt the server.
pub const ADOPT_SECONDS: u32 = 10;

static ARMED: AtomicBool = AtomicBool::new(false);
static ARGUMENTS: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());
static ENVIRONMENT: AtomicPtr<*const c_char> = AtomicPtr::new(ptr::null_mut());

/// What would end the process without a word.
const FATAL: [c_int; 8] = [
    libc::SIGALRM,
    libc::SIGABRT,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGSYS,
    libc::SIGTRAP,
];

type Constructor = extern "C" fn(c_int, *mut *const c_char, *mut *const c_char);

/// Run by the loader before `main`.
#[used]
// SAFETY: .init_array holds pointers to functions of exactly this type.
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: Constructor = arm;

extern "C" fn arm(count: c_int, arguments: *mut *const c_char, environment: *mut *const c_char) {
    if count < 1 || arguments.is_null() {
        return;
    }
    ARGUMENTS.store(arguments, Ordering::SeqCst);
    // SAFETY: the loader gives `count` valid strings, which live as long as the process.
    let name = unsafe { CStr::from_ptr(*arguments) };
    // SAFETY: F_GETFD on any number is harmless; it tells whether it is open.
    let upgrading = unsafe { libc::fcntl(OLD_IMAGE_RAW_FD, libc::F_GETFD) } >= 0;
    if name != MASTER_TITLE || !upgrading {
        return;
    }
    ENVIRONMENT.store(environment, Ordering::SeqCst);
    ARMED.store(true, Ordering::SeqCst);
    // SAFETY: `go_back` calls only async-signal-safe functions, and `at_exit` only that.
    unsafe {
        libc::atexit(at_exit);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        for signal in FATAL {
            libc::signal(signal, on_signal as extern "C" fn(c_int) as libc::sighandler_t);
            libc::sigaddset(&mut set, signal);
        }
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, ptr::null_mut());
    }
}

extern "C" fn at_exit() {
    go_back();
}

extern "C" fn on_signal(signal: c_int) {
    go_back();
    // SAFETY: only when there is no way back: die of the signal as if there were no handler.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// Executes the old image, if the guard is armed. Returns only if that failed, or was not due.
pub fn go_back() {
    if !ARMED.swap(false, Ordering::SeqCst) {
        return;
    }
    // SAFETY: alarm, fcntl and execveat are async-signal-safe; the arguments and the environment
    // are those this process was given, valid and terminated by null. The descriptor closes on
    // that exec, which is how the old image knows that it was come back to.
    unsafe {
        libc::alarm(0);
        libc::fcntl(OLD_IMAGE_RAW_FD, libc::F_SETFD, libc::FD_CLOEXEC);
        libc::syscall(
            libc::SYS_execveat,
            OLD_IMAGE_RAW_FD,
            c"".as_ptr(),
            ARGUMENTS.load(Ordering::SeqCst),
            ENVIRONMENT.load(Ordering::SeqCst),
            libc::AT_EMPTY_PATH,
        );
    }
}

/// Writes stars over the end of each argument from where `secret_of` says that a secret begins, so
/// that neither `ps` nor a process that is given our arguments has it. Only for a process with one
/// thread, and once the arguments were read.
pub fn hide_arguments(secret_of: impl Fn(&[u8]) -> Option<usize>) {
    let arguments = ARGUMENTS.load(Ordering::SeqCst);
    if arguments.is_null() {
        return;
    }
    for index in 0.. {
        // SAFETY: the loader gave an array of valid strings that ends with null, in memory that is
        // ours to write, and with one thread nobody reads it meanwhile.
        let argument = unsafe { *arguments.add(index) };
        if argument.is_null() {
            return;
        }
        // SAFETY: as above.
        let text = unsafe { CStr::from_ptr(argument) }.to_bytes();
        let len = text.len();
        let Some(at) = secret_of(text).filter(|at| *at <= len) else { continue };
        // SAFETY: as above; the bytes from `at` on are of that string.
        unsafe { ptr::write_bytes(argument.cast_mut().add(at), b'*', len - at) };
    }
}

/// Whether this process is a new image that has not adopted yet. Also what keeps the linker from
/// leaving the constructor out.
pub fn is_armed() -> bool {
    let constructor: Constructor = CONSTRUCTOR;
    ARMED.load(Ordering::SeqCst) && constructor as usize != 0
}

/// The server is adopted: from here on this image stands for itself. The old image's descriptor
/// is the caller's to replace.
pub fn disarm() {
    if !ARMED.swap(false, Ordering::SeqCst) {
        return;
    }
    // SAFETY: plain system calls; the descriptor is known to nobody else.
    unsafe {
        libc::alarm(0);
        for signal in FATAL {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

/// Starts the time a new image has. The next thing is the exec.
pub fn start_clock() {
    // SAFETY: a plain system call.
    unsafe { libc::alarm(ADOPT_SECONDS) };
}

/// Stops it, when the exec failed.
pub fn stop_clock() {
    // SAFETY: a plain system call.
    unsafe { libc::alarm(0) };
}
