//! Waits for a control group to reach a state, which cgroup.events tells.

use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, pread};

use crate::agent::{Agent, Node};
use crate::call::done;
use crate::container::{self, keyed};
use crate::failure::{Context, Failure, Result};

/// What to do when the state is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Then {
    /// Answer the call.
    Answer,
    /// Go on with a Quiesce.
    Quiesced {
        /// Drop clean caches too.
        drop_caches: bool,
    },
    /// Remove what is left of a container.
    Remove {
        /// Its id.
        container: String,
    },
}

/// A wait.
pub struct Watch {
    fd: OwnedFd,
    key: &'static str,
    value: u64,
    call: u32,
    then: Then,
}

impl Agent {
    /// When `key` of the group's cgroup.events is `value`, does `then` for `call`.
    ///
    /// # Errors
    /// There is no such group.
    pub fn watch_cgroup(
        &mut self,
        path: &std::path::Path,
        key: &'static str,
        value: u64,
        call: u32,
        then: Then,
    ) -> Result<()> {
        let fd = open(path.join("cgroup.events"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let fd = fd.context("cgroup", &path.to_string_lossy())?;
        let token = self.insert(Node::Watch(Watch { fd, key, value, call, then }))?;
        if let Some(Node::Watch(watch)) = self.nodes.get(token) {
            self.watch(&watch.fd, token, EventFlags::PRI)?;
        }
        self.watch_event(token);
        Ok(())
    }

    /// The file may have changed.
    pub fn watch_event(&mut self, token: u32) {
        let Some(Node::Watch(watch)) = self.nodes.get(token) else { return };
        let mut buffer = [0; 256];
        let count = pread(&watch.fd, &mut buffer, 0).unwrap_or(0);
        let text = std::str::from_utf8(&buffer[..count]).unwrap_or_default();
        if count > 0 && keyed(text, watch.key) != Some(watch.value) {
            return;
        }
        let Some(Node::Watch(Watch { call, then, .. })) = self.nodes.remove(token) else { return };
        match then {
            Then::Answer => self.answer(call, Ok(done())),
            Then::Quiesced { drop_caches } => self.quiesced(call, drop_caches),
            Then::Remove { container } => self.remove_container(call, &container),
        }
    }

    /// Freezes a container; answered when all of it stands still.
    ///
    /// # Errors
    /// There is no such container.
    pub fn freeze(&mut self, call: u32, id: &str) -> Result<()> {
        container::check_id(id)?;
        let path = self.cgroup(id);
        std::fs::write(path.join("cgroup.freeze"), "1").context("freeze", id)?;
        self.watch_cgroup(&path, "frozen", 1, call, Then::Answer)
    }

    /// Lets a container go on.
    ///
    /// # Errors
    /// There is no such container.
    pub fn thaw(&mut self, call: u32, id: &str) -> Result<()> {
        container::check_id(id)?;
        let path = self.cgroup(id);
        std::fs::write(path.join("cgroup.freeze"), "0").context("thaw", id)?;
        self.watch_cgroup(&path, "frozen", 0, call, Then::Answer)
    }

    /// Removes what is left of a container whose first process is gone, once nothing lives in it.
    pub fn remove_container(&mut self, call: u32, id: &str) {
        let outcome = match container::remove_cgroup(&self.cgroup(id)) {
            Err(Errno::BUSY) => {
                // The kernel says "populated 0" a moment before rmdir agrees, when a zombie is left.
                Err(Failure::new("delete", Errno::BUSY, format!("something still lives in container {id}")))
            }
            Err(errno) => Err(errno).context("delete", id),
            Ok(()) => Ok(done()),
        };
        container::remove_folder(id);
        self.containers.retain(|container| container.id != id);
        self.answer(call, outcome);
    }

    /// Forgets a process that ended; for the first one its container goes too.
    ///
    /// # Errors
    /// It still runs.
    pub fn delete_process(&mut self, call: u32, token: u32) -> Result<()> {
        let Some(process) = self.processes.get(token) else { return Ok(()) };
        if process.pid != 0 {
            return Err(Failure::new("delete", Errno::BUSY, format!("process {} runs", process.id)));
        }
        let (container, first) = (process.container.clone(), process.id == crate::process::INIT);
        if !first {
            self.forget_process(token);
            self.answer(call, Ok(done()));
            return Ok(());
        }
        for token in self.processes.tokens(|process| process.container == container) {
            self.forget_process(token);
        }
        let path = self.cgroup(&container);
        if !path.exists() {
            self.remove_container(call, &container);
            return Ok(());
        }
        // Frozen processes die of cgroup.kill too.
        container::kill_all(&path)?;
        self.watch_cgroup(&path, "populated", 0, call, Then::Remove { container })
    }
}
