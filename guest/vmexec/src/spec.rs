//! The parts of an OCI runtime specification (1.2) that a guest can act on, as serde reads them.
//!
//! Unknown fields are ignored, as the specification asks ("Extensibility"). What is known and cannot be done is
//! refused by [`Spec::check`], never dropped.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::failure::{Failure, Result};
use crate::resources::Resources;

/// Longest specification read, in bytes: eight times what the agent's link carries in a message.
pub const MAX_BYTES: usize = 8 << 20;

/// `config.json`, as `vmexec run` reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Spec {
    pub oci_version: String,
    pub root: Root,
    pub process: Process,
    pub hostname: String,
    pub domainname: String,
    pub mounts: Vec<Mount>,
    pub linux: Linux,
    pub hooks: BTreeMap<String, Vec<serde::de::IgnoredAny>>,
    pub annotations: Annotations,
}

/// What `vmexec exec` reads: a `process` object, bare or beside annotations.
#[derive(Debug, Deserialize)]
pub struct ExecSpec {
    pub process: Process,
    #[serde(default)]
    pub annotations: Annotations,
}

/// `root`: the folder that becomes `/`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Root {
    pub path: String,
    pub readonly: bool,
}

/// `process`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Process {
    pub terminal: bool,
    pub console_size: Option<ConsoleSize>,
    pub user: User,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: String,
    pub capabilities: Option<Capabilities>,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub apparmor_profile: String,
    pub selinux_label: String,
    pub oom_score_adj: Option<i32>,
    pub scheduler: Option<Scheduler>,
    #[serde(rename = "ioPriority")]
    pub io_priority: Option<IoPriority>,
}

/// `process.consoleSize`, in characters.
#[derive(Debug, Clone, Copy, Deserialize)]
pub struct ConsoleSize {
    pub width: u16,
    pub height: u16,
}

/// `process.user`; `username` wins over the numbers where it is not empty (docs/internals.md).
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub umask: Option<u32>,
    pub additional_gids: Vec<u32>,
    pub username: String,
}

/// `process.capabilities`: five sets of names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Capabilities {
    pub bounding: Vec<String>,
    pub effective: Vec<String>,
    pub inheritable: Vec<String>,
    pub permitted: Vec<String>,
    pub ambient: Vec<String>,
}

/// One of `process.rlimits`.
#[derive(Debug, Deserialize)]
pub struct Rlimit {
    #[serde(rename = "type")]
    pub kind: String,
    pub soft: u64,
    pub hard: u64,
}

/// `process.scheduler`; times in nanoseconds.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    pub policy: String,
    pub nice: i32,
    pub priority: u32,
    pub flags: Vec<String>,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// `process.ioPriority`.
#[derive(Debug, Deserialize)]
pub struct IoPriority {
    pub class: String,
    #[serde(default)]
    pub priority: u8,
}

/// One of `mounts`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Mount {
    pub destination: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub source: String,
    pub options: Vec<String>,
    pub uid_mappings: Vec<serde::de::IgnoredAny>,
    pub gid_mappings: Vec<serde::de::IgnoredAny>,
}

/// `linux`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Linux {
    pub namespaces: Vec<Namespace>,
    pub uid_mappings: Vec<IdMapping>,
    pub gid_mappings: Vec<IdMapping>,
    pub time_offsets: BTreeMap<String, TimeOffset>,
    pub devices: Vec<Device>,
    pub cgroups_path: String,
    pub resources: Option<Resources>,
    pub rootfs_propagation: String,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub mount_label: String,
    pub sysctl: BTreeMap<String, String>,
    pub personality: Option<Personality>,
    pub seccomp: Option<serde::de::IgnoredAny>,
    pub intel_rdt: Option<serde::de::IgnoredAny>,
}

/// One of `linux.namespaces`; an empty path asks for a new one.
#[derive(Debug, Deserialize)]
pub struct Namespace {
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub path: String,
}

