//! `vmexec park`: a container made as far as one can be that has neither a root nor a program, and waits for both.
//!
//! It stands on a stage: an empty folder that the caller names as `root.path`, with the specification's mounts, devices,
//! masks and read-only paths, seen as any container sees its own. When the caller hands the rest over, the mounts move
//! below the root that came along and the stage goes. The root and its bind mounts may come first, and the program
//! later. A saved VM holds such a container, so that its copies run little code for the first time: under software
//! emulation that is most of a start.
//!
//! Nothing of it tells two containers apart: names, ids and the program come with the rest. Limits can't: nobody may set
//! those of a cgroup namespace's root from inside it.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, move_mount};
use serde::Deserialize;

use crate::Ended;
use crate::failure::{At, Failure, Result};
use crate::lsm::Label;
use crate::mounts::{self, Context, attach};
use crate::namespaces::pid_outside;
use crate::paths::{Root, clean};
use crate::process::{Checked, lead_session};
use crate::run::{Container, Names, Stood, check, finish, open_terminal};
use crate::spec::{Linux, Mount, Spec};
use crate::sync::{Handed, Sync};
use crate::{limits, root};

/// Where the root is attached before it is entered, on the stage.
const ROOT: &str = "/rootfs";

/// A container without a root.
struct Stage {
    /// Where to attach the root.
    place: OwnedFd,
    /// The mounts that move below it, in their order, with all that is mounted below them.
    movable: Vec<(String, bool)>,
}

/// Where a parked container waits for its program.
enum Place {
    Stage(Stage),
    Root(Root),
}

/// What comes with a root that comes by itself.
#[derive(Deserialize)]
struct Early {
    mounts: Vec<Mount>,
}

/// Comes back in the process that the caller started, in a container that failed or was given up, and in its init.
pub fn park(spec: Spec, sync: Sync) -> Ended {
    let container = match check(spec) {
        Ok((container, _)) => container,
        Err(failure) => return Ended::failed(sync, failure),
    };
    match container.start() {
        Ok(0) => {}
        Ok(_) => return Ended::Code(0),
        Err(failure) => return Ended::failed(sync, failure),
    };
    let parked = pid_outside().and_then(|pid| sync.pid(pid)).and_then(|()| Stage::build(&container));
    drop(container);
    let handed = parked.and_then(|stage| stage.await_program(&sync));
    let (place, mut handed) = match handed {
        Ok(Some(both)) => both,
        Ok(None) => return Ended::Code(0),
        Err(failure) => return Ended::failed(sync, failure),
    };
    let rest = handed.take_stdio().and_then(|()| rest(&handed.spec));
    let (mut spec, checked) = match rest {
        Ok(both) => both,
        Err(failure) => return Ended::failed(sync, failure),
    };
    let with_init = spec.annotations.init == "1";
    let stood = place.complete(&mut spec, &checked, handed, &sync);
    drop(spec);
    finish(stood, checked, with_init, sync)
}

/// The specification's rest: what a stage has already must not be in it, or it would be dropped silently.
fn rest(json: &[u8]) -> Result<(Spec, Checked)> {
    let mut spec = Spec::parse(json)?;
    let Linux {
        namespaces, time_offsets, devices, masked_paths, readonly_paths, sysctl, personality, resources, ..
    } = &spec.linux;
    let lists = [namespaces.is_empty(), devices.is_empty(), masked_paths.is_empty(), readonly_paths.is_empty()];
    let maps = [time_offsets.is_empty(), sysctl.is_empty(), personality.is_none(), resources.is_none()];
    let texts = [spec.linux.rootfs_propagation.is_empty(), spec.linux.mount_label.is_empty()];
    if !lists.iter().chain(&maps).chain(&texts).all(|empty| *empty) {
        return Err(Failure::invalid("park", "a parked container takes no such part of linux".into()));
    }
    let process = std::mem::take(&mut spec.process);
    let checked = Checked::new(process, &spec.annotations, None)?;
    Ok((spec, checked))
}

impl Stage {
    fn build(container: &Container) -> Result<Stage> {
        let (root, late) = container.enter()?;
        container.cover(&late)?;
        lead_session()?;
        let place = root.make_dir(ROOT).at("park", || format!("make {ROOT}"))?;
        Ok(Stage { place, movable: movable(&container.mounts) })
    }

