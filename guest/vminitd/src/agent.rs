//! The agent: one thread, one loop over everything that can happen.

use std::collections::VecDeque;

use link::{Endpoint, INITIAL_SENTINEL, Identity};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::{Errno, read};
use rustix::time::{ClockId, clock_gettime};

use crate::boot;
use crate::call::{Call, Undo};
use crate::container::Container;
use crate::failure::{Context, Failure, Result};
use crate::helper::Helper;
use crate::lifecycle::Published;
use crate::messages::{SCHEMA_HASH, reply};
use crate::network::Netlink;
use crate::output::{Output, Written};
use crate::parked::{Parked, Pilot};
use crate::process::Process;
use crate::relay::{Progress, Relay};
use crate::slab::Slab;
use crate::sockets::Listener;
use crate::spawn::SyncSocket;
use crate::sys;
use crate::watch::Watch;

const PORT: u64 = u64::MAX;
const CHILDREN: u64 = u64::MAX - 1;
/// After this many reads of the port other things get their turn.
const READS_AT_A_TIME: usize = 64;
/// After this many writes likewise.
const WRITES_AT_A_TIME: usize = 64;

/// Everything that has a descriptor or a stream, behind a token.
pub enum Node {
    /// An RPC.
    Call(Call),
    /// A stream joined to a descriptor.
    Relay(Relay),
    /// `vmexec` at work.
    Sync(SyncSocket),
    /// A socket whose connections go to the host.
    Listener(Listener),
    /// A forked part of the agent.
    Helper(Helper),
    /// A cgroup that is to reach a state.
    Watch(Watch),
}

/// All of the agent's state.
pub struct Agent {
    /// To the host.
    pub port: OwnedFd,
    port_readable: bool,
    port_writable: bool,
    epoll: OwnedFd,
    signals: OwnedFd,
    output: Output,
    ready: VecDeque<u32>,
    /// The framing.
    pub link: Endpoint,
    /// Everything behind tokens.
    pub nodes: Slab<Node>,
    /// All processes that were not deleted.
    pub processes: Slab<Process>,
    /// All containers that were not deleted.
    pub containers: Vec<Container>,
    /// One that waits for its root and its first process.
    pub parked: Option<Parked>,
    /// One that goes ahead of it.
    pub pilot: Option<Pilot>,
    /// Sockets that the host's streams are joined to, by port.
    pub routes: Vec<crate::sockets::Route>,
    /// User code may run.
    pub resumed: bool,
    /// Quiesce froze all containers, and no Resume thawed them.
    pub frozen: bool,
    /// How often this line of VMs was restored.
    pub epoch: u64,
    /// Hidden behaviour for fault tests is on.
    pub testing: bool,
    /// Calls with a deadline.
    pub deadlines: usize,
    /// Opened when first needed.
    pub netlink: Option<Netlink>,
    /// /dev/urandom, opened when first needed.
    pub random: Option<OwnedFd>,
    /// What Resume writes.
    pub published: Published,
}

