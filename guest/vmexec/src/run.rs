//! `vmexec run`: a container and its first process.

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
use crate::pty::Terminal;
use crate::spec::{Linux, Mount, Spec};
use crate::sync::Sync;
use crate::{Ended, cgroup, devices, init, limits, masks, mounts, raw, root, sysctl};

/// What is left of the specification after the checks.
struct Container {
    root_path: String,
    readonly: bool,
    hostname: String,
    domainname: String,
    mounts: Vec<Mount>,
    linux: Linux,
    namespaces: Namespaces,
    cgroup: Option<String>,
}

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

fn check(spec: Spec) -> Result<(Container, Checked)> {
    let Spec { root, process, hostname, domainname, mounts, mut linux, annotations, .. } = spec;
    let namespaces = Namespaces::parse(&linux)?;
    let named = !hostname.is_empty() || !domainname.is_empty();
    if named && !namespaces.has(libc::CLONE_NEWUTS) {
        return Err(Failure::invalid("hostname", "it needs a uts namespace".into()));
    }
    let cgroup = if linux.cgroups_path.is_empty() { None } else { Some(cgroup::folder(&linux.cgroups_path)?) };
    let checked = Checked::new(process, &annotations, linux.personality.take())?;
    let (root_path, readonly) = (root.path, root.readonly);
    Ok((Container { root_path, readonly, hostname, domainname, mounts, linux, namespaces, cgroup }, checked))
}

impl Container {
    /// Makes the cgroup and clones into it and the namespaces; 0 in the container's first process.
    fn start(&self) -> Result<u32> {
        let resources = self.linux.resources.as_ref();
        let cgroup = self.cgroup.as_deref().map(|folder| cgroup::create(folder, resources)).transpose()?;
        self.namespaces.join(&self.linux.time_offsets)?;
        self.namespaces.clone(cgroup.as_ref())
    }

    /// Everything that makes it a container, in the order in which one needs the other.
    fn stand(&self, arguments: &Arguments, checked: &Checked, sync: &Sync) -> Result<(Option<Terminal>, Vec<Label>)> {
        umask(Mode::empty());
        let labels = Label::open(&checked.process)?;
        limits::oom_score(&checked.process)?;
        self.name()?;
        sysctl::write_all(&self.linux.sysctl)?;
        let root = root::prepare(&self.root_path, &self.linux.rootfs_propagation)?;
        let context = Context { root: &root, label: &self.linux.mount_label };
        let late = mounts::mount_all(&self.mounts, &context)?;
        devices::make_all(&root, &self.linux.devices)?;
        root::pivot(&root, &self.linux.rootfs_propagation)?;
        let terminal = self.terminal(arguments, checked, &root, sync)?;
        checked.make_cwd(&root)?;
        masks::mask(&self.linux.masked_paths)?;
        masks::make_readonly(&self.linux.readonly_paths)?;
        mounts::make_readonly(&late)?;
        if self.readonly {
            root::make_readonly(&root)?;
        }
        Ok((terminal, labels))
    }

    /// Names, and what else a new namespace starts without.
    fn name(&self) -> Result<()> {
        if self.namespaces.new_cgroup {
            raw::unshare(UnshareFlags::NEWCGROUP).at("namespaces", || "make the cgroup namespace".into())?;
        }
        if self.namespaces.new_network() {
            raw::loopback_up().at("namespaces", || "bring the loopback interface up".into())?;
        }
        if !self.hostname.is_empty() {
            rustix::system::sethostname(self.hostname.as_bytes()).at("hostname", || "set the hostname".into())?;
        }
        if !self.domainname.is_empty() {
            rustix::system::setdomainname(self.domainname.as_bytes()).at("hostname", || "set the domain".into())?;
        }
        Ok(())
    }

    fn terminal(&self, arguments: &Arguments, checked: &Checked, root: &Root, sync: &Sync) -> Result<Option<Terminal>> {
        if !checked.process.terminal {
            return Ok(None);
        }
        let terminal = Terminal::open(arguments.pty_size(checked.process.console_size), sync)?;
        terminal.bind_console(root)?;
        Ok(Some(terminal))
    }
}
