//! mount(2) and umount(2) in the agent's own namespace.

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change, mount_move,
    mount_remount, unmount,
};

use crate::failure::{Context, Failure, Result};
use crate::guest_root::{absolute, make_own_folders};
use crate::messages::{Mount, Umount};

/// How often a hot-plugged disk is looked for, a millisecond apart.
const DISK_TRIES: usize = 3000;
const SERIAL: &str = "serial:";
/// Options that only say how to go about it. ext4 has the second since Linux 5.17.
const HINTS: [&str; 2] = ["noinit_itable", "no_prefetch_block_bitmaps"];

/// fstab's words, sorted into what mount(2) takes them as.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    set: MountFlags,
    clear: MountFlags,
    bind: bool,
    recursive: bool,
    remount: bool,
    move_: bool,
    propagation: Option<MountPropagationFlags>,
    data: Vec<String>,
}

impl Options {
    /// Sorts fstab's words; unknown ones are data of the file system.
    pub fn parse(words: &[String]) -> Self {
        let mut options = Self {
            set: MountFlags::empty(),
            clear: MountFlags::empty(),
            bind: false,
            recursive: false,
            remount: false,
            move_: false,
            propagation: None,
            data: Vec::new(),
        };
        for word in words.iter().flat_map(|words| words.split(',')).filter(|word| !word.is_empty()) {
            options.add(word);
        }
        options
    }

    fn add(&mut self, word: &str) {
        let times = MountFlags::NOATIME | MountFlags::RELATIME | MountFlags::STRICTATIME;
        match word {
            "defaults" | "rw" => {
                self.change(MountFlags::empty(), if word == "rw" { MountFlags::RDONLY } else { MountFlags::empty() })
            }
            "ro" => self.change(MountFlags::RDONLY, MountFlags::empty()),
            "nosuid" => self.change(MountFlags::NOSUID, MountFlags::empty()),
            "suid" => self.change(MountFlags::empty(), MountFlags::NOSUID),
            "nodev" => self.change(MountFlags::NODEV, MountFlags::empty()),
            "dev" => self.change(MountFlags::empty(), MountFlags::NODEV),
            "noexec" => self.change(MountFlags::NOEXEC, MountFlags::empty()),
            "exec" => self.change(MountFlags::empty(), MountFlags::NOEXEC),
            "sync" => self.change(MountFlags::SYNCHRONOUS, MountFlags::empty()),
            "async" => self.change(MountFlags::empty(), MountFlags::SYNCHRONOUS),
            "dirsync" => self.change(MountFlags::DIRSYNC, MountFlags::empty()),
            "noatime" => self.change(MountFlags::NOATIME, times),
            "atime" => self.change(MountFlags::empty(), MountFlags::NOATIME),
            "relatime" => self.change(MountFlags::RELATIME, times),
            "strictatime" => self.change(MountFlags::STRICTATIME, times),
            "nodiratime" => self.change(MountFlags::NODIRATIME, MountFlags::empty()),
            "lazytime" => self.change(MountFlags::LAZYTIME, MountFlags::empty()),
            "silent" => self.change(MountFlags::SILENT, MountFlags::empty()),
            "bind" => self.bind = true,
            "rbind" => (self.bind, self.recursive) = (true, true),
            "remount" => self.remount = true,
            "move" => self.move_ = true,
            "shared" => self.propagation = Some(MountPropagationFlags::SHARED),
            "rshared" => self.propagation = Some(MountPropagationFlags::SHARED | MountPropagationFlags::REC),
            "slave" => self.propagation = Some(MountPropagationFlags::DOWNSTREAM),
            "rslave" => self.propagation = Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC),
            "private" => self.propagation = Some(MountPropagationFlags::PRIVATE),
            "rprivate" => self.propagation = Some(MountPropagationFlags::PRIVATE | MountPropagationFlags::REC),
            "unbindable" => self.propagation = Some(MountPropagationFlags::UNBINDABLE),
            data => self.data.push(data.to_owned()),
        }
    }

    fn change(&mut self, set: MountFlags, clear: MountFlags) {
        self.set = (self.set - clear) | set;
        self.clear = (self.clear - set) | clear;
    }

    /// Leaves out what older kernels do not know; whether there was any.
    fn drop_hints(&mut self) -> bool {
        let before = self.data.len();
        self.data.retain(|word| !HINTS.contains(&word.as_str()));
        self.data.len() < before
    }

    fn data(&self) -> Result<CString> {
        CString::new(self.data.join(",")).map_err(|_| Failure::new("mount", Errno::INVAL, "an option holds a NUL"))
    }
}

