//! System calls that rustix does not wrap, each behind a safe function.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::{Errno, Result};
use rustix::thread::UnshareFlags;

/// linux/sched.h; libc's constant is a number too narrow for it.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Takes over a descriptor that the caller passed by number; EBADF if it isn't open.
pub fn adopt(fd: RawFd) -> Result<OwnedFd> {
    // SAFETY: F_SETFD on any number has no memory effect; a closed one answers EBADF.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and the command line hands it to nobody else in this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// clone3(2) of this single-threaded process with a copy of its memory: the child's pid, 0 in the child.
///
/// The child is the caller's parent's child (CLONE_PARENT) and starts in `cgroup`, where given: joining one later by
/// its cgroup.procs waits for a grace period of RCU.
pub fn clone(flags: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<u32> {
    // SAFETY: clone_args is plain numbers; zero is "absent" for each.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = flags;
    // CLONE_PARENT takes the parent's own exit signal; a plain child must ask for SIGCHLD.
    if flags & libc::CLONE_PARENT as u64 == 0 {
        arguments.exit_signal = libc::SIGCHLD as u64;
    }
    if let Some(cgroup) = cgroup {
        arguments.flags |= CLONE_INTO_CGROUP;
        arguments.cgroup = cgroup.as_raw_fd() as u64;
    }
    let size = size_of::<libc::clone_args>();
    // SAFETY: without CLONE_VM the child has its own copy of everything, and no other thread's locks can be held.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut arguments, size) };
    if pid < 0 { Err(last()) } else { Ok(pid as u32) }
}

/// Closes every descriptor from `first` on, or makes it close-on-exec.
pub fn close_from(first: u32, on_exec: bool) -> Result<()> {
    let flags = if on_exec { libc::CLOSE_RANGE_CLOEXEC } else { 0 };
    // SAFETY: callers hold no owned descriptor in the range that they use afterwards.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, flags) } as i32)
}

/// A copy at a number, close-on-exec, in place of what is there.
pub fn move_to(fd: &OwnedFd, number: RawFd) -> Result<OwnedFd> {
    // SAFETY: whatever was open at `number` is replaced; callers own none there.
    check(unsafe { libc::dup3(fd.as_raw_fd(), number, libc::O_CLOEXEC) })?;
    // SAFETY: dup3 has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// unshare(2).
pub fn unshare(flags: UnshareFlags) -> Result<()> {
    // SAFETY: unsafe for CLONE_FILES only, in which descriptors of other threads vanish; there are none.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// mount_setattr(2) of the mount that `fd` is in, or of the tree below it; MOUNT_ATTR_* to set and clear.
pub fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, set: u64, clear: u64) -> Result<()> {
    change_mount(fd, recursive, &libc::mount_attr { attr_set: set, attr_clr: clear, propagation: 0, userns_fd: 0 })
}

/// The same for its propagation: MS_SHARED and so on, with MS_REC. As mount(2) does, but that wants a path.
pub fn set_propagation(fd: BorrowedFd<'_>, kind: libc::c_ulong) -> Result<()> {
    let (recursive, propagation) = (kind & libc::MS_REC != 0, kind & !libc::MS_REC);
    change_mount(fd, recursive, &libc::mount_attr { attr_set: 0, attr_clr: 0, propagation, userns_fd: 0 })
}

fn change_mount(fd: BorrowedFd<'_>, recursive: bool, attributes: &libc::mount_attr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    let (path, size) = (c"".as_ptr(), size_of::<libc::mount_attr>());
    // SAFETY: both pointers are to live values, the size is that of the struct.
    let answer = unsafe {
        libc::syscall(libc::SYS_mount_setattr, fd.as_raw_fd(), path, flags, std::ptr::from_ref(attributes), size)
    };
    check(answer as i32)
}

/// Sets the default disposition of every signal and blocks none: what the caller ignored would survive the exec.
pub fn reset_signals() {
    // The kernel's own struct, all zero: SIG_DFL, no flags, an empty mask. libc would refuse the two signals it keeps to itself.
    let default = [0u64; 4];
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: the pointer is to a live value of at least the struct's size; SIGKILL and SIGSTOP answer EINVAL, which is as good.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, std::ptr::null::<u64>(), 8usize);
        }
    }
    block_signals(false);
}

/// Blocks all signals, or none.
pub fn block_signals(block: bool) {
    let set = if block { u64::MAX } else { 0 };
    // SAFETY: the set is the kernel's eight bytes; SIG_SETMASK cannot fail on a live pointer.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const set, std::ptr::null::<u64>(), 8usize)
    };
}

/// prctl(2) with one number.
pub fn prctl(option: i32, argument: u64) -> Result<()> {
    // SAFETY: callers pass options whose argument is a number, no pointer.
    check(unsafe { libc::prctl(option, argument, 0u64, 0u64, 0u64) })
}

