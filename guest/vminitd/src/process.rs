//! Processes, from the request to the exit status.

use rustix::event::epoll::EventFlags;
use rustix::fd::OwnedFd;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use crate::agent::{Agent, Node};
use crate::call::{Undo, done};
use crate::container::{self, Container, check_id};
use crate::failure::{Context, Failure, Result};
use crate::messages::{CreateProcess, ProcessExit, ProcessStarted, process_exit, reply};
use crate::parked::Rest;
use crate::relay::{Relay, Role};
use crate::spawn::{Report, Request, SyncSocket, spawn};

/// The id of a container's first process.
pub const INIT: &str = "init";
const MAX_PROCESSES: usize = 1024;
const MAX_CONTAINERS: usize = 256;
/// The signals: 1 to this.
const LAST_SIGNAL: u32 = 64;

/// How far a process has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// vmexec sets it up; it is to start at once or not.
    Making {
        /// It does not wait for StartProcess.
        start: bool,
    },
    /// Set up, waiting for StartProcess.
    Made,
    /// Told to go; vmexec has not become the program yet.
    Starting,
    /// The program runs.
    Running,
    /// It ended.
    Ended(ProcessExit),
}

/// A process that was not deleted.
pub struct Process {
    /// Its container.
    pub container: String,
    /// Its id.
    pub id: String,
    /// As the agent sees it; 0 before vmexec told it.
    pub pid: i32,
    /// How far it has come.
    pub phase: Phase,
    /// Tokens of the relays of its standard streams; those that are over name nothing.
    pub stdio: [u32; 3],
    starter: u32,
    sync: u32,
    /// vmexec's pid, which is another one's; 0 for the parked container.
    maker: i32,
    waiters: Vec<u32>,
    /// The host sent it SIGKILL.
    killed: bool,
    /// Its end, while vmexec's last word is still to come.
    ended: Option<ProcessExit>,
}

impl Process {
    /// How vmexec ended that told nothing. Its socket is closed, so it is about to end where it has not.
    fn last_word(&mut self) -> String {
        let how = self.ended.and_then(|exit| exit.status).or_else(|| {
            let pid = std::mem::take(&mut self.pid);
            let pid = Pid::from_raw(if pid == 0 { self.maker } else { pid })?;
            waitpid(Some(pid), WaitOptions::empty()).ok().flatten().and_then(|(_, status)| status_of(status))
        });
        match how {
            Some(process_exit::Status::Signal(signal)) => format!("signal {signal} ended vmexec before it said a word"),
            Some(process_exit::Status::Code(code)) => format!("vmexec ended with code {code} and without a word"),
            None => "vmexec ended without a word".to_owned(),
        }
    }
}

/// An end as it is told; none: it has not ended.
pub fn status_of(status: WaitStatus) -> Option<process_exit::Status> {
    let code = status.exit_status().map(|code| process_exit::Status::Code(code.cast_unsigned()));
    code.or_else(|| status.terminating_signal().map(|signal| process_exit::Status::Signal(signal.cast_unsigned())))
}

impl Agent {
    /// The process of that name.
    ///
    /// # Errors
    /// ESRCH.
    pub fn find(&self, container: &str, process: &str) -> Result<u32> {
        let mut all = self.processes.iter();
        all.find(|(_, found)| found.container == container && found.id == process).map(|(token, _)| token).ok_or_else(
            || Failure::new("process", Errno::SRCH, format!("no process {process} in container {container}")),
        )
    }

    /// The pid of a container's first process, while it lives.
    pub fn init_pid(&self, container: &str) -> Option<i32> {
        let process = self.processes.get(self.find(container, INIT).ok()?)?;
        (process.pid != 0 && !matches!(process.phase, Phase::Ended(_))).then_some(process.pid)
    }

