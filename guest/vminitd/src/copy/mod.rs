//! Copies of file trees into and out of containers, as tar archives (POSIX pax), by forked helpers.

mod pack;
mod sparse;
mod unpack;

use std::ffi::OsStr;
use std::path::Path;

use rustix::fs::Mode;
use rustix::io::Errno;

use crate::agent::Agent;
use crate::failure::{Context, Failure, Result};
use crate::guest_root::absolute;
use crate::helper::Data;
use crate::messages::{CopyIn, CopyOut, CopyReply, reply};
use crate::relay::Role;

/// What was copied so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Files of any type.
    pub entries: u64,
    /// Bytes of their content.
    pub bytes: u64,
}

impl Count {
    fn reply(self) -> reply::Result {
        reply::Result::Copy(CopyReply { entries: self.entries, bytes: self.bytes })
    }
}

/// Who owns what is unpacked.
#[derive(Clone, Copy, Debug)]
pub enum Owner {
    /// As the archive says.
    Archive,
    /// All of it these.
    All {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
}

/// The call: unpacks what the host streams.
///
/// # Errors
/// The directory is not there; what goes wrong later is the call's answer.
pub fn copy_in(agent: &mut Agent, call: u32, request: CopyIn) -> Result<()> {
    let path = absolute("copy", &request.directory)?;
    let root = agent.root_of(&request.container)?;
    let folder = if request.create_parents { root.make_folders(path, 0o755) } else { root.folder(path) };
    let folder = folder.context("copy", &request.directory)?;
    let owner = match request.preserve_owner {
        true => Owner::Archive,
        false => Owner::All { uid: request.uid, gid: request.gid },
    };
    let data = Data { port: checked(request.port)?, role: Role::Sink };
    agent.fork_helper(call, Some(data), Some(folder), move |hands| {
        let (stream, folder) = hands.both()?;
        rustix::process::umask(Mode::empty());
        unpack::unpack(stream, folder, owner).map(Count::reply)
    })
}

/// The call: streams a file or a tree.
///
/// # Errors
/// There is no such path; what goes wrong later is the call's answer.
pub fn copy_out(agent: &mut Agent, call: u32, request: CopyOut) -> Result<()> {
    absolute("copy", &request.path)?;
    let root = agent.root_of(&request.container)?;
    let path = Path::new(&request.path);
    // Looked up before the host is dialled: what is not there is an answer, not an empty archive.
    let found = pack::find(&root, path, request.follow).context("copy", &request.path)?;
    let data = Data { port: checked(request.port)?, role: Role::Source };
    let name = path.file_name().unwrap_or(OsStr::new(".")).to_owned();
    agent.fork_helper(call, Some(data), Some(found), move |hands| {
        let (stream, found) = hands.both()?;
        pack::pack(stream, &found, &name).map(Count::reply)
    })
}

fn checked(port: u32) -> Result<u32> {
    if port == 0 { Err(Failure::new("copy", Errno::INVAL, "a copy needs a port")) } else { Ok(port) }
}

#[cfg(test)]
mod tests;
