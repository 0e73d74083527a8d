//! What a process may use: rlimits, oom_score_adj, scheduler, I/O priority, personality.

use rustix::io::Errno;

use crate::failure::{At, Failure, Result};
use crate::files;
use crate::raw;
use crate::spec::{IoPriority, Personality, Process, Rlimit, Scheduler};

/// setrlimit(2)'s names without their prefix.
const RESOURCES: [(&str, libc::__rlimit_resource_t); 16] = [
    ("AS", libc::RLIMIT_AS),
    ("CORE", libc::RLIMIT_CORE),
    ("CPU", libc::RLIMIT_CPU),
    ("DATA", libc::RLIMIT_DATA),
    ("FSIZE", libc::RLIMIT_FSIZE),
    ("LOCKS", libc::RLIMIT_LOCKS),
    ("MEMLOCK", libc::RLIMIT_MEMLOCK),
    ("MSGQUEUE", libc::RLIMIT_MSGQUEUE),
    ("NICE", libc::RLIMIT_NICE),
    ("NOFILE", libc::RLIMIT_NOFILE),
    ("NPROC", libc::RLIMIT_NPROC),
    ("RSS", libc::RLIMIT_RSS),
    ("RTPRIO", libc::RLIMIT_RTPRIO),
    ("RTTIME", libc::RLIMIT_RTTIME),
    ("SIGPENDING", libc::RLIMIT_SIGPENDING),
    ("STACK", libc::RLIMIT_STACK),
];

/// Through the agent's /proc, which the container cannot have replaced.
pub fn oom_score(process: &Process) -> Result<()> {
    process.oom_score_adj.map_or(Ok(()), |score| {
        files::write("/proc/self/oom_score_adj", score.to_string().as_bytes())
            .at("oom_score_adj", || format!("set it to {score}"))
    })
}

/// The others: late, since they would bind vmexec too, but while it still has its privileges.
pub fn apply(process: &Process, personality: Option<&Personality>) -> Result<()> {
    for limit in &process.rlimits {
        rlimit(limit)?;
    }
    if let Some(priority) = &process.io_priority {
        io_priority(priority)?;
    }
    if let Some(scheduler) = &process.scheduler {
        schedule(scheduler)?;
    }
    personality.map_or(Ok(()), set_personality)
}

fn rlimit(limit: &Rlimit) -> Result<()> {
    let name = limit.kind.strip_prefix("RLIMIT_").unwrap_or(&limit.kind);
    let known = RESOURCES.iter().find(|(known, _)| *known == name);
    let (_, resource) =
        known.ok_or_else(|| Failure::invalid("rlimits", format!("{:?} is not a resource limit", limit.kind)))?;
    raw::set_rlimit(*resource, limit.soft, limit.hard)
        .at("rlimits", || format!("set {} to {}:{}", limit.kind, limit.soft, limit.hard))
}

/// ioprio_set(2): class in the top three of 16 bits, priority below.
fn io_priority(priority: &IoPriority) -> Result<()> {
    let class = match priority.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(Failure::invalid("ioPriority", format!("class {other:?} is not known"))),
    };
    raw::io_priority(class << 13 | i32::from(priority.priority)).at("ioPriority", || "set it".into())
}

fn schedule(scheduler: &Scheduler) -> Result<()> {
    let policy = match scheduler.policy.as_str() {
        "SCHED_OTHER" => libc::SCHED_OTHER,
        "SCHED_FIFO" => libc::SCHED_FIFO,
        "SCHED_RR" => libc::SCHED_RR,
        "SCHED_BATCH" => libc::SCHED_BATCH,
        "SCHED_IDLE" => libc::SCHED_IDLE,
        "SCHED_DEADLINE" => libc::SCHED_DEADLINE,
        other => return Err(Failure::invalid("scheduler", format!("policy {other:?} is not known"))),
    };
    let mut flags = 0;
    for flag in &scheduler.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => libc::SCHED_FLAG_RESET_ON_FORK,
            "SCHED_FLAG_RECLAIM" => libc::SCHED_FLAG_RECLAIM,
            "SCHED_FLAG_DL_OVERRUN" => libc::SCHED_FLAG_DL_OVERRUN,
            "SCHED_FLAG_KEEP_POLICY" => libc::SCHED_FLAG_KEEP_POLICY,
            "SCHED_FLAG_KEEP_PARAMS" => libc::SCHED_FLAG_KEEP_PARAMS,
            other => return Err(Failure::invalid("scheduler", format!("flag {other:?} is not known"))),
        };
    }
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: policy as u32,
        sched_flags: flags as u64,
        sched_nice: scheduler.nice,
        sched_priority: scheduler.priority,
        sched_runtime: scheduler.runtime,
        sched_deadline: scheduler.deadline,
        sched_period: scheduler.period,
    };
    raw::scheduler(&attributes).at("scheduler", || format!("set {}", scheduler.policy))
}

fn set_personality(personality: &Personality) -> Result<()> {
    // PER_LINUX and PER_LINUX32 of linux/personality.h.
    let domain = match personality.domain.as_str() {
        "LINUX" => 0,
        "LINUX32" => 8,
        other => return Err(Failure::invalid("personality", format!("domain {other:?} is not known"))),
    };
    if !personality.flags.is_empty() {
        return Err(Failure::system("personality", Errno::INVAL, "flags are not supported"));
    }
    raw::personality(domain).at("personality", || "set it".into())
}
