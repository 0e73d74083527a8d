//! Unpacks a tar archive below a folder that it cannot leave: every name is resolved by openat2(2) with RESOLVE_BENEATH.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr,
    ftruncate, futimens, linkat, mkdirat, mknodat, openat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use super::{Count, Owner, sparse};
use crate::failure::{Context, Failure, Result};
use crate::guest_root::GuestRoot;

const BUFFER_BYTES: usize = 128 * 1024;
const NEW_FILE: OFlags =
    OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::EXCL).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const XATTR: &str = "SCHILY.xattr.";

/// Unpacks what `stream` holds, up to its end mark, and reads the stream to its end.
///
/// # Errors
/// The first entry that can't be unpacked, by name; EPROTO for what is no archive or a part of one.
pub fn unpack(stream: impl Read, folder: OwnedFd, owner: Owner) -> Result<Count> {
    let mut reader = Watched { inner: stream, ended: false };
    let mut work = Unpacker {
        root: GuestRoot::beneath(folder),
        owner,
        count: Count::default(),
        open: Vec::new(),
        buffer: vec![0; BUFFER_BYTES],
    };
    let mut archive = Archive::new(&mut reader);
    let entries = archive.entries().map_err(|error| broken(&error))?;
    for entry in entries {
        work.entry(&mut entry.map_err(|error| broken(&error))?)?;
    }
    work.leave_folders(Path::new(""))?;
    if reader.ended {
        return Err(Failure::new("copy", Errno::PROTO, "the archive ends without its end mark"));
    }
    io::copy(&mut reader, &mut io::sink()).context("copy", "stream")?;
    Ok(work.count)
}

fn broken(error: &io::Error) -> Failure {
    Failure::new("copy", Errno::PROTO, format!("the archive is broken: {error}"))
}

/// Knows whether its end was met: an archive ends by two blocks of zeros before that.
struct Watched<R> {
    inner: R,
    ended: bool,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.ended |= count == 0 && !buffer.is_empty();
        Ok(count)
    }
}

/// What pax records say beyond the header.
#[derive(Default)]
struct Records {
    mtime: Option<Timespec>,
    xattrs: Vec<(String, Vec<u8>)>,
    sparse: bool,
    real_size: Option<u64>,
    name: Option<Vec<u8>>,
}

struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    times: Timestamps,
}

struct Unpacker {
    root: GuestRoot,
    owner: Owner,
    count: Count,
    /// Folders that the archive is in just now, whose times are set when it leaves them.
    open: Vec<(PathBuf, OwnedFd, Timestamps)>,
    buffer: Vec<u8>,
}

impl Unpacker {
    fn entry<R: Read>(&mut self, entry: &mut Entry<'_, R>) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        let records = records(entry).map_err(|error| broken(&error))?;
        let name = records.name.clone().unwrap_or_else(|| entry.path_bytes().into_owned());
        let path = inside(&name)?;
        let shown = path.to_string_lossy().into_owned();
        let attributes = self.attributes(entry, &records).context("copy", &shown)?;
        self.leave_folders(&path)?;
        self.place(entry, &path, &records, &attributes).context("copy", &shown)?;
        self.count.entries += 1;
        Ok(())
    }

    fn attributes<R: Read>(&self, entry: &Entry<'_, R>, records: &Records) -> io::Result<Attributes> {
        let header = entry.header();
        let (uid, gid) = match self.owner {
            Owner::All { uid, gid } => (uid, gid),
            Owner::Archive => (id(header.uid()?)?, id(header.gid()?)?),
        };
        let seconds = i64::try_from(header.mtime()?).unwrap_or(0);
        let modified = records.mtime.unwrap_or(Timespec { tv_sec: seconds, tv_nsec: 0 });
        let times = Timestamps { last_access: modified, last_modification: modified };
        Ok(Attributes { mode: header.mode()? & 0o7777, uid, gid, times })
    }

