//! The container's root: what its mounts propagate to, and pivot_root(2).

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags, open, statx};
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount, open_tree, unmount,
};
use rustix::process::{fchdir, pivot_root};

use crate::failure::{At, Failure, Result};
use crate::options;
use crate::paths::Root;
use crate::raw;

/// Opens the root folder, a mount point from here on; `propagation` is `linux.rootfsPropagation`.
pub fn prepare(path: &str, propagation: &str) -> Result<Root> {
    // Private unless asked: pivot_root refuses shared mounts, and nothing of the container belongs in the agent's tree.
    let kind = match propagation {
        "" => libc::MS_PRIVATE | libc::MS_REC,
        name => options::propagation(name).ok_or_else(|| unknown(name))?,
    };
    change("/", kind & !(libc::MS_SHARED | libc::MS_UNBINDABLE) | private_where_pivot_needs_it(kind))?;
    let at = |doing: &'static str| move || format!("{doing} {path}");
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(path, flags, Mode::empty()).at("root", at("open"))?;
    let stat = statx(&root, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE).at("root", at("stat"))?;
    if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Ok(Root::new(root));
    }
    let tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let copy = open_tree(&root, "", tree | OpenTreeFlags::AT_EMPTY_PATH).at("root", at("clone"))?;
    let over = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&copy, "", CWD, path, over).at("root", at("mount"))?;
    Ok(Root::new(copy))
}

/// Makes `root` the root of this mount namespace and lets go of the old one.
pub fn pivot(root: &Root, propagation: &str) -> Result<()> {
    let at = |doing: &'static str| move || doing.to_string();
    fchdir(root.fd()).at("pivot_root", at("enter the root"))?;
    // Both on ".": the old root is stacked on the new one, so that no folder is needed for it (pivot_root(2), NOTES).
    pivot_root(".", ".").at("pivot_root", at("pivot"))?;
    unmount(".", UnmountFlags::DETACH).at("pivot_root", at("detach the old root"))?;
    rustix::process::chdir("/").at("pivot_root", at("enter the root"))?;
    match options::propagation(propagation) {
        Some(kind) if kind & (libc::MS_SHARED | libc::MS_UNBINDABLE) != 0 => change("/", kind),
        _ => Ok(()),
    }
}

/// `root.readonly`: the mount, not what is mounted below it.
pub fn make_readonly(root: &Root) -> Result<()> {
    raw::mount_setattr(root.fd(), false, libc::MOUNT_ATTR_RDONLY, 0).at("root", || "make the root read-only".into())
}

/// Sets the propagation (MS_SHARED and so on, MS_REC) of the mount at `path`.
pub fn change(path: &str, kind: libc::c_ulong) -> Result<()> {
    let flags = MountPropagationFlags::from_bits_retain(kind as u32);
    mount_change(path, flags).at("mount", || format!("set the propagation of {path}"))
}

/// Shared and unbindable are set on the new root after the pivot, which works on private mounts only.
fn private_where_pivot_needs_it(kind: libc::c_ulong) -> libc::c_ulong {
    if kind & (libc::MS_SHARED | libc::MS_UNBINDABLE) != 0 { libc::MS_PRIVATE } else { 0 }
}

fn unknown(name: &str) -> Failure {
    Failure::invalid("root", format!("linux.rootfsPropagation {name:?} is not known"))
}
