//! Paths below a root that is not to be left. All of the agent's path resolution for containers is here.
//!
//! A container's root is seen through its first process (`/proc/PID/root`), with everything mounted in it. openat2(2)
//! with RESOLVE_IN_ROOT treats `..` and absolute symbolic links as the container would; magic links are not followed.

use std::path::{Component, Path};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, open, openat2};
use rustix::io::Errno;

use crate::container;
use crate::failure::{Context, Failure, Result};

/// Tries again this often where the kernel could not rule out that a rename happened in between (openat2(2), EAGAIN).
const TRIES: usize = 32;

/// A folder that paths are resolved below.
pub struct GuestRoot {
    folder: OwnedFd,
    resolve: ResolveFlags,
}

impl GuestRoot {
    /// The folder at `path` of the agent's own.
    ///
    /// # Errors
    /// As open(2).
    pub fn at(path: &str) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(path, flags, Mode::empty())
            .context("root", path)
            .map(|folder| Self { folder, resolve: ResolveFlags::IN_ROOT })
    }

    /// A folder out of which neither `..` nor symbolic links lead.
    pub fn inside(folder: OwnedFd) -> Self {
        Self { folder, resolve: ResolveFlags::IN_ROOT }
    }

    /// A folder that no symbolic link leads out of: EXDEV.
    pub fn beneath(folder: OwnedFd) -> Self {
        Self { folder, resolve: ResolveFlags::BENEATH }
    }

    /// The root of a container, which has a first process or only a folder yet.
    ///
    /// # Errors
    /// There is no such container.
    pub fn of_container(id: &str, init_pid: Option<i32>) -> Result<Self> {
        container::check_id(id)?;
        match init_pid {
            Some(pid) => Self::at(&format!("/proc/{pid}/root")),
            None => Self::at(&container::folder(id).join("rootfs").to_string_lossy()),
        }
    }

    /// Opens `path` below the root.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn open(&self, path: &Path, flags: OFlags, mode: u32) -> std::result::Result<OwnedFd, Errno> {
        let resolve = self.resolve | ResolveFlags::NO_MAGICLINKS;
        let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(mode & 0o7777) } else { Mode::empty() };
        for _ in 1..TRIES {
            match openat2(&self.folder, path, flags | OFlags::CLOEXEC, mode, resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                outcome => return outcome,
            }
        }
        openat2(&self.folder, path, flags | OFlags::CLOEXEC, mode, resolve)
    }

    /// Opens a folder, as a place for others.
    ///
    /// # Errors
    /// As openat2(2).
    pub fn folder(&self, path: &Path) -> std::result::Result<OwnedFd, Errno> {
        self.open(path, OFlags::PATH | OFlags::DIRECTORY, 0)
    }

    /// Opens a folder, and makes it and those above it where they are missing. The mode is what mkdir(2) gives.
    ///
    /// # Errors
    /// As mkdirat(2) and openat2(2).
    pub fn make_folders(&self, path: &Path, mode: u32) -> std::result::Result<OwnedFd, Errno> {
        match self.folder(path) {
            Err(Errno::NOENT) => {}
            outcome => return outcome,
        }
        let mut walked = std::path::PathBuf::from(".");
        let mut current = self.folder(&walked)?;
        for component in path.components().filter(|component| *component != Component::RootDir) {
            walked.push(component);
            current = match (self.folder(&walked), component) {
                (Err(Errno::NOENT), Component::Normal(name)) => {
                    mkdirat(&current, name, Mode::from_raw_mode(mode)).or_else(exists)?;
                    self.folder(&walked)?
                }
                (outcome, _) => outcome?,
            };
        }
        Ok(current)
    }

    /// The folder that holds `path`, and the last name in it.
    ///
    /// # Errors
    /// As openat2(2); EINVAL where the last part is no name.
    pub fn parent<'a>(&self, path: &'a Path, make: bool) -> std::result::Result<(OwnedFd, &'a std::ffi::OsStr), Errno> {
        let name = path.file_name().ok_or(Errno::INVAL)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let folder = if make { self.make_folders(parent, 0o755)? } else { self.folder(parent)? };
        Ok((folder, name))
    }
}

fn exists(errno: Errno) -> std::result::Result<(), Errno> {
    if errno == Errno::EXIST { Ok(()) } else { Err(errno) }
}

/// A path that reaches an open file through the agent's own /proc.
pub fn fd_path(fd: &impl AsFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Makes the folders of a path of the agent's own.
///
/// # Errors
/// As mkdir(2).
pub fn make_own_folders(path: &str) -> Result<()> {
    if rustix::fs::accessat(CWD, path, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty()).is_ok() {
        return Ok(());
    }
    std::fs::create_dir_all(path).context("mkdir", path)
}

/// A path in a request.
///
/// # Errors
/// EINVAL for what is no absolute path.
pub fn absolute<'a>(stage: &'static str, path: &'a str) -> Result<&'a Path> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(Path::new(path))
    } else {
        Err(Failure::new(stage, Errno::INVAL, format!("{path:?} is no absolute path")))
    }
}