    fn place<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        path: &Path,
        records: &Records,
        attributes: &Attributes,
    ) -> io::Result<()> {
        if path.as_os_str().is_empty() {
            // The folder itself: it is the caller's, and stays as it is.
            return Ok(());
        }
        let (folder, name) = self.root.parent(path, true)?;
        match entry.header().entry_type() {
            EntryType::Directory => self.folder(path, &folder, name, records, attributes)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(entry, &folder, name, records, attributes)?
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().ok_or(Errno::INVAL)?;
                clear(&folder, name)?;
                symlinkat(OsStr::from_bytes(&target), &folder, name)?;
                own(&folder, name, attributes)?;
            }
            EntryType::Link => {
                let target = inside(&entry.link_name_bytes().ok_or(Errno::INVAL)?)
                    .map_err(|failure| io::Error::from_raw_os_error(failure.errno))?;
                let (target_folder, target_name) = self.root.parent(&target, false)?;
                if target != path {
                    clear(&folder, name)?;
                    linkat(&target_folder, target_name, &folder, name, AtFlags::empty())?;
                }
            }
            EntryType::Fifo => {
                clear(&folder, name)?;
                mknodat(&folder, name, FileType::Fifo, Mode::from_raw_mode(attributes.mode), 0)?;
                own(&folder, name, attributes)?;
            }
            // A device node would reach the VM's disks from inside the container.
            EntryType::Char | EntryType::Block => return Err(Errno::PERM.into()),
            _ => return Err(Errno::OPNOTSUPP.into()),
        }
        Ok(())
    }

    fn folder(
        &mut self,
        path: &Path,
        parent: &OwnedFd,
        name: &OsStr,
        records: &Records,
        attributes: &Attributes,
    ) -> io::Result<()> {
        let there = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map(|found| FileType::from_raw_mode(found.st_mode));
        if there != Ok(FileType::Directory) {
            clear(parent, name)?;
            mkdirat(parent, name, Mode::RWXU)?;
        }
        let made = openat(
            parent,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        finish(&made, records, attributes)?;
        self.open.push((path.to_owned(), made, attributes.times.clone()));
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        folder: &OwnedFd,
        name: &OsStr,
        records: &Records,
        attributes: &Attributes,
    ) -> io::Result<()> {
        let temporary = temporary(self.count.entries);
        let mut file = File::from(openat(folder, &temporary, NEW_FILE, Mode::RUSR | Mode::WUSR)?);
        let outcome = self.fill(entry, &mut file, records, attributes).and_then(|()| rename(folder, &temporary, name));
        if outcome.is_err() {
            // What went wrong first is what counts.
            let _ = unlinkat(folder, &temporary, AtFlags::empty());
        }
        outcome
    }

    fn fill<R: Read>(
        &mut self,
        entry: &mut Entry<'_, R>,
        file: &mut File,
        records: &Records,
        attributes: &Attributes,
    ) -> io::Result<()> {
        let size = if records.sparse {
            let size = records.real_size.ok_or(Errno::INVAL)?;
            for (offset, length) in sparse::decode_map(entry)? {
                if offset.checked_add(length).is_none_or(|end| end > size) {
                    return Err(Errno::INVAL.into());
                }
                file.seek(SeekFrom::Start(offset))?;
                self.content(entry, file, length)?;
            }
            size
        } else {
            let size = entry.size();
            self.content(entry, file, size)?;
            size
        };
        // A hole at the end leaves the file short.
        ftruncate(&*file, size)?;
        finish(file, records, attributes)
    }

    fn content<R: Read>(&mut self, entry: &mut Entry<'_, R>, file: &mut File, length: u64) -> io::Result<()> {
        let count = sparse::copy_leaving_holes(entry, file, length, &mut self.buffer)?;
        self.count.bytes += count;
        if count == length { Ok(()) } else { Err(Errno::PROTO.into()) }
    }

    /// Sets the times of folders that `path` is not in.
    fn leave_folders(&mut self, path: &Path) -> Result<()> {
        while let Some((folder, file, times)) = self.open.pop() {
            if path != folder && path.starts_with(&folder) {
                self.open.push((folder, file, times));
                break;
            }
            futimens(&file, &times).context("copy", &folder.to_string_lossy())?;
        }
        Ok(())
    }
}