    /// Makes a process. `call` is answered when it runs, or is set up, or failed.
    ///
    /// # Errors
    /// It can't even be tried.
    pub fn create_process(&mut self, call: u32, request: &CreateProcess) -> Result<()> {
        check_id(&request.container)?;
        check_id(&request.process)?;
        if self.find(&request.container, &request.process).is_ok() {
            return Err(Failure::new("create", Errno::EXIST, format!("process {} exists", request.process)));
        }
        if self.processes.iter().count() >= MAX_PROCESSES || self.containers.len() >= MAX_CONTAINERS {
            return Err(Failure::new("create", Errno::MFILE, "too many processes"));
        }
        let init = if request.process == INIT {
            None
        } else {
            let pid = self.init_pid(&request.container);
            Some(pid.ok_or_else(|| {
                Failure::new("create", Errno::SRCH, format!("container {} does not run", request.container))
            })?)
        };
        let process = Process {
            container: request.container.clone(),
            id: request.process.clone(),
            pid: 0,
            phase: Phase::Making { start: request.start },
            stdio: [0; 3],
            starter: call,
            sync: 0,
            maker: 0,
            waiters: Vec::new(),
            killed: false,
            ended: None,
        };
        let token =
            self.processes.insert(process).ok_or_else(|| Failure::new("create", Errno::MFILE, "too many processes"))?;
        if init.is_none() && !self.containers.iter().any(|found| found.id == request.container) {
            self.containers.push(Container::new(&request.container));
        }
        let made = self.launch(token, request, init);
        if made.is_err() {
            self.forget_process(token);
        } else if let Some(Node::Call(call)) = self.nodes.get_mut(call) {
            call.undo = Undo::Process(token);
        }
        made
    }

