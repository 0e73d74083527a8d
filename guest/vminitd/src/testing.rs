//! Hidden behaviour for fault tests, only with `firkin.test=1` on the kernel's command line.

use crate::agent::Agent;
use crate::messages::WriteFile;

impl Agent {
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
