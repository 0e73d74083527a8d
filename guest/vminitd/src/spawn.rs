//! Runs `vmexec` and follows what it tells (docs/internals.md, "vmexec, as the agent calls it").

use std::io::{IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType,
    recvmsg, send, shutdown, socketpair,
};
use serde::Deserialize;

use crate::failure::{Context, Failure, Result};

const HELPER: &str = "/bin/vmexec";
/// "Go": the last thing that vmexec waits for.
const GO: &[u8] = b"S";
/// vmexec says nothing longer.
const MAX_REPORT: usize = 8192;

/// What vmexec is asked for.
pub struct Request<'a> {
    /// `run`, `exec` or `park`.
    pub verb: &'static str,
    /// The container's id.
    pub container: &'a str,
    /// The runtime specification, or the process alone.
    pub spec: &'a [u8],
    /// For a further process: the pid of the first.
    pub init: Option<i32>,
    /// Columns and rows of a terminal.
    pub pty: Option<(u32, u32)>,
    /// Do not wait for [`SyncSocket::go`].
    pub start: bool,
    /// The process's 0, 1 and 2; none: /dev/null.
    pub stdio: [Option<OwnedFd>; 3],
}

/// The agent's end of vmexec's socket.
pub struct SyncSocket {
    /// The descriptor.
    pub fd: OwnedFd,
    /// The process that is being made.
    pub process: u32,
}

/// What vmexec says.
#[derive(Debug, PartialEq, Eq)]
pub enum Report {
    /// The process, as the agent sees it.
    Pid(i32),
    /// The terminal's master came along.
    Terminal,
    /// A container waits for its root and its first process.
    Parked,
    /// Everything is set up.
    Ready,
    /// It failed.
    Failed(Failure),
    /// Nothing more will come.
    Closed,
}

#[derive(Deserialize)]
struct FailureReport {
    #[serde(default)]
    stage: String,
    #[serde(default)]
    errno: i32,
    #[serde(default)]
    message: String,
    #[serde(default)]
    exit_code: i32,
}

/// Starts vmexec; it is our child, and so will the process be. Its socket, and vmexec's pid.
///
/// # Errors
/// No descriptors, or no vmexec.
pub fn spawn(request: Request<'_>) -> Result<(OwnedFd, i32)> {
    let spec = spec_file(request.spec).context("spawn", "memfd")?;
    let kinds = (AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let (ours, theirs) = socketpair(kinds.0, kinds.1, kinds.2, None).context("spawn", "socketpair")?;
    if request.start {
        // Said before it is asked: one wake-up less.
        send(&ours, GO, SendFlags::NOSIGNAL).context("spawn", "socketpair")?;
    }
    let mut command = Command::new(HELPER);
    command.env_clear().arg(request.verb);
    command.args(["--id", request.container]);
    command.args(["--spec-fd", &spec.as_raw_fd().to_string(), "--sync-fd", &theirs.as_raw_fd().to_string()]);
    if let Some(pid) = request.init {
        command.args(["--pid", &pid.to_string()]);
    }
    if let Some((columns, rows)) = request.pty {
        command.args(["--pty", &format!("{columns}x{rows}")]);
    }
    for fd in [&spec, &theirs] {
        // They are closed when this function ends, and nothing else is spawned before that.
        fcntl_setfd(fd, FdFlags::empty()).context("spawn", "fcntl")?;
    }
    let [stdin, stdout, stderr] = request.stdio.map(|fd| fd.map_or_else(Stdio::null, Stdio::from));
    command.stdin(stdin).stdout(stdout).stderr(stderr);
    let child = command.spawn().context("spawn", HELPER)?;
    Ok((ours, child.id().cast_signed()))
}

fn spec_file(spec: &[u8]) -> std::result::Result<OwnedFd, Errno> {
    let mut file = std::fs::File::from(memfd_create("spec", MemfdFlags::CLOEXEC)?);
    file.write_all(spec).map_err(|_| Errno::NOSPC)?;
    seek(&file, SeekFrom::Start(0))?;
    Ok(file.into())
}

impl SyncSocket {
    /// Lets the process run.
    ///
    /// # Errors
    /// vmexec is gone.
    pub fn go(&self) -> Result<()> {
        send(&self.fd, GO, SendFlags::NOSIGNAL | SendFlags::DONTWAIT).context("start", "vmexec").map(drop)
    }

    /// Takes no further message than those that are there; vmexec's next one fails.
    pub fn deafen(&self) {
        // A socket whose other end is gone takes none either.
        let _ = shutdown(&self.fd, Shutdown::Read);
    }

    /// The next message, waited for.
    ///
    /// # Errors
    /// As poll(2).
    pub fn wait(&self) -> Result<Report> {
        loop {
            if let Some((report, _)) = self.receive() {
                return Ok(report);
            }
            let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).context("spawn", HELPER),
            }
        }
    }

    /// The next message, and a terminal's master if it came with it; none: it has said nothing yet.
    pub fn receive(&self) -> Option<(Report, Option<OwnedFd>)> {
        let mut buffer = [0; MAX_REPORT];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        let count = match recvmsg(&self.fd, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags) {
            Ok(message) => message.bytes,
            Err(Errno::AGAIN | Errno::INTR) => return None,
            // It ended before it read our GO. The kernel says that once, and before what vmexec had to say.
            Err(Errno::CONNRESET) => return self.receive(),
            Err(errno) => return Some((Report::Failed(Failure::new("vmexec", errno, "its socket")), None)),
        };
        let master = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Some((parse(&buffer[..count.min(MAX_REPORT)], master.is_some()), master))
    }
}

