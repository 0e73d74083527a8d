//! fstab-style mount options, read into the flags of mount(2) and mount_setattr(2). Pure; `mounts.rs` applies them.
//!
//! Names: runtime specification, "Mounts", table of options, and mount(8).

use crate::failure::{Failure, Result};

/// Longest data of a mount, in bytes: the kernel takes a page (mount(2)).
const MAX_DATA: usize = 4095;

/// What the options of one mount ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// MS_* of mount(2), propagation excluded.
    pub flags: libc::c_ulong,
    /// MS_* that were asked to be off, as far as a bind mount could inherit them.
    pub cleared: libc::c_ulong,
    /// MS_SHARED, MS_SLAVE, MS_PRIVATE or MS_UNBINDABLE, each with MS_REC or not, in order.
    pub propagation: Vec<libc::c_ulong>,
    /// MOUNT_ATTR_* for the whole tree: the `r…` options.
    pub tree_set: u64,
    pub tree_clear: u64,
    /// Options of the file system itself, comma separated.
    pub data: String,
    /// Fill a tmpfs with what it covers.
    pub copy_up: bool,
}

impl Options {
    /// Reads the options of the mount at `destination`, later ones winning.
    pub fn parse(options: &[String], destination: &str) -> Result<Options> {
        let mut parsed = Options::default();
        for option in options {
            parsed
                .add(option)
                .map_err(|why| Failure::invalid("mount", format!("{destination}: option {option}: {why}")))?;
        }
        if parsed.data.len() > MAX_DATA {
            return Err(Failure::invalid("mount", format!("{destination}: its data is longer than {MAX_DATA} bytes")));
        }
        Ok(parsed)
    }

    /// A bind mount, of one file system or of the tree.
    pub fn is_bind(&self) -> bool {
        self.flags & libc::MS_BIND != 0
    }

    fn add(&mut self, option: &str) -> std::result::Result<(), &'static str> {
        if let Some((set, clear)) = flag(option) {
            self.flags = self.flags & !clear | set;
            self.cleared = self.cleared & !set | clear;
        } else if let Some(kind) = propagation(option) {
            self.propagation.push(kind);
        } else if let Some((set, clear)) = tree_attribute(option) {
            self.tree_set = self.tree_set & !clear | set;
            self.tree_clear = self.tree_clear & !set | clear;
        } else if option == "tmpcopyup" {
            self.copy_up = true;
        } else if matches!(option, "idmap" | "ridmap") || option.starts_with("idmap=") {
            return Err("id-mapped mounts are not supported");
        } else if option.contains('\0') {
            return Err("it holds a NUL");
        } else if !option.is_empty() {
            if !self.data.is_empty() {
                self.data.push(',');
            }
            self.data.push_str(option);
        }
        Ok(())
    }
}

const ATIME: libc::c_ulong = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;

/// Flags to set and to clear.
fn flag(option: &str) -> Option<(libc::c_ulong, libc::c_ulong)> {
    Some(match option {
        "defaults" => (0, 0),
        "ro" => (libc::MS_RDONLY, 0),
        "rw" => (0, libc::MS_RDONLY),
        "nosuid" => (libc::MS_NOSUID, 0),
        "suid" => (0, libc::MS_NOSUID),
        "nodev" => (libc::MS_NODEV, 0),
        "dev" => (0, libc::MS_NODEV),
        "noexec" => (libc::MS_NOEXEC, 0),
        "exec" => (0, libc::MS_NOEXEC),
        "nosymfollow" => (libc::MS_NOSYMFOLLOW, 0),
        "symfollow" => (0, libc::MS_NOSYMFOLLOW),
        "sync" => (libc::MS_SYNCHRONOUS, 0),
        "async" => (0, libc::MS_SYNCHRONOUS),
        "dirsync" => (libc::MS_DIRSYNC, 0),
        "mand" => (libc::MS_MANDLOCK, 0),
        "nomand" => (0, libc::MS_MANDLOCK),
        "lazytime" => (libc::MS_LAZYTIME, 0),
        "nolazytime" => (0, libc::MS_LAZYTIME),
        "iversion" => (libc::MS_I_VERSION, 0),
        "noiversion" => (0, libc::MS_I_VERSION),
        "silent" => (libc::MS_SILENT, 0),
        "loud" => (0, libc::MS_SILENT),
        "remount" => (libc::MS_REMOUNT, 0),
        "bind" => (libc::MS_BIND, 0),
        "rbind" => (libc::MS_BIND | libc::MS_REC, 0),
        "noatime" => (libc::MS_NOATIME, ATIME),
        "relatime" => (libc::MS_RELATIME, ATIME),
        "strictatime" => (libc::MS_STRICTATIME, ATIME),
        "atime" => (0, libc::MS_NOATIME),
        "norelatime" => (0, libc::MS_RELATIME),
        "nostrictatime" => (0, libc::MS_STRICTATIME),
        "nodiratime" => (libc::MS_NODIRATIME, 0),
        "diratime" => (0, libc::MS_NODIRATIME),
        _ => return None,
    })
}

