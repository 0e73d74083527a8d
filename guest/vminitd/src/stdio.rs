//! The standard streams of processes that run: sizes, ends, new owners. And the end of the processes themselves.

use rustix::io::Errno;
use rustix::process::{WaitOptions, wait};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::agent::{Agent, Node, realtime_ns};
use crate::failure::{Context, Failure, Result};
use crate::process::status_of;
use crate::relay::{Progress, Role};

impl Agent {
    /// Reaps every child that has ended.
    pub fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let exited_at_ns = realtime_ns();
            // What it had said is heard first, and only now has it said all.
            for token in self.nodes.tokens(|node| matches!(node, Node::Sync(_))) {
                self.sync_event(token);
            }
            let pid = pid.as_raw_nonzero().get();
            for token in self.nodes.tokens(|node| matches!(node, Node::Helper(helper) if helper.pid == pid)) {
                if let Some(Node::Helper(helper)) = self.nodes.get_mut(token) {
                    helper.pid = 0;
                }
            }
            if let Some(status) = status_of(status) {
                self.process_ended(pid, status, exited_at_ns);
            }
        }
    }

    /// Changes the size of a process's terminal.
    ///
    /// # Errors
    /// ENOTTY where it has none.
    pub fn resize_process(&mut self, token: u32, columns: u32, rows: u32) -> Result<()> {
        let size = u16::try_from(columns)
            .ok()
            .zip(u16::try_from(rows).ok())
            .filter(|(columns, rows)| *columns > 0 && *rows > 0);
        let (columns, rows) =
            size.ok_or_else(|| Failure::new("resize", Errno::INVAL, "a terminal has 1 to 65535 columns and rows"))?;
        let relay = self.processes.get(token).map_or(0, |process| process.stdio[0]);
        let master = match self.nodes.get(relay) {
            Some(Node::Relay(relay)) if relay.role == Role::Terminal => relay.fd(),
            _ => None,
        };
        let master = master.ok_or_else(|| Failure::new("resize", Errno::NOTTY, "the process has no terminal"))?;
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(master, size).context("resize", "terminal")
    }

    /// Closes a process's standard input behind what was sent to it.
    pub fn close_stdin(&mut self, token: u32) {
        let relay = self.processes.get(token).map_or(0, |process| process.stdio[0]);
        if let Some(Node::Relay(found)) = self.nodes.get_mut(relay)
            && found.end(&mut self.link) == Progress::Done
        {
            self.close(relay);
        }
    }

    /// Gives a process new streams in place of those that are gone.
    ///
    /// # Errors
    /// EBUSY where one still has its old stream.
    pub fn attach_process(&mut self, token: u32, ports: [u32; 3]) -> Result<()> {
        let relays = self.processes.get(token).map_or([0; 3], |process| process.stdio);
        let wanted = || relays.into_iter().zip(ports).filter(|(_, port)| *port != 0);
        let held = |relay| matches!(self.nodes.get(relay), Some(Node::Relay(relay)) if relay.stream != 0);
        if wanted().any(|(relay, _)| held(relay)) {
            return Err(Failure::new("attach", Errno::BUSY, "the process has its streams"));
        }
        for (relay, port) in wanted() {
            let opened = self.link.open(port, relay);
            let stream =
                opened.map_err(|_| Failure::new("attach", Errno::MFILE, format!("no stream to port {port}")))?;
            if let Some(Node::Relay(found)) = self.nodes.get_mut(relay) {
                found.stream = stream;
                self.queue(relay);
            } else if let Some(end) = self.link.end(stream) {
                // That stream of the process is over: so is the new one.
                self.link.control().extend_from_slice(&end);
            }
        }
        Ok(())
    }
}