/// A name of the archive, below the folder.
fn inside(name: &[u8]) -> Result<PathBuf> {
    let mut path = PathBuf::new();
    for component in Path::new(OsStr::from_bytes(name)).components() {
        match component {
            Component::Normal(part) if !part.as_bytes().contains(&0) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            _ => {
                let shown = String::from_utf8_lossy(name);
                return Err(Failure::new("copy", Errno::INVAL, format!("{shown:?} leads out of the folder")));
            }
        }
    }
    Ok(path)
}

fn id(value: u64) -> io::Result<u32> {
    u32::try_from(value).map_err(|_| Errno::OVERFLOW.into())
}

fn records<R: Read>(entry: &mut Entry<'_, R>) -> io::Result<Records> {
    let mut records = Records::default();
    let Some(extensions) = entry.pax_extensions()? else { return Ok(records) };
    for extension in extensions {
        let extension = extension?;
        let key = extension.key().unwrap_or_default();
        let text = extension.value().unwrap_or_default();
        match key {
            "mtime" => records.mtime = timestamp(text),
            "GNU.sparse.major" => records.sparse = text == "1",
            "GNU.sparse.realsize" => records.real_size = text.parse().ok(),
            "GNU.sparse.name" => records.name = Some(extension.value_bytes().to_vec()),
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    records.xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
                }
            }
        }
    }
    Ok(records)
}

/// pax: decimal seconds, perhaps negative, perhaps with a fraction.
fn timestamp(text: &str) -> Option<Timespec> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut digits = fraction.to_owned();
    digits.truncate(9);
    let nanoseconds: i64 = if digits.is_empty() { 0 } else { format!("{digits:0<9}").parse().ok()? };
    let seconds: i64 = whole.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        return Some(Timespec { tv_sec: seconds - 1, tv_nsec: 1_000_000_000 - nanoseconds });
    }
    Some(Timespec { tv_sec: seconds, tv_nsec: nanoseconds })
}

/// Removes what stands in the way of something new, but for a folder.
fn clear(folder: &OwnedFd, name: &OsStr) -> std::result::Result<(), Errno> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A name for a file that is not whole yet: beside where it will be, and of nobody else's.
fn temporary(number: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!(".firkin-{:x}-{number}", now.as_nanos())
}

/// Puts a whole file in its place. Where something is mounted there (/etc/hosts) the content goes into that.
fn rename(folder: &OwnedFd, temporary: &str, name: &OsStr) -> io::Result<()> {
    match renameat(folder, temporary, folder, name) {
        Err(Errno::BUSY) => {
            let flags = OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mut from = File::from(openat(folder, temporary, flags | OFlags::RDONLY, Mode::empty())?);
            let mut to = File::from(openat(folder, name, flags | OFlags::WRONLY | OFlags::TRUNC, Mode::empty())?);
            io::copy(&mut from, &mut to)?;
            Ok(unlinkat(folder, temporary, AtFlags::empty())?)
        }
        outcome => Ok(outcome?),
    }
}

/// Owner before mode and attributes: a change of owner takes set-id bits and file capabilities away.
fn finish(file: &impl AsFd, records: &Records, attributes: &Attributes) -> io::Result<()> {
    fchown(file, Some(Uid::from_raw(attributes.uid)), Some(Gid::from_raw(attributes.gid)))?;
    fchmod(file, Mode::from_raw_mode(attributes.mode))?;
    for (name, value) in &records.xattrs {
        match fsetxattr(file, name.as_str(), value, XattrFlags::empty()) {
            // A file system without attributes of that kind.
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(futimens(file, &attributes.times)?)
}

fn own(folder: &OwnedFd, name: &OsStr, attributes: &Attributes) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(utimensat(folder, name, &attributes.times, AtFlags::SYMLINK_NOFOLLOW)?)
}
