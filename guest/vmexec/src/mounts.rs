//! `mounts`, in the order given, below the container's root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};
use rustix::process::fchdir;

use crate::copy_up;
use crate::failure::{At, Failure, Result};
use crate::options::{self, Options};
use crate::paths::{Root, clean, is_dir};
use crate::raw;
use crate::spec::Mount;

/// What mounts need to know of the rest of the specification.
pub struct Context<'a> {
    pub root: &'a Root,
    /// `linux.mountLabel`.
    pub label: &'a str,
}

/// Mounts all; the answer are those to be made read-only once everything is in its place.
pub fn mount_all(mounts: &[Mount], context: &Context<'_>) -> Result<Vec<OwnedFd>> {
    let mut readonly_later = Vec::new();
    for entry in mounts {
        let destination = clean(&entry.destination);
        refuse(entry, &destination)?;
        let options = Options::parse(&entry.options, &destination)?;
        readonly_later.extend(one(entry, &destination, options, context)?);
    }
    Ok(readonly_later)
}

/// Those that [`mount_all`] left writable.
pub fn make_readonly(mounts: &[OwnedFd]) -> Result<()> {
    for mount in mounts {
        raw::mount_setattr(mount.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0)
            .at("mount", || "make a tmpfs read-only".into())?;
    }
    Ok(())
}

fn refuse(entry: &Mount, destination: &str) -> Result<()> {
    let why = if destination == "/" || destination.contains('\0') {
        "is no place below the root"
    } else if !entry.uid_mappings.is_empty() || !entry.gid_mappings.is_empty() {
        "asks for an id-mapped mount, which is not supported"
    } else {
        return Ok(());
    };
    Err(Failure::invalid("mount", format!("destination {:?} {why}", entry.destination)))
}

fn one(entry: &Mount, destination: &str, mut options: Options, context: &Context<'_>) -> Result<Option<OwnedFd>> {
    if entry.kind == "bind" {
        options.flags |= libc::MS_BIND;
    }
    // The last mount point that is made may lie in a tmpfs that shall be read-only: that waits.
    let late = entry.kind == "tmpfs" && options.flags & libc::MS_RDONLY != 0 && options.flags & libc::MS_REMOUNT == 0;
    if late {
        options.flags &= !libc::MS_RDONLY;
    }
    if options.flags & libc::MS_REMOUNT != 0 {
        remount(entry, destination, &options, context.root)?;
    } else if options.is_bind() {
        bind(&entry.source, destination, &options, context.root)?;
    } else {
        fresh(entry, destination, &options, context)?;
        // A bind sets these on its tree before anyone sees it.
        if options.tree_set | options.tree_clear != 0 {
            let place = context.root.locate(destination).at("mount", || format!("find {destination}"))?;
            set_tree(place.as_fd(), &options, destination)?;
        }
    }
    for kind in &options.propagation {
        let place = context.root.locate(destination).at("mount", || format!("find {destination}"))?;
        raw::set_propagation(place.as_fd(), *kind).at("mount", || format!("set the propagation of {destination}"))?;
    }
    if late {
        return context.root.locate(destination).map(Some).at("mount", || format!("find {destination}"));
    }
    Ok(None)
}

/// A new mount of a file system.
fn fresh(entry: &Mount, destination: &str, options: &Options, context: &Context<'_>) -> Result<()> {
    let place = mount_point(context.root, destination, is_plain(&entry.kind))?;
    let kind = if entry.kind == "cgroup" { "cgroup2" } else { &entry.kind };
    let source = if entry.source.is_empty() { "none" } else { &entry.source };
    let data = labelled(kind, &options.data, context.label);
    let data = std::ffi::CString::new(data).map_err(|_| Failure::invalid("mount", "data with a NUL".into()))?;
    let flags = MountFlags::from_bits_retain(options.flags as u32);
    // By "." and not by the path: what was resolved inside the root is what is covered.
    fchdir(&place).at("mount", || format!("enter {destination}"))?;
    let data = (!data.is_empty()).then_some(data.as_c_str());
    mount(source, ".", kind, flags, data).at("mount", || format!("{kind} on {destination}"))?;
    if options.copy_up {
        let top = context.root.locate(destination).at("mount", || format!("find {destination}"))?;
        copy_up::copy(&place, &top).at("mount", || format!("copy what {destination} covers"))?;
    }
    Ok(())
}

