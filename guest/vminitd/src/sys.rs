//! System calls that no safe library offers. All of the agent's `unsafe` is here.

use std::io;
use std::mem::{MaybeUninit, size_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

// linux/fcntl.h, which libc has not for every C library
const F_SETSIG: i32 = 10;
const ASYNC: OFlags = OFlags::from_bits_retain(libc::O_ASYNC as _);

fn last_errno() -> Errno {
    Errno::from_raw_os_error(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

fn checked(result: i32) -> Result<i32, Errno> {
    if result < 0 { Err(last_errno()) } else { Ok(result) }
}

/// Blocks SIGCHLD and gives a descriptor that is readable when a child has ended; one that stops is not told of.
///
/// # Errors
/// As sigaction(2) and signalfd(2).
pub fn child_signals() -> Result<OwnedFd, Errno> {
    // SAFETY: all-zero is a valid sigaction: the default action, nothing blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_flags = libc::SA_NOCLDSTOP;
    // SAFETY: a valid action; the old one isn't asked for.
    checked(unsafe { libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut()) })?;
    let mut set = MaybeUninit::uninit();
    // SAFETY: sigemptyset initializes the whole set.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: initialized by the line above.
    let mut set: libc::sigset_t = unsafe { set.assume_init() };
    // SAFETY: a valid set and signal.
    unsafe { libc::sigaddset(&raw mut set, libc::SIGCHLD) };
    // SAFETY: a valid set; the old one isn't asked for.
    checked(unsafe { libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) })?;
    // SAFETY: a valid set; a new descriptor is asked for.
    let fd = checked(unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) })?;
    // SAFETY: signalfd gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// random(4): adds bytes to the pool, credited in full, and makes the generator start over from it.
///
/// # Errors
/// As the ioctls of random(4).
pub fn reseed(random: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
    const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
    const RNDRESEEDCRNG: libc::c_ulong = 0x5207;
    const HEAD: usize = 2 * size_of::<i32>();
    // struct rand_pool_info { int entropy_count (bits); int buf_size (bytes); __u32 buf[]; }, as words for its alignment.
    let mut info = vec![0_u32; (HEAD + bytes.len()).div_ceil(4)];
    info[0] = 8 * bytes.len() as u32;
    info[1] = bytes.len() as u32;
    for (word, chunk) in info[2..].iter_mut().zip(bytes.chunks(4)) {
        let mut four = [0; 4];
        four[..chunk.len()].copy_from_slice(chunk);
        *word = u32::from_ne_bytes(four);
    }
    // SAFETY: `info` is a rand_pool_info whose buffer is as long as it says.
    checked(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, info.as_ptr()) })?;
    // SAFETY: takes no argument.
    checked(unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) }).map(drop)
}

/// Lets each input that arrives at `fd` send `signal` to `process` (fcntl(2), "Managing signals").
///
/// # Errors
/// As fcntl(2).
pub fn signal_input(fd: BorrowedFd<'_>, process: i32, signal: i32) -> Result<(), Errno> {
    let number = fd.as_raw_fd();
    // SAFETY: takes a process's number.
    checked(unsafe { libc::fcntl(number, libc::F_SETOWN, process) })?;
    // SAFETY: takes a signal's number.
    checked(unsafe { libc::fcntl(number, F_SETSIG, signal) })?;
    fcntl_setfl(fd, fcntl_getfl(fd)? | ASYNC)
}

/// Undoes [`signal_input`].
///
/// # Errors
/// As fcntl(2).
pub fn unsignal_input(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    fcntl_setfl(fd, fcntl_getfl(fd)? - ASYNC)
}

fn interface(name: &str) -> Result<libc::ifreq, Errno> {
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One less: its end is a NUL.
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(Errno::NODEV);
    }
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = byte as libc::c_char;
    }
    Ok(request)
}

