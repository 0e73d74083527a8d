//! A container that was made before it was asked for: in the VM that is to be saved, so that its copies need not
//! (`vmexec park`). The first container whose specification fits takes it; the host knows which does.
//!
//! Under software emulation most of a start is the translation of code that runs for the first time, and translated code
//! is every processor's. So there may be a second one, the pilot: when a host greets the restored agent, it goes the way
//! from there to a program's start on another processor, ahead of the one that somebody waits for.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::agent::Agent;
use crate::container::{self, PARKED};
use crate::failure::{Context, Failure, Result};
use crate::guest_root::make_own_folders;
use crate::messages::{Park, ParkRoot};
use crate::spawn::{Report, Request, SyncSocket, spawn};
use crate::sys;

/// The empty folder that it stands on, which its specification names as its root.
const STAGE: &str = "/run/firkin/stage";

/// What the pilot's specification has instead of the parked one's.
const PILOT_PLACES: [(&str, &str); 2] =
    [("/run/firkin/stage", "/run/firkin/pilot"), ("/firkin/+parked", "/firkin/+pilot")];
/// What the pilot is handed: as much as any container has, and a program that waits for ever: an end would be translated
/// in each clone, and most of them have another by then. The filter allows everything (an instruction of each kind that
/// the usual one has).
const PILOT_REST: &str = include_str!("pilot.json");
/// And the mount of a file of the agent's, which every container has some of: by itself, and as what the rest begins with.
const PILOT_MOUNTS: &str = concat!("{\"mounts\":", include_str!("pilot-mounts.json"), "}");
const PILOT_MOUNTS_AND: &str = concat!("{\"mounts\":", include_str!("pilot-mounts.json"), ",");

/// The parked container.
pub struct Parked {
    socket: SyncSocket,
    /// Its first process.
    pub pid: i32,
    /// It is in its root already, and lacks only its program.
    rooted: bool,
}

/// What may be made of the parked specification a second time.
pub struct Pilot {
    spec: String,
    /// One that was made, stopped, and has what it needs; once it was sent ahead, its socket keeps it from failing.
    made: Option<Parked>,
    sent: bool,
    /// The processors that the agent may use when no pilot waits for its own.
    processors: Option<CpuSet>,
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
        self.parked = Some(stand(STAGE, &call.spec_json)?);
        if call.pilot {
            let mut spec = String::from_utf8_lossy(&call.spec_json).into_owned();
            for (place, own) in PILOT_PLACES {
                spec = spec.replace(place, own);
            }
            self.pilot = Some(Pilot { spec, made: None, sent: false, processors: None });
        }
        Ok(())
    }

    /// Gives the parked container its root, before there is a program: a clone has that behind it.
    ///
    /// # Errors
    /// There is none, it has one, or vmexec's.
    pub fn park_root(&mut self, call: &ParkRoot) -> Result<()> {
        let none = || Failure::new("park", Errno::NOENT, "no container without a root is parked");
        let parked = self.parked.as_mut().filter(|parked| !parked.rooted).ok_or_else(none)?;
        parked.enter(open_root(&call.container)?, &call.mounts_json)
    }

    /// Makes the pilot, where there is to be one and a container that it goes ahead of: the VM is about to be saved.
    ///
    /// # Errors
    /// As [`Agent::park`].
    pub fn ready_pilot(&mut self) -> Result<()> {
        let wanted = |pilot: &&mut Pilot| self.parked.is_some() && (pilot.sent || pilot.made.is_none());
        let Some(pilot) = self.pilot.as_mut().filter(wanted) else { return Ok(()) };
        if let Some(pid) = pilot.made.take().and_then(|arrived| Pid::from_raw(arrived.pid)) {
            // One that is gone already is what is wanted.
            let _ = kill_process(pid, Signal::KILL).and_then(|()| waitpid(Some(pid), WaitOptions::empty()));
        }
        let all = sched_getaffinity(None).context("pilot", "processors")?;
        let last = (0..CpuSet::MAX_CPU).rev().find(|number| all.is_set(*number)).unwrap_or(0);
        let mut stood = stand(PILOT_PLACES[0].1, pilot.spec.as_bytes())?;
        // It gets the last one. The agent goes on at the first, which has the interrupts.
        run_on(stood.pid, last)?;
        run_on(0, 0)?;
        pilot.processors = Some(all);
        let rooted = self.parked.as_ref().is_some_and(|parked| parked.rooted);
        brief(&mut stood, rooted)?;
        // Of a clone's first input the interrupt itself sends it on, long before the agent has read a word.
        sys::signal_input(self.port.as_fd(), stood.pid, Signal::CONT.as_raw()).context("pilot", "await a host")?;
        (pilot.made, pilot.sent) = (Some(stood), false);
        Ok(())
    }

    /// A host is there, and so the pilot is on its way. Whatever becomes of it, nobody waits for it.
    pub fn pilot_sent(&mut self) {
        if let Some(pilot) = self.pilot.as_mut().filter(|pilot| !pilot.sent && pilot.made.is_some()) {
            pilot.sent = true;
            // What it costs where that fails is a signal for nobody with each input.
            let _ = sys::unsignal_input(self.port.as_fd());
        }
    }

    /// Before the agent has a child: that gets all processors, and so does the agent.
    pub fn use_all_processors(&mut self) {
        if self.resumed
            && let Some(all) = self.pilot.as_mut().and_then(|pilot| pilot.processors.take())
        {
            // They were its own before.
            let _ = sched_setaffinity(None, &all);
        }
    }

    /// Hands the parked container what it lacks; the socket that tells how it goes on, and its first process's pid.
    ///
    /// # Errors
    /// There is none, or it is gone.
    pub fn unpark(&mut self, rest: Rest<'_>) -> Result<(OwnedFd, i32)> {
        let none = || Failure::new("create", Errno::NOENT, "no container is parked");
        let Parked { socket, pid, rooted } = self.parked.take().ok_or_else(none)?;
        if let Some(container) = self.containers.iter_mut().find(|found| found.id == rest.container) {
            container.cgroup = container::cgroup(PARKED);
        }
        let root = if rooted { None } else { Some(open_root(rest.container)?) };
        hand_over(&socket, root, rest)?;
        Ok((socket.fd, pid))
    }
}

