//! The socket on which the caller learns how far its process is (SOCK_SEQPACKET, docs/internals.md).

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg};

use crate::failure::{At, Failure, Result};
use crate::raw;

/// Longest failure sent, in bytes.
const MAX_MESSAGE: usize = 8192;

/// Our end of `--sync-fd`.
pub struct Sync(pub OwnedFd);

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