/// One line of `/proc/PID/uid_map` or `gid_map`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdMapping {
    #[serde(rename = "containerID")]
    pub container_id: u32,
    #[serde(rename = "hostID")]
    pub host_id: u32,
    pub size: u32,
}

/// One of `linux.timeOffsets`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    pub secs: i64,
    pub nanosecs: u32,
}

/// One of `linux.devices`.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Device {
    #[serde(rename = "type")]
    pub kind: String,
    pub path: String,
    pub major: u32,
    pub minor: u32,
    pub file_mode: Option<u32>,
    pub uid: u32,
    pub gid: u32,
}

/// `linux.personality`.
#[derive(Debug, Deserialize)]
pub struct Personality {
    pub domain: String,
    #[serde(default)]
    pub flags: Vec<String>,
}

/// Those of `annotations` that vmexec acts on; README.md documents each.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Annotations {
    #[serde(rename = "dev.firkin.init")]
    pub init: String,
    #[serde(rename = "dev.firkin.env.home")]
    pub env_home: String,
    #[serde(rename = "dev.firkin.group_add")]
    pub group_add: String,
    #[serde(rename = "dev.firkin.seccomp.bpf")]
    pub seccomp_bpf: String,
    #[serde(rename = "dev.firkin.seccomp.flags")]
    pub seccomp_flags: String,
}

impl Spec {
    /// Reads `config.json` and refuses what a guest cannot do.
    pub fn parse(json: &[u8]) -> Result<Spec> {
        let spec: Spec = serde_json::from_slice(json).map_err(|e| Failure::spec(e.to_string()))?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<()> {
        if !(self.oci_version.is_empty() || self.oci_version.starts_with("1.")) {
            return Err(Failure::spec(format!("ociVersion {:?} is not 1.x", self.oci_version)));
        }
        if !self.root.path.starts_with('/') {
            return Err(Failure::spec(format!("root.path {:?} is not absolute", self.root.path)));
        }
        if self.hooks.values().any(|list| !list.is_empty()) {
            return Err(Failure::spec("hooks are not run inside a guest".into()));
        }
        if self.linux.intel_rdt.is_some() {
            return Err(Failure::spec("linux.intelRdt does not exist in a guest".into()));
        }
        // Dropping it silently would run the process unconfined.
        if self.linux.seccomp.is_some() && self.annotations.seccomp_bpf.is_empty() {
            return Err(Failure::spec("linux.seccomp was not compiled: dev.firkin.seccomp.bpf is missing".into()));
        }
        self.process.check()
    }
}

impl ExecSpec {
    /// Reads `{"process": {…}, "annotations": {…}}`, or a bare `process` object.
    pub fn parse(json: &[u8]) -> Result<ExecSpec> {
        // A bare process object has no member named "process", so trying the wrapped form first is unambiguous.
        let spec = match serde_json::from_slice::<ExecSpec>(json) {
            Ok(spec) => spec,
            Err(wrapped) => match serde_json::from_slice::<Process>(json) {
                Ok(process) if !process.args.is_empty() => ExecSpec { process, annotations: Annotations::default() },
                Ok(_) => return Err(Failure::spec(wrapped.to_string())),
                Err(bare) => return Err(Failure::spec(bare.to_string())),
            },
        };
        spec.process.check()?;
        Ok(spec)
    }
}

impl Process {
    fn check(&self) -> Result<()> {
        if self.args.is_empty() {
            return Err(Failure::spec("process.args is empty".into()));
        }
        if !self.cwd.starts_with('/') {
            return Err(Failure::spec(format!("process.cwd {:?} is not absolute", self.cwd)));
        }
        let strings = self.args.iter().chain(&self.env).chain([&self.cwd, &self.user.username]);
        if strings.into_iter().any(|s| s.contains('\0')) {
            return Err(Failure::spec("a string of process holds a NUL".into()));
        }
        Ok(())
    }
}