/// seccomp(2) with SECCOMP_SET_MODE_FILTER.
pub fn seccomp_filter(flags: u32, program: &[libc::sock_filter]) -> Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    let mode = libc::SECCOMP_SET_MODE_FILTER;
    // SAFETY: the kernel copies `len` instructions out of the live slice and checks them.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    if answer < 0 {
        return Err(last());
    }
    // With SECCOMP_FILTER_FLAG_TSYNC a positive answer is a thread that couldn't follow.
    if answer > 0 { Err(Errno::SRCH) } else { Ok(()) }
}

/// execve(2); comes back only with an error.
pub fn execve(path: &CStr, argv: &Pointers, envp: &Pointers) -> Errno {
    // SAFETY: both arrays are NULL-terminated and point to strings that `Pointers` keeps alive.
    unsafe { libc::execve(path.as_ptr(), argv.raw.as_ptr(), envp.raw.as_ptr()) };
    last()
}

/// A NULL-terminated array of C strings, which it owns.
pub struct Pointers {
    raw: Vec<*const libc::c_char>,
    _strings: Vec<std::ffi::CString>,
}

impl Pointers {
    /// EINVAL for a string that holds a NUL.
    pub fn new(strings: Vec<String>) -> Result<Pointers> {
        let strings: std::result::Result<Vec<_>, _> = strings.into_iter().map(std::ffi::CString::new).collect();
        let strings = strings.map_err(|_| Errno::INVAL)?;
        let mut raw: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        raw.push(std::ptr::null());
        Ok(Pointers { raw, _strings: strings })
    }
}

/// The next of all signals, which must be blocked; 0 if there was none.
pub fn next_signal() -> i32 {
    let set = u64::MAX;
    let (information, timeout) = (std::ptr::null_mut::<u8>(), std::ptr::null::<u8>());
    // SAFETY: the set is the kernel's eight bytes; NULL asks for no details and no limit.
    let signal = unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &raw const set, information, timeout, 8usize) };
    signal.max(0) as i32
}

/// kill(2), to a process that may be gone.
pub fn send_signal(pid: libc::pid_t, signal: i32) {
    // SAFETY: takes numbers.
    unsafe { libc::kill(pid, signal) };
}

/// A child that has ended, with its wait(2) status.
pub fn reap_one() -> Option<(libc::pid_t, i32)> {
    let mut status = 0;
    // SAFETY: writes the live integer.
    let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
    (pid > 0).then_some((pid, status))
}

/// Where the heap was when [`mark_heap`] was called.
static HEAP: AtomicUsize = AtomicUsize::new(0);
const PAGE: usize = 4096;

/// Marks the heap as it is: whatever is allocated later lies above a block of two pages that is never freed.
pub fn mark_heap() {
    let guard: &'static mut [u8] = Box::leak(vec![0; 2 * PAGE].into_boxed_slice());
    HEAP.store(guard.as_ptr().addr().next_multiple_of(PAGE), Ordering::Relaxed);
}

/// Gives back every page of the heap since the mark, with what it held. Nothing may be allocated, freed or read of it
/// afterwards; what was allocated before the mark stays.
pub fn discard_heap() {
    let start = HEAP.load(Ordering::Relaxed);
    // SAFETY: sbrk(0) only asks.
    let end = unsafe { libc::sbrk(0) }.addr();
    if start != 0 && end > start {
        let pointer = std::ptr::without_provenance_mut(start);
        // SAFETY: private anonymous memory of ours, which the caller promises not to touch again.
        unsafe { libc::madvise(pointer, end - start, libc::MADV_DONTNEED) };
    }
}

/// _exit(2): nothing is flushed or freed.
pub fn end(code: i32) -> ! {
    // SAFETY: takes a number.
    unsafe { libc::_exit(code) }
}

/// setrlimit(2).
pub fn set_rlimit(resource: libc::__rlimit_resource_t, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit { rlim_cur: soft, rlim_max: hard };
    // SAFETY: reads the live struct.
    check(unsafe { libc::setrlimit(resource, &raw const limit) })
}

/// personality(2).
pub fn personality(domain: libc::c_ulong) -> Result<()> {
    // SAFETY: takes a number.
    check(unsafe { libc::personality(domain) })
}

/// ioprio_set(2) of this process.
pub fn io_priority(priority: i32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: takes numbers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, priority) } as i32)
}

/// sched_setattr(2) of this process.
pub fn scheduler(attributes: &libc::sched_attr) -> Result<()> {
    let pointer: *const libc::sched_attr = attributes;
    // SAFETY: the struct is live and carries its own size.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, pointer, 0) } as i32)
}

/// Brings the loopback interface of this network namespace up.
pub fn loopback_up() -> Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: ifreq is plain data; zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
}

fn check(answer: i32) -> Result<()> {
    if answer < 0 { Err(last()) } else { Ok(()) }
}

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
