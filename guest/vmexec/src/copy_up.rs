//! `tmpcopyup`: a tmpfs, or an empty folder that is bound, that starts with the content of the folder it covers.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, mkdirat, mknodat, openat, readlinkat,
    sendfile, statat, symlinkat,
};
use rustix::io::{Errno, Result};

/// Deepest folder followed.
const MAX_DEPTH: u32 = 128;

/// Copies the tree at `from` into the folder `to`: owners, modes, links as links; times and extended attributes not.
pub fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let stat = statat(from, "", AtFlags::EMPTY_PATH)?;
    let to = openat(to, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    folder(from.as_fd(), to.as_fd(), MAX_DEPTH)?;
    finish(to.as_fd(), &stat)
}

/// As [`copy`], unless something is in `to` already.
pub fn fill(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let inside = openat(to, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::read_from(&inside)? {
        if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
            return Ok(());
        }
    }
    copy(from, to)
}

fn folder(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> Result<()> {
    let from = openat(from, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for entry in Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from.as_fd(), to, name, depth)?;
        }
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<()> {
    let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            let below = depth.checked_sub(1).ok_or(Errno::LOOP)?;
            mkdirat(to, name, Mode::RWXU)?;
            let source = openat(from, name, read | OFlags::DIRECTORY, Mode::empty())?;
            let target = openat(to, name, read | OFlags::DIRECTORY, Mode::empty())?;
            folder(source.as_fd(), target.as_fd(), below)?;
            finish(target.as_fd(), &stat)
        }
        FileType::RegularFile => {
            let source = openat(from, name, read, Mode::empty())?;
            let write = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let target = openat(to, name, write, Mode::RUSR | Mode::WUSR)?;
            content(&source, &target)?;
            finish(target.as_fd(), &stat)
        }
        FileType::Symlink => {
            symlinkat(readlinkat(from, name, Vec::new())?, to, name)?;
            owner(to, name, &stat)
        }
        kind => {
            mknodat(to, name, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), stat.st_rdev)?;
            owner(to, name, &stat)
        }
    }
}

fn content(source: &OwnedFd, target: &OwnedFd) -> Result<()> {
    // Not copy_file_range(2): it refuses two kinds of file system.
    while sendfile(target, source, None, 1 << 20)? > 0 {}
    Ok(())
}

/// Owner before mode: chown clears the set-id bits.
fn finish(target: BorrowedFd<'_>, stat: &Stat) -> Result<()> {
    rustix::fs::fchown(target, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(target, Mode::from_raw_mode(stat.st_mode & 0o7777))
}

fn owner(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
}