    fn launch(&mut self, token: u32, request: &CreateProcess, init: Option<i32>) -> Result<()> {
        let pty = (request.pty_columns > 0 && request.pty_rows > 0).then_some((request.pty_columns, request.pty_rows));
        let mut ends = [None, None, None];
        let ports = [request.stdin_port, request.stdout_port, request.stderr_port];
        for (index, port) in ports.into_iter().enumerate().filter(|(_, port)| *port != 0) {
            let relay = if pty.is_some() {
                self.dial(port, token, Role::Terminal, None)?
            } else {
                let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC).context("create", "pipe")?;
                let (ours, theirs, role) =
                    if index == 0 { (write_end, read_end, Role::Sink) } else { (read_end, write_end, Role::Source) };
                ends[index] = Some(theirs);
                self.dial(port, token, role, Some(ours))?
            };
            if let Some(process) = self.processes.get_mut(token) {
                process.stdio[index] = relay;
            }
            if pty.is_some() {
                break;
            }
        }
        let (container, spec, start) = (&request.container, request.spec_json.as_slice(), request.start);
        let fd = if request.parked && init.is_none() {
            let (fd, pid) = self.unpark(Rest { container, spec, pty, start, stdio: ends })?;
            if let Some(process) = self.processes.get_mut(token) {
                process.pid = pid;
            }
            fd
        } else {
            self.use_all_processors();
            let verb = if init.is_some() { "exec" } else { "run" };
            let (fd, maker) = spawn(Request { verb, container, spec, init, pty, start, stdio: ends })?;
            if let Some(process) = self.processes.get_mut(token) {
                process.maker = maker;
            }
            fd
        };
        let sync = self.insert(Node::Sync(SyncSocket { fd, process: token }))?;
        if let Some(Node::Sync(socket)) = self.nodes.get(sync) {
            self.watch(&socket.fd, sync, EventFlags::IN)?;
        }
        if let Some(process) = self.processes.get_mut(token) {
            process.sync = sync;
        }
        Ok(())
    }

    /// Opens a stream to the host's `port` and joins it to `fd`.
    ///
    /// # Errors
    /// Too many streams or descriptors.
    pub fn dial(&mut self, port: u32, owner: u32, role: Role, fd: Option<OwnedFd>) -> Result<u32> {
        let token = self.insert(Node::Relay(Relay::new(role, 0, owner, None)))?;
        if let Some(fd) = fd {
            self.join(token, fd)?;
        }
        let opened = self.link.open(port, token);
        let stream = opened.map_err(|_| Failure::new("dial", Errno::MFILE, format!("no stream to port {port}")))?;
        if let Some(Node::Relay(relay)) = self.nodes.get_mut(token) {
            relay.stream = stream;
        }
        Ok(token)
    }

    /// Gives a relay its descriptor.
    ///
    /// # Errors
    /// As fcntl(2) and epoll_ctl(2).
    pub fn join(&mut self, token: u32, fd: OwnedFd) -> Result<()> {
        fcntl_setfl(&fd, OFlags::NONBLOCK).context("dial", "fcntl")?;
        let Some(Node::Relay(relay)) = self.nodes.get(token) else { return Ok(()) };
        let flags = match relay.role {
            Role::Sink => EventFlags::OUT,
            Role::Source => EventFlags::IN,
            Role::Terminal | Role::Socket => EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP,
        };
        self.watch(&fd, token, flags)?;
        if let Some(Node::Relay(relay)) = self.nodes.get_mut(token) {
            relay.attach(fd);
        }
        Ok(())
    }

    /// vmexec said something.
    pub fn sync_event(&mut self, token: u32) {
        while let Some(Node::Sync(socket)) = self.nodes.get(token) {
            let process = socket.process;
            let Some((report, master)) = socket.receive() else { return };
            match report {
                Report::Pid(pid) => {
                    if let Some(process) = self.processes.get_mut(process) {
                        process.pid = pid;
                    }
                }
                Report::Terminal => self.terminal(process, master),
                // A parked container is not told of here.
                Report::Parked => {}
                Report::Ready => self.made(process),
                Report::Failed(failure) => {
                    self.close(token);
                    self.start_failed(process, &failure);
                }
                Report::Closed => {
                    self.close(token);
                    self.started(process);
                }
            }
        }
    }

    fn terminal(&mut self, process: u32, master: Option<OwnedFd>) {
        let relay = self.processes.get(process).map_or(0, |process| process.stdio[0]);
        // Without a stream for it the master is closed, which hangs the terminal up.
        if let (Some(Node::Relay(_)), Some(master)) = (self.nodes.get(relay), master)
            && let Err(failure) = self.join(relay, master)
        {
            self.start_failed(process, &failure);
        }
    }

    fn made(&mut self, token: u32) {
        let Some(process) = self.processes.get_mut(token) else { return };
        if process.phase == (Phase::Making { start: true }) {
            process.phase = Phase::Starting;
            return;
        }
        process.phase = Phase::Made;
        let (call, pid) = (std::mem::take(&mut process.starter), process.pid);
        self.answer(call, Ok(reply::Result::ProcessStarted(ProcessStarted { pid })));
    }

    /// Lets a process run that was only made.
    ///
    /// # Errors
    /// It is not one.
    pub fn start_process(&mut self, call: u32, token: u32) -> Result<()> {
        let wrong = || Failure::new("start", Errno::BUSY, "the process was started before");
        let process = self.processes.get_mut(token).filter(|process| process.phase == Phase::Made).ok_or_else(wrong)?;
        let Some(Node::Sync(socket)) = self.nodes.get(process.sync) else { return Err(wrong()) };
        socket.go()?;
        process.phase = Phase::Starting;
        process.starter = call;
        Ok(())
    }

    /// vmexec's socket is closed: it has become the program, or died.
    fn started(&mut self, token: u32) {
        let Some(process) = self.processes.get_mut(token) else { return };
        process.sync = 0;
        if process.phase == Phase::Made {
            // Killed before it was started: how, its exit status tells, which came before or comes yet.
            if let Some(exit) = process.ended.take() {
                process.phase = Phase::Ended(exit);
                self.settle(token);
            }
            return;
        }
        if process.phase != Phase::Starting {
            let failure = Failure::new("vmexec", Errno::IO, process.last_word());
            return self.start_failed(token, &Failure { exit_code: 125, ..failure });
        }
        process.phase = Phase::Running;
        let (call, pid) = (std::mem::take(&mut process.starter), process.pid);
        if let Some(exit) = process.ended.take() {
            process.phase = Phase::Ended(exit);
        }
        self.answer(call, Ok(reply::Result::ProcessStarted(ProcessStarted { pid })));
        self.settle(token);
    }

    fn start_failed(&mut self, token: u32, failure: &Failure) {
        let Some(process) = self.processes.get_mut(token) else { return };
        let calls = [std::mem::take(&mut process.starter)].into_iter().chain(std::mem::take(&mut process.waiters));
        for call in calls.collect::<Vec<_>>() {
            self.answer(call, Err(failure.clone()));
        }
        self.forget_process(token);
    }

    /// Whoever asked for the process gave up.
    pub fn abandon(&mut self, token: u32) {
        if let Some(process) = self.processes.get_mut(token) {
            // Its own answer, if any, is the caller's business.
            process.starter = 0;
        }
        let failure = Failure::new("create", Errno::CANCELED, "the caller gave up");
        self.start_failed(token, &failure);
    }

    /// A child of ours ended.
    pub fn process_ended(&mut self, pid: i32, status: process_exit::Status, exited_at_ns: i64) {
        let Some((token, _)) = self.processes.iter().find(|(_, process)| process.pid == pid) else { return };
        let Some(process) = self.processes.get_mut(token) else { return };
        process.pid = 0;
        let unexpected_kill = status == process_exit::Status::Signal(9) && !process.killed;
        let container = self.containers.iter_mut().find(|container| container.id == process.container);
        let oom_killed = unexpected_kill && container.is_some_and(Container::had_oom_kill);
        let exit = ProcessExit { status: Some(status), oom_killed, exited_at_ns };
        if process.sync == 0 {
            process.phase = Phase::Ended(exit);
        } else {
            process.ended = Some(exit);
        }
        for relay in process.stdio {
            self.owner_ended(relay);
        }
        self.settle(token);
    }

    fn owner_ended(&mut self, token: u32) {
        let Some(Node::Relay(relay)) = self.nodes.get_mut(token) else { return };
        relay.owner_ended();
        if relay.role == Role::Sink {
            let stream = relay.stream;
            self.link.reset(stream, Errno::PIPE.raw_os_error() as u32);
            self.close(token);
        } else if relay.wants_turn() {
            self.queue(token);
        }
    }

    /// A relay is gone: its process may be over with it.
    pub fn relay_closed(&mut self, token: u32, owner: u32) {
        let Some(process) = self.processes.get_mut(owner) else { return };
        for slot in process.stdio.iter_mut().filter(|slot| **slot == token) {
            *slot = 0;
        }
        self.settle(owner);
    }

    /// Answers those who wait for a process, once it ended and its output was handed over.
    pub fn settle(&mut self, token: u32) {
        let Some(process) = self.processes.get_mut(token) else { return };
        let Phase::Ended(exit) = &process.phase else { return };
        let busy = |relay: &u32| matches!(self.nodes.get(*relay), Some(Node::Relay(relay)) if relay.stream != 0 && relay.is_source());
        if process.stdio.iter().any(busy) {
            return;
        }
        let exit = *exit;
        for call in std::mem::take(&mut process.waiters) {
            self.answer(call, Ok(reply::Result::ProcessExit(exit)));
        }
    }

    /// `call` is answered when the process has ended.
    pub fn wait_process(&mut self, call: u32, token: u32) {
        if let Some(process) = self.processes.get_mut(token) {
            // Those that gave up meanwhile are forgotten here, so that the list can't grow without end.
            process.waiters.retain(|waiter| self.nodes.get(*waiter).is_some());
            process.waiters.push(call);
        }
        self.settle(token);
    }

    /// Sends a signal to one process, or to all of its container.
    ///
    /// # Errors
    /// EINVAL, or ESRCH where it has ended.
    pub fn kill_process(&mut self, token: u32, signal: u32, all: bool) -> Result<reply::Result> {
        let wrong = || Failure::new("kill", Errno::INVAL, format!("{signal} is no signal"));
        let signal = Some(signal).filter(|signal| (1..=LAST_SIGNAL).contains(signal)).ok_or_else(wrong)?;
        let Some(process) = self.processes.get(token) else { return Ok(done()) };
        let (container, pid) = (process.container.clone(), process.pid);
        if signal == 9 {
            let hit = self.processes.tokens(|process| process.container == container && (all || process.pid == pid));
            for token in hit {
                if let Some(process) = self.processes.get_mut(token) {
                    process.killed = true;
                }
            }
        }
        if all && signal == 9 {
            container::kill_all(&self.cgroup(&container))?;
        } else if all {
            for pid in container::pids(&self.cgroup(&container)) {
                // One that ended meanwhile needs no signal.
                let _ = send_signal(pid, signal);
            }
        } else if pid == 0 {
            return Err(Failure::new("kill", Errno::SRCH, "the process has ended"));
        } else {
            send_signal(pid, signal).context("kill", "process")?;
        }
        Ok(done())
    }

    /// The pid that vmexec may have told unheard. From now on it can tell no more, and ends by that: a process that
    /// may start at once would run on.
    fn last_pid(&self, sync: u32) -> i32 {
        let Some(Node::Sync(socket)) = self.nodes.get(sync) else { return 0 };
        socket.deafen();
        while let Some((report, _)) = socket.receive() {
            match report {
                Report::Pid(pid) => return pid,
                Report::Closed | Report::Failed(_) => break,
                _ => {}
            }
        }
        0
    }

    /// Forgets a process and everything of it that the agent holds.
    pub fn forget_process(&mut self, token: u32) {
        let Some(process) = self.processes.remove(token) else { return };
        let pid = if process.pid == 0 { self.last_pid(process.sync) } else { process.pid };
        if pid != 0 {
            // It may have ended; it is reaped like any other.
            let _ = send_signal(pid, 9);
        }
        self.close(process.sync);
        for relay in process.stdio {
            if let Some(Node::Relay(relay)) = self.nodes.get(relay) {
                self.link.reset(relay.stream, Errno::CANCELED.raw_os_error() as u32);
            }
            self.close(relay);
        }
        if process.id == INIT {
            let others = self.processes.tokens(|other| other.container == process.container);
            if others.is_empty() {
                let cgroup = self.cgroup(&process.container);
                self.containers.retain(|container| container.id != process.container);
                // What still dies in it keeps it; the next container of that name takes it over.
                let _ = container::remove_cgroup(&cgroup);
            }
        }
    }
}

