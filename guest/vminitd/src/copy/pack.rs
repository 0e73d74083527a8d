//! Packs a file or a tree into a tar archive.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fd::OwnedFd;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Statx, StatxFlags, fgetxattr, flistxattr, fstatfs, openat, readlinkat, statx,
};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::{Count, sparse};
use crate::failure::{Context, Result};
use crate::guest_root::GuestRoot;

const BUFFER_BYTES: usize = 128 * 1024;
/// Hard links are told from copies among this many files with several names; of more the content is sent again.
const MAX_LINKS: usize = 1 << 18;
/// ustar's field for a name or a link's target.
const FIELD: usize = 100;
/// Seven octal digits.
const MAX_OCTAL_ID: u32 = 0o7_777_777;
const BLOCK: u64 = 512;
const MAX_XATTRS: usize = 64 * 1024;
/// linux/magic.h: what only looks like files. A tree is copied without the content of these.
const PSEUDO: [i64; 5] = [0x9fa0, 0x6265_6572, 0x6367_7270, 0x0027_e0eb, 0x6462_6720];

/// Finds `path` below `root`, to be packed. With `follow` a symbolic link is what it leads to.
///
/// # Errors
/// As openat2(2).
pub fn find(root: &GuestRoot, path: &Path, follow: bool) -> std::result::Result<OwnedFd, Errno> {
    root.open(path, if follow { OFlags::PATH } else { OFlags::PATH | OFlags::NOFOLLOW }, 0)
}

/// Writes the archive of what was found, under `name`.
///
/// # Errors
/// The first file that can't be read, by name, or EPIPE.
pub fn pack(stream: File, found: &OwnedFd, name: &OsStr) -> Result<Count> {
    let writer = BufWriter::with_capacity(BUFFER_BYTES, stream);
    let mut work = Packer { builder: Builder::new(writer), links: BTreeMap::new(), count: Count::default() };
    work.add(found, OsStr::new(""), name.as_bytes())?;
    let finished = work.builder.into_inner().and_then(|mut writer| writer.flush());
    finished.context("copy", "stream")?;
    Ok(work.count)
}

struct Packer {
    builder: Builder<BufWriter<File>>,
    links: BTreeMap<(u32, u32, u64), Vec<u8>>,
    count: Count,
}

/// Records of an entry's extended header.
type Records = Vec<(String, Vec<u8>)>;

impl Packer {
    fn add(&mut self, folder: &OwnedFd, name: &OsStr, path: &[u8]) -> Result<()> {
        let shown = String::from_utf8_lossy(path).into_owned();
        let flags = AtFlags::SYMLINK_NOFOLLOW | if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::empty() };
        let found = match statx(folder, name, flags, StatxFlags::BASIC_STATS) {
            // Removed while we were looking.
            Err(Errno::NOENT) if !name.is_empty() => return Ok(()),
            found => found.context("copy", &shown)?,
        };
        match FileType::from_raw_mode(found.stx_mode.into()) {
            FileType::Directory => self.folder(folder, name, path, &found, &shown),
            // A socket means nothing to another.
            FileType::Socket => Ok(()),
            kind => self.leaf(folder, name, path, &found, kind).context("copy", &shown),
        }
    }

    fn folder(&mut self, parent: &OwnedFd, name: &OsStr, path: &[u8], found: &Statx, shown: &str) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let target = if name.is_empty() { OsStr::new(".") } else { name };
        let opened = openat(parent, target, flags, Mode::empty()).context("copy", shown)?;
        let header = header(found, EntryType::Directory);
        let mut records = Records::new();
        xattrs(&opened, &mut records).context("copy", shown)?;
        let slashed = [path, b"/"].concat();
        self.write(header, &slashed, found, records, io::empty()).context("copy", shown)?;
        if fstatfs(&opened).is_ok_and(|about| PSEUDO.contains(&about.f_type)) {
            return Ok(());
        }
        let mut entries = Dir::read_from(&opened).context("copy", shown)?;
        while let Some(entry) = entries.read() {
            let entry = entry.context("copy", shown)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                self.add(&opened, OsStr::from_bytes(name), &[path, b"/", name].concat())?;
            }
        }
        Ok(())
    }

    fn leaf(&mut self, folder: &OwnedFd, name: &OsStr, path: &[u8], found: &Statx, kind: FileType) -> io::Result<()> {
        let key = (found.stx_dev_major, found.stx_dev_minor, found.stx_ino);
        if found.stx_nlink > 1 {
            if let Some(first) = self.links.get(&key) {
                let mut header = header(found, EntryType::Link);
                let mut records = Records::new();
                link_name(&mut header, &first.clone(), &mut records);
                return self.write(header, path, found, records, io::empty());
            }
            if self.links.len() < MAX_LINKS {
                self.links.insert(key, path.to_vec());
            }
        }
        match kind {
            FileType::RegularFile => self.file(folder, name, path, found),
            FileType::Symlink => {
                let mut header = header(found, EntryType::Symlink);
                let mut records = Records::new();
                let target = readlinkat(folder, name, Vec::new())?;
                link_name(&mut header, target.to_bytes(), &mut records);
                self.write(header, path, found, records, io::empty())
            }
            FileType::Fifo => self.write(header(found, EntryType::Fifo), path, found, Records::new(), io::empty()),
            kind => {
                let entry = if kind == FileType::BlockDevice { EntryType::Block } else { EntryType::Char };
                let mut header = header(found, entry);
                header.set_device_major(found.stx_rdev_major)?;
                header.set_device_minor(found.stx_rdev_minor)?;
                self.write(header, path, found, Records::new(), io::empty())
            }
        }
    }

    fn file(&mut self, folder: &OwnedFd, name: &OsStr, path: &[u8], found: &Statx) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file = if name.is_empty() {
            // An O_PATH descriptor is opened for reading by the agent's own /proc.
            File::open(crate::guest_root::fd_path(folder))?
        } else {
            File::from(openat(folder, name, flags, Mode::empty())?)
        };
        let mut records = Records::new();
        xattrs(&file, &mut records)?;
        let mut header = header(found, EntryType::Regular);
        let size = found.stx_size;
        let pieces = if found.stx_blocks * BLOCK < size { sparse::pieces(&file, size)? } else { vec![(0, size)] };
        let data: u64 = pieces.iter().map(|(_, length)| length).sum();
        if data == size {
            file.seek(SeekFrom::Start(0))?;
            header.set_size(size);
            let content = Exactly { inner: &mut file, left: size };
            self.count.bytes += size;
            return self.write(header, path, found, records, content);
        }
        let map = sparse::encode_map(&pieces, size);
        header.set_size(map.len() as u64 + data);
        for (key, value) in [("major", "1"), ("minor", "0"), ("realsize", &size.to_string())] {
            records.push((["GNU.sparse.", key].concat(), value.as_bytes().to_vec()));
        }
        records.push(("GNU.sparse.name".to_owned(), path.to_vec()));
        self.count.bytes += data;
        let content = io::Cursor::new(map).chain(Pieces { file: &mut file, pieces: pieces.into_iter(), left: 0 });
        let stand_in =
            [b"GNUSparseFile.0/", Path::new(OsStr::from_bytes(path)).file_name().unwrap_or_default().as_bytes()]
                .concat();
        self.write(header, &stand_in, found, records, content)
    }

    fn write(
        &mut self,
        mut header: Header,
        path: &[u8],
        found: &Statx,
        mut records: Records,
        content: impl Read,
    ) -> io::Result<()> {
        if let Some(ustar) = header.as_ustar_mut() {
            let count = path.len().min(FIELD);
            ustar.name[..count].copy_from_slice(&path[..count]);
        }
        if path.len() > FIELD {
            records.push(("path".to_owned(), path.to_vec()));
        }
        let (seconds, nanoseconds) = (found.stx_mtime.tv_sec, found.stx_mtime.tv_nsec);
        if nanoseconds != 0 || seconds < 0 {
            records.push(("mtime".to_owned(), decimal(seconds, nanoseconds).into_bytes()));
        }
        for (key, value) in [("uid", found.stx_uid), ("gid", found.stx_gid)] {
            if value > MAX_OCTAL_ID {
                records.push((key.to_owned(), value.to_string().into_bytes()));
            }
        }
        let borrowed = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.builder.append_pax_extensions(borrowed)?;
        header.set_cksum();
        self.count.entries += 1;
        self.builder.append(&header, content)
    }
}

