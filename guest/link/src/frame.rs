//! Frame headers: how they are written and what can be wrong with them (protocol.md, section 2).

use std::fmt;

use crate::checksum::crc32;
use crate::streams::MAX_WINDOW;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 16;
/// The most that one frame carries: with its header 32 KiB, one element of the virtio queue.
pub const MAX_PAYLOAD: usize = 32 * 1024 - HEADER_BYTES;

const MAGIC: [u8; 2] = *b"FK";

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A new stream to a port.
    Open = 1,
    /// Bytes of a stream.
    Data = 2,
    /// The sender sends no more.
    End = 3,
    /// The stream is gone.
    Reset = 4,
    /// More bytes may be sent.
    Credit = 5,
    /// Is anybody there?
    Ping = 6,
    /// Yes.
    Pong = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Open, Self::Data, Self::End, Self::Reset, Self::Credit, Self::Ping, Self::Pong]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    fn allows(self, length: usize) -> bool {
        match self {
            Self::Data => (1..=MAX_PAYLOAD).contains(&length),
            Self::End => length == 0,
            Self::Open | Self::Reset | Self::Credit => length == 4,
            Self::Ping | Self::Pong => length == 8,
        }
    }
}

/// What the peer did that the protocol forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The header does not begin with `FK`.
    Magic,
    /// The header's checksum is wrong.
    Checksum,
    /// No such type.
    Type,
    /// A flag that is not 0.
    Flags,
    /// A length that the type does not allow.
    Length,
    /// A stream that never was, of the wrong side, or 0 where it must not be (or the reverse).
    Stream,
    /// More DATA than credit.
    Window,
    /// DATA or END after END.
    Ended,
    /// A credit of 0, or one that lifts a window above 2^20.
    Credit,
}

impl Fault {
    /// The name that `tests/vectors` and logs use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Magic => "magic",
            Self::Checksum => "checksum",
            Self::Type => "type",
            Self::Flags => "flags",
            Self::Length => "length",
            Self::Stream => "stream",
            Self::Window => "window",
            Self::Ended => "ended",
            Self::Credit => "credit",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A header whose form is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) stream: u32,
    pub(crate) length: usize,
}

impl Header {
    /// Checks, in this order: magic, checksum, flags, type, length, stream.
    pub(crate) fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, Fault> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        if bytes[..2] != MAGIC {
            return Err(Fault::Magic);
        }
        if word(12) != crc32(&bytes[..12]) {
            return Err(Fault::Checksum);
        }
        if bytes[3] != 0 {
            return Err(Fault::Flags);
        }
        let kind = Kind::from_byte(bytes[2]).ok_or(Fault::Type)?;
        let length = word(8) as usize;
        if !kind.allows(length) {
            return Err(Fault::Length);
        }
        let stream = word(4);
        let fits = match kind {
            Kind::Credit => true,
            Kind::Ping | Kind::Pong => stream == 0,
            _ => stream != 0,
        };
        if fits { Ok(Self { kind, stream, length }) } else { Err(Fault::Stream) }
    }
}

/// The header of a frame with a payload of `length` bytes.
#[must_use]
pub fn encode_header(kind: Kind, stream: u32, length: usize) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    bytes[..2].copy_from_slice(&MAGIC);
    bytes[2] = kind as u8;
    bytes[4..8].copy_from_slice(&stream.to_le_bytes());
    bytes[8..12].copy_from_slice(&(length as u32).to_le_bytes());
    let sum = crc32(&bytes[..12]);
    bytes[12..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// A credit's amount, if it is one.
pub(crate) fn credit_amount(payload: u32) -> Result<u32, Fault> {
    if (1..=MAX_WINDOW).contains(&payload) { Ok(payload) } else { Err(Fault::Credit) }
}
