//! The socket on which the caller learns how far its process is (SOCK_SEQPACKET, docs/internals.md).

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recv, recvmsg, send, sendmsg,
};

use crate::failure::{At, Failure, Result};
use crate::pty::Size;
use crate::raw;

/// Longest failure sent, in bytes.
const MAX_MESSAGE: usize = 8192;
/// Longest rest of a specification that a parked container takes, in bytes (`firkin.core.parking` has it too).
const MAX_HANDED: usize = 64 * 1024;

/// Our end of `--sync-fd`.
pub struct Sync(pub OwnedFd);

/// What a parked container was handed: its root, or its program, or both.
pub struct Handed {
    /// The root, a mount that is attached nowhere.
    pub root: Option<OwnedFd>,
    stdio: Option<[OwnedFd; 3]>,
    pub pty: Option<Size>,
    /// The specification's rest, or as much of it as there is yet, as JSON.
    pub spec: Vec<u8>,
}

impl Handed {
    /// Columns and rows (u16, zero without a terminal), then JSON; the root, the standard descriptors or all four came
    /// along.
    fn read(message: &[u8], mut fds: Vec<OwnedFd>) -> Option<Handed> {
        let root = [1, 4].contains(&fds.len()).then(|| fds.remove(0));
        let stdio = if fds.is_empty() { None } else { Some(fds.try_into().ok()?) };
        let (columns, message) = message.split_first_chunk()?;
        let (rows, spec) = message.split_first_chunk()?;
        let size = (u16::from_le_bytes(*columns), u16::from_le_bytes(*rows));
        let pty = Some(size).filter(|(columns, rows)| *columns > 0 && *rows > 0);
        Some(Handed { root, stdio, pty, spec: spec.to_vec() })
    }

    /// Whether a program came, and not the root alone.
    pub fn is_last(&self) -> bool {
        self.stdio.is_some()
    }

    /// Makes the standard descriptors this process's own.
    pub fn take_stdio(&mut self) -> Result<()> {
        let Some([stdin, stdout, stderr]) = self.stdio.take() else { return Ok(()) };
        let taken = rustix::stdio::dup2_stdin(stdin)
            .and_then(|()| rustix::stdio::dup2_stdout(stdout))
            .and_then(|()| rustix::stdio::dup2_stderr(stderr));
        taken.at("stdio", || "take it".into())
    }
}

impl Sync {
    /// `P`: the pid as the caller sees it.
    pub fn pid(&self, pid: u32) -> Result<()> {
        let mut message = [b'P', 0, 0, 0, 0];
        message[1..].copy_from_slice(&pid.to_le_bytes());
        self.send(&message)
    }

    /// `T`: the pty's master.
    pub fn terminal(&self, master: BorrowedFd<'_>) -> Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [master];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(&self.0, &[IoSlice::new(b"T")], &mut control, SendFlags::NOSIGNAL)
            .at("sync", || "send the terminal".into())?;
        Ok(())
    }

    /// `K`: parked. Waits for what the caller hands over; none: it gave up.
    pub fn parked(&self) -> Result<Option<Handed>> {
        self.send(b"K")?;
        let mut message = vec![0; MAX_HANDED];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let (buffers, flags) = (&mut [IoSliceMut::new(&mut message)], RecvFlags::CMSG_CLOEXEC);
            match recvmsg(&self.0, buffers, &mut control, flags) {
                Err(Errno::INTR) => continue,
                received => break received.at("sync", || "wait for the container".into())?,
            }
        };
        if received.bytes == 0 {
            return Ok(None);
        }
        let fds = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds.collect::<Vec<_>>()),
            _ => None,
        });
        let whole = !received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC);
        let handed = fds.filter(|_| whole).and_then(|fds| Handed::read(&message[..received.bytes], fds));
        handed.map(Some).ok_or_else(|| Failure::system("sync", Errno::PROTO, "take the container"))
    }

    /// `R`, then waits for `S`; false: the caller gave up.
    pub fn ready(&self) -> Result<bool> {
        self.send(b"R")?;
        // One more than is wanted: a longer answer is another one.
        let mut answer = [0; 2];
        loop {
            match recv(&self.0, &mut answer, RecvFlags::empty()) {
                Ok((count, _)) => return Ok(count == 1 && answer[0] == b'S'),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Failure::system("sync", errno, "wait for the start")),
            }
        }
    }

    /// `E`: what failed. A caller that is gone can't be told.
    pub fn failed(&self, failure: &Failure) {
        let mut message = vec![b'E'];
        message.extend(failure.to_json());
        if message.len() > MAX_MESSAGE {
            let short = Failure { message: "(its text is too long)".into(), ..*failure };
            message.truncate(1);
            message.extend(short.to_json());
        }
        let _ = self.send(&message);
    }

    /// Moves the socket to `number` and closes all above it; gives itself back where that failed.
    pub fn alone(self, number: i32) -> std::result::Result<Sync, (Sync, Failure)> {
        let moved = (self.0.as_raw_fd() != number).then(|| raw::move_to(&self.0, number)).transpose();
        let sync = match moved {
            Ok(copy) => copy.map_or(self, Sync),
            Err(errno) => return Err((self, Failure::system("sync", errno, "move the socket"))),
        };
        match raw::close_from(number as u32 + 1, false) {
            Ok(()) => Ok(sync),
            Err(errno) => Err((sync, Failure::system("sync", errno, "close the rest"))),
        }
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        send(self.0.as_fd(), message, SendFlags::NOSIGNAL).at("sync", || "tell the caller".into())?;
        Ok(())
    }
}