/// The call.
///
/// # Errors
/// As mount(2); ENODEV for a disk that does not appear.
pub fn mount_call(call: &Mount) -> Result<()> {
    absolute("mount", &call.destination)?;
    let mut options = Options::parse(&call.options);
    let source = match call.source.strip_prefix(SERIAL) {
        Some(serial) => disk(serial)?,
        None => call.source.clone(),
    };
    if call.mkdir {
        make_target(&call.destination, &source, options.bind)?;
    }
    if call.r#type == "overlay" {
        for folder in
            options.data.iter().filter_map(|word| word.strip_prefix("upperdir=").or(word.strip_prefix("workdir=")))
        {
            make_own_folders(folder)?;
        }
    }
    let what = [&call.destination, " (", &source, ")"].concat();
    let mounted = match attempt(call, &source, &options) {
        Err(Errno::INVAL) if options.drop_hints() => attempt(call, &source, &options),
        outcome => outcome,
    };
    mounted.context("mount", &what)
}

fn attempt(call: &Mount, source: &str, options: &Options) -> std::result::Result<(), Errno> {
    let target = call.destination.as_str();
    let data = options.data().map_err(|_| Errno::INVAL)?;
    if options.move_ {
        return mount_move(source, target);
    }
    if options.bind {
        if options.recursive {
            mount_bind_recursive(source, target)?
        } else {
            mount_bind(source, target)?
        }
        if !options.set.is_empty() {
            mount_remount(target, MountFlags::BIND | options.set, c"")?;
        }
    } else if options.remount {
        mount_remount(target, options.set, data.as_c_str())?;
    } else if !(call.r#type.is_empty() && options.propagation.is_some()) {
        mount(source, target, call.r#type.as_str(), options.set, data.as_c_str())?;
    }
    options.propagation.map_or(Ok(()), |flags| mount_change(target, flags))
}

fn make_target(target: &str, source: &str, bind: bool) -> Result<()> {
    let file = bind && fs::metadata(source).is_ok_and(|found| !found.is_dir());
    if !file {
        return make_own_folders(target);
    }
    if let Some(parent) = Path::new(target).parent() {
        make_own_folders(&parent.to_string_lossy())?;
    }
    fs::OpenOptions::new().create(true).append(true).open(target).context("mkdir", target).map(drop)
}

/// The device with that serial. One that is plugged in just now takes a moment to appear; calls behind this one count
/// on the mount, so the loop waits here.
fn disk(serial: &str) -> Result<String> {
    let first = serial.strip_prefix("disk").and_then(|number| number.parse::<u8>().ok()).filter(|number| *number < 26);
    let guess = first.map(|number| format!("vd{}", char::from(b'a' + number)));
    for attempt in 0..DISK_TRIES {
        if let Some(name) = guess.as_deref().filter(|name| attempt == 0 && has_serial(name, serial)) {
            return Ok(format!("/dev/{name}"));
        }
        let mut names = fs::read_dir("/sys/block").into_iter().flatten().flatten();
        if let Some(name) =
            names.find_map(|entry| entry.file_name().into_string().ok().filter(|name| has_serial(name, serial)))
        {
            return Ok(format!("/dev/{name}"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Err(Errno::NODEV).context("mount", &format!("no disk with serial {serial}"))
}

fn has_serial(name: &str, serial: &str) -> bool {
    let found = fs::read_to_string(format!("/sys/block/{name}/serial"))
        .or_else(|_| fs::read_to_string(format!("/sys/block/{name}/device/serial")));
    found.is_ok_and(|found| found.trim_end() == serial)
}

/// The call.
///
/// # Errors
/// As umount2(2).
pub fn umount_call(call: &Umount) -> Result<()> {
    absolute("umount", &call.path)?;
    let flags = if call.detach { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    unmount(call.path.as_str(), flags | UnmountFlags::NOFOLLOW).context("umount", &call.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Options {
        Options::parse(&[words.to_owned()])
    }

    #[test]
    fn later_words_win() {
        assert_eq!(parse("ro,rw").set, MountFlags::empty());
        assert_eq!(parse("rw,ro,nosuid").set, MountFlags::RDONLY | MountFlags::NOSUID);
        assert_eq!(parse("noatime,relatime").set, MountFlags::RELATIME);
    }

    #[test]
    fn unknown_words_are_data_in_their_order() {
        let options = parse("lowerdir=/a:/b,upperdir=/u,ro,workdir=/w");
        assert_eq!(options.data().expect("no NUL").to_str(), Ok("lowerdir=/a:/b,upperdir=/u,workdir=/w"));
    }

    #[test]
    fn hints_can_be_dropped() {
        let mut options = parse("noload,no_prefetch_block_bitmaps");
        assert!(options.drop_hints() && !options.drop_hints());
        assert_eq!(options.data().expect("no NUL").to_str(), Ok("noload"));
    }

    #[test]
    fn binds_and_propagation() {
        let options = parse("rbind,rslave");
        assert!(options.bind && options.recursive);
        assert_eq!(options.propagation, Some(MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC));
    }
}
