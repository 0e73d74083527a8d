//! Seccomp: a program that the host compiled, handed over in two annotations.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::failure::{At, Failure, Result};
use crate::raw;
use crate::spec::Annotations;

/// BPF_MAXINSNS of linux/bpf_common.h.
const MAX_INSTRUCTIONS: usize = 4096;
/// linux/seccomp.h, without NEW_LISTENER: nobody here would listen.
const FLAGS: libc::c_ulong = libc::SECCOMP_FILTER_FLAG_TSYNC
    | libc::SECCOMP_FILTER_FLAG_LOG
    | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW
    | libc::SECCOMP_FILTER_FLAG_TSYNC_ESRCH;

/// A filter ready to be installed.
pub struct Filter {
    program: Vec<libc::sock_filter>,
    flags: u32,
}

impl Filter {
    /// `dev.firkin.seccomp.bpf`: base64 of `struct sock_filter[]` in the guest's byte order; `.flags`: decimal.
    pub fn parse(annotations: &Annotations) -> Result<Option<Filter>> {
        if annotations.seccomp_bpf.is_empty() {
            return Ok(None);
        }
        let invalid = |why: &str| Failure::invalid("seccomp", format!("dev.firkin.seccomp.{why}"));
        let bytes = STANDARD.decode(&annotations.seccomp_bpf).map_err(|_| invalid("bpf is not base64"))?;
        let (instructions, rest) = bytes.as_chunks::<8>();
        if instructions.is_empty() || !rest.is_empty() || instructions.len() > MAX_INSTRUCTIONS {
            return Err(invalid(&format!("bpf has {} bytes: not 1 to {MAX_INSTRUCTIONS} instructions", bytes.len())));
        }
        let text = annotations.seccomp_flags.as_str();
        let flags: u32 =
            if text.is_empty() { 0 } else { text.parse().map_err(|_| invalid("flags is not a number"))? };
        if libc::c_ulong::from(flags) & !FLAGS != 0 {
            return Err(invalid(&format!("flags {flags} has one that is not supported")));
        }
        Ok(Some(Filter { program: instructions.iter().map(instruction).collect(), flags }))
    }

    /// From here on it judges every system call.
    pub fn install(&self) -> Result<()> {
        raw::seccomp_filter(self.flags, &self.program).at("seccomp", || "install the filter".into())
    }
}

/// struct sock_filter of linux/filter.h: u16 code, u8 jt, u8 jf, u32 k.
fn instruction(bytes: &[u8; 8]) -> libc::sock_filter {
    let [c0, c1, jt, jf, k0, k1, k2, k3] = *bytes;
    libc::sock_filter { code: u16::from_ne_bytes([c0, c1]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bpf: &str, flags: &str) -> Result<Option<Filter>> {
        let annotations =
            Annotations { seccomp_bpf: bpf.into(), seccomp_flags: flags.into(), ..Annotations::default() };
        Filter::parse(&annotations)
    }

    #[test]
    fn reads_instructions() {
        // BPF_RET|BPF_K, SECCOMP_RET_ALLOW
        let filter = parse(&STANDARD.encode([6, 0, 1, 2, 0, 0, 0xff, 0x7f]), "2").unwrap().unwrap();
        assert_eq!(filter.flags, 2);
        assert_eq!((filter.program[0].code, filter.program[0].jt, filter.program[0].k), (6, 1, 0x7fff_0000));
    }

    #[test]
    fn refuses_what_is_no_program() {
        assert!(parse("", "").unwrap().is_none());
        for (bpf, flags) in
            [("!", ""), ("AAAA", ""), ("AAAAAAAAAAA=", "x"), ("AAAAAAAAAAA=", "8"), ("AAAAAAAAAAA=", "-1")]
        {
            assert_eq!(parse(bpf, flags).err().unwrap().stage, "seccomp", "{bpf} {flags}");
        }
        assert!(parse(&STANDARD.encode(vec![0; 8 * 4097]), "").is_err());
    }
}
