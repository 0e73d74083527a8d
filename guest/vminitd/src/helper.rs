//! Work that may block (file trees, sync) is done by a forked part of the agent: the loop never waits for a disk.

use std::fs::File;

use prost::Message;
use rustix::event::epoll::EventFlags;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, read, write};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::agent::{Agent, Node};
use crate::call::Undo;
use crate::failure::{Context, Failure, Result};
use crate::messages::{Reply, reply};
use crate::relay::Role;
use crate::sys;

const MAX_HELPERS: usize = 16;
/// A helper's answer is a Reply of a few words.
const MAX_ANSWER: usize = 16 * 1024;

/// A helper at work.
pub struct Helper {
    /// Its pid, 0 once it was reaped.
    pub pid: i32,
    call: u32,
    fd: OwnedFd,
    answer: Vec<u8>,
    /// It was ended: what it may still say does not count.
    ended: bool,
}

/// A stream that a helper reads from or writes to.
#[derive(Clone, Copy, Debug)]
pub struct Data {
    /// The host's port, which is dialled.
    pub port: u32,
    /// [`Role::Sink`]: the helper reads what the host sends. [`Role::Source`]: the reverse.
    pub role: Role,
}

/// What a helper has in its hands.
pub struct Hands {
    stream: Option<OwnedFd>,
    place: Option<OwnedFd>,
}

impl Hands {
    /// The place, for work that was given one.
    ///
    /// # Errors
    /// It was not.
    pub fn place(self) -> Result<OwnedFd> {
        self.place.ok_or(Errno::BADF).context("helper", "descriptors")
    }

    /// The stream and the place, for work that was given both.
    ///
    /// # Errors
    /// It was not.
    pub fn both(self) -> Result<(File, OwnedFd)> {
        let both = self.stream.map(File::from).zip(self.place);
        both.ok_or(Errno::BADF).context("helper", "descriptors")
    }
}

impl Helper {
    /// Ends it; its call is answered as cancelled. One whose input ends with this sees that, and takes away what is half
    /// done; another is killed.
    pub fn end(&mut self, its_input_ends: bool) {
        if std::mem::replace(&mut self.ended, true) || its_input_ends {
            return;
        }
        if let Some(pid) = rustix::process::Pid::from_raw(self.pid) {
            // It may have ended by itself.
            let _ = sys::kill(pid, 9);
        }
    }
}

impl Agent {
    /// Forks and does `work` there; `call` gets its result. `work` gets `place`, the only descriptor of the agent's that
    /// it keeps, and with `data` its end of a pipe.
    ///
    /// # Errors
    /// Too many helpers at work, or no process or descriptor for one.
    pub fn fork_helper<W>(&mut self, call: u32, data: Option<Data>, place: Option<OwnedFd>, work: W) -> Result<()>
    where
        W: FnOnce(Hands) -> Result<reply::Result>,
    {
        if self.nodes.tokens(|node| matches!(node, Node::Helper(_))).len() >= MAX_HELPERS {
            return Err(Failure::new("helper", Errno::AGAIN, "too many copies at a time"));
        }
        self.use_all_processors();
        let (result, result_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).context("helper", "pipe")?;
        let pipe = data.map(|_| pipe_with(PipeFlags::CLOEXEC)).transpose().context("helper", "pipe")?;
        let ends = pipe.zip(data).map(|((reading, writing), data)| match data.role {
            Role::Source => (reading, writing, data),
            _ => (writing, reading, data),
        });
        let (ours, theirs) = ends.map(|(ours, theirs, data)| ((ours, data), theirs)).unzip();
        let pid = sys::fork().context("helper", "fork")?;
        if pid == 0 {
            let kept: Vec<_> =
                [Some(&result_end), theirs.as_ref(), place.as_ref()].into_iter().flatten().map(AsFd::as_fd).collect();
            sys::close_all_but(&kept);
            let outcome = work(Hands { stream: theirs, place })
                .unwrap_or_else(|failure| reply::Result::Error(failure.into_message()));
            // Without a reader there is nobody to tell.
            let _ = write(&result_end, &Reply { result: Some(outcome) }.encode_to_vec());
            sys::exit_now(0);
        }
        drop((result_end, theirs, place));
        let token = self.insert(Node::Helper(Helper { pid, call, fd: result, answer: Vec::new(), ended: false }))?;
        if let Some(Node::Helper(helper)) = self.nodes.get(token) {
            self.watch(&helper.fd, token, EventFlags::IN)?;
        }
        if let Some((fd, data)) = ours {
            self.dial(data.port, token, data.role, Some(fd))?;
        }
        if let Some(Node::Call(call)) = self.nodes.get_mut(call) {
            call.undo = Undo::Helper(token);
        }
        Ok(())
    }

    /// A helper wrote its answer, or is gone.
    pub fn helper_event(&mut self, token: u32) {
        let Some(Node::Helper(helper)) = self.nodes.get_mut(token) else { return };
        let mut buffer = [0; 4096];
        loop {
            match read(&helper.fd, &mut buffer) {
                Ok(0) => break,
                Ok(count) if helper.answer.len() + count <= MAX_ANSWER => {
                    helper.answer.extend_from_slice(&buffer[..count])
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                _ => break,
            }
        }
        let (call, ended, answer) = (helper.call, helper.ended, std::mem::take(&mut helper.answer));
        self.close(token);
        let reply = Reply::decode(answer.as_slice()).ok().and_then(|reply| reply.result).filter(|_| !ended);
        self.answer(call, reply.ok_or_else(|| Failure::new("helper", Errno::CANCELED, "the copy was ended")));
    }
}
