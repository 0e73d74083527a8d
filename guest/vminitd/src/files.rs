//! Small work on files: folders, contents, states, kernel settings.

use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, Dev, Dir, FileType, Gid, Mode, OFlags, StatxFlags, Uid, chownat, fchmod, fstat, ftruncate, mkdirat,
    readlinkat, statx,
};
use rustix::io::{Errno, read, write};

use crate::agent::Agent;
use crate::call::done;
use crate::failure::{Context, Failure, Result};
use crate::guest_root::{GuestRoot, absolute};
use crate::messages::{Mkdir, ReadAhead, Stat, StatReply, Sysctl, WriteFile};

const MODE_BITS: u32 = 0o7777;
/// Names of one folder, and bytes of one file, that ReadAhead reads.
const MAX_NAMES: usize = 4096;
const MAX_READ: usize = 16 << 20;

/// The call.
///
/// # Errors
/// As mkdir(2); EEXIST is none where parents are asked for.
pub fn mkdir(root: &GuestRoot, call: &Mkdir) -> Result<()> {
    let path = absolute("mkdir", &call.path)?;
    let mode = if call.mode == 0 { 0o755 } else { call.mode & MODE_BITS };
    make(root, path, call, mode).context("mkdir", &call.path)
}

fn make(root: &GuestRoot, path: &Path, call: &Mkdir, mode: u32) -> std::result::Result<(), Errno> {
    if path.parent().is_none() {
        return if call.parents { Ok(()) } else { Err(Errno::EXIST) };
    }
    let (folder, name) = root.parent(path, call.parents)?;
    match mkdirat(&folder, name, Mode::from_raw_mode(mode)) {
        Ok(()) => {}
        Err(Errno::EXIST) if call.parents => return root.folder(path).map(drop),
        Err(errno) => return Err(errno),
    }
    let made = rustix::fs::openat(
        &folder,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    if call.uid != 0 || call.gid != 0 {
        rustix::fs::fchown(&made, Some(Uid::from_raw(call.uid)), Some(Gid::from_raw(call.gid)))?;
    }
    // The umask took bits away, and a change of owner may have.
    fchmod(&made, Mode::from_raw_mode(mode))
}

/// The call.
///
/// # Errors
/// As open(2) and write(2); EINVAL for what is no regular file in a container.
pub fn write_file(root: &GuestRoot, call: &WriteFile) -> Result<()> {
    let path = absolute("write", &call.path)?;
    write_whole(root, path, call).context("write", &call.path)
}

fn write_whole(root: &GuestRoot, path: &Path, call: &WriteFile) -> std::result::Result<(), Errno> {
    if call.create_parents {
        root.parent(path, true)?;
    }
    // What is there is written over and cut at the end, rather than given up and made again.
    let how = if call.append { OFlags::APPEND } else { OFlags::empty() };
    let mode = if call.mode == 0 { 0o644 } else { call.mode };
    // Not blocking: a container may have put a fifo there.
    let file = root.open(path, OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY | how, mode)?;
    let found = fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let mut rest = call.content.as_slice();
    while !rest.is_empty() {
        match write(&file, rest) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let length = call.content.len() as u64;
    if !call.append && found.st_size as u64 > length {
        ftruncate(&file, length)?;
    }
    if call.mode != 0 && found.st_mode & MODE_BITS != call.mode & MODE_BITS {
        fchmod(&file, Mode::from_raw_mode(call.mode & MODE_BITS))?;
    }
    Ok(())
}

/// The call.
///
/// # Errors
/// As statx(2).
pub fn stat(root: &GuestRoot, call: &Stat) -> Result<StatReply> {
    let path = absolute("stat", &call.path)?;
    state(root, path, call.follow).context("stat", &call.path)
}

fn state(root: &GuestRoot, path: &Path, follow: bool) -> std::result::Result<StatReply, Errno> {
    let flags = if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW };
    let file = root.open(path, flags, 0)?;
    let found = statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(StatReply {
        mode: u32::from(found.stx_mode),
        size: found.stx_size,
        uid: found.stx_uid,
        gid: found.stx_gid,
        mtime_ns: found
            .stx_mtime
            .tv_sec
            .saturating_mul(1_000_000_000)
            .saturating_add(i64::from(found.stx_mtime.tv_nsec)),
        nlink: u64::from(found.stx_nlink),
        rdev: device(found.stx_rdev_major, found.stx_rdev_minor),
        link_target: link_target(&file, found.stx_mode.into()),
    })
}

/// The call: it may wait for a disk, and so is a helper's work.
///
/// # Errors
/// There is no such container, or as [`Agent::fork_helper`].
pub fn read_ahead(agent: &mut Agent, token: u32, call: ReadAhead) -> Result<()> {
    let root = agent.root_of(&call.container)?.folder(Path::new(".")).context("read", &call.container)?;
    agent.fork_helper(token, None, Some(root), move |hands| {
        let root = GuestRoot::inside(hands.place()?);
        for path in &call.paths {
            // It is a help to later starts: what can't be read is no failure.
            let _ = read_folder(&root, Path::new(path)).or_else(|_| read_file(&root, Path::new(path)));
        }
        Ok(done())
    })
}

fn read_folder(root: &GuestRoot, path: &Path) -> std::result::Result<(), Errno> {
    let folder = root.open(path, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
    for entry in Dir::read_from(&folder)?.take(MAX_NAMES) {
        let (entry, flags) = (entry?, AtFlags::SYMLINK_NOFOLLOW);
        let known = statx(&folder, entry.file_name(), flags, StatxFlags::BASIC_STATS)?;
        if FileType::from_raw_mode(known.stx_mode.into()) == FileType::Symlink {
            readlinkat(&folder, entry.file_name(), Vec::new())?;
        }
    }
    Ok(())
}

/// What is no file may be waited for without end: a pipe, a device.
fn read_file(root: &GuestRoot, path: &Path) -> std::result::Result<(), Errno> {
    let found = root.open(path, OFlags::PATH, 0)?;
    if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    let file = root.open(path, OFlags::RDONLY | OFlags::NONBLOCK, 0)?;
    let mut buffer = [0; 1 << 16];
    for _ in 0..MAX_READ / buffer.len() {
        if read(&file, &mut buffer)? == 0 {
            break;
        }
    }
    Ok(())
}

fn device(major: u32, minor: u32) -> Dev {
    rustix::fs::makedev(major, minor)
}

fn link_target(file: &OwnedFd, mode: u32) -> String {
    if FileType::from_raw_mode(mode) != FileType::Symlink {
        return String::new();
    }
    let target = readlinkat(file, c"", Vec::new());
    target.map(|target| target.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The call: names as in sysctl(8), dots or slashes between their parts.
///
/// # Errors
/// EINVAL for what is no name; else as the kernel answers the write.
pub fn sysctl(call: &Sysctl) -> Result<()> {
    for (name, value) in &call.values {
        let path = if name.contains('/') { name.clone() } else { name.replace('.', "/") };
        if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
            return Err(Failure::new("sysctl", Errno::INVAL, format!("{name:?} is no setting's name")));
        }
        std::fs::write(["/proc/sys/", &path].concat(), value).context("sysctl", name)?;
    }
    Ok(())
}

/// Gives a name in a folder an owner, not following it.
///
/// # Errors
/// As fchownat(2).
pub fn set_owner(folder: &OwnedFd, name: &std::ffi::OsStr, uid: u32, gid: u32) -> std::result::Result<(), Errno> {
    chownat(folder, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_names() {
        for wrong in ["../x", "net..ipv4", "/etc/passwd", ""] {
            let call = Sysctl { values: [(wrong.to_owned(), "1".to_owned())].into() };
            assert_eq!(sysctl(&call).expect_err(wrong).errno, Errno::INVAL.raw_os_error());
        }
    }
}
