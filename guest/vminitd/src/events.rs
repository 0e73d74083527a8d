//! What happens: on the link, on descriptors.

use std::ops::Range;

use link::Event;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use crate::agent::{Agent, Node};
use crate::call::{Assembly, Call, MAX_PARTIAL, Undo};
use crate::console::log;
use crate::relay::{Progress, Role};

/// Where the host's calls go.
const RPC_PORT: u32 = 1024;

impl Agent {
    /// Handles what the host did.
    pub fn link_event(&mut self, event: Event) {
        match event {
            Event::Data { stream, token, payload } => self.data(stream, token, payload),
            Event::Opened { stream, port: RPC_PORT } => match self.insert(Node::Call(Call::new(stream))) {
                Ok(token) => self.link.attach(stream, token),
                Err(failure) => self.link.reset(stream, failure.errno as u32),
            },
            Event::Opened { stream, port } if self.testing && self.test_stream(stream, port) => {}
            Event::Opened { stream, port } => self.connect(stream, port),
            Event::Ended { token, .. } => self.ended(token),
            Event::Reset { token, .. } => self.stream_reset(token),
            Event::Credit { stream: 0, .. } => self.queue_all(),
            Event::Credit { token, .. } => self.queue(token),
            Event::Pong(_) => {}
            Event::Hello { .. } => {
                self.pilot_sent();
                self.disconnect();
            }
            Event::Fault(fault) => {
                log(&["the host broke the protocol: ", fault.name()].concat());
                self.disconnect();
            }
        }
    }

    fn data(&mut self, stream: u32, token: u32, payload: Range<usize>) {
        let progress = match self.nodes.get_mut(token) {
            Some(Node::Relay(relay)) => relay.receive(&mut self.link, payload),
            Some(Node::Call(call)) => {
                let count = payload.len();
                let assembly = call.assemble(self.link.bytes(payload));
                self.link.consumed(stream, count);
                self.assembled(token, stream, assembly);
                Progress::Waits
            }
            _ => Progress::Waits,
        };
        if progress == Progress::Done {
            self.close(token);
        }
    }

    fn assembled(&mut self, token: u32, stream: u32, assembly: Assembly) {
        match assembly {
            Assembly::Complete(message) => self.begin(token, &message),
            Assembly::Partial => {
                let held = self.nodes.iter().map(|(_, node)| if let Node::Call(call) = node { call.held() } else { 0 });
                if held.sum::<usize>() > MAX_PARTIAL {
                    self.link.reset(stream, Errno::NOMEM.raw_os_error() as u32);
                    self.close(token);
                }
            }
            Assembly::Malformed => {
                self.link.reset(stream, Errno::MSGSIZE.raw_os_error() as u32);
                self.undo(token);
                self.close(token);
            }
        }
    }

    fn ended(&mut self, token: u32) {
        let progress = match self.nodes.get_mut(token) {
            Some(Node::Relay(relay)) => relay.end(&mut self.link),
            // The end of a request that never was complete.
            Some(Node::Call(call)) if !call.begun => {
                self.link.reset(call.stream, Errno::PROTO.raw_os_error() as u32);
                Progress::Done
            }
            _ => Progress::Waits,
        };
        if progress == Progress::Done {
            self.close(token);
        }
    }

    fn stream_reset(&mut self, token: u32) {
        match self.nodes.get(token) {
            Some(Node::Call(_)) => self.undo(token),
            Some(Node::Relay(relay)) => {
                let (owner, is_input) = (relay.owner, relay.role == Role::Sink);
                if let Some(Node::Helper(helper)) = self.nodes.get_mut(owner) {
                    helper.end(is_input);
                }
            }
            _ => {}
        }
        self.close(token);
    }

    /// The host is gone, or another one is there: all streams are gone.
    fn disconnect(&mut self) {
        self.forget_output();
        for token in self.nodes.tokens(|node| matches!(node, Node::Call(_))) {
            self.undo(token);
            self.close(token);
        }
        for token in self.nodes.tokens(|node| matches!(node, Node::Relay(_))) {
            let keep = match self.nodes.get_mut(token) {
                Some(Node::Relay(relay)) if self.processes.get(relay.owner).is_some() => {
                    relay.stream = 0;
                    true
                }
                _ => false,
            };
            if !keep {
                self.close(token);
            }
        }
    }

    /// The caller of a call gave up, or waited too long.
    pub fn undo(&mut self, token: u32) {
        let Some(Node::Call(call)) = self.nodes.get_mut(token) else { return };
        match std::mem::replace(&mut call.undo, Undo::Nothing) {
            Undo::Nothing => {}
            Undo::Process(process) => self.abandon(process),
            Undo::Helper(helper) => self.end_helper(helper),
        }
    }

    fn end_helper(&mut self, token: u32) {
        let input =
            |node: &Node| matches!(node, Node::Relay(relay) if relay.owner == token && relay.role == Role::Sink);
        let input = self.nodes.tokens(input).first().copied();
        if let Some(Node::Helper(helper)) = self.nodes.get_mut(token) {
            helper.end(input.is_some());
        }
        if let Some(relay) = input {
            if let Some(Node::Relay(found)) = self.nodes.get(relay) {
                self.link.reset(found.stream, Errno::CANCELED.raw_os_error() as u32);
            }
            self.close(relay);
        }
    }

    /// Lets go of a node and its descriptor.
    pub fn close(&mut self, token: u32) {
        match self.nodes.remove(token) {
            Some(Node::Relay(relay)) => self.relay_closed(token, relay.owner),
            Some(Node::Call(call)) if call.deadline.is_some() => self.deadlines -= 1,
            _ => {}
        }
    }

    /// Handles what a descriptor did.
    pub fn node_event(&mut self, token: u32, flags: EventFlags) {
        match self.nodes.get(token) {
            Some(Node::Relay(_)) => self.relay_event(token, flags),
            Some(Node::Sync(_)) => self.sync_event(token),
            Some(Node::Listener(_)) => self.accept_all(token),
            Some(Node::Helper(_)) => self.helper_event(token),
            Some(Node::Watch(_)) => self.watch_event(token),
            Some(Node::Call(_)) | None => {}
        }
    }

    fn relay_event(&mut self, token: u32, flags: EventFlags) {
        let Some(Node::Relay(relay)) = self.nodes.get_mut(token) else { return };
        let gone = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        if relay.connecting {
            return self.connected(token);
        }
        relay.note(
            flags.intersects(EventFlags::IN | EventFlags::RDHUP) || gone,
            flags.contains(EventFlags::OUT) || gone,
        );
        let progress = if relay.role == Role::Sink && flags.contains(EventFlags::ERR) {
            relay.sink_hung_up(&mut self.link)
        } else if relay.role == Role::Source {
            Progress::Waits
        } else {
            relay.drain(&mut self.link)
        };
        let turn = relay.wants_turn();
        if progress == Progress::Done {
            self.close(token);
        } else if turn {
            self.queue(token);
        }
    }
}