/// pax: seconds with a fraction; a negative time counts back from it.
fn decimal(seconds: i64, nanoseconds: u32) -> String {
    if seconds < 0 && nanoseconds > 0 {
        let (whole, rest) = (-(seconds + 1), 1_000_000_000 - nanoseconds);
        return format!("-{whole}.{rest:09}");
    }
    format!("{seconds}.{nanoseconds:09}")
}

fn header(found: &Statx, kind: EntryType) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(u32::from(found.stx_mode) & 0o7777);
    header.set_uid(u64::from(found.stx_uid.min(MAX_OCTAL_ID)));
    header.set_gid(u64::from(found.stx_gid.min(MAX_OCTAL_ID)));
    header.set_mtime(u64::try_from(found.stx_mtime.tv_sec).unwrap_or(0));
    header.set_size(0);
    header
}

fn link_name(header: &mut Header, target: &[u8], records: &mut Records) {
    if let Some(ustar) = header.as_ustar_mut() {
        let count = target.len().min(FIELD);
        ustar.linkname[..count].copy_from_slice(&target[..count]);
    }
    if target.len() > FIELD {
        records.push(("linkpath".to_owned(), target.to_vec()));
    }
}

fn xattrs(file: &impl std::os::fd::AsFd, records: &mut Records) -> io::Result<()> {
    let mut names = vec![0; MAX_XATTRS];
    let count = match flistxattr(file, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        count => count?,
    };
    for name in names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; MAX_XATTRS];
        match fgetxattr(file, name, &mut value[..]) {
            Ok(count) => {
                let key = ["SCHILY.xattr.", &String::from_utf8_lossy(name)].concat();
                records.push((key, value[..count].to_vec()));
            }
            // Removed meanwhile, or not for us.
            Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

/// As many bytes as the header promised, whatever becomes of the file meanwhile.
struct Exactly<'a> {
    inner: &'a mut File,
    left: u64,
}

impl Read for Exactly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let mut count = self.inner.read(&mut buffer[..most])?;
        if count == 0 && most > 0 {
            // It was cut short.
            buffer[..most].fill(0);
            count = most;
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// The pieces of a sparse file, one after the other.
struct Pieces<'a> {
    file: &'a mut File,
    pieces: std::vec::IntoIter<sparse::Piece>,
    left: u64,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            let Some((offset, length)) = self.pieces.next() else { return Ok(0) };
            self.file.seek(SeekFrom::Start(offset))?;
            self.left = length;
        }
        let mut piece = Exactly { inner: self.file, left: self.left };
        let count = piece.read(buffer)?;
        self.left = piece.left;
        Ok(count)
    }
}
