//! Files with holes, in GNU's sparse format 1.0 (GNU tar manual, appendix "Storing Sparse Files").

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use rustix::io::Errno;

const BLOCK: usize = 512;
/// Holes are kept in units of a page.
const PAGE: usize = 4096;
/// No file has more pieces, or its map is not one.
const MAX_PIECES: usize = 1 << 20;

/// A piece of a file that holds data: offset and length.
pub type Piece = (u64, u64);

/// The pieces of `file` that are no holes (lseek(2), SEEK_DATA).
///
/// # Errors
/// As lseek(2).
pub fn pieces(file: &File, size: u64) -> io::Result<Vec<Piece>> {
    let mut found = Vec::new();
    let mut offset = 0;
    while offset < size && found.len() < MAX_PIECES {
        let start = match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => break,
            // The file system does not know: all of it is data.
            Err(Errno::INVAL) => return Ok(vec![(0, size)]),
            Err(errno) => return Err(errno.into()),
        };
        let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start))?.min(size);
        found.push((start, end.saturating_sub(start)));
        offset = end.max(start + 1);
    }
    Ok(found)
}

/// The map as it stands before the pieces: decimal lines, filled up to a block.
pub fn encode_map(pieces: &[Piece], size: u64) -> Vec<u8> {
    let mut text = String::new();
    // An empty piece at the end tells the size to readers that look at the map alone.
    let end = (size, 0);
    let all: Vec<_> = pieces.iter().chain([&end]).collect();
    text.push_str(&format!("{}\n", all.len()));
    for (offset, length) in all {
        text.push_str(&format!("{offset}\n{length}\n"));
    }
    let mut bytes = text.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

/// Reads the map before the pieces.
///
/// # Errors
/// It is none.
pub fn decode_map(reader: &mut impl Read) -> io::Result<Vec<Piece>> {
    let mut used = 0;
    let count = line(reader, &mut used)?;
    let count = usize::try_from(count).ok().filter(|count| *count <= MAX_PIECES).ok_or_else(wrong)?;
    let mut pieces = Vec::with_capacity(count.min(4096));
    for _ in 0..count {
        pieces.push((line(reader, &mut used)?, line(reader, &mut used)?));
    }
    let rest = used.next_multiple_of(BLOCK) - used;
    reader.read_exact(&mut [0; BLOCK][..rest])?;
    Ok(pieces)
}

fn wrong() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the map of a sparse file is wrong")
}

fn line(reader: &mut impl Read, used: &mut usize) -> io::Result<u64> {
    let mut value: u64 = 0;
    let mut byte = [0];
    for digits in 0.. {
        reader.read_exact(&mut byte)?;
        *used += 1;
        match byte[0] {
            b'\n' if digits > 0 => return Ok(value),
            digit @ b'0'..=b'9' => {
                let more = value.checked_mul(10).and_then(|value| value.checked_add(u64::from(digit - b'0')));
                value = more.ok_or_else(wrong)?;
            }
            _ => break,
        }
    }
    Err(wrong())
}

/// Copies up to `length` bytes to the file's position, and leaves out pages of zeros. Gives how many came.
///
/// # Errors
/// As read(2) and write(2).
pub fn copy_leaving_holes(reader: &mut impl Read, file: &mut File, length: u64, buffer: &mut [u8]) -> io::Result<u64> {
    let mut done = 0;
    while done < length {
        let want = buffer.len().min(usize::try_from(length - done).unwrap_or(usize::MAX));
        let count = fill(reader, &mut buffer[..want])?;
        if count == 0 {
            break;
        }
        write_pages(file, &buffer[..count])?;
        done += count as u64;
    }
    Ok(done)
}

/// Reads until the buffer is full or nothing comes, so that pages of the file stay pages of the buffer.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match reader.read(&mut buffer[count..])? {
            0 => break,
            more => count += more,
        }
    }
    Ok(count)
}

fn write_pages(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    let is_hole = |page: &[u8]| page.len() == PAGE && page[0] == 0 && page.iter().all(|byte| *byte == 0);
    let mut start = 0;
    while start < bytes.len() {
        let mut end = start;
        let hole = is_hole(&bytes[start..bytes.len().min(start + PAGE)]);
        while end < bytes.len() && is_hole(&bytes[end..bytes.len().min(end + PAGE)]) == hole {
            end = bytes.len().min(end + PAGE);
        }
        if hole {
            file.seek(SeekFrom::Current((end - start) as i64))?;
        } else {
            file.write_all(&bytes[start..end])?;
        }
        start = end;
    }
    Ok(())
}