    /// Waits until the program is there, having taken the root first where that came by itself; none: it was given up.
    fn await_program(self, sync: &Sync) -> Result<Option<(Place, Handed)>> {
        let Some(mut handed) = sync.parked()? else { return Ok(None) };
        if handed.is_last() {
            return Ok(Some((Place::Stage(self), handed)));
        }
        let early: Early = serde_json::from_slice(&handed.spec).map_err(|error| Failure::spec(error.to_string()))?;
        let root = self.enter(handed.root.take(), &early.mounts)?;
        Ok(sync.parked()?.filter(Handed::is_last).map(|handed| (Place::Root(root), handed)))
    }

    /// Into the root, with all that is mounted here.
    fn enter(self, root: Option<OwnedFd>, mounts: &[Mount]) -> Result<Root> {
        let root = root.ok_or_else(|| Failure::invalid("park", "there is no root".into()))?;
        attach(root.as_fd(), self.place.as_fd()).at("park", || "attach the root".into())?;
        let root = Root::new(root);
        // Their sources are on the stage, and none of them may lie below what moves.
        mounts::mount_all(mounts, &Context { root: &root, label: "" })?;
        for (path, plain) in &self.movable {
            let place = mounts::mount_point(&root, path, *plain)?;
            move_mount(CWD, path.as_str(), &place, "", MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)
                .at("park", || format!("move {path}"))?;
        }
        root::pivot(&root, "")?;
        Ok(root)
    }
}

impl Place {
    /// Closes all that it holds: the socket gets a descriptor's number of its own choice before the program runs.
    fn complete(self, spec: &mut Spec, checked: &Checked, handed: Handed, sync: &Sync) -> Result<Stood> {
        // The container's own /proc is sound: no image has had a say yet.
        let labels = Label::open(&checked.process)?;
        limits::oom_score(&checked.process)?;
        Names::of(spec).set()?;
        let root = match self {
            Place::Stage(stage) => stage.enter(handed.root, &spec.mounts)?,
            Place::Root(root) if spec.mounts.is_empty() => root,
            Place::Root(_) => return Err(Failure::invalid("park", "a container in its root takes no mounts".into())),
        };
        let terminal = open_terminal(checked, handed.pty, &root, sync)?;
        checked.make_cwd(&root)?;
        if spec.root.readonly {
            root::make_readonly(&root)?;
        }
        Ok((terminal, labels))
    }
}

/// Bind mounts stay on the stage, as sources of later ones; what is mounted below another moves with it.
fn movable(mounts: &[Mount]) -> Vec<(String, bool)> {
    let mut tops: Vec<(String, bool)> = Vec::new();
    for mount in mounts.iter().filter(|mount| mount.kind != "bind") {
        let path = clean(&mount.destination);
        if !tops.iter().any(|(top, _)| path.strip_prefix(top.as_str()).is_some_and(|rest| rest.starts_with('/'))) {
            tops.push((path, mounts::is_plain(&mount.kind)));
        }
    }
    tops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outermost_mounts_move() {
        let mount = |kind: &str, destination: &str| Mount {
            kind: kind.into(),
            destination: destination.into(),
            ..Mount::default()
        };
        let mounts = [
            mount("proc", "/proc"),
            mount("tmpfs", "/dev/"),
            mount("tmpfs", "/dev/shm"),
            mount("tmpfs", "/device"),
            mount("bind", "/run/container"),
        ];
        let expected = [("/proc".to_string(), true), ("/dev".to_string(), false), ("/device".to_string(), false)];
        assert_eq!(movable(&mounts), expected);
    }

    #[test]
    fn what_the_stage_has_is_refused() {
        let spec =
            |linux: &str| format!(r#"{{"root":{{"path":"/"}},"process":{{"args":["a"],"cwd":"/"}},"linux":{linux}}}"#);
        assert!(rest(spec("{}").as_bytes()).is_ok());
        for linux in [
            r#"{"resources":{"pids":{"limit":5}}}"#,
            r#"{"namespaces":[{"type":"pid"}]}"#,
            r#"{"maskedPaths":["/proc/kcore"]}"#,
            r#"{"readonlyPaths":["/proc/sys"]}"#,
            r#"{"devices":[{"path":"/dev/x","type":"c"}]}"#,
            r#"{"sysctl":{"kernel.msgmax":"1"}}"#,
            r#"{"rootfsPropagation":"shared"}"#,
            r#"{"mountLabel":"l"}"#,
            r#"{"personality":{"domain":"LINUX"}}"#,
            r#"{"timeOffsets":{"monotonic":{"secs":1}}}"#,
        ] {
            assert_eq!(
                rest(spec(linux).as_bytes()).err().map(|failure| failure.stage.to_string()),
                Some("park".into()),
                "{linux}"
            );
        }
    }
}
