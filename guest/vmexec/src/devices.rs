//! The device nodes every container has, and those of `linux.devices`.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, chownat, makedev, mknodat, statat, symlinkat, unlinkat};
use rustix::io::Errno;

use crate::failure::{At, Failure, Result};
use crate::paths::Root;
use crate::spec::Device;

/// Runtime specification, "Default Devices"; all 0666. `console` and `ptmx` are not nodes: see `pty.rs`, [`LINKS`].
const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Runtime specification, "Dev symbolic links", and the ptmx of the container's own devpts.
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"),
];

const READ_WRITE: u32 = 0o666;

/// Makes all of them; the process's umask must be 0.
pub fn make_all(root: &Root, devices: &[Device]) -> Result<()> {
    let dev = root.make_dir("/dev").at("devices", || "make /dev".into())?;
    for device in devices {
        one(root, device)?;
    }
    for (name, major, minor) in NODES {
        node(dev.as_fd(), name, FileType::CharacterDevice, READ_WRITE, makedev(major, minor))
            .at("devices", || format!("make /dev/{name}"))?;
    }
    for (target, name) in LINKS {
        link(dev.as_fd(), target, name).at("devices", || format!("link /dev/{name}"))?;
    }
    Ok(())
}

/// One of `linux.devices`.
fn one(root: &Root, device: &Device) -> Result<()> {
    let kind = match device.kind.as_str() {
        "c" | "u" => FileType::CharacterDevice,
        "b" => FileType::BlockDevice,
        "p" => FileType::Fifo,
        other => return Err(Failure::invalid("devices", format!("{}: type {other:?} is not known", device.path))),
    };
    let at = || format!("make {}", device.path);
    let number = if kind == FileType::Fifo { 0 } else { makedev(device.major, device.minor) };
    let (parent, name) = root.parent(&device.path).at("devices", at)?;
    // A default device may be listed too, with another mode: the list wins, and comes first.
    let mode = device.file_mode.unwrap_or(READ_WRITE) & 0o7777;
    node(parent.as_fd(), &name, kind, mode, number).at("devices", at)?;
    if device.uid == 0 && device.gid == 0 {
        return Ok(());
    }
    let (uid, gid) = (Some(Uid::from_raw(device.uid)), Some(Gid::from_raw(device.gid)));
    chownat(&parent, name.as_str(), uid, gid, AtFlags::SYMLINK_NOFOLLOW).at("devices", at)
}

/// The node, in place of whatever else the image has under its name.
fn node(dir: BorrowedFd<'_>, name: &str, kind: FileType, mode: u32, number: u64) -> rustix::io::Result<()> {
    let make = || mknodat(dir, name, kind, Mode::from_raw_mode(mode), number);
    match make() {
        Err(Errno::EXIST) => {
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == kind && (stat.st_rdev == number || kind == FileType::Fifo) {
                return Ok(());
            }
            unlinkat(dir, name, AtFlags::empty())?;
            make()
        }
        answer => answer,
    }
}

fn link(dir: BorrowedFd<'_>, target: &str, name: &str) -> rustix::io::Result<()> {
    match symlinkat(target, dir, name) {
        // What the image brought, or a bind mount of the specification, stays.
        Err(Errno::EXIST) => Ok(()),
        answer => answer,
    }
}
