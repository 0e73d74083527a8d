//! Small files of the kernel, whole, in one read or write.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, statat};
use rustix::io::{Errno, Result, read, write as write_once};

/// Writes `content` with one write(2), as files of /proc and cgroups ask.
pub fn write(path: &str, content: &[u8]) -> Result<()> {
    write_at(CWD, path, content)
}

/// The same, below a folder.
pub fn write_at(dir: impl AsFd, path: &str, content: &[u8]) -> Result<()> {
    let file = openat(dir, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let written = write_once(&file, content)?;
    if written == content.len() { Ok(()) } else { Err(Errno::IO) }
}

/// The regular file at `path`, up to `limit` bytes; EFBIG if it is longer, EINVAL if it is something else.
pub fn read_regular(path: &str, limit: usize) -> Result<Vec<u8>> {
    // An image decides what this is: O_NONBLOCK, because a fifo would hold us forever.
    let file = openat(CWD, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
    let stat = statat(&file, "", AtFlags::EMPTY_PATH)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    read_all(&file, limit)
}

/// A text file of /proc, up to 64 KiB.
pub fn read_all_of(path: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&read_regular(path, 1 << 16)?).into_owned())
}

/// Everything up to the end of a descriptor; EFBIG past `limit` bytes.
pub fn read_all(file: impl AsFd, limit: usize) -> Result<Vec<u8>> {
    let mut content = vec![0; 8192];
    let mut length = 0;
    loop {
        if length == content.len() {
            content.resize(length * 2, 0);
        }
        match read(&file, &mut content[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        if length > limit {
            return Err(Errno::FBIG);
        }
    }
    content.truncate(length);
    Ok(content)
}