fn parse(message: &[u8], terminal: bool) -> Report {
    let broken = || Report::Failed(Failure::new("vmexec", Errno::PROTO, "vmexec said something unknown"));
    match message.split_first() {
        None => Report::Closed,
        Some((b'P', pid)) => pid.try_into().map_or_else(|_| broken(), |pid| Report::Pid(i32::from_ne_bytes(pid))),
        Some((b'T', _)) if terminal => Report::Terminal,
        Some((b'K', _)) => Report::Parked,
        Some((b'R', _)) => Report::Ready,
        Some((b'E', json)) => serde_json::from_slice(json).map_or_else(
            |_| broken(),
            |FailureReport { stage, errno, message, exit_code }| {
                Report::Failed(Failure { stage: stage.into(), errno, message, exit_code })
            },
        ),
        Some(_) => broken(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_read() {
        assert_eq!(parse(b"", false), Report::Closed);
        assert_eq!(parse(&[b'P', 7, 0, 0, 0], false), Report::Pid(7));
        assert_eq!(parse(b"R", false), Report::Ready);
        let failed = parse(br#"E{"stage":"exec","errno":2,"message":"no such program","exit_code":127}"#, false);
        let failure = Failure { stage: "exec".into(), errno: 2, message: "no such program".into(), exit_code: 127 };
        assert_eq!(failed, Report::Failed(failure));
    }

    #[test]
    fn a_failure_is_told_although_go_was_not_read() {
        let (fd, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        let socket = SyncSocket { fd, process: 0 };
        socket.go().unwrap();
        send(&theirs, br#"E{"stage":"user","errno":2,"message":"who?"}"#, SendFlags::NOSIGNAL).unwrap();
        drop(theirs);
        let failure = Failure { stage: "user".into(), errno: 2, message: "who?".into(), exit_code: 0 };
        assert_eq!(socket.receive().map(|(report, _)| report), Some(Report::Failed(failure)));
        assert_eq!(socket.receive().map(|(report, _)| report), Some(Report::Closed));
    }

    #[test]
    fn nonsense_is_a_failure() {
        for wrong in [&b"P12"[..], b"X", b"E{", b"T"] {
            assert!(matches!(parse(wrong, false), Report::Failed(_)), "{wrong:?}");
        }
    }
}
