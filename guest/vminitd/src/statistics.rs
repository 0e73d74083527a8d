//! What the kernel counts, as it writes it; and limits, as the host writes them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use rustix::io::Errno;

use crate::container::{self, check_id};
use crate::failure::{Context, Failure, Result};
use crate::messages::{StatisticsReply, UpdateResources};

/// The largest of these files, /proc/stat, grows with processors and interrupts.
const MAX_FILE: u64 = 128 * 1024;
const MAX_PIDS: usize = 32_768;
const CGROUP_FILES: [&str; 14] = [
    "cpu.max",
    "cpu.stat",
    "cpu.weight",
    "cgroup.events",
    "io.stat",
    "memory.current",
    "memory.events",
    "memory.max",
    "memory.peak",
    "memory.stat",
    "memory.swap.current",
    "memory.swap.max",
    "pids.current",
    "pids.max",
];
const PROC_FILES: [&str; 5] = ["meminfo", "stat", "net/dev", "loadavg", "uptime"];

fn read_all(folder: &Path, names: &[&str]) -> BTreeMap<String, String> {
    let read = |name: &&str| {
        let mut text = String::new();
        // A kernel without that controller has no such file.
        File::open(folder.join(name)).ok()?.take(MAX_FILE).read_to_string(&mut text).ok()?;
        Some(((*name).to_owned(), text))
    };
    names.iter().filter_map(read).collect()
}

/// The call, for a container, whose control group `folder` is, or (an empty id) the VM.
///
/// # Errors
/// There is no such container.
pub fn statistics(id: &str, folder: &Path) -> Result<StatisticsReply> {
    if id.is_empty() {
        let proc = read_all(Path::new("/proc"), &PROC_FILES);
        let cgroup = read_all(Path::new(crate::boot::CGROUPS), &CGROUP_FILES);
        return Ok(StatisticsReply { cgroup, proc, pids: Vec::new() });
    }
    check_id(id)?;
    if !folder.exists() {
        return Err(Failure::new("statistics", Errno::SRCH, format!("no container {id}")));
    }
    let mut pids = container::pids(folder);
    pids.truncate(MAX_PIDS);
    // The network is the VM's.
    Ok(StatisticsReply {
        cgroup: read_all(folder, &CGROUP_FILES),
        proc: read_all(Path::new("/proc"), &["net/dev"]),
        pids,
    })
}

/// The call; `folder` is the container's control group.
///
/// # Errors
/// A name that is no file of a control group; else as the kernel answers the write.
pub fn update(call: &UpdateResources, folder: &Path) -> Result<()> {
    check_id(&call.container)?;
    for (name, value) in &call.cgroup {
        let controller =
            ["cpu.", "cpuset.", "io.", "memory.", "pids.", "hugetlb."].iter().any(|prefix| name.starts_with(prefix));
        if !controller || name.contains('/') {
            return Err(Failure::new("resources", Errno::INVAL, format!("{name:?} is no limit")));
        }
        // No O_CREAT: what is not there is a controller that the kernel does not have.
        let file = fs::OpenOptions::new().write(true).open(folder.join(name));
        std::io::Write::write_all(&mut file.context("resources", name)?, value.as_bytes())
            .context("resources", name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_limits_can_be_written() {
        for wrong in ["cgroup.procs", "cgroup.freeze", "../memory.max", "memory./../../x"] {
            let cgroup = [(wrong.to_owned(), "1".to_owned())].into();
            let call = UpdateResources { container: "c".to_owned(), cgroup };
            assert_eq!(update(&call, Path::new("/nowhere")).expect_err(wrong).errno, Errno::INVAL.raw_os_error());
        }
    }
}
