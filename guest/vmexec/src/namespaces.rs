//! `linux.namespaces`: which are new, which are joined by their path, and the clone that enters them.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat_raw};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{
    LinkNameSpaceType, ThreadNameSpaceType, UnshareFlags, move_into_link_name_space, move_into_thread_name_spaces,
};

use crate::failure::{At, Failure, Result};
use crate::files;
use crate::raw;
use crate::spec::{Linux, TimeOffset};

/// What a container's first process starts in.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    /// CLONE_NEW* for clone3(2).
    created: u64,
    /// A cgroup namespace takes the cgroup that its maker is in as its root, so it is made after the clone.
    pub new_cgroup: bool,
    /// A new one whose clocks are set before anyone enters.
    new_time: bool,
    joined: Vec<(i32, String)>,
}

impl Namespaces {
    /// Reads and checks the list.
    pub fn parse(linux: &Linux) -> Result<Namespaces> {
        let mut parsed = Namespaces::default();
        let mut seen = 0;
        for entry in &linux.namespaces {
            let kind = flag(&entry.kind)?;
            if seen & kind != 0 {
                return Err(invalid(format!("{:?} is listed twice", entry.kind)));
            }
            seen |= kind;
            match (kind, entry.path.is_empty()) {
                (libc::CLONE_NEWUSER, _) => {
                    return Err(invalid("user namespaces are not supported: the VM isolates".into()));
                }
                (libc::CLONE_NEWNS, false) => return Err(invalid("a mount namespace cannot be joined".into())),
                (_, false) => parsed.joined.push((kind, entry.path.clone())),
                (libc::CLONE_NEWCGROUP, true) => parsed.new_cgroup = true,
                (libc::CLONE_NEWTIME, true) => parsed.new_time = true,
                (_, true) => parsed.created |= kind as u64,
            }
        }
        if seen & libc::CLONE_NEWNS == 0 {
            return Err(invalid("a container needs a mount namespace of its own".into()));
        }
        if !parsed.new_time && !linux.time_offsets.is_empty() {
            return Err(invalid("linux.timeOffsets without a new time namespace".into()));
        }
        Ok(parsed)
    }

    /// Whether the container has its own, made or joined.
    pub fn has(&self, kind: i32) -> bool {
        let made = self.created & kind as u64 != 0 || kind == libc::CLONE_NEWCGROUP && self.new_cgroup;
        made || self.joined.iter().any(|(joined, _)| *joined == kind)
    }

    /// Whether the network namespace is a new one, whose loopback is still down.
    pub fn new_network(&self) -> bool {
        self.created & libc::CLONE_NEWNET as u64 != 0
    }

    /// Enters those given by path; a pid or time namespace is the next child's.
    pub fn join(&self, time_offsets: &BTreeMap<String, TimeOffset>) -> Result<()> {
        for (kind, path) in &self.joined {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = openat(CWD, path.as_str(), flags, Mode::empty()).at("namespaces", || format!("open {path}"))?;
            move_into_link_name_space(file.as_fd(), link_type(*kind)).at("namespaces", || format!("join {path}"))?;
        }
        if self.new_time {
            raw::unshare(UnshareFlags::NEWTIME).at("namespaces", || "make the time namespace".into())?;
            for (clock, offset) in time_offsets {
                let line = format!("{clock} {} {}\n", offset.secs, offset.nanosecs);
                files::write("/proc/self/timens_offsets", line.as_bytes())
                    .at("namespaces", || format!("set the {clock} clock off"))?;
            }
        }
        Ok(())
    }

    /// The process that becomes the container's first: the caller's child. 0 in it.
    pub fn clone(&self, cgroup: Option<&OwnedFd>) -> Result<u32> {
        let flags = self.created | libc::CLONE_PARENT as u64;
        raw::clone(flags, cgroup.map(AsFd::as_fd)).at("namespaces", || "clone".into())
    }
}

/// The container of a running process.
pub struct Joined(OwnedFd);

