//! `linux.maskedPaths` and `linux.readonlyPaths`, below the root that this process is in.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, FileType, StatxFlags, statx};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};

use crate::failure::{At, Failure, Result};
use crate::raw;

/// Hides each path: a file behind /dev/null, a folder behind an empty read-only tmpfs. What isn't there is passed over.
pub fn mask(paths: &[String]) -> Result<()> {
    if paths.is_empty() {
        return Ok(());
    }
    check_null()?;
    for path in paths {
        match mount("/dev/null", path.as_str(), "", MountFlags::BIND, None) {
            Err(Errno::NOTDIR) if is_dir(path) => {
                mount("tmpfs", path.as_str(), "tmpfs", MountFlags::RDONLY, None)
                    .at("masks", || format!("mask {path}"))?;
            }
            // A path through a file does not exist either.
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(Failure::system("masks", errno, &format!("mask {path}"))),
        }
    }
    Ok(())
}

/// Makes each path read-only, with what is mounted below it left as it is.
pub fn make_readonly(paths: &[String]) -> Result<()> {
    for path in paths {
        let at = || format!("make {path} read-only");
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = match open_tree(CWD, path.as_str(), flags) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            tree => tree.at("masks", at)?,
        };
        raw::mount_setattr(tree.as_fd(), false, libc::MOUNT_ATTR_RDONLY, 0).at("masks", at)?;
        move_mount(
            &tree,
            "",
            CWD,
            path.as_str(),
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS,
        )
        .at("masks", at)?;
    }
    Ok(())
}

/// An image that has something else as its /dev/null would choose what a masked path shows.
fn check_null() -> Result<()> {
    let stat =
        statx(CWD, "/dev/null", AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE).at("masks", || "stat /dev/null".into())?;
    let kind = FileType::from_raw_mode(u32::from(stat.stx_mode));
    if kind != FileType::CharacterDevice || (stat.stx_rdev_major, stat.stx_rdev_minor) != (1, 3) {
        return Err(Failure::invalid("masks", "/dev/null is not the null device".into()));
    }
    Ok(())
}

fn is_dir(path: &str) -> bool {
    statx(CWD, path, AtFlags::empty(), StatxFlags::TYPE)
        .is_ok_and(|stat| FileType::from_raw_mode(u32::from(stat.stx_mode)) == FileType::Directory)
}
