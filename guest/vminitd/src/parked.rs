//! A container that was made before it was asked for: in the VM that is to be saved, so that its copies need not
//! (`vmexec park`). The first container whose specification fits takes it; the host knows which does.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fd::OwnedFd;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::agent::Agent;
use crate::container::{self, PARKED};
use crate::failure::{Context, Failure, Result};
use crate::guest_root::make_own_folders;
use crate::messages::Park;
use crate::spawn::{Report, Request, SyncSocket, spawn};

/// The empty folder that it stands on, which its specification names as its root.
const STAGE: &str = "/run/firkin/stage";

/// The parked container.
pub struct Parked {
    socket: SyncSocket,
    /// Its first process.
    pub pid: i32,
}

/// What it is handed.
pub struct Rest<'a> {
    /// The id of the container that takes it.
    pub container: &'a str,
    /// What its specification did not say yet.
    pub spec: &'a [u8],
    /// Columns and rows of a terminal.
    pub pty: Option<(u32, u32)>,
    /// Do not wait for [`SyncSocket::go`].
    pub start: bool,
    /// The process's 0, 1 and 2; none: /dev/null.
    pub stdio: [Option<OwnedFd>; 3],
}

impl Agent {
    /// Makes one and waits for it: the VM is being readied for its copies, nobody else is served.
    ///
    /// # Errors
    /// There is one; or vmexec's.
    pub fn park(&mut self, call: &Park) -> Result<()> {
        if self.parked.is_some() {
            return Err(Failure::new("park", Errno::EXIST, "a container is parked already"));
        }
        make_own_folders(STAGE)?;
        let spec = &call.spec_json;
        let request = Request {
            verb: "park",
            container: PARKED,
            spec,
            init: None,
            pty: None,
            start: false,
            stdio: [None, None, None],
        };
        let socket = SyncSocket { fd: spawn(request)?, process: 0 };
        let mut pid = 0;
        loop {
            match socket.wait()? {
                Report::Pid(number) => pid = number,
                Report::Parked => break,
                Report::Failed(failure) => return Err(failure),
                _ => return Err(Failure::new("park", Errno::IO, "vmexec ended without a word")),
            }
        }
        self.parked = Some(Parked { socket, pid });
        Ok(())
    }

    /// Hands the parked container what it lacks; the socket that tells how it goes on, and its first process's pid.
    ///
    /// # Errors
    /// There is none, or it is gone.
    pub fn unpark(&mut self, rest: Rest<'_>) -> Result<(OwnedFd, i32)> {
        let none = || Failure::new("create", Errno::NOENT, "no container is parked");
        let Parked { socket, pid } = self.parked.take().ok_or_else(none)?;
        if let Some(container) = self.containers.iter_mut().find(|found| found.id == rest.container) {
            container.cgroup = container::cgroup(PARKED);
        }
        hand_over(&socket, rest)?;
        Ok((socket.fd, pid))
    }
}

fn hand_over(socket: &SyncSocket, rest: Rest<'_>) -> Result<()> {
    let root = container::folder(rest.container).join("rootfs");
    let tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let root = open_tree(CWD, &root, tree).context("create", &root.to_string_lossy())?;
    let mut stdio = Vec::with_capacity(3);
    for (number, fd) in rest.stdio.into_iter().enumerate() {
        let access = if number == 0 { OFlags::RDONLY } else { OFlags::WRONLY };
        let null = || open("/dev/null", access | OFlags::CLOEXEC, Mode::empty()).context("create", "/dev/null");
        stdio.push(fd.map_or_else(null, Ok)?);
    }
    let mut fds = vec![root.as_fd()];
    fds.extend(stdio.iter().map(AsFd::as_fd));
    let (columns, rows) = rest.pty.unwrap_or_default();
    let size = [columns, rows].map(|number| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes()).concat();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&fds));
    let message = [IoSlice::new(&size), IoSlice::new(rest.spec)];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(&socket.fd, &message, &mut control, flags).context("create", "the parked container")?;
    if rest.start { socket.go() } else { Ok(()) }
}
