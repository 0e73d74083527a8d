//! A stream of the link joined to a descriptor: a process's pipe or terminal, a socket, a helper's pipe.

use std::collections::VecDeque;

use link::Endpoint;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, read, write};
use rustix::net::{Shutdown, shutdown};
use rustix::pipe::fcntl_setpipe_size;

use crate::output::Output;
use crate::sys;

/// A pipe that has carried this much gets [`WIDE_PIPE`]: its process and the agent then wake each other less often.
const BUSY_BYTES: usize = 256 * 1024;
/// Bytes of a busy pipe; the kernel's limit for the unprivileged, so that a container sees nothing unusual.
const WIDE_PIPE: usize = 1 << 20;

/// What the descriptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The writing end of a pipe: a process's standard input, a helper's input.
    Sink,
    /// The reading end of a pipe: a process's standard output or error, a helper's output.
    Source,
    /// The master of a pseudo-terminal, which carries both ways and can't be half closed.
    Terminal,
    /// A connected socket.
    Socket,
}

/// What has become of a relay after some work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There may be more to send at once.
    More,
    /// It waits: for its descriptor, for credit, or to be attached.
    Waits,
    /// The output buffer has to leave first.
    Full,
    /// Its stream and its descriptor are done.
    Done,
}

/// The pair. Without a stream (0) it is detached: the descriptor's bytes stay where they are.
pub struct Relay {
    /// The stream, or 0.
    pub stream: u32,
    /// What the descriptor is.
    pub role: Role,
    /// The process or helper it belongs to, or 0.
    pub owner: u32,
    /// A socket whose connection is not made yet.
    pub connecting: bool,
    /// It is in the list of those that may have something to send.
    pub queued: bool,
    fd: Option<OwnedFd>,
    readable: bool,
    writable: bool,
    reads: bool,
    writes: bool,
    ending: bool,
    left: Option<usize>,
    moved: usize,
    backlog: VecDeque<u8>,
}

impl Relay {
    /// A relay for `stream`; the descriptor may come later (a terminal's).
    pub fn new(role: Role, stream: u32, owner: u32, fd: Option<OwnedFd>) -> Self {
        Self {
            stream,
            role,
            owner,
            connecting: false,
            queued: false,
            fd,
            readable: false,
            writable: true,
            reads: role != Role::Sink,
            writes: role != Role::Source,
            ending: false,
            left: None,
            moved: 0,
            backlog: VecDeque::new(),
        }
    }

    /// The descriptor.
    pub fn fd(&self) -> Option<&OwnedFd> {
        self.fd.as_ref()
    }

    /// Gives it its descriptor; epoll tells by an edge what is there already.
    pub fn attach(&mut self, fd: OwnedFd) {
        self.fd = Some(fd);
    }

    /// What epoll says of the descriptor. A hang-up shows itself by the next read or write.
    pub fn note(&mut self, readable: bool, writable: bool) {
        self.readable |= readable;
        self.writable |= writable;
    }

    /// Bytes of the descriptor still go to the link.
    pub fn is_source(&self) -> bool {
        self.reads
    }

    /// It can be asked for output now.
    pub fn wants_turn(&self) -> bool {
        self.reads && !self.connecting && self.stream != 0 && (self.readable || self.left.is_some())
    }

    /// The owner has ended: what is readable now is all that will be sent.
    pub fn owner_ended(&mut self) {
        self.left = Some(match (&self.fd, self.role) {
            // What is under way in a terminal isn't counted by FIONREAD: it is read until EIO or nothing.
            (_, Role::Terminal) | (None, _) => usize::MAX,
            (Some(fd), _) => sys::readable_bytes(fd.as_fd()),
        });
    }

