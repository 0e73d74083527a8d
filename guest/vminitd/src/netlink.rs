//! A few requests of rtnetlink(7), one at a time, each waiting for its acknowledgement.

use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};

use crate::failure::{Context, Result};

const HEADER_BYTES: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// Asks for a new object.
pub const NLM_F_CREATE: u16 = 0x400;
/// Lets the request replace what is there.
pub const NLM_F_REPLACE: u16 = 0x100;
/// Asks for all objects.
pub const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// A NETLINK_ROUTE socket.
pub struct Netlink {
    socket: OwnedFd,
    sequence: u32,
}

/// A request under construction: header, fixed part, attributes.
pub struct Message(Vec<u8>);

impl Message {
    /// A request of `kind` with the family's fixed struct as `body`.
    pub fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(body);
        Self(bytes)
    }

    /// Appends a `struct rtattr`, padded to four bytes.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend_from_slice(&((4 + value.len()) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
}

impl Netlink {
    /// A socket of its own, so that no other's answers are on it.
    ///
    /// # Errors
    /// As socket(2).
    pub fn open() -> Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None);
        let socket = socket.context("netlink", "socket")?;
        bind(&socket, &SocketAddrNetlink::new(0, 0)).context("netlink", "bind")?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The interface of that name.
    ///
    /// # Errors
    /// ENODEV.
    pub fn index_of(&self, name: &str) -> std::result::Result<u32, Errno> {
        name_to_index(&self.socket, name)
    }

    /// For requests that are no messages.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Sends a request and waits for its acknowledgement.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn request(&mut self, message: Message) -> std::result::Result<(), Errno> {
        self.exchange(message, NLM_F_ACK, |_, _| {})
    }

    /// Sends a dump request; `each` gets the type and content of every object.
    ///
    /// # Errors
    /// The kernel's errno.
    pub fn dump(&mut self, message: Message, each: impl FnMut(u16, &[u8])) -> std::result::Result<(), Errno> {
        self.exchange(message, NLM_F_DUMP, each)
    }

    fn exchange(
        &mut self,
        message: Message,
        flags: u16,
        mut each: impl FnMut(u16, &[u8]),
    ) -> std::result::Result<(), Errno> {
        let Message(mut bytes) = message;
        self.sequence += 1;
        let length = bytes.len() as u32;
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let flags = flags | u16::from_ne_bytes([bytes[6], bytes[7]]);
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes[8..12].copy_from_slice(&self.sequence.to_ne_bytes());
        send(&self.socket, &bytes, SendFlags::empty())?;
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let (count, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            let mut rest = &buffer[..count];
            while let Some((kind, content, after)) = split(rest) {
                match kind {
                    NLMSG_ERROR => {
                        let code = content.first_chunk().map_or(0, |word| i32::from_ne_bytes(*word));
                        return if code == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(-code)) };
                    }
                    NLMSG_DONE => return Ok(()),
                    _ => each(kind, content),
                }
                rest = after;
            }
        }
    }
}

/// The first message of `bytes`: its type, its content, and what follows it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes([*bytes.get(4)?, *bytes.get(5)?]);
    let content = bytes.get(HEADER_BYTES..length)?;
    Some((kind, content, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}
