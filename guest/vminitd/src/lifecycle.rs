//! The VM's life: what happens after a boot or a restore, before a snapshot, and at the end.

use std::fs;
use std::os::unix::fs::FileExt;

use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::system::{RebootCommand, reboot, sethostname, uname};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::agent::{Agent, Node, realtime_ns};
use crate::boot::CGROUPS;
use crate::call::done;
use crate::console::log;
use crate::failure::{Context, Failure, Result};
use crate::messages::{InfoReply, Quiesce, Resume, SetTime, reply};
use crate::network::{Netlink, replace_identity};
use crate::process::{INIT, Phase, Process};
use crate::sys;
use crate::watch::Then;

/// Fewer fresh bytes than this do not tell two clones apart for good.
const MIN_ENTROPY: usize = 32;
const MAX_ENTROPY: usize = 4096;
/// SetTime slews up to this.
const MAX_SLEW_NS: i64 = 500_000_000;
const NANOSECONDS: i64 = 1_000_000_000;

impl Agent {
    /// After a boot or a restore: nothing of the user's runs before this.
    ///
    /// # Errors
    /// The first part that failed; user code stays locked out.
    pub fn resume(&mut self, call: &Resume) -> Result<reply::Result> {
        if !(MIN_ENTROPY..=MAX_ENTROPY).contains(&call.entropy.len()) {
            return Err(Failure::new("resume", Errno::INVAL, "entropy must be 32 to 4096 bytes"));
        }
        let random = match self.random.take() {
            Some(random) => random,
            None => open_random()?,
        };
        sys::reseed(self.random.insert(random).as_fd(), &call.entropy).context("entropy", "reseed")?;
        step_clock(call.realtime_ns)?;
        if !call.hostname.is_empty() {
            sethostname(call.hostname.as_bytes()).context("hostname", &call.hostname)?;
            self.rename_containers(&call.hostname)?;
        }
        if !call.machine_id.is_empty() {
            check_machine_id(&call.machine_id)?;
            self.published.machine_id.set("/run/firkin/machine-id", &call.machine_id)?;
        }
        if call.epoch != self.epoch || !self.resumed {
            self.epoch = call.epoch;
            self.published.epoch.set("/run/firkin/epoch", &call.epoch.to_string())?;
        }
        if !call.networks.is_empty() {
            let netlink = self.netlink()?;
            call.networks.iter().try_for_each(|identity| replace_identity(netlink, identity))?;
        }
        if call.thaw && self.frozen {
            fs::write([CGROUPS, "/cgroup.freeze"].concat(), "0").context("thaw", "all containers")?;
            self.frozen = false;
        }
        self.resumed = true;
        Ok(done())
    }

    /// Containers that a restore brought along have host names of their own: each is entered for a moment.
    fn rename_containers(&self, hostname: &str) -> Result<()> {
        let first = |(_, process): (u32, &Process)| (process.id == INIT && process.pid != 0).then_some(process.pid);
        let mut pids = self.processes.iter().filter_map(first).peekable();
        if pids.peek().is_none() {
            return Ok(());
        }
        let own = open_namespace("self")?;
        for pid in pids {
            // One that has just ended has none.
            let Ok(theirs) = open_namespace(&pid.to_string()) else { continue };
            let uts = Some(LinkNameSpaceType::HostNameAndNISDomainName);
            move_into_link_name_space(theirs.as_fd(), uts).context("hostname", "enter the container's")?;
            let renamed = sethostname(hostname.as_bytes());
            move_into_link_name_space(own.as_fd(), uts).context("hostname", "come back")?;
            renamed.context("hostname", hostname)?;
        }
        Ok(())
    }

    /// Refuses what could run user code before [`Agent::resume`].
    ///
    /// # Errors
    /// EAGAIN.
    pub fn check_resumed(&self) -> Result<()> {
        match (self.resumed, self.frozen) {
            (true, false) => Ok(()),
            (true, true) => Err(Failure::new("resume", Errno::AGAIN, "the VM was resumed without a thaw")),
            (false, _) => Err(Failure::new("resume", Errno::AGAIN, "the VM was not resumed yet")),
        }
    }

    /// The socket to the kernel's network, opened when first needed.
    ///
    /// # Errors
    /// As socket(2).
    pub fn netlink(&mut self) -> Result<&mut Netlink> {
        if self.netlink.is_none() {
            self.netlink = Some(Netlink::open()?);
        }
        self.netlink.as_mut().ok_or_else(|| Failure::new("netlink", Errno::IO, "no socket"))
    }

    /// Before a snapshot: user code stands still and locked out until Resume, and what is written is on the disks.
    ///
    /// # Errors
    /// The control groups do not obey.
    pub fn quiesce(&mut self, call: u32, request: &Quiesce) -> Result<()> {
        let unfinished = |process: &Process| matches!(process.phase, Phase::Making { .. } | Phase::Starting);
        if self.processes.iter().any(|(_, process)| unfinished(process)) {
            // vmexec is not in the container's control group yet, and would go on before Resume.
            return Err(Failure::new("quiesce", Errno::AGAIN, "a process is being started"));
        }
        self.resumed = false;
        if request.detach_stdio {
            self.detach_stdio();
        }
        if self.processes.iter().next().is_none() {
            if self.random.is_none() {
                self.random = Some(open_random()?);
                self.published.ready()?;
                self.netlink()?;
            }
            // A help, not a need: without it a start takes a little longer.
            if let Err(failure) = self.ready_pilot() {
                log(&["no pilot: ", &failure.message].concat());
            }
            // Nothing of the user's is there: a base VM's clones need no thaw.
            self.quiesced(call, request.drop_caches);
            return Ok(());
        }
        fs::write([CGROUPS, "/cgroup.freeze"].concat(), "1").context("quiesce", "all containers")?;
        self.frozen = true;
        let then = Then::Quiesced { drop_caches: request.drop_caches };
        self.watch_cgroup(CGROUPS.as_ref(), "frozen", 1, call, then)
    }