/// Whether nothing on the way to a mount point may be a symlink: proc and sysfs are masked by path afterwards.
pub fn is_plain(kind: &str) -> bool {
    matches!(kind, "proc" | "sysfs")
}

/// The folder to mount on, made where it is missing.
pub fn mount_point(root: &Root, destination: &str, plain: bool) -> Result<OwnedFd> {
    let place = if plain { plain_dir(root, destination) } else { root.make_dir(destination) };
    place.at("mount", || format!("make {destination}"))
}

fn plain_dir(root: &Root, destination: &str) -> rustix::io::Result<OwnedFd> {
    match root.locate_plain(destination) {
        Err(Errno::NOENT) => {
            root.make_dir(destination)?;
            root.locate_plain(destination)
        }
        found => found,
    }
}

/// A bind mount: its attributes are set on the detached tree, so it is never there without them.
fn bind(source: &str, destination: &str, options: &Options, root: &Root) -> Result<()> {
    if !source.starts_with('/') {
        return Err(Failure::invalid("mount", format!("source {source:?} of {destination} is not absolute")));
    }
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if options.flags & libc::MS_REC != 0 {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    let tree = open_tree(CWD, source, flags).at("mount", || format!("bind {source}"))?;
    let (set, clear) = options::attributes(options);
    if set | clear != 0 {
        raw::mount_setattr(tree.as_fd(), false, set, clear).at("mount", || format!("set options of {destination}"))?;
    }
    set_tree(tree.as_fd(), options, destination)?;
    let folder = is_dir(tree.as_fd()).at("mount", || format!("stat {source}"))?;
    let place = if folder { root.make_dir(destination) } else { root.make_file(destination) };
    let place = place.at("mount", || format!("make {destination}"))?;
    if options.copy_up && folder {
        copy_up::fill(&place, &tree).at("mount", || format!("copy what {destination} covers"))?;
    }
    attach(tree.as_fd(), place.as_fd()).at("mount", || format!("{source} on {destination}"))
}

fn remount(entry: &Mount, destination: &str, options: &Options, root: &Root) -> Result<()> {
    let at = || format!("remount {destination}");
    let place = root.locate(destination).at("mount", at)?;
    if options.is_bind() {
        let (set, clear) = options::attributes(options);
        return raw::mount_setattr(place.as_fd(), false, set, clear).at("mount", at);
    }
    let flags = MountFlags::from_bits_retain(options.flags as u32);
    let data = std::ffi::CString::new(options.data.as_str()).unwrap_or_default();
    mount(entry.source.as_str(), proc_path(&place), entry.kind.as_str(), flags, data.as_c_str()).at("mount", at)
}

fn set_tree(tree: BorrowedFd<'_>, options: &Options, destination: &str) -> Result<()> {
    let (set, clear) = (options.tree_set, options.tree_clear);
    if set | clear == 0 {
        return Ok(());
    }
    raw::mount_setattr(tree, true, set, clear).at("mount", || format!("set options below {destination}"))
}

/// Attaches a detached tree at a place.
pub fn attach(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", place, "", flags)
}

/// SELinux's label of what is mounted, on the file systems that take one.
fn labelled(kind: &str, data: &str, label: &str) -> String {
    if label.is_empty() || matches!(kind, "proc" | "sysfs" | "cgroup2" | "mqueue") {
        return data.to_string();
    }
    let comma = if data.is_empty() { "" } else { "," };
    format!("{data}{comma}context=\"{label}\"")
}

/// The place, for system calls that take only a path; the agent's /proc is still in view.
fn proc_path(place: &OwnedFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", place.as_raw_fd())
}
