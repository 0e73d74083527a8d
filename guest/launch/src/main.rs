//! `launch`, which runs on the host: a child of Firkin's becomes QEMU, or a helper of its.
//!
//! `launch --parent PID [--limit NAME=VALUE]... [--user ID [--groups ID,...]] [--no-new-privs] [--no-huge-pages]
//! [--file PATH] [--preload PATH] -- PROGRAM [ARGUMENT]...`
//!
//! It waits on standard input for the word that its control groups are set, and leaves /dev/null there. What setpriv(1),
//! prlimit(1) and a shell do in three programs takes one that is static a third of the time (`python -m bench launch_ms`).

mod options;
mod sys;

use std::os::fd::IntoRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read};
use rustix::process::{Pid, Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setrlimit};
use rustix::stdio::{dup2_stdin, stdin};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use crate::options::{Options, User};

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => return failed(&wrong, 125),
    };
    // Before the user changes, who may have no way to them.
    let mut command = match command(&options) {
        Ok(command) => command,
        Err((path, errno)) => return failed(&format!("can't run {path}: {errno}"), 127),
    };
    match settle(&options) {
        Ok(true) => {}
        // The owner died before its death was our signal, or gave up.
        Ok(false) => return ExitCode::from(1),
        Err((doing, errno)) => return failed(&format!("can't {doing}: {errno}"), 125),
    }
    let error = command.exec();
    failed(&format!("can't run {}: {error}", options.program), 127)
}

/// What is run. Files are opened for it, and stay open: by descriptor no path has to be searched.
fn command(options: &Options) -> Result<Command, (&str, Errno)> {
    let opened = |path, flags| match open(path, flags, Mode::empty()) {
        Ok(file) => Ok(format!("/proc/self/fd/{}", file.into_raw_fd())),
        Err(errno) => Err((path, errno)),
    };
    let mut command = match &options.file {
        // The program itself is the kernel's to read.
        Some(path) => Command::new(opened(path.as_str(), OFlags::PATH | OFlags::CLOEXEC)?),
        None => Command::new(&options.program),
    };
    if let Some(path) = &options.preload {
        command.env("LD_PRELOAD", opened(path.as_str(), OFlags::RDONLY)?);
    }
    command.arg0(&options.program).args(&options.arguments);
    Ok(command)
}

fn failed(why: &str, code: u8) -> ExitCode {
    eprintln!("launch: {why}");
    ExitCode::from(code)
}

/// All but the exec; false: nobody waits for the program any more.
fn settle(options: &Options) -> Result<bool, (&'static str, Errno)> {
    let doing = |what: &'static str| move |errno| (what, errno);
    // Before the user changes: a hard limit of this process may be below what another user's default is.
    for (resource, value) in &options.limits {
        limit(*resource, *value).map_err(doing("set a limit"))?;
    }
    if let Some(user) = &options.user {
        become_user(user).map_err(doing("change the user"))?;
    }
    if options.no_new_privs {
        set_no_new_privs(true).map_err(doing("give up new privileges"))?;
    }
    if options.no_huge_pages {
        sys::no_huge_pages().map_err(doing("do without huge pages"))?;
    }
    // After the user, whose change clears it.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(doing("die with the parent"))?;
    if getppid().map(Pid::as_raw_pid) != Some(options.parent) {
        return Ok(false);
    }
    // A file that meets its limit is an error of the write, not the end of the process.
    sys::ignore_file_size_signal().map_err(doing("ignore a signal"))?;
    let told = loop {
        match read(stdin(), &mut [0; 1][..]) {
            Err(Errno::INTR) => {}
            count => break count.map_err(doing("wait"))? == 1,
        }
    };
    let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(doing("open /dev/null"))?;
    dup2_stdin(null).map_err(doing("open /dev/null"))?;
    Ok(told)
}

fn limit(resource: Resource, value: u64) -> rustix::io::Result<()> {
    setrlimit(resource, Rlimit { current: Some(value), maximum: Some(value) })
}

/// A program of one thread: its only thread's ids are the process's.
fn become_user(user: &User) -> rustix::io::Result<()> {
    set_thread_groups(&user.groups)?;
    set_thread_res_gid(user.gid, user.gid, user.gid)?;
    set_thread_res_uid(user.uid, user.uid, user.uid)
}