impl Joined {
    /// Finds it, and lets the next child start in its pid namespace.
    pub fn open(init: i32) -> Result<Joined> {
        let at = || format!("find the container's process {init}");
        let pid = Pid::from_raw(init).ok_or_else(|| invalid(format!("{init} is no process")))?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).at("join", at)?;
        move_into_thread_name_spaces(pidfd.as_fd(), ThreadNameSpaceType::PROCESS_ID).at("join", at)?;
        Ok(Joined(pidfd))
    }

    /// Enters the others; root and working directory are the container's then.
    pub fn enter(&self) -> Result<()> {
        let all = ThreadNameSpaceType::MOUNT
            | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
            | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
            | ThreadNameSpaceType::NETWORK
            | ThreadNameSpaceType::CONTROL_GROUP;
        move_into_thread_name_spaces(self.0.as_fd(), all).at("join", || "enter the container's namespaces".into())
    }
}

/// This process's pid as whoever mounted /proc sees it: the agent, as long as the root is the agent's.
pub fn pid_outside() -> Result<u32> {
    let mut space = [std::mem::MaybeUninit::uninit(); 16];
    let (digits, _) = readlinkat_raw(CWD, "/proc/self", &mut space).at("namespaces", || "read /proc/self".into())?;
    let pid = std::str::from_utf8(digits).ok().and_then(|text| text.parse().ok());
    pid.ok_or_else(|| invalid("/proc/self is not a pid".into()))
}

fn flag(kind: &str) -> Result<i32> {
    Ok(match kind {
        "pid" => libc::CLONE_NEWPID,
        "network" => libc::CLONE_NEWNET,
        "mount" => libc::CLONE_NEWNS,
        "ipc" => libc::CLONE_NEWIPC,
        "uts" => libc::CLONE_NEWUTS,
        "user" => libc::CLONE_NEWUSER,
        "cgroup" => libc::CLONE_NEWCGROUP,
        "time" => libc::CLONE_NEWTIME,
        other => return Err(invalid(format!("{other:?} is not known"))),
    })
}

fn link_type(kind: i32) -> Option<LinkNameSpaceType> {
    Some(match kind {
        libc::CLONE_NEWPID => LinkNameSpaceType::ProcessID,
        libc::CLONE_NEWNET => LinkNameSpaceType::Network,
        libc::CLONE_NEWIPC => LinkNameSpaceType::InterProcessCommunication,
        libc::CLONE_NEWUTS => LinkNameSpaceType::HostNameAndNISDomainName,
        libc::CLONE_NEWCGROUP => LinkNameSpaceType::ControlGroup,
        libc::CLONE_NEWTIME => LinkNameSpaceType::Time,
        _ => return None,
    })
}

fn invalid(message: String) -> Failure {
    Failure::invalid("namespaces", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Namespaces> {
        Namespaces::parse(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn tells_new_from_joined() {
        let parsed =
            parse(r#"{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"cgroup"},{"type":"ipc","path":"/x"}]}"#);
        let parsed = parsed.unwrap();
        assert_eq!(parsed.created, (libc::CLONE_NEWNS | libc::CLONE_NEWPID) as u64);
        assert!(parsed.new_cgroup && parsed.has(libc::CLONE_NEWIPC) && !parsed.has(libc::CLONE_NEWUTS));
    }

    #[test]
    fn refuses_what_cannot_be() {
        for json in [
            r#"{}"#,
            r#"{"namespaces":[{"type":"pid"}]}"#,
            r#"{"namespaces":[{"type":"mount"},{"type":"mount"}]}"#,
            r#"{"namespaces":[{"type":"mount","path":"/x"}]}"#,
            r#"{"namespaces":[{"type":"mount"},{"type":"user"}]}"#,
            r#"{"namespaces":[{"type":"mount"},{"type":"what"}]}"#,
            r#"{"namespaces":[{"type":"mount"}],"timeOffsets":{"boottime":{"secs":1}}}"#,
        ] {
            assert_eq!(parse(json).unwrap_err().stage, "namespaces", "{json}");
        }
    }
}
