//! The container's cgroup (version 2): made, limited, and handed to clone3(2) as a descriptor.

use std::os::fd::OwnedFd;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, mkdir, open};
use rustix::io::Errno;

use crate::failure::{At, Failure, Result};
use crate::files;
use crate::resources::{Resources, Setting};

/// Where the agent mounts the hierarchy (docs/internals.md).
const HIERARCHY: &str = "/sys/fs/cgroup";
const MAX_DEPTH: usize = 16;
/// The controllers that Firkin limits and counts by; a kernel may lack some.
const CONTROLLERS: [&str; 6] = ["cpu", "memory", "pids", "io", "cpuset", "hugetlb"];

/// The folder of `linux.cgroupsPath`, which is below the hierarchy's root whether it begins with `/` or not.
pub fn folder(path: &str) -> Result<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let bad = |part: &&str| matches!(*part, "." | "..") || part.contains('\0');
    if parts.is_empty() || parts.len() > MAX_DEPTH || parts.iter().any(bad) {
        return Err(Failure::invalid("cgroup", format!("linux.cgroupsPath {path:?} is not a path below {HIERARCHY}")));
    }
    Ok(format!("{HIERARCHY}/{}", parts.join("/")))
}

/// Makes the cgroup, or takes an empty one that is there, and sets its limits.
pub fn create(folder: &str, resources: Option<&Resources>) -> Result<OwnedFd> {
    make(folder)?;
    let cgroup = open_folder(folder)?;
    for setting in resources.map(Resources::settings).transpose()?.unwrap_or_default() {
        write(&cgroup, &setting)?;
    }
    Ok(cgroup)
}

fn write(cgroup: &OwnedFd, setting: &Setting) -> Result<()> {
    match (files::write_at(cgroup, &setting.file, setting.value.as_bytes()), &setting.otherwise) {
        (Err(Errno::NOENT), Some(otherwise)) => write(cgroup, otherwise),
        (answer, _) => answer.at("cgroup", || format!("write {:?} to {}", setting.value, setting.file)),
    }
}

/// The cgroup that a process is in; none for the root, which everything is in that was put nowhere else.
pub fn of_process(pid: i32) -> Result<Option<OwnedFd>> {
    let path = format!("/proc/{pid}/cgroup");
    let text = files::read_regular(&path, 1 << 16).at("join", || format!("read {path}"))?;
    // cgroups(7): version 2 is the line with hierarchy 0 and no controller.
    let line = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"));
    match line.map(std::str::from_utf8) {
        Some(Ok(place)) if place != "/" => open_folder(&format!("{HIERARCHY}{place}")).map(Some),
        _ => Ok(None),
    }
}

fn open_folder(folder: &str) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open(folder, flags, Mode::empty()).at("cgroup", || format!("open {folder}"))
}

/// mkdir -p, with the controllers passed on to each new level.
fn make(folder: &str) -> Result<()> {
    let mode = Mode::from_raw_mode(0o755);
    match mkdir(folder, mode) {
        Err(Errno::NOENT) if folder.len() > HIERARCHY.len() => {
            let (parent, _) = folder.rsplit_once('/').unwrap_or((HIERARCHY, ""));
            make(parent)?;
            pass_on(parent)?;
            mkdir(folder, mode).at("cgroup", || format!("make {folder}"))
        }
        Ok(()) => {
            let (parent, _) = folder.rsplit_once('/').unwrap_or((HIERARCHY, ""));
            if accessat(CWD, format!("{folder}/pids.max"), Access::EXISTS, AtFlags::empty()).is_ok() {
                return Ok(());
            }
            pass_on(parent)
        }
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(Failure::system("cgroup", errno, &format!("make {folder}"))),
    }
}

/// Enables what the parent has for its children.
fn pass_on(parent: &str) -> Result<()> {
    let at = |file: &str| format!("{parent}/{file}");
    let text = files::read_regular(&at("cgroup.controllers"), 4096).at("cgroup", || format!("read {parent}"))?;
    let text = String::from_utf8_lossy(&text);
    let has = |name: &&&str| text.split_whitespace().any(|word| word == **name);
    let wanted: Vec<String> = CONTROLLERS.iter().filter(has).map(|name| format!("+{name}")).collect();
    files::write(&at("cgroup.subtree_control"), wanted.join(" ").as_bytes())
        .at("cgroup", || format!("pass the controllers of {parent} on"))
}

#[cfg(test)]
mod tests {
    use super::folder;

    #[test]
    fn stays_below_the_hierarchy() {
        assert_eq!(folder("/firkin/a").unwrap(), "/sys/fs/cgroup/firkin/a");
        assert_eq!(folder("firkin//a/").unwrap(), "/sys/fs/cgroup/firkin/a");
        for path in ["", "/", "..", "/a/../b", "a/./b", "a\0"] {
            assert_eq!(folder(path).unwrap_err().stage, "cgroup", "{path:?}");
        }
    }
}
