//! vmexec turns an OCI runtime specification into a process: `run` makes a container and its first process, `park` does
//! so in two steps, `exec` makes a further process in one that runs. docs/internals.md fixes how the agent calls it; README.md says what it understands.
//!
//! One thread, plain system calls, no runtime of its own: under software emulation every distinct code path costs.

#![allow(missing_docs, reason = "a program: the modules say what they are for, the specification what its fields mean")]

pub mod arguments;
pub mod caps;
pub mod cgroup;
pub mod copy_up;
pub mod devices;
pub mod exec;
pub mod failure;
pub mod files;
pub mod init;
pub mod join;
pub mod limits;
pub mod lsm;
pub mod masks;
pub mod mounts;
pub mod namespaces;
pub mod options;
pub mod park;
pub mod paths;
pub mod process;
pub mod pty;
pub mod raw;
pub mod resources;
pub mod root;
pub mod run;
pub mod seccomp;
pub mod spec;
pub mod sync;
pub mod sysctl;
pub mod user;

use arguments::{Arguments, Verb};
use failure::{At, Failure, Result};
use spec::{ExecSpec, Spec};
use sync::Sync;

/// How a process of vmexec ended without becoming the program.
pub enum Ended {
    /// With this exit code, and nothing to tell.
    Code(i32),
    /// By a failure that the caller is told.
    Failed(Sync, Failure),
}

impl Ended {
    fn failed(sync: Sync, failure: Failure) -> Ended {
        Ended::Failed(sync, failure)
    }

    /// A caller that gave up hears nothing.
    fn launched((sync, failure): (Sync, Option<Failure>)) -> Ended {
        failure.map_or(Ended::Code(failure::SETUP.into()), |failure| Ended::Failed(sync, failure))
    }
}

/// The whole program; the answer is its exit code.
pub fn main(words: impl Iterator<Item = String>) -> i32 {
    raw::mark_heap();
    let started = Arguments::parse(words).and_then(|arguments| Ok((socket(&arguments)?, arguments)));
    let (sync, arguments) = match started {
        Ok(both) => both,
        // Nobody to tell but a person who typed it.
        Err(failure) => {
            eprintln!("vmexec: {}", failure.message);
            return failure.exit_code.into();
        }
    };
    match work(&arguments, sync) {
        Ended::Code(code) => code,
        Ended::Failed(sync, failure) => {
            sync.failed(&failure);
            failure.exit_code.into()
        }
    }
}

fn socket(arguments: &Arguments) -> Result<Sync> {
    raw::adopt(arguments.sync_fd).map(Sync).at("arguments", || "take --sync-fd".into())
}

fn work(arguments: &Arguments, sync: Sync) -> Ended {
    let json = match prepare(arguments) {
        Ok(json) => json,
        Err(failure) => return Ended::failed(sync, failure),
    };
    let read = match arguments.verb {
        Verb::Run | Verb::Park => Spec::parse(&json).map(|spec| (Some(spec), None)),
        Verb::Exec { .. } => ExecSpec::parse(&json).map(|spec| (None, Some(spec))),
    };
    drop(json);
    match (read, &arguments.verb) {
        (Ok((Some(spec), _)), Verb::Park) => park::park(spec, sync),
        (Ok((Some(spec), _)), _) => run::run(arguments, spec, sync),
        (Ok((_, Some(spec))), Verb::Exec { init }) => join::exec(arguments, *init, spec, sync),
        (Ok(_), _) => Ended::Code(failure::SETUP.into()),
        (Err(failure), _) => Ended::failed(sync, failure),
    }
}

/// Leaves behind what the caller's process had, and reads the specification.
fn prepare(arguments: &Arguments) -> Result<Vec<u8>> {
    // A container's root may look at processes that enter it: not at the memory and the binary of this one (proc(5)).
    raw::prctl(libc::PR_SET_DUMPABLE, 0).at("process", || "hide from ptrace".into())?;
    raw::reset_signals();
    let spec = raw::adopt(arguments.spec_fd).at("arguments", || "take --spec-fd".into())?;
    raw::close_from(3, true).at("process", || "close what the caller had open".into())?;
    files::read_all(&spec, spec::MAX_BYTES).at("spec", || "read it".into())
}
