//! `vmexec run`: a container and its first process.

use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::process::umask;
use rustix::thread::UnshareFlags;

use crate::arguments::Arguments;
use crate::failure::{At, Failure, Result};
use crate::lsm::Label;
use crate::mounts::Context;
use crate::namespaces::{Namespaces, pid_outside};
use crate::paths::Root;
use crate::process::Checked;
use crate::pty::{Size, Terminal};
use crate::spec::{Linux, Mount, Spec};
use crate::sync::Sync;
use crate::{Ended, cgroup, devices, init, limits, masks, mounts, raw, root, sysctl};

/// What is left of the specification after the checks.
pub struct Container {
    root_path: String,
    readonly: bool,
    names: Names,
    pub mounts: Vec<Mount>,
    linux: Linux,
    namespaces: Namespaces,
    cgroup: Option<String>,
}

/// `hostname` and `domainname`.
pub struct Names {
    host: String,
    domain: String,
}

/// What a standing container has for its program.
pub type Stood = (Option<Terminal>, Vec<Label>);

/// Comes back in the process that the caller started, in a container that failed, and in its init.
pub fn run(arguments: &Arguments, spec: Spec, sync: Sync) -> Ended {
    let with_init = spec.annotations.init == "1";
    let (container, checked) = match check(spec) {
        Ok(both) => both,
        Err(failure) => return Ended::failed(sync, failure),
    };
    match container.start() {
        Ok(0) => {}
        Ok(_) => return Ended::Code(0),
        Err(failure) => return Ended::failed(sync, failure),
    }
    let stood = pid_outside().and_then(|pid| sync.pid(pid)).and_then(|()| container.stand(arguments, &checked, &sync));
    drop(container);
    finish(stood, checked, with_init, sync)
}

/// Becomes the program in the container that stands, or the init beside it.
pub fn finish(stood: Result<Stood>, checked: Checked, with_init: bool, sync: Sync) -> Ended {
    let (terminal, labels) = match stood {
        Ok(stood) => stood,
        Err(failure) => return Ended::failed(sync, failure),
    };
    let identity = match checked.identity() {
        Ok(identity) => identity,
        Err(failure) => return Ended::failed(sync, failure),
    };
    if with_init {
        match init::split() {
            Ok(0) => {}
            Ok(main) => {
                let dropped = checked.drop_privileges(&identity);
                // Whatever keeps a pipe or the pty open would keep its reader waiting; the rest is secrets and memory.
                drop((checked, identity, terminal, labels, sync));
                init::watch(main, dropped.is_ok())
            }
            Err(failure) => return Ended::failed(sync, failure),
        }
    }
    raw::block_signals(false);
    Ended::launched(checked.launch(identity, terminal, labels, sync))
}

/// Sorts a specification into the container and the process, refusing what can be refused by looking.
pub fn check(spec: Spec) -> Result<(Container, Checked)> {
    let Spec { root, process, hostname, domainname, mounts, mut linux, annotations, .. } = spec;
    let namespaces = Namespaces::parse(&linux)?;
    let names = Names { host: hostname, domain: domainname };
    if !names.are_empty() && !namespaces.has(libc::CLONE_NEWUTS) {
        return Err(Failure::invalid("hostname", "it needs a uts namespace".into()));
    }
    let cgroup = if linux.cgroups_path.is_empty() { None } else { Some(cgroup::folder(&linux.cgroups_path)?) };
    let checked = Checked::new(process, &annotations, linux.personality.take())?;
    let (root_path, readonly) = (root.path, root.readonly);
    Ok((Container { root_path, readonly, names, mounts, linux, namespaces, cgroup }, checked))
}

impl Container {
    /// Makes the cgroup and clones into it and the namespaces; 0 in the container's first process.
    pub fn start(&self) -> Result<u32> {
        let resources = self.linux.resources.as_ref();
        let cgroup = self.cgroup.as_deref().map(|folder| cgroup::create(folder, resources)).transpose()?;
        self.namespaces.join(&self.linux.time_offsets)?;
        self.namespaces.clone(cgroup.as_ref())
    }

    /// Everything that makes it a container, in the order in which one needs the other.
    fn stand(&self, arguments: &Arguments, checked: &Checked, sync: &Sync) -> Result<Stood> {
        let labels = Label::open(&checked.process)?;
        limits::oom_score(&checked.process)?;
        let (root, late) = self.enter()?;
        let terminal = open_terminal(checked, arguments.pty, &root, sync)?;
        checked.make_cwd(&root)?;
        self.cover(&late)?;
        if self.readonly {
            root::make_readonly(&root)?;
        }
        Ok((terminal, labels))
    }

    /// Names, mounts, devices: then the root is the container's. The mounts are those to be made read-only by `cover`.
    pub fn enter(&self) -> Result<(Root, Vec<OwnedFd>)> {
        umask(Mode::empty());
        if self.namespaces.new_cgroup {
            raw::unshare(UnshareFlags::NEWCGROUP).at("namespaces", || "make the cgroup namespace".into())?;
        }
        if self.namespaces.new_network() {
            raw::loopback_up().at("namespaces", || "bring the loopback interface up".into())?;
        }
        self.names.set()?;
        sysctl::write_all(&self.linux.sysctl)?;
        let root = root::prepare(&self.root_path, &self.linux.rootfs_propagation)?;
        let context = Context { root: &root, label: &self.linux.mount_label };
        let late = mounts::mount_all(&self.mounts, &context)?;
        devices::make_all(&root, &self.linux.devices)?;
        root::pivot(&root, &self.linux.rootfs_propagation)?;
        Ok((root, late))
    }

    /// What must not be seen or written, once nothing of it is needed any more.
    pub fn cover(&self, late: &[OwnedFd]) -> Result<()> {
        masks::mask(&self.linux.masked_paths)?;
        masks::make_readonly(&self.linux.readonly_paths)?;
        mounts::make_readonly(late)
    }
}

impl Names {
    pub fn of(spec: &mut Spec) -> Names {
        Names { host: std::mem::take(&mut spec.hostname), domain: std::mem::take(&mut spec.domainname) }
    }

    fn are_empty(&self) -> bool {
        self.host.is_empty() && self.domain.is_empty()
    }

    /// Of the uts namespace that this process is in.
    pub fn set(&self) -> Result<()> {
        if !self.host.is_empty() {
            rustix::system::sethostname(self.host.as_bytes()).at("hostname", || "set the hostname".into())?;
        }
        if !self.domain.is_empty() {
            rustix::system::setdomainname(self.domain.as_bytes()).at("hostname", || "set the domain".into())?;
        }
        Ok(())
    }
}

/// The pty, as /dev/console too, of the root that this process is in.
pub fn open_terminal(checked: &Checked, size: Option<Size>, root: &Root, sync: &Sync) -> Result<Option<Terminal>> {
    let terminal = checked.terminal(size, sync)?;
    if let Some(terminal) = &terminal {
        terminal.bind_console(root)?;
    }
    Ok(terminal)
}