/// The MS_* of a propagation: of a mount's options, or of `linux.rootfsPropagation`.
pub fn propagation(option: &str) -> Option<libc::c_ulong> {
    let (name, depth) = match option.strip_prefix('r') {
        Some(name) => (name, libc::MS_REC),
        None => (option, 0),
    };
    let kind = match name {
        "shared" => libc::MS_SHARED,
        "slave" => libc::MS_SLAVE,
        "private" => libc::MS_PRIVATE,
        "unbindable" => libc::MS_UNBINDABLE,
        _ => return None,
    };
    Some(kind | depth)
}

/// MOUNT_ATTR_* to set and to clear in the whole tree.
fn tree_attribute(option: &str) -> Option<(u64, u64)> {
    Some(match option {
        "rro" => (libc::MOUNT_ATTR_RDONLY, 0),
        "rrw" => (0, libc::MOUNT_ATTR_RDONLY),
        "rnosuid" => (libc::MOUNT_ATTR_NOSUID, 0),
        "rsuid" => (0, libc::MOUNT_ATTR_NOSUID),
        "rnodev" => (libc::MOUNT_ATTR_NODEV, 0),
        "rdev" => (0, libc::MOUNT_ATTR_NODEV),
        "rnoexec" => (libc::MOUNT_ATTR_NOEXEC, 0),
        "rexec" => (0, libc::MOUNT_ATTR_NOEXEC),
        "rnosymfollow" => (libc::MOUNT_ATTR_NOSYMFOLLOW, 0),
        "rsymfollow" => (0, libc::MOUNT_ATTR_NOSYMFOLLOW),
        "rnodiratime" => (libc::MOUNT_ATTR_NODIRATIME, 0),
        "rdiratime" => (0, libc::MOUNT_ATTR_NODIRATIME),
        // The access-time setting is a number in MOUNT_ATTR__ATIME, 0 being relatime: setting it clears the field.
        "rrelatime" | "rnoatime" | "rstrictatime" | "ratime" | "rnorelatime" | "rnostrictatime" => {
            let value = match option {
                "rnoatime" => libc::MOUNT_ATTR_NOATIME,
                "rstrictatime" | "rnorelatime" => libc::MOUNT_ATTR_STRICTATIME,
                _ => libc::MOUNT_ATTR_RELATIME,
            };
            (value, libc::MOUNT_ATTR__ATIME)
        }
        _ => return None,
    })
}

/// The per-mount part of MS_* as MOUNT_ATTR_*: to set, to clear.
pub fn attributes(options: &Options) -> (u64, u64) {
    let (mut set, mut clear) = (0, 0);
    for (flag, attribute) in [
        (libc::MS_RDONLY, libc::MOUNT_ATTR_RDONLY),
        (libc::MS_NOSUID, libc::MOUNT_ATTR_NOSUID),
        (libc::MS_NODEV, libc::MOUNT_ATTR_NODEV),
        (libc::MS_NOEXEC, libc::MOUNT_ATTR_NOEXEC),
        (libc::MS_NODIRATIME, libc::MOUNT_ATTR_NODIRATIME),
        (libc::MS_NOSYMFOLLOW, libc::MOUNT_ATTR_NOSYMFOLLOW),
    ] {
        if options.flags & flag != 0 {
            set |= attribute;
        } else if options.cleared & flag != 0 {
            clear |= attribute;
        }
    }
    if options.flags & ATIME != 0 || options.cleared & ATIME != 0 {
        clear |= libc::MOUNT_ATTR__ATIME;
        set |= match options.flags & ATIME {
            libc::MS_NOATIME => libc::MOUNT_ATTR_NOATIME,
            libc::MS_STRICTATIME => libc::MOUNT_ATTR_STRICTATIME,
            _ => libc::MOUNT_ATTR_RELATIME,
        };
    }
    (set, clear)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Options {
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        Options::parse(&words, "/x").unwrap()
    }

    #[test]
    fn later_options_win() {
        assert_eq!(parse("ro rw").flags, 0);
        assert_eq!(parse("rw ro").flags, libc::MS_RDONLY);
        assert_eq!(parse("noatime strictatime").flags, libc::MS_STRICTATIME);
        assert_eq!(parse("rro rrw").tree_set, 0);
    }

    #[test]
    fn tells_flags_from_data() {
        let options = parse("nosuid size=64k mode=755 rprivate rbind");
        assert_eq!(options.flags, libc::MS_NOSUID | libc::MS_BIND | libc::MS_REC);
        assert_eq!(options.data, "size=64k,mode=755");
        assert_eq!(options.propagation, [libc::MS_PRIVATE | libc::MS_REC]);
        assert!(options.is_bind());
    }

    #[test]
    fn bind_attributes_keep_what_was_not_named() {
        assert_eq!(attributes(&parse("bind")), (0, 0));
        assert_eq!(attributes(&parse("bind rw")), (0, libc::MOUNT_ATTR_RDONLY));
        assert_eq!(attributes(&parse("bind ro nodev")), (libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NODEV, 0));
        assert_eq!(attributes(&parse("bind noatime")), (libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME));
    }

    #[test]
    fn refuses_what_it_cannot_do() {
        for option in ["idmap", "ridmap", "idmap=uids=0-1-2", "a\0b"] {
            assert_eq!(Options::parse(&[option.into()], "/x").unwrap_err().stage, "mount");
        }
        assert!(Options::parse(&["x".repeat(5000)], "/x").is_err());
    }
}