impl Agent {
    /// An agent that speaks over `port`.
    ///
    /// # Errors
    /// No epoll or signalfd.
    pub fn new(port: OwnedFd) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).context("epoll", "create")?;
        let signals = sys::child_signals().context("signalfd", "create")?;
        let both = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&epoll, &port, epoll::EventData::new_u64(PORT), both).context("epoll", "port")?;
        let children = epoll::EventData::new_u64(CHILDREN);
        epoll::add(&epoll, &signals, children, epoll::EventFlags::IN).context("epoll", "signals")?;
        Ok(Self {
            port,
            port_readable: true,
            port_writable: true,
            epoll,
            signals,
            output: Output::new(),
            ready: VecDeque::new(),
            link: Endpoint::guest(INITIAL_SENTINEL, Identity { schema: SCHEMA_HASH, boot_id: boot::boot_id() }),
            nodes: Slab::new(),
            processes: Slab::new(),
            containers: Vec::new(),
            parked: None,
            pilot: None,
            routes: Vec::new(),
            resumed: false,
            frozen: false,
            epoch: 0,
            testing: boot::test_mode(),
            deadlines: 0,
            netlink: None,
            random: None,
            published: Published::default(),
        })
    }

    /// Works until the VM ends.
    pub fn run(&mut self) -> ! {
        let mut events = Vec::with_capacity(64);
        loop {
            self.flush();
            let timeout = self.timeout();
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => panic!("epoll_wait: {errno}"),
            }
            let mut children = false;
            for event in &events {
                let (token, flags) = (event.data.u64(), event.flags);
                match token {
                    PORT => {
                        self.port_readable |= flags.contains(epoll::EventFlags::IN);
                        self.port_writable |= flags.contains(epoll::EventFlags::OUT);
                    }
                    CHILDREN => children = true,
                    _ => self.node_event(token as u32, flags),
                }
            }
            if children {
                // What it says is asked of the kernel anyway; it only has to be emptied.
                let _ = read(&self.signals, &mut [0; 1024]);
                self.reap();
            }
            self.read_port();
            self.expire();
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        let busy = self.port_readable && !self.link.congested() || self.port_writable && !self.ready.is_empty();
        if busy {
            return Some(Timespec { tv_sec: 0, tv_nsec: 0 });
        }
        if self.deadlines == 0 {
            return None;
        }
        let calls =
            self.nodes.iter().filter_map(|(_, node)| if let Node::Call(call) = node { call.deadline } else { None });
        let left = calls.min().map(|deadline| (deadline - monotonic_ns()).max(0))?;
        Some(Timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 })
    }

    fn read_port(&mut self) {
        let mut reads = 0;
        while self.port_readable && !self.link.congested() && reads < READS_AT_A_TIME {
            reads += 1;
            match read(&self.port, self.link.space()) {
                // No host: the next one's first byte is a new edge.
                Ok(0) | Err(Errno::AGAIN) => self.port_readable = false,
                Ok(count) => {
                    self.link.filled(count);
                    while let Some(event) = self.link.poll() {
                        self.link_event(event);
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => self.port_readable = false,
            }
        }
    }

    /// Sends what there is to send, as far as the port takes it.
    pub fn flush(&mut self) {
        for _ in 0..WRITES_AT_A_TIME {
            self.fill();
            if self.output.is_empty() || !self.port_writable {
                return;
            }
            if self.output.flush(self.port.as_fd()) == Written::Blocked {
                self.port_writable = false;
            }
        }
    }

    fn fill(&mut self) {
        if !self.link.control().is_empty() {
            self.output.take(self.link.control());
        }
        // A node that is not done goes to the end of the line: all get their turn.
        while let Some(token) = self.ready.pop_front() {
            match self.produce(token) {
                Progress::More => self.ready.push_back(token),
                Progress::Full => {
                    self.ready.push_front(token);
                    return;
                }
                Progress::Waits => {
                    self.set_queued(token, false);
                }
                Progress::Done => self.close(token),
            }
        }
        if !self.link.control().is_empty() {
            self.output.take(self.link.control());
        }
    }

    fn produce(&mut self, token: u32) -> Progress {
        match self.nodes.get_mut(token) {
            Some(Node::Call(call)) => call.produce(&mut self.link, &mut self.output),
            Some(Node::Relay(relay)) if relay.wants_turn() => {
                let progress = relay.produce(&mut self.link, &mut self.output);
                let owner = relay.owner;
                if progress == Progress::Waits && !relay.is_source() {
                    self.settle(owner);
                }
                progress
            }
            _ => Progress::Waits,
        }
    }

    fn set_queued(&mut self, token: u32, queued: bool) -> bool {
        let flag = match self.nodes.get_mut(token) {
            Some(Node::Call(call)) => &mut call.queued,
            Some(Node::Relay(relay)) => &mut relay.queued,
            _ => return queued,
        };
        std::mem::replace(flag, queued)
    }

    /// The node may have something to send.
    pub fn queue(&mut self, token: u32) {
        if !self.set_queued(token, true) {
            self.ready.push_back(token);
        }
    }

    /// More credit for all: whoever waited for it gets a turn.
    pub fn queue_all(&mut self) {
        for token in self.nodes.tokens(|node| match node {
            Node::Call(call) => call.answered(),
            Node::Relay(relay) => relay.wants_turn(),
            _ => false,
        }) {
            self.queue(token);
        }
    }

    /// Forgets all that was to be sent.
    pub fn forget_output(&mut self) {
        self.output.clear();
        for token in std::mem::take(&mut self.ready) {
            self.set_queued(token, false);
        }
    }

    /// Writes bytes to the port as they are, whatever the protocol says. For fault tests.
    pub fn write_raw(&self, bytes: &[u8]) {
        // A test that floods gets what the port takes.
        let _ = rustix::io::write(&self.port, bytes);
    }

    /// Keeps a node.
    ///
    /// # Errors
    /// There are too many.
    pub fn insert(&mut self, node: Node) -> Result<u32> {
        self.nodes.insert(node).ok_or_else(|| Failure::new("agent", Errno::MFILE, "too many streams and descriptors"))
    }

    /// Has epoll tell of the descriptor, by edges.
    ///
    /// # Errors
    /// As epoll_ctl(2).
    pub fn watch(&self, fd: &OwnedFd, token: u32, flags: epoll::EventFlags) -> Result<()> {
        let data = epoll::EventData::new_u64(u64::from(token));
        epoll::add(&self.epoll, fd, data, flags | epoll::EventFlags::ET).context("epoll", "add")
    }

    /// Answers a call. One that is gone needs no answer.
    pub fn answer(&mut self, token: u32, result: Result<reply::Result>) {
        let Some(Node::Call(call)) = self.nodes.get_mut(token) else { return };
        call.answer(result);
        call.undo = Undo::Nothing;
        if call.deadline.take().is_some() {
            self.deadlines -= 1;
        }
        self.queue(token);
    }

    fn expire(&mut self) {
        if self.deadlines == 0 {
            return;
        }
        let now = monotonic_ns();
        let late = |node: &Node| matches!(node, Node::Call(Call { deadline: Some(deadline), .. }) if *deadline <= now);
        for token in self.nodes.tokens(late) {
            self.undo(token);
            self.answer(token, Err(Failure::new("deadline", Errno::TIMEDOUT, "the call took longer than it may")));
        }
    }
}

/// CLOCK_MONOTONIC in nanoseconds: it stands still while the VM is saved.
pub fn monotonic_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// CLOCK_REALTIME in nanoseconds.
pub fn realtime_ns() -> i64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}