/// Whether the interface of that name is up (netdevice(7), SIOCGIFFLAGS); any socket will do.
///
/// # Errors
/// ENODEV.
pub fn is_up(socket: BorrowedFd<'_>, name: &str) -> Result<bool, Errno> {
    let mut request = interface(name)?;
    // SAFETY: SIOCGIFFLAGS reads and writes an ifreq.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) })?;
    // SAFETY: the kernel has set the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(libc::c_int::from(flags) & libc::IFF_UP != 0)
}

/// Gives an Ethernet interface the address `mac` (netdevice(7), SIOCSIFHWADDR).
///
/// # Errors
/// ENODEV; EBUSY, where the driver wants it down for that.
pub fn set_mac(socket: BorrowedFd<'_>, name: &str, mac: [u8; 6]) -> Result<(), Errno> {
    let mut request = interface(name)?;
    // SAFETY: all-zero is a valid sockaddr.
    let mut address: libc::sockaddr = unsafe { std::mem::zeroed() };
    address.sa_family = libc::ARPHRD_ETHER;
    for (to, byte) in address.sa_data.iter_mut().zip(mac) {
        *to = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_hwaddr = address;
    // SAFETY: SIOCSIFHWADDR reads an ifreq.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFHWADDR as _, &raw const request) }).map(drop)
}

/// adjtime(3) by adjtimex(2): CLOCK_REALTIME is slewed by `microseconds`, at 500 ppm.
///
/// # Errors
/// As adjtimex(2).
pub fn slew_clock(microseconds: i64) -> Result<(), Errno> {
    // SAFETY: all-zero is a valid timex.
    let mut timex: libc::timex = unsafe { std::mem::zeroed() };
    timex.modes = libc::ADJ_OFFSET_SINGLESHOT;
    timex.offset = microseconds;
    // SAFETY: a valid timex.
    checked(unsafe { libc::adjtimex(&raw mut timex) }).map(drop)
}

/// Forks. Sound because the agent has one thread.
///
/// # Errors
/// As fork(2).
pub fn fork() -> Result<i32, Errno> {
    // SAFETY: a single-threaded process may do anything in the child.
    checked(unsafe { libc::fork() })
}

/// Ends this process at once, without the exit handlers of the parent it was forked from.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Bytes that a pipe, socket or terminal holds for its reader.
pub fn readable_bytes(fd: BorrowedFd<'_>) -> usize {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes an int.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) };
    if result < 0 { 0 } else { usize::try_from(count).unwrap_or(0) }
}

fn vsock_address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: all-zero is a valid sockaddr_vm.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

/// Binds an AF_VSOCK socket to `port` at any address (vsock(7)).
///
/// # Errors
/// As bind(2).
pub fn vsock_bind(socket: BorrowedFd<'_>, port: u32) -> Result<(), Errno> {
    let address = vsock_address(libc::VMADDR_CID_ANY, port);
    let size = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: a valid address and its size.
    checked(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) }).map(drop)
}

/// Connects an AF_VSOCK socket to `port` of this VM, over the kernel's loopback.
///
/// # Errors
/// As connect(2).
pub fn vsock_connect(socket: BorrowedFd<'_>, port: u32) -> Result<(), Errno> {
    let address = vsock_address(libc::VMADDR_CID_LOCAL, port);
    let size = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: a valid address and its size.
    checked(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), size) }).map(drop)
}

/// kill(2) with any signal's number, real-time ones included.
///
/// # Errors
/// As kill(2).
pub fn kill(pid: rustix::process::Pid, signal: u32) -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    checked(unsafe { libc::kill(pid.as_raw_nonzero().get(), signal as libc::c_int) }).map(drop)
}

/// Closes every descriptor above 2 but those in `keep`. For a forked child only: the owners of the others are not asked.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) {
    let mut numbers: Vec<u32> = keep.iter().map(|fd| fd.as_raw_fd() as u32).collect();
    numbers.sort_unstable();
    let mut first: u32 = 3;
    for end in numbers.into_iter().chain([u32::MAX]) {
        if end > first {
            // SAFETY: the child ends by `exit_now` and so never uses what is closed here.
            unsafe { libc::syscall(libc::SYS_close_range, first, end - 1, 0) };
        }
        first = end.saturating_add(1);
    }
}
