//! What is on its way to the port: at most one element of the virtio queue, written in one piece.

use link::{HEADER_BYTES, MAX_PAYLOAD};
use rustix::fd::BorrowedFd;
use rustix::io::{Errno, write};

const BYTES: usize = HEADER_BYTES + MAX_PAYLOAD;
/// With less room than this the buffer leaves before more DATA is put in.
const MIN_ROOM: usize = 4096 + HEADER_BYTES;

/// The buffer. Small frames share it, so that they share a write and the host's wake-up.
pub struct Output {
    bytes: Box<[u8]>,
    from: usize,
    to: usize,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The buffer is empty.
    All,
    /// The port takes no more now.
    Blocked,
}

impl Output {
    /// An empty buffer.
    pub fn new() -> Self {
        Self { bytes: vec![0; BYTES].into_boxed_slice(), from: 0, to: 0 }
    }

    /// Nothing is on its way.
    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.from, self.to) = (0, 0);
    }

    /// Moves as much of `queue` into the buffer as fits.
    pub fn take(&mut self, queue: &mut Vec<u8>) {
        let count = queue.len().min(self.bytes.len() - self.to);
        self.bytes[self.to..self.to + count].copy_from_slice(&queue[..count]);
        self.to += count;
        if count == queue.len() {
            queue.clear();
        } else {
            queue.drain(..count);
        }
    }

    /// How long a DATA payload may be, with room for an END behind it; 0: the buffer has to leave first.
    pub fn room(&self) -> usize {
        let left = self.bytes.len() - self.to;
        if self.to == 0 {
            MAX_PAYLOAD
        } else if left < MIN_ROOM + HEADER_BYTES {
            0
        } else {
            left - 2 * HEADER_BYTES
        }
    }

    /// Where the payload of the next DATA frame goes.
    pub fn payload(&mut self, length: usize) -> &mut [u8] {
        let start = self.to + HEADER_BYTES;
        &mut self.bytes[start..start + length]
    }

    /// The payload is in place: `header` goes before it.
    pub fn commit(&mut self, header: [u8; HEADER_BYTES], length: usize) {
        self.bytes[self.to..self.to + HEADER_BYTES].copy_from_slice(&header);
        self.to += HEADER_BYTES + length;
    }

    /// Appends a frame without payload: [`Output::room`] leaves place for one behind the DATA.
    pub fn append(&mut self, header: [u8; HEADER_BYTES]) {
        self.commit(header, 0);
    }

    /// Writes to the port.
    pub fn flush(&mut self, port: BorrowedFd<'_>) -> Written {
        while self.from < self.to {
            match write(port, &self.bytes[self.from..self.to]) {
                Ok(count) => self.from += count,
                Err(Errno::INTR) => {}
                // EAGAIN: full, or no host there. Anything else is a port that is of no use before the next HELLO.
                Err(_) => return Written::Blocked,
            }
        }
        self.clear();
        Written::All
    }
}