/// Makes a container that waits, on the empty folder `stage`.
fn stand(stage: &str, spec: &[u8]) -> Result<Parked> {
    make_own_folders(stage)?;
    let request = Request {
        verb: "park",
        container: PARKED,
        spec,
        init: None,
        pty: None,
        start: false,
        stdio: [None, None, None],
    };
    let socket = SyncSocket { fd: spawn(request)?.0, process: 0 };
    let mut pid = 0;
    loop {
        match socket.wait()? {
            Report::Pid(number) => pid = number,
            Report::Parked => return Ok(Parked { socket, pid, rooted: false }),
            Report::Failed(failure) => return Err(failure),
            _ => return Err(Failure::new("park", Errno::IO, "vmexec ended without a word")),
        }
    }
}

/// Of the process, 0 being the caller.
fn run_on(pid: i32, processor: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(processor);
    sched_setaffinity(Pid::from_raw(pid), &set).context("pilot", "processors")
}

/// Stops the pilot and hands it its rest: to go on is then a matter of a signal.
/// The agent's own root will do for it: all that it runs there is the pilot's program.
fn brief(pilot: &mut Parked, rooted: bool) -> Result<()> {
    let tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let root = open_tree(CWD, "/", tree).context("pilot", "/")?;
    let (root, spec) = if rooted {
        pilot.enter(root, PILOT_MOUNTS.as_bytes())?;
        (None, PILOT_REST.to_owned())
    } else {
        (Some(root), PILOT_REST.replacen('{', PILOT_MOUNTS_AND, 1))
    };
    let stopped = Pid::from_raw(pilot.pid).ok_or(Errno::SRCH).and_then(|pid| {
        kill_process(pid, Signal::STOP)?;
        waitpid(Some(pid), WaitOptions::UNTRACED)
    });
    stopped.context("pilot", "stop it")?;
    let rest = Rest { container: "", spec: spec.as_bytes(), pty: None, start: true, stdio: [None, None, None] };
    hand_over(&pilot.socket, root, rest)
}

/// The root of a container, a mount that is attached nowhere.
fn open_root(container: &str) -> Result<OwnedFd> {
    let root = container::folder(container).join("rootfs");
    let tree = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    open_tree(CWD, &root, tree).context("create", &root.to_string_lossy())
}

impl Parked {
    /// Hands it its root, and `mounts` (JSON) to be made there; waits until it is in it.
    fn enter(&mut self, root: OwnedFd, mounts: &[u8]) -> Result<()> {
        let fds = [root.as_fd()];
        send_to(&self.socket, &fds, None, mounts)?;
        match self.socket.wait()? {
            Report::Parked => {}
            Report::Failed(failure) => return Err(failure),
            _ => return Err(Failure::new("park", Errno::IO, "vmexec ended without a word")),
        }
        self.rooted = true;
        Ok(())
    }
}

fn hand_over(socket: &SyncSocket, root: Option<OwnedFd>, rest: Rest<'_>) -> Result<()> {
    let mut stdio = Vec::with_capacity(3);
    for (number, fd) in rest.stdio.into_iter().enumerate() {
        let access = if number == 0 { OFlags::RDONLY } else { OFlags::WRONLY };
        let null = || open("/dev/null", access | OFlags::CLOEXEC, Mode::empty()).context("create", "/dev/null");
        stdio.push(fd.map_or_else(null, Ok)?);
    }
    let fds = root.iter().chain(&stdio).map(AsFd::as_fd).collect::<Vec<_>>();
    send_to(socket, &fds, rest.pty, rest.spec)?;
    if rest.start { socket.go() } else { Ok(()) }
}

fn send_to(socket: &SyncSocket, fds: &[BorrowedFd<'_>], pty: Option<(u32, u32)>, json: &[u8]) -> Result<()> {
    let (columns, rows) = pty.unwrap_or_default();
    let size = [columns, rows].map(|number| u16::try_from(number).unwrap_or(u16::MAX).to_le_bytes()).concat();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(fds));
    let message = [IoSlice::new(&size), IoSlice::new(json)];
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(&socket.fd, &message, &mut control, flags).context("create", "the parked container").map(drop)
}
