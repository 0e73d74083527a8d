//! The one place that walks paths of an image: nothing an image holds can lead out of its root.
//!
//! Every walk is openat2(2) with RESOLVE_IN_ROOT: absolute symlinks and `..` are taken inside the root, magic links refused.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, mkdirat, openat2, readlinkat, statat};
use rustix::io::{Errno, Result};

/// Most symlinks followed while making a path, as the kernel's own limit.
const MAX_LINKS: u32 = 40;

/// A container's root folder.
pub struct Root(OwnedFd);

impl Root {
    pub fn new(fd: OwnedFd) -> Root {
        Root(fd)
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The file at `path`, as a place (O_PATH).
    pub fn locate(&self, path: &str) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH, ResolveFlags::IN_ROOT)
    }

    /// The same, of a path without a symlink anywhere.
    pub fn locate_plain(&self, path: &str) -> Result<OwnedFd> {
        self.open(path, OFlags::PATH, ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS)
    }

    /// Opens for reading or writing.
    pub fn open(&self, path: &str, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd> {
        openat2(self.fd(), inside(path), flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// The folder at `path`, made with mode 0755 where it or a parent is missing.
    pub fn make_dir(&self, path: &str) -> Result<OwnedFd> {
        self.dir(path, MAX_LINKS)
    }

    /// The place at `path`; where nothing is there, an empty file is made, and the folders to it.
    pub fn make_file(&self, path: &str) -> Result<OwnedFd> {
        match self.locate(path) {
            Err(Errno::NOENT) => {}
            found => return found,
        }
        let (parent, name) = self.parent(path)?;
        // O_EXCL does not follow a dangling link at the end.
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::CLOEXEC;
        rustix::fs::openat(&parent, &name, flags, Mode::from_raw_mode(0o755))
    }

    /// The folder that holds `path`, made where missing, and the last part of its name.
    pub fn parent(&self, path: &str) -> Result<(OwnedFd, String)> {
        let (parent, name) = split(path).ok_or(Errno::INVAL)?;
        Ok((self.make_dir(parent)?, name.to_string()))
    }

    fn dir(&self, path: &str, links: u32) -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags, ResolveFlags::IN_ROOT) {
            Err(Errno::NOENT) if links > 0 => {}
            answer => return answer,
        }
        let (parent_path, name) = split(path).ok_or(Errno::NOENT)?;
        let parent = self.dir(parent_path, links - 1)?;
        match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => self.open(path, flags, ResolveFlags::IN_ROOT),
            // Something is there and yet leads nowhere: a symlink whose target is to be made.
            Err(Errno::EXIST) => {
                let target = readlinkat(&parent, name, Vec::new())?;
                let target = target.to_str().map_err(|_| Errno::ILSEQ)?;
                let joined =
                    if target.starts_with('/') { target.to_string() } else { format!("{parent_path}/{target}") };
                self.dir(&joined, links - 1)
            }
            Err(errno) => Err(errno),
        }
    }
}

/// An absolute path without `.`, `..` and doubled slashes, read as text: `..` of what does not exist yet is its parent.
pub fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Whether `fd` is a folder.
pub fn is_dir(fd: BorrowedFd<'_>) -> Result<bool> {
    let stat = statat(fd, "", AtFlags::EMPTY_PATH)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// openat2(2) wants something: the root itself is ".".
fn inside(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "" => ".",
        inner => inner,
    }
}

/// Parent and last part; none of the root or of a path that ends in `..`.
fn split(path: &str) -> Option<(&str, &str)> {
    let path = path.trim_end_matches('/');
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "" | ".." => None,
        "." => split(parent),
        _ => Some((parent, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root(name: &str) -> (std::path::PathBuf, Root) {
        let path = std::env::temp_dir().join(format!("vmexec-paths-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("root")).unwrap();
        let fd = std::fs::File::open(path.join("root")).unwrap();
        (path, Root::new(fd.into()))
    }

    #[test]
    fn splits() {
        assert_eq!(split("/a/b/"), Some(("/a", "b")));
        assert_eq!(split("/a/./."), Some(("", "a")));
        assert_eq!(split("/"), None);
        assert_eq!(split("/a/.."), None);
    }

    #[test]
    fn cleans() {
        for (path, cleaned) in [("/", "/"), ("a//b/", "/a/b"), ("/a/../../../b/./c", "/b/c"), ("/..", "/")] {
            assert_eq!(clean(path), cleaned);
        }
    }

    #[test]
    fn makes_what_is_missing_inside_the_root() {
        let (path, root) = root("make");
        symlink("/run", path.join("root/var-run")).unwrap();
        symlink("../../../../tmp", path.join("root/up")).unwrap();
        root.make_dir("/var-run/a/b").unwrap();
        root.make_dir("/up/c").unwrap();
        root.make_file("/x/y").unwrap();
        assert!(path.join("root/run/a/b").is_dir());
        assert!(path.join("root/tmp/c").is_dir());
        assert!(path.join("root/x/y").is_file());
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_loop_of_links_ends() {
        let (path, root) = root("loop");
        symlink("/b", path.join("root/a")).unwrap();
        symlink("/a", path.join("root/b")).unwrap();
        assert_eq!(root.make_dir("/a/x").unwrap_err(), Errno::LOOP);
        symlink("self/x", path.join("root/self")).unwrap();
        assert_eq!(root.make_dir("/self").unwrap_err(), Errno::LOOP);
        symlink("grow/../grow2/x", path.join("root/grow2")).unwrap();
        assert!(root.make_dir("/grow2").is_err());
        std::fs::remove_dir_all(path).unwrap();
    }
}
