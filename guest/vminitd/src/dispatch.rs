//! From a request to the work.

use prost::Message;
use rustix::io::Errno;

use crate::agent::{Agent, Node, monotonic_ns};
use crate::call::done;
use crate::failure::{Failure, Result};
use crate::messages::request::Call;
use crate::messages::{Request, reply};
use crate::{copy, files, lifecycle, mounts, names, network, statistics};

/// What a call gave so far.
pub enum Outcome {
    /// The answer.
    Now(reply::Result),
    /// It will come.
    Later,
}

impl Outcome {
    fn later(begun: Result<()>) -> Result<Self> {
        begun.map(|()| Self::Later)
    }

    fn done(result: Result<()>) -> Result<Self> {
        result.map(|()| Self::Now(done()))
    }
}

impl Agent {
    /// Begins the work of a call whose request is complete.
    pub fn begin(&mut self, token: u32, message: &[u8]) {
        let request = match Request::decode(message) {
            Ok(request) => request,
            Err(error) => return self.answer(token, Err(Failure::new("request", Errno::BADMSG, error.to_string()))),
        };
        let Some(call) = request.call else {
            return self.answer(token, Err(Failure::new("request", Errno::NOSYS, "no call that this agent knows")));
        };
        match self.handle(token, call) {
            Ok(Outcome::Now(result)) => self.answer(token, Ok(result)),
            Err(failure) => self.answer(token, Err(failure)),
            Ok(Outcome::Later) => self.set_deadline(token, request.deadline_ms),
        }
    }

    fn set_deadline(&mut self, token: u32, milliseconds: u32) {
        if let Some(Node::Call(call)) = self.nodes.get_mut(token)
            && milliseconds > 0
            && !call.answered()
        {
            call.deadline = Some(monotonic_ns() + i64::from(milliseconds) * 1_000_000);
            self.deadlines += 1;
        }
    }

    fn handle(&mut self, token: u32, call: Call) -> Result<Outcome> {
        match call {
            Call::Resume(call) => self.resume(&call).map(Outcome::Now),
            Call::Quiesce(call) => Outcome::later(self.quiesce(token, &call)),
            Call::Info(_) => Ok(Outcome::Now(reply::Result::Info(self.info()))),
            Call::SetTime(call) => Outcome::done(lifecycle::set_time(&call)),
            Call::Sync(_) => Outcome::later(self.fork_helper(token, None, None, |_| {
                rustix::fs::sync();
                Ok(done())
            })),
            Call::Poweroff(_) => self.poweroff(token),
            Call::Mount(call) => Outcome::done(mounts::mount_call(&call)),
            Call::Umount(call) => Outcome::done(mounts::umount_call(&call)),
            Call::Mkdir(call) => Outcome::done(files::mkdir(&self.root_of(&call.container)?, &call)),
            Call::WriteFile(call) if self.testing && self.test_behaviour(&call) => Ok(Outcome::Now(done())),
            Call::WriteFile(call) => Outcome::done(files::write_file(&self.root_of(&call.container)?, &call)),
            Call::Stat(call) => files::stat(&self.root_of(&call.container)?, &call)
                .map(|found| Outcome::Now(reply::Result::Stat(found))),
            Call::CopyIn(call) => Outcome::later(copy::copy_in(self, token, call)),
            Call::CopyOut(call) => Outcome::later(copy::copy_out(self, token, call)),
            Call::ReadAhead(call) => Outcome::later(files::read_ahead(self, token, call)),
            Call::Sysctl(call) => Outcome::done(files::sysctl(&call)),
            call => self.handle_container(token, call),
        }
    }

    fn handle_container(&mut self, token: u32, call: Call) -> Result<Outcome> {
        match call {
            Call::CreateProcess(call) => {
                self.check_resumed()?;
                Outcome::later(self.create_process(token, &call))
            }
            Call::Park(call) => Outcome::done(self.park(&call)),
            Call::ParkRoot(call) => Outcome::done(self.park_root(&call)),
            Call::StartProcess(call) => {
                self.check_resumed()?;
                let process = self.find(&call.container, &call.process)?;
                Outcome::later(self.start_process(token, process))
            }
            Call::WaitProcess(call) => {
                let process = self.find(&call.container, &call.process)?;
                self.wait_process(token, process);
                Ok(Outcome::Later)
            }
            Call::KillProcess(call) => {
                let process = self.find(&call.container, &call.process)?;
                self.kill_process(process, call.signal, call.all).map(Outcome::Now)
            }
            Call::ResizeProcess(call) => {
                let process = self.find(&call.container, &call.process)?;
                Outcome::done(self.resize_process(process, call.columns, call.rows))
            }
            Call::DeleteProcess(call) => {
                let process = self.find(&call.container, &call.process)?;
                Outcome::later(self.delete_process(token, process))
            }
            Call::CloseStdin(call) => {
                let process = self.find(&call.container, &call.process)?;
                self.close_stdin(process);
                Ok(Outcome::Now(done()))
            }
            Call::AttachProcess(call) => {
                let process = self.find(&call.container, &call.process)?;
                Outcome::done(self.attach_process(process, [call.stdin_port, call.stdout_port, call.stderr_port]))
            }
            Call::Statistics(call) => {
                let found = statistics::statistics(&call.container, &self.cgroup(&call.container))?;
                Ok(Outcome::Now(reply::Result::Statistics(found)))
            }
            Call::UpdateResources(call) => Outcome::done(statistics::update(&call, &self.cgroup(&call.container))),
            Call::Freeze(call) => Outcome::later(self.freeze(token, &call.container)),
            Call::Thaw(call) => {
                self.check_resumed()?;
                Outcome::later(self.thaw(token, &call.container))
            }
            call => self.handle_network(call),
        }
    }

    fn handle_network(&mut self, call: Call) -> Result<Outcome> {
        match call {
            Call::SetLink(call) => {
                Outcome::done(network::set_link(self.netlink()?, &call.name, call.up, call.mtu, &call.mac))
            }
            Call::AddAddress(call) => Outcome::done(network::add_address(self.netlink()?, &call)),
            Call::AddRoute(call) => Outcome::done(network::add_route(self.netlink()?, &call)),
            Call::ConfigureDns(call) => Outcome::done(names::configure_dns(&call)),
            Call::ConfigureHosts(call) => Outcome::done(names::configure_hosts(&call)),
            Call::VsockListen(call) => self.vsock_listen(call.port).map(Outcome::Now),
            Call::ProxySocket(call) => self.proxy_socket(&call).map(Outcome::Now),
            Call::StopProxy(call) => self.stop_proxy(&call.id).map(Outcome::Now),
            _ => Err(Failure::new("request", Errno::NOSYS, "no call that this agent knows")),
        }
    }
}
