//! Containers: where they are, and their control groups.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::agent::Agent;
use crate::boot::{CGROUPS, CONTAINERS};
use crate::failure::{Context, Failure, Result};

const MAX_ID: usize = 64;
/// What stands for the id of the parked container, and names its control group. It is no id.
pub const PARKED: &str = "+parked";

/// A container that was not deleted.
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its control group: its own, or the parked container's that it took.
    pub cgroup: PathBuf,
    /// The kernel's count of OOM kills in it, as last seen.
    pub oom_kills: u64,
}

/// Checks an id of a container or process: it becomes part of paths.
///
/// # Errors
/// EINVAL.
pub fn check_id(id: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if (1..=MAX_ID).contains(&id.len()) && id.bytes().all(allowed) && id != "." && id != ".." {
        return Ok(());
    }
    Err(Failure::new("id", Errno::INVAL, format!("{id:?} is no id")))
}

/// The control group of a container of that id.
pub fn cgroup(id: &str) -> PathBuf {
    PathBuf::from([CGROUPS, "/", id].concat())
}

/// A container's folder of the agent's.
pub fn folder(id: &str) -> PathBuf {
    PathBuf::from([CONTAINERS, "/", id].concat())
}

/// The value of a line of a flat keyed file: `oom_kill 3`.
pub fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

impl Container {
    /// A container that has had no OOM kill yet.
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), cgroup: cgroup(id), oom_kills: 0 }
    }

    /// Whether the kernel killed for memory since this was last asked.
    pub fn had_oom_kill(&mut self) -> bool {
        let events = fs::read_to_string(self.cgroup.join("memory.events")).unwrap_or_default();
        let count = keyed(&events, "oom_kill").unwrap_or(0);
        count > std::mem::replace(&mut self.oom_kills, count)
    }
}

impl Agent {
    /// The control group of a container.
    pub fn cgroup(&self, id: &str) -> PathBuf {
        let known = self.containers.iter().find(|container| container.id == id);
        known.map_or_else(|| cgroup(id), |container| container.cgroup.clone())
    }
}

/// Sends SIGKILL to everything in the control group.
///
/// # Errors
/// As the kernel's cgroup.kill.
pub fn kill_all(cgroup: &Path) -> Result<()> {
    fs::write(cgroup.join("cgroup.kill"), "1").context("kill", &cgroup.to_string_lossy())
}

/// Pids of everything in the control group, its inner ones included.
pub fn pids(cgroup: &Path) -> Vec<i32> {
    let mut found = Vec::new();
    let mut folders = vec![cgroup.to_owned()];
    while let Some(path) = folders.pop() {
        let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
        folders.extend(subfolders(&path));
    }
    found
}

fn subfolders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

/// Removes the control group, inner ones first. EBUSY while something lives in it.
///
/// # Errors
/// As rmdir(2); a group that is not there is removed.
pub fn remove_cgroup(cgroup: &Path) -> std::result::Result<(), Errno> {
    let mut list = vec![cgroup.to_owned()];
    let mut at = 0;
    while at < list.len() {
        let inner = subfolders(&list[at]);
        list.extend(inner);
        at += 1;
    }
    for path in list.iter().rev() {
        match rustix::fs::rmdir(path) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// Lets go of everything mounted below the container's folder, and of the folder.
pub fn remove_folder(id: &str) {
    let folder = folder(id);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for line in mounts.lines().rev() {
        // proc_pid_mountinfo(5): the fifth field is the mount point. Ids hold nothing that would be escaped in it.
        if let Some(path) = line.split(' ').nth(4).filter(|path| PathBuf::from(path).starts_with(&folder)) {
            // Detached: whatever is busy goes when its last user does.
            let _ = unmount(path, UnmountFlags::DETACH);
        }
    }
    // Only empty folders and the agent's own small files are left; what isn't is in tmpfs and harms nobody.
    let _ = fs::remove_dir_all(&folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_are_paths_are_refused() {
        for wrong in ["", ".", "..", "a/b", "a\0", "é", &"x".repeat(65)] {
            assert!(check_id(wrong).is_err(), "{wrong:?}");
        }
        assert!(check_id("web-1_a.b").is_ok());
    }

    #[test]
    fn keyed_files_are_read() {
        let text = "low 0\noom 2\noom_kill 3\noom_group_kill 0\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom_kil"), None);
    }
}