    /// Everything stands still: what is left is to write it out.
    pub fn quiesced(&mut self, call: u32, drop_caches: bool) {
        let forked = self.fork_helper(call, None, None, move |_| {
            rustix::fs::sync();
            if drop_caches {
                fs::write("/proc/sys/vm/drop_caches", "3").context("quiesce", "drop_caches")?;
            }
            Ok(done())
        });
        if let Err(failure) = forked {
            self.answer(call, Err(failure));
        }
    }

    fn detach_stdio(&mut self) {
        for token in self.nodes.tokens(|node| matches!(node, Node::Relay(_))) {
            let Some(Node::Relay(relay)) = self.nodes.get_mut(token) else { continue };
            if self.processes.get(relay.owner).is_none() {
                continue;
            }
            let stream = std::mem::take(&mut relay.stream);
            // What the host still does with its old stream is nothing to the process.
            self.link.attach(stream, 0);
            if let Some(end) = self.link.end(stream) {
                self.link.control().extend_from_slice(&end);
            }
        }
    }

    /// Kills everything, writes everything out, answers, and turns the VM off.
    pub fn poweroff(&mut self, call: u32) -> ! {
        // There may be no container, and the kernel may know no cgroup.kill: what matters comes next.
        let _ = fs::write([CGROUPS, "/cgroup.kill"].concat(), "1");
        rustix::fs::sync();
        self.answer(call, Ok(done()));
        self.flush();
        // With -no-reboot a reset ends QEMU, with every machine type.
        let _ = reboot(RebootCommand::Restart);
        sys::exit_now(1)
    }

    /// Who and what the agent is.
    pub fn info(&self) -> InfoReply {
        let boottime = clock_gettime(ClockId::Boottime);
        InfoReply {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            kernel_release: uname().release().to_string_lossy().into_owned(),
            realtime_ns: realtime_ns(),
            boottime_ns: boottime.tv_sec * NANOSECONDS + boottime.tv_nsec,
            epoch: self.epoch,
            features: features(),
        }
    }
}

/// What depends on the kernel and its modules.
fn features() -> Vec<String> {
    let present = [
        ("cgroup.freeze", [CGROUPS, "/cgroup.freeze"].concat()),
        ("cgroup.kill", [CGROUPS, "/cgroup.kill"].concat()),
        ("vsock", "/sys/module/vsock_loopback".to_owned()),
        ("fuse", "/sys/module/fuse".to_owned()),
        ("overlay", "/sys/module/overlay".to_owned()),
        ("binfmt_misc", "/proc/sys/fs/binfmt_misc".to_owned()),
    ];
    let found = present.into_iter().filter(|(_, path)| fs::exists(path).unwrap_or(false));
    found.map(|(name, _)| name.to_owned()).collect()
}

fn open_namespace(process: &str) -> Result<OwnedFd> {
    let path = ["/proc/", process, "/ns/uts"].concat();
    open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context("hostname", &path)
}

fn step_clock(realtime_ns: i64) -> Result<()> {
    let wrong = || Failure::new("clock", Errno::INVAL, "realtime_ns must be after 1970");
    let value = Some(realtime_ns).filter(|value| *value > 0).ok_or_else(wrong)?;
    let time = Timespec { tv_sec: value / NANOSECONDS, tv_nsec: value % NANOSECONDS };
    clock_settime(ClockId::Realtime, time).context("clock", "set")
}

/// The call.
///
/// # Errors
/// As clock_settime(2) and adjtimex(2).
pub fn set_time(call: &SetTime) -> Result<()> {
    let difference = call.realtime_ns.saturating_sub(realtime_ns());
    if call.slew && difference.abs() < MAX_SLEW_NS {
        return sys::slew_clock(difference / 1000).context("clock", "slew");
    }
    step_clock(call.realtime_ns)
}

fn check_machine_id(id: &str) -> Result<()> {
    if id.len() != 32 || !id.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(Failure::new("machine-id", Errno::INVAL, "a machine id is 32 hexadecimal digits"));
    }
    Ok(())
}

fn open_random() -> Result<OwnedFd> {
    open("/dev/urandom", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).context("entropy", "/dev/urandom")
}

/// The files that say which clone this is. They and /dev/urandom stay open: under software emulation looking a path up
/// for the first time costs a clone milliseconds.
#[derive(Default)]
pub struct Published {
    epoch: Line,
    machine_id: Line,
}

impl Published {
    /// Opens what a clone will write, before it is one.
    ///
    /// # Errors
    /// As open(2).
    pub fn ready(&mut self) -> Result<()> {
        self.epoch.set("/run/firkin/epoch", "0")?;
        self.machine_id.set("/run/firkin/machine-id", &"0".repeat(32))
    }
}

/// A file of one line.
#[derive(Default)]
struct Line {
    file: Option<fs::File>,
    length: usize,
}

impl Line {
    /// In place: it may be mounted into containers.
    fn set(&mut self, path: &str, line: &str) -> Result<()> {
        let text = [line, "\n"].concat();
        let file = match self.file.take() {
            Some(file) => file,
            None => fs::File::create(path).context("resume", path)?,
        };
        let file = self.file.insert(file);
        file.write_all_at(text.as_bytes(), 0).context("resume", path)?;
        if text.len() != self.length {
            file.set_len(text.len() as u64).context("resume", path)?;
            self.length = text.len();
        }
        Ok(())
    }
}
