//! Hidden behaviour for fault tests, only with `firkin.test=1` on the kernel's command line.

use rustix::fs::{Mode, OFlags, open};

use crate::agent::{Agent, Node};
use crate::messages::WriteFile;
use crate::relay::{Relay, Role};

/// Takes whatever comes, as the discard service of RFC 863 does.
const DISCARD_PORT: u32 = 9;
/// Sends zeros for as long as there is credit; the number is that of RFC 864.
const SOURCE_PORT: u32 = 19;

impl Agent {
    /// Joins a stream to /dev/null or /dev/zero, where its port is one of the two that measure the link without a process
    /// behind it. False: it is an ordinary port.
    pub fn test_stream(&mut self, stream: u32, port: u32) -> bool {
        let (role, path, flags) = match port {
            DISCARD_PORT => (Role::Sink, "/dev/null", OFlags::WRONLY),
            SOURCE_PORT => (Role::Source, "/dev/zero", OFlags::RDONLY),
            _ => return false,
        };
        let Ok(fd) = open(path, flags | OFlags::CLOEXEC, Mode::empty()) else { return false };
        let mut relay = Relay::new(role, stream, 0, Some(fd));
        // epoll knows nothing of these: they are always ready.
        relay.note(true, true);
        let Ok(token) = self.insert(Node::Relay(relay)) else { return false };
        self.link.attach(stream, token);
        self.queue(token);
        true
    }

    /// Does what a magic path asks for: abort, hang, or write raw bytes on the port. False: it is an ordinary file.
    pub fn test_behaviour(&mut self, call: &WriteFile) -> bool {
        match call.path.strip_prefix("/.firkin-test/") {
            Some("abort") => std::process::abort(),
            Some("hang") => loop {
                std::thread::park();
            },
            Some("raw") => {
                self.flush();
                self.write_raw(&call.content);
                true
            }
            _ => false,
        }
    }
}
