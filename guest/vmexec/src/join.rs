//! `vmexec exec`: a further process in a container that runs.

use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::arguments::Arguments;
use crate::failure::{At, Failure, Result};
use crate::lsm::Label;
use crate::namespaces::{Joined, pid_outside};
use crate::paths::Root;
use crate::process::Checked;
use crate::pty::Terminal;
use crate::spec::ExecSpec;
use crate::sync::Sync;
use crate::{Ended, cgroup, limits, raw};

/// Comes back in the process that the caller started, and where it failed.
pub fn exec(arguments: &Arguments, init: i32, spec: ExecSpec, sync: Sync) -> Ended {
    let started = Checked::new(spec.process, &spec.annotations, None).and_then(|checked| start(init, checked));
    let (checked, joined) = match started {
        Ok(Some(both)) => both,
        Ok(None) => return Ended::Code(0),
        Err(failure) => return Ended::failed(sync, failure),
    };
    let entered = enter(arguments, &checked, &joined, &sync);
    drop(joined);
    match entered.and_then(|(terminal, labels)| Ok((checked.identity()?, terminal, labels))) {
        Ok((identity, terminal, labels)) => Ended::launched(checked.launch(identity, terminal, labels, sync)),
        Err(failure) => Ended::failed(sync, failure),
    }
}

/// None in the process that the caller started.
fn start(init: i32, checked: Checked) -> Result<Option<(Checked, Joined)>> {
    let cgroup = cgroup::of_process(init)?;
    let joined = Joined::open(init)?;
    let flags = libc::CLONE_PARENT as u64;
    let cgroup = cgroup.as_ref().map(std::os::fd::AsFd::as_fd);
    let pid = raw::clone(flags, cgroup).map_err(|errno| Failure::system("join", errno, "clone"))?;
    Ok((pid == 0).then_some((checked, joined)))
}

fn enter(
    arguments: &Arguments,
    checked: &Checked,
    joined: &Joined,
    sync: &Sync,
) -> Result<(Option<Terminal>, Vec<Label>)> {
    sync.pid(pid_outside()?)?;
    let labels = Label::open(&checked.process)?;
    limits::oom_score(&checked.process)?;
    joined.enter()?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    checked.make_cwd(&Root::new(openat(CWD, "/", flags, Mode::empty()).at("join", || "open the root".into())?))?;
    Ok((checked.terminal(arguments.pty, sync)?, labels))
}
