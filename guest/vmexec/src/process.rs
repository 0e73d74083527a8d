//! `process`, inside a container that stands: from here on `run` and `exec` are the same.

use rustix::fs::{AtFlags, Gid, Mode, Uid, fchown, makedev, statat};
use rustix::io::Errno;
use rustix::process::{chdir, getcwd, getpid, getsid, setsid, umask};

use crate::caps::Sets;
use crate::exec::Program;
use crate::failure::{At, Failure, Result};
use crate::limits;
use crate::lsm::Label;
use crate::paths::Root;
use crate::pty::{Size, Terminal};
use crate::raw;
use crate::seccomp::Filter;
use crate::spec::{Annotations, Personality, Process};
use crate::sync::Sync;
use crate::user::{self, Identity};

/// umask(2) where `process.user.umask` is absent (runc's and crun's).
const DEFAULT_UMASK: u32 = 0o022;
const CAP_SYS_ADMIN: u64 = 1 << 21;
/// The caller's socket at exec; nothing is open above it.
const SYNC_FD: i32 = 3;

/// What was checked before anything was made.
pub struct Checked {
    pub process: Process,
    pub caps: Sets,
    pub filter: Option<Filter>,
    pub personality: Option<Personality>,
    pub groups: String,
    pub want_home: bool,
}

impl Checked {
    /// Reads all that can be refused by looking at it.
    pub fn new(process: Process, annotations: &Annotations, personality: Option<Personality>) -> Result<Checked> {
        let caps = Sets::parse(process.capabilities.as_ref())?;
        let filter = Filter::parse(annotations)?;
        let has_home = process.env.iter().any(|variable| variable.starts_with("HOME="));
        let want_home = annotations.env_home == "1" && !has_home;
        Ok(Checked { process, caps, filter, personality, groups: annotations.group_add.clone(), want_home })
    }

    /// Opens the terminal asked for, of the size that the caller gives, else of `process.consoleSize`.
    pub fn terminal(&self, given: Option<Size>, sync: &Sync) -> Result<Option<Terminal>> {
        let size = given.or(self.process.console_size.map(|size| (size.width, size.height)));
        self.process.terminal.then(|| Terminal::open(size, sync)).transpose()
    }

    /// Makes `process.cwd` if it is missing.
    pub fn make_cwd(&self, root: &Root) -> Result<()> {
        if self.process.cwd == "/" {
            return Ok(());
        }
        root.make_dir(&self.process.cwd).at("cwd", || format!("make {}", self.process.cwd))?;
        Ok(())
    }

    /// Who it runs as, by the files of the root that this process is in.
    pub fn identity(&self) -> Result<Identity> {
        user::resolve(&self.process.user, &self.groups, self.want_home)
    }

    /// For an init: what the program will have after its exec.
    pub fn drop_privileges(&self, identity: &Identity) -> Result<()> {
        drop_to(&self.caps.after_exec(identity.uid), identity, 0)
    }

    /// The last steps: comes back only with why the program does not run, or without a failure if the caller gave up.
    pub fn launch(
        mut self,
        identity: Identity,
        terminal: Option<Terminal>,
        labels: Vec<Label>,
        sync: Sync,
    ) -> (Sync, Option<Failure>) {
        let privileged_filter = self.filter.is_some() && !self.process.no_new_privileges;
        // Without no_new_privs the filter needs CAP_SYS_ADMIN, and only capset(2) comes after it.
        let also = if privileged_filter { CAP_SYS_ADMIN } else { 0 };
        if let Err(failure) = self.settle(&identity, terminal, labels, also) {
            return (sync, Some(failure));
        }
        if self.want_home {
            let home = identity.home.as_deref().unwrap_or("/");
            self.process.env.push(format!("HOME={home}"));
        }
        let program = match Program::new(self.process.args, self.process.env) {
            Ok(program) => program,
            Err(failure) => return (sync, Some(failure)),
        };
        // A program or folder below /proc/self/fd must not lead out of the container by what vmexec had open.
        let sync = match sync.alone(SYNC_FD) {
            Ok(sync) => sync,
            Err((sync, failure)) => return (sync, Some(failure)),
        };
        match sync.ready() {
            Ok(true) => {}
            Ok(false) => return (sync, None),
            Err(failure) => return (sync, Some(failure)),
        }
        let confined = self.filter.map_or(Ok(()), |filter| filter.install());
        let confined = confined.and_then(|()| if also != 0 { self.caps.drop_to(0) } else { Ok(()) });
        let failure = confined.err().unwrap_or_else(|| program.execute());
        (sync, Some(failure))
    }

    fn settle(&self, identity: &Identity, terminal: Option<Terminal>, labels: Vec<Label>, also: u64) -> Result<()> {
        limits::apply(&self.process, self.personality.as_ref())?;
        lead_session()?;
        match terminal {
            Some(terminal) => {
                terminal.give_to(identity.uid)?;
                terminal.take()?;
            }
            None if identity.uid != 0 => own_stdio(identity.uid)?,
            None => {}
        }
        // As root first: a folder that the user can't reach may still be given to it; else as the user, for file
        // systems that trust no root.
        let early = self.enter_cwd();
        drop_to(&self.caps, identity, also)?;
        if early.is_err() {
            self.enter_cwd()?;
        }
        umask(Mode::from_raw_mode(self.process.user.umask.unwrap_or(DEFAULT_UMASK)));
        for label in labels {
            label.set()?;
        }
        if self.process.no_new_privileges {
            raw::prctl(libc::PR_SET_NO_NEW_PRIVS, 1).at("no_new_privs", || "set it".into())?;
        }
        Ok(())
    }

    fn enter_cwd(&self) -> Result<()> {
        let at = || format!("enter {}", self.process.cwd);
        chdir(self.process.cwd.as_str()).at("cwd", at)?;
        // The kernel's name of a folder out of the root begins with "(unreachable)" (getcwd(2)).
        let reached = getcwd(Vec::new()).at("cwd", at)?;
        if reached.as_bytes().first() != Some(&b'/') {
            return Err(Failure::system("cwd", Errno::XDEV, &at()));
        }
        Ok(())
    }
}

/// A session of its own, which a parked process has already.
pub fn lead_session() -> Result<()> {
    match setsid() {
        Err(Errno::PERM) if getsid(None) == Ok(getpid()) => Ok(()),
        answer => answer.map(drop).at("session", || "start a session".into()),
    }
}

/// User and capabilities, for good; `also` are capabilities for the steps left.
fn drop_to(caps: &Sets, identity: &Identity, also: u64) -> Result<()> {
    caps.bound()?;
    user::become_user(identity)?;
    caps.apply(also)
}

/// Pipes are the user's, so that it may open /dev/stdout by name; shared things like /dev/null are left.
fn own_stdio(uid: u32) -> Result<()> {
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let at = || format!("give {fd:?} to the user");
        let stat = statat(fd, "", AtFlags::EMPTY_PATH).at("stdio", at)?;
        if stat.st_uid == uid || stat.st_rdev == makedev(1, 3) {
            continue;
        }
        match fchown(fd, Some(Uid::from_raw(uid)), None::<Gid>) {
            Ok(()) | Err(Errno::INVAL | Errno::PERM | Errno::ROFS) => {}
            Err(errno) => return Err(Failure::system("stdio", errno, &at())),
        }
    }
    Ok(())
}
