//! `dev.firkin.init`: a PID 1 that does what a program as PID 1 does not: forwards signals and reaps.
//!
//! It lives as long as the container, so it keeps nothing: the specification is freed, the heap given back, and from then
//! on it runs on its stack.

use crate::failure::{Failure, Result, SETUP};
use crate::raw;

/// Forks with all signals blocked: 0 in the child that becomes the program, its pid in the init.
pub fn split() -> Result<u32> {
    // A blocked signal is queued even for a PID 1 that has no handler for it; an unblocked one would be thrown away
    // (kernel/signal.c, sig_ignored).
    raw::block_signals(true);
    // In a shared pid namespace orphans come here only if asked for.
    raw::prctl(libc::PR_SET_CHILD_SUBREAPER, 1).map_err(|errno| Failure::system("init", errno, "adopt orphans"))?;
    raw::clone(0, None).map_err(|errno| Failure::system("init", errno, "fork"))
}

/// Waits for `main` and all orphans, and ends with main's exit code, 128+n for a signal. Not `sound`: main is killed.
pub fn watch(main: u32, sound: bool) -> ! {
    let main = main as libc::pid_t;
    if !sound {
        raw::send_signal(main, libc::SIGKILL);
        raw::end(SETUP.into());
    }
    // No descriptor is its own: an end of a pipe held here would keep the reader from the end of the output.
    let _ = raw::close_from(0, false);
    raw::discard_heap();
    loop {
        let signal = raw::next_signal();
        if signal == libc::SIGCHLD {
            if let Some(code) = reap(main) {
                raw::end(code);
            }
        } else if signal > 0 {
            raw::send_signal(main, signal);
        }
    }
}

fn reap(main: libc::pid_t) -> Option<i32> {
    loop {
        let (pid, status) = raw::reap_one()?;
        if pid == main {
            return Some(exit_code(status));
        }
    }
}

fn exit_code(status: i32) -> i32 {
    if libc::WIFSIGNALED(status) { 128 + libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}

#[cfg(test)]
mod tests {
    use super::exit_code;

    #[test]
    fn statuses_of_wait() {
        assert_eq!(exit_code(0), 0);
        assert_eq!(exit_code(7 << 8), 7);
        assert_eq!(exit_code(libc::SIGTERM), 143);
        assert_eq!(exit_code(libc::SIGSEGV | 0x80), 139);
    }
}
