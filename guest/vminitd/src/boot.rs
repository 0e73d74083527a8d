//! From the kernel's first breath to an agent that can be spoken to.

use std::fs;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, mkdir, open};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{Resource, Rlimit, chdir, chroot, setrlimit};
use rustix::system::finit_module;

use crate::console::{self, log};
use crate::failure::{Context, Result};
use crate::network::{self, Netlink};

/// Where the agent's own root is put together before it replaces the initramfs.
const NEW_ROOT: &str = "/root";
const MODULES: &str = "/lib/modules";
/// What the agent runs: its helper and the pilot.
const PROGRAMS: [&str; 2] = ["/bin/vmexec", "/bin/pilot"];
/// The agent's own limit, which containers inherit where their specification sets none. The kernel's default, 1024, is
/// less than a stream and a pipe for each the link allows.
const OPEN_FILES: u64 = 65_536;
const MAX_OPEN_FILES: u64 = 1 << 20;
/// cgroups of containers are below this.
pub const CGROUPS: &str = "/sys/fs/cgroup/firkin";
/// What the agent keeps for containers.
pub const CONTAINERS: &str = "/run/container";

/// Mounts, modules, an own root, the loopback interface.
///
/// # Errors
/// Whatever an agent can't live without is missing. Modules that do not load are only told in the log.
pub fn boot() -> Result<()> {
    let files = Rlimit { current: Some(OPEN_FILES), maximum: Some(MAX_OPEN_FILES) };
    setrlimit(Resource::Nofile, files).context("boot", "RLIMIT_NOFILE")?;
    make_dir("/dev")?;
    mount_fs("devtmpfs", "/dev", MountFlags::NOSUID | MountFlags::NOEXEC, "mode=0755")?;
    console::attach();
    for path in ["/proc", "/sys", NEW_ROOT] {
        make_dir(path)?;
    }
    let strict = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_fs("proc", "/proc", strict, "")?;
    mount_fs("sysfs", "/sys", strict, "")?;
    load_modules();
    shorten_queues();
    leave_initramfs()?;
    mount_fs("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, "mode=0755")?;
    mount_fs("tmpfs", "/tmp", MountFlags::NOSUID | MountFlags::NODEV, "mode=1777")?;
    for path in [CONTAINERS, "/run/firkin"] {
        make_dir(path)?;
    }
    mount_fs("cgroup2", "/sys/fs/cgroup", strict, "nsdelegate")?;
    delegate_cgroups()?;
    network::set_link(&mut Netlink::open()?, "lo", true, 0, &[])
}

fn make_dir(path: &str) -> Result<()> {
    match mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno).context("boot", path),
    }
}

fn mount_fs(kind: &str, path: &str, flags: MountFlags, data: &str) -> Result<()> {
    let data = std::ffi::CString::new(data).unwrap_or_default();
    match mount(kind, path, kind, flags, data.as_c_str()) {
        // Some kernels mount devtmpfs themselves.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(errno) => Err(errno).context("boot", path),
    }
}

/// The names are in load order; each module's pages are given back at once.
fn load_modules() {
    let mut paths: Vec<_> = fs::read_dir(MODULES).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable();
    for path in paths {
        match load_module(&path) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => log(&format!("{}: {}", path.display(), std::io::Error::from(errno))),
        }
        // It stays loaded; a file that can't be removed only costs memory.
        let _ = fs::remove_file(&path);
    }
}

fn load_module(path: &Path) -> std::result::Result<(), Errno> {
    let file = open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    finit_module(&file, c"", 0)
}

/// Settings of disks' queues that are kept in a saved VM. The host schedules their requests: here that only costs, and
/// each request would wait for a kernel thread.
fn shorten_queues() {
    for disk in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
        for (name, value) in [("scheduler", "none"), ("wbt_lat_usec", "0"), ("rq_affinity", "0")] {
            // A kernel without that choice works as well.
            let _ = fs::write(disk.path().join("queue").join(name), value);
        }
    }
}

/// Makes a tmpfs the root: `pivot_root` refuses to leave an initramfs.
fn leave_initramfs() -> Result<()> {
    mount_fs("tmpfs", NEW_ROOT, MountFlags::empty(), "mode=0755")?;
    chdir(NEW_ROOT).context("boot", NEW_ROOT)?;
    for path in ["dev", "proc", "sys", "run", "tmp", "bin", "etc", "mnt"] {
        make_dir(path)?;
    }
    for path in PROGRAMS {
        if let Err(error) = fs::copy(path, path.trim_start_matches('/')) {
            log(&format!("{path}: {error}"));
        }
    }
    for path in PROGRAMS.into_iter().chain(["/init"]) {
        // As with the modules: only memory.
        let _ = fs::remove_file(path);
    }
    for path in ["dev", "proc", "sys"] {
        mount_move(["/", path].concat(), path).context("boot", path)?;
    }
    mount_move(".", "/").context("boot", "/")?;
    chroot(".").context("boot", "/")?;
    chdir("/").context("boot", "/")
}

fn delegate_cgroups() -> Result<()> {
    let root = Path::new(CGROUPS).parent().unwrap_or(Path::new("/"));
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).context("boot", "cgroup.controllers")?;
    mkdir(CGROUPS, Mode::from_raw_mode(0o755)).context("boot", CGROUPS)?;
    for folder in [root, Path::new(CGROUPS)] {
        for name in controllers.split_whitespace() {
            if let Err(error) = fs::write(folder.join("cgroup.subtree_control"), ["+", name].concat()) {
                log(&format!("cgroup controller {name}: {error}"));
            }
        }
    }
    Ok(())
}

/// Whether the kernel was asked for the hidden behaviour that fault tests need.
pub fn test_mode() -> bool {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    line.split_whitespace().any(|word| word == "firkin.test=1")
}

/// The kernel's boot id as 16 raw bytes.
pub fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: Vec<u8> = text.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    id
}

/// Opens the virtio-serial port of the agent. Ports appear some time after their driver is loaded.
///
/// # Errors
/// No port of that name appeared.
pub fn open_port(name: &str) -> Result<rustix::fd::OwnedFd> {
    const TRIES: usize = 10_000;
    for _ in 0..TRIES {
        if let Some(device) = find_port(name) {
            let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
            return open(&device, flags, Mode::empty()).context("port", &device);
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    Err(Errno::NODEV).context("port", name)
}

fn find_port(name: &str) -> Option<String> {
    fs::read_dir("/sys/class/virtio-ports").ok()?.flatten().find_map(|entry| {
        let found = fs::read_to_string(entry.path().join("name")).ok()?;
        let device = format!("/dev/{}", entry.file_name().to_str()?);
        (found.trim_end() == name
            && rustix::fs::accessat(CWD, &device, rustix::fs::Access::EXISTS, rustix::fs::AtFlags::empty()).is_ok())
        .then_some(device)
    })
}
