//! `process.apparmorProfile` and `process.selinuxLabel`: what the program becomes at exec.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::{Errno, write};

use crate::failure::{At, Failure, Result};
use crate::files;
use crate::spec::Process;

/// Opened while /proc is the agent's, written when everything else is done.
pub struct Label {
    file: OwnedFd,
    content: String,
    what: &'static str,
}

impl Label {
    /// The labels asked for; an error if the kernel does not have their module running.
    pub fn open(process: &Process) -> Result<Vec<Label>> {
        let mut labels = Vec::new();
        let profile = process.apparmor_profile.as_str();
        let on = !profile.is_empty() && apparmor_runs();
        // Where nothing could confine it, unconfined is what it is.
        if !profile.is_empty() && (on || profile != "unconfined") {
            let content = format!("exec {profile}");
            labels.push(Label::at(
                "apparmor",
                on,
                &["/proc/self/attr/apparmor/exec", "/proc/self/attr/exec"],
                content,
            )?);
        }
        if !process.selinux_label.is_empty() {
            // selinuxfs registers itself only where SELinux runs.
            let on = files::read_all_of("/proc/filesystems").is_ok_and(|text| text.contains("\tselinuxfs\n"));
            labels.push(Label::at("selinux", on, &["/proc/self/attr/exec"], process.selinux_label.clone())?);
        }
        Ok(labels)
    }

    /// Takes effect at the next exec of this process or of its children.
    pub fn set(&self) -> Result<()> {
        write(&self.file, self.content.as_bytes()).at(self.what, || format!("set {:?}", self.content))?;
        Ok(())
    }

    fn at(what: &'static str, on: bool, paths: &[&str], content: String) -> Result<Label> {
        if !on {
            return Err(Failure::system(what, Errno::OPNOTSUPP, "the guest's kernel does not run it"));
        }
        let mut opened = Err(Errno::NOENT);
        for path in paths {
            opened = openat(CWD, *path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty());
            if opened.is_ok() {
                break;
            }
        }
        let file = opened.at(what, || "open its attribute".into())?;
        Ok(Label { file, content, what })
    }
}

fn apparmor_runs() -> bool {
    files::read_regular("/sys/module/apparmor/parameters/enabled", 16).is_ok_and(|text| text.starts_with(b"Y"))
}
