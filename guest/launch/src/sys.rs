//! System calls that no safe library offers. All `unsafe` of this program is here.

use rustix::io::Errno;

fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// prctl(2), PR_SET_THP_DISABLE: of this process and what it becomes.
///
/// # Errors
/// As prctl(2).
pub fn no_huge_pages() -> Result<(), Errno> {
    // SAFETY: takes numbers only.
    let result = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1_u64, 0_u64, 0_u64, 0_u64) };
    if result < 0 { Err(last_errno()) } else { Ok(()) }
}

/// Ignores SIGXFSZ, which the program inherits.
///
/// # Errors
/// As sigaction(2).
pub fn ignore_file_size_signal() -> Result<(), Errno> {
    // SAFETY: no handler is installed.
    let result = unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    if result == libc::SIG_ERR { Err(last_errno()) } else { Ok(()) }
}