/// kill(2) with any signal's number. Sound against reuse of the pid: only the agent reaps.
fn send_signal(pid: i32, signal: u32) -> std::result::Result<(), Errno> {
    let pid = Pid::from_raw(pid).ok_or(Errno::SRCH)?;
    crate::sys::kill(pid, signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dying(script: &str, told: bool) -> Process {
        let child = std::process::Command::new("/bin/sh").args(["-c", script]).spawn().unwrap().id().cast_signed();
        let (pid, maker) = if told { (child, 0) } else { (0, child) };
        Process {
            container: "box".into(),
            id: "init".into(),
            pid,
            phase: Phase::Making { start: true },
            stdio: [0; 3],
            starter: 0,
            sync: 0,
            maker,
            waiters: Vec::new(),
            killed: false,
            ended: None,
        }
    }

    #[test]
    fn how_vmexec_ended_is_told_where_it_could_not() {
        for told in [true, false] {
            let mut process = dying("kill -SEGV $$", told);
            assert_eq!(process.last_word(), "signal 11 ended vmexec before it said a word");
            assert_eq!(process.pid, 0, "it is reaped, and another may get its number");
            assert_eq!(dying("exit 101", told).last_word(), "vmexec ended with code 101 and without a word");
        }
        let mut reaped = dying("exit 0", true);
        reaped.last_word();
        reaped.ended = Some(ProcessExit { status: Some(process_exit::Status::Signal(9)), ..ProcessExit::default() });
        assert_eq!(reaped.last_word(), "signal 9 ended vmexec before it said a word");
        reaped.ended = None;
        assert_eq!(reaped.last_word(), "vmexec ended without a word");
    }
}