    /// Sends one frame of what the descriptor has.
    pub fn produce(&mut self, link: &mut Endpoint, output: &mut Output) -> Progress {
        let room = output.room();
        if room == 0 {
            return Progress::Full;
        }
        if self.left == Some(0) {
            return self.finish_reading(link, output);
        }
        let budget = link.budget(self.stream);
        if budget == 0 {
            return Progress::Waits;
        }
        let Some(fd) = &self.fd else { return self.finish_reading(link, output) };
        let most = budget.min(room).min(self.left.unwrap_or(usize::MAX));
        match read(fd, output.payload(most)) {
            Ok(0) => self.finish_reading(link, output),
            Ok(count) => {
                output.commit(link.data_header(self.stream, count), count);
                self.count(count);
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(count);
                }
                Progress::More
            }
            Err(Errno::INTR) => Progress::More,
            Err(Errno::AGAIN) => {
                self.readable = false;
                if self.left.is_some() { self.finish_reading(link, output) } else { Progress::Waits }
            }
            // EIO is a terminal's hang-up, ECONNRESET a socket's: to the reader they are the end.
            Err(_) => self.finish_reading(link, output),
        }
    }

    fn count(&mut self, bytes: usize) {
        let before = self.moved;
        self.moved = before.saturating_add(bytes);
        let pipe = self.fd.as_ref().filter(|_| matches!(self.role, Role::Sink | Role::Source));
        if let Some(fd) = pipe.filter(|_| before < BUSY_BYTES && self.moved >= BUSY_BYTES) {
            // It works as well, only slower, with the pipe as it is.
            let _ = fcntl_setpipe_size(fd, WIDE_PIPE);
        }
    }

    fn finish_reading(&mut self, link: &mut Endpoint, output: &mut Output) -> Progress {
        if let Some(end) = link.end(self.stream) {
            output.append(end);
        }
        self.reads = false;
        if self.role == Role::Socket && self.writes {
            return Progress::Waits;
        }
        Progress::Done
    }

    /// Takes bytes from the link: they go to the descriptor, or wait for it.
    pub fn receive(&mut self, link: &mut Endpoint, payload: std::ops::Range<usize>) -> Progress {
        let mut done = 0;
        if self.backlog.is_empty() {
            match self.push(link.bytes(payload.clone())) {
                Ok(count) => done = count,
                Err(errno) => return self.fail_writing(link, errno),
            }
        }
        self.count(done);
        let rest = payload.start + done..payload.end;
        self.backlog.extend(link.bytes(rest));
        if done > 0 {
            link.consumed(self.stream, done);
        }
        Progress::Waits
    }

    /// Writes as much as the descriptor takes.
    fn push(&mut self, bytes: &[u8]) -> Result<usize, Errno> {
        if !self.writes {
            return Ok(bytes.len());
        }
        let Some(fd) = &self.fd else { return Ok(0) };
        let mut done = 0;
        while done < bytes.len() && self.writable && !self.connecting {
            match write(fd, &bytes[done..]) {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.writable = false,
                Err(errno) => return Err(errno),
            }
        }
        Ok(done)
    }

    /// Goes on with what waited for the descriptor.
    pub fn drain(&mut self, link: &mut Endpoint) -> Progress {
        let mut backlog = std::mem::take(&mut self.backlog);
        while !backlog.is_empty() {
            match self.push(backlog.as_slices().0) {
                Ok(0) => break,
                Ok(count) => {
                    backlog.drain(..count);
                    link.consumed(self.stream, count);
                }
                Err(errno) => return self.fail_writing(link, errno),
            }
        }
        self.backlog = backlog;
        if self.ending && self.backlog.is_empty() && !self.connecting {
            self.finish_writing(link)
        } else {
            Progress::Waits
        }
    }

    /// The link sends no more.
    pub fn end(&mut self, link: &mut Endpoint) -> Progress {
        self.ending = true;
        self.drain(link)
    }

    fn finish_writing(&mut self, link: &mut Endpoint) -> Progress {
        match (self.role, &self.fd) {
            // A terminal's input has no end but the one that is typed.
            (Role::Terminal, _) => return Progress::Waits,
            (Role::Socket, Some(fd)) => {
                // A socket that is gone already shows itself by its next read.
                let _ = shutdown(fd, Shutdown::Write);
            }
            _ => {}
        }
        self.writes = false;
        if self.reads {
            return Progress::Waits;
        }
        if let Some(end) = link.end(self.stream) {
            link.control().extend_from_slice(&end);
        }
        Progress::Done
    }

    fn fail_writing(&mut self, link: &mut Endpoint, errno: Errno) -> Progress {
        self.writes = false;
        self.backlog.clear();
        if self.role == Role::Terminal {
            // Its last output may still be read.
            return Progress::Waits;
        }
        link.reset(self.stream, errno.raw_os_error() as u32);
        Progress::Done
    }

    /// The descriptor's writing end has no reader any more.
    pub fn sink_hung_up(&mut self, link: &mut Endpoint) -> Progress {
        self.fail_writing(link, Errno::PIPE)
    }
}
