//! `process.capabilities`: names to sets, and the sets onto this process.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, CompatCapability, clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::failure::{At, Failure, Result};
use crate::spec;

/// capabilities(7), in the order of their numbers (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The five sets as bits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

impl Sets {
    /// Reads the names; absent capabilities are none at all.
    pub fn parse(capabilities: Option<&spec::Capabilities>) -> Result<Sets> {
        let Some(given) = capabilities else { return Ok(Sets::default()) };
        Ok(Sets {
            bounding: bits(&given.bounding)?,
            effective: bits(&given.effective)?,
            inheritable: bits(&given.inheritable)?,
            permitted: bits(&given.permitted)?,
            ambient: bits(&given.ambient)?,
        })
    }

    /// What a program keeps of them, which the kernel lets a user have by the ambient set only (capabilities(7)).
    pub fn after_exec(&self, uid: u32) -> Sets {
        if uid == 0 { *self } else { Sets { effective: self.ambient, permitted: self.ambient, ..*self } }
    }

    /// Drops from the bounding set; needs CAP_SETPCAP, so it comes before the user changes.
    pub fn bound(&self) -> Result<()> {
        for (number, name) in NAMES.iter().enumerate().filter(|(number, _)| self.bounding & (1 << number) == 0) {
            match remove_capability_from_bounding_set(capability(number)) {
                // A kernel that is older than the capability does not have it either.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(errno) => return Err(Failure::system("capabilities", errno, &format!("bound {name}"))),
            }
        }
        Ok(())
    }

    /// Sets the other four, `also` being kept for a step that still needs it; [`Sets::drop_to`] ends that.
    pub fn apply(&self, also: u64) -> Result<()> {
        self.drop_to(also)?;
        if self.ambient == 0 {
            return clear_ambient_capability_set().at("capabilities", || "clear the ambient set".into());
        }
        for number in (0..NAMES.len()).filter(|number| self.ambient & (1 << number) != 0) {
            configure_capability_in_ambient_set(capability(number), true)
                .at("capabilities", || format!("make {} ambient", NAMES[number]))?;
        }
        Ok(())
    }

    /// capset(2) with these sets and `also`.
    pub fn drop_to(&self, also: u64) -> Result<()> {
        let set = |bits: u64| CapabilitySet::from_bits_retain(bits);
        let sets = CapabilitySets {
            effective: set(self.effective | also),
            permitted: set(self.permitted | also),
            inheritable: set(self.inheritable),
        };
        set_capabilities(None, sets).at("capabilities", || "set them".into())
    }
}

/// A name, with or without its prefix, as a bit.
fn bits(names: &[String]) -> Result<u64> {
    names.iter().try_fold(0, |bits, name| {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        let number = NAMES.iter().position(|known| *known == short);
        let number = number.ok_or_else(|| Failure::invalid("capabilities", format!("{name:?} is not a capability")))?;
        Ok(bits | 1 << number)
    })
}

fn capability(number: usize) -> impl CompatCapability {
    CapabilitySet::from_bits_retain(1 << number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_their_numbers() {
        let names = |list: &[&str]| list.iter().map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(bits(&names(&["CAP_CHOWN", "cap_kill"])).unwrap(), 1 | 1 << 5);
        assert_eq!(bits(&names(&["SYS_ADMIN"])).unwrap(), CapabilitySet::SYS_ADMIN.bits());
        assert_eq!(bits(&names(&["CAP_CHECKPOINT_RESTORE"])).unwrap(), CapabilitySet::CHECKPOINT_RESTORE.bits());
        assert_eq!(bits(&names(&["CAP_NOTHING"])).unwrap_err().stage, "capabilities");
    }

    #[test]
    fn a_user_keeps_the_ambient_ones() {
        let sets = Sets { effective: 7, permitted: 7, ambient: 2, ..Sets::default() };
        assert_eq!(sets.after_exec(0), sets);
        assert_eq!(sets.after_exec(1000), Sets { effective: 2, permitted: 2, ..sets });
    }

    #[test]
    fn none_given_is_none_had() {
        assert_eq!(Sets::parse(None).unwrap(), Sets::default());
    }
}
