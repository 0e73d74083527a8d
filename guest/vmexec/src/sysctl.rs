//! `linux.sysctl`, written through the agent's own /proc before the root changes.

use std::collections::BTreeMap;

use crate::failure::{At, Failure, Result};
use crate::files;

/// Writes each; the namespaces that they belong to are those of this process.
pub fn write_all(values: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in values {
        let path = path(key).ok_or_else(|| Failure::invalid("sysctl", format!("{key:?} is not a kernel parameter")))?;
        files::write(&path, value.as_bytes()).at("sysctl", || format!("set {key} to {value:?}"))?;
    }
    Ok(())
}

/// sysctl(8): the first separator, `.` or `/`, tells which one it is; the other stands for the first inside a name.
fn path(key: &str) -> Option<String> {
    let separator = key.chars().find(|c| matches!(c, '.' | '/'))?;
    let parts: String = match separator {
        '.' => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_string(),
    };
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    parts.split('/').all(plain).then(|| format!("/proc/sys/{parts}"))
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn names_become_paths() {
        assert_eq!(path("net.ipv4.ip_forward").unwrap(), "/proc/sys/net/ipv4/ip_forward");
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding").unwrap(), "/proc/sys/net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding").unwrap(), "/proc/sys/net/ipv4/conf/eth0.1/forwarding");
    }

    #[test]
    fn names_stay_below_proc_sys() {
        for key in ["", "kernel", "a..b", "../x", "a/../b", "kernel.//.x", "/kernel/x", "a.\0"] {
            assert_eq!(path(key), None, "{key:?}");
        }
    }
}
