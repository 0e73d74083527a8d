//! `process.terminal`: a pty of the container's own devpts.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchown, major, minor, open, statat};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, open_tree};
use rustix::process::ioctl_tiocsctty;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::failure::{At, Failure, Result};
use crate::mounts::attach;
use crate::paths::Root;
use crate::sync::Sync;

/// Columns and rows.
pub type Size = (u16, u16);

/// The program's end of a pty.
pub struct Terminal(OwnedFd);

impl Terminal {
    /// Opens a pair in `/dev/pts` of the root that this process is in, and sends the master away.
    pub fn open(size: Option<Size>, sync: &Sync) -> Result<Terminal> {
        // What an image has there may be anything: it must not block, and must be the multiplexer.
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let master = open("/dev/pts/ptmx", flags, Mode::empty()).at("pty", || "open /dev/pts/ptmx".into())?;
        let stat = statat(&master, "", AtFlags::EMPTY_PATH).at("pty", || "stat /dev/pts/ptmx".into())?;
        if (major(stat.st_rdev), minor(stat.st_rdev)) != (5, 2) {
            return Err(Failure::system("pty", Errno::NOTTY, "/dev/pts/ptmx"));
        }
        unlockpt(&master).at("pty", || "unlock".into())?;
        let peer = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, peer).at("pty", || "open the peer".into())?;
        if let Some((columns, rows)) = size {
            let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
            tcsetwinsize(&slave, size).at("pty", || "set the size".into())?;
        }
        sync.terminal(master.as_fd())?;
        Ok(Terminal(slave))
    }

    /// Shows it as /dev/console.
    pub fn bind_console(&self, root: &Root) -> Result<()> {
        let at = || "bind /dev/console".to_string();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
        let tree = open_tree(&self.0, "", flags).at("pty", at)?;
        let place = root.make_file("/dev/console").at("pty", at)?;
        attach(tree.as_fd(), place.as_fd()).at("pty", at)
    }

    /// The user's from now on; the group stays the devpts mount's.
    pub fn give_to(&self, uid: u32) -> Result<()> {
        fchown(&self.0, Some(Uid::from_raw(uid)), None::<Gid>).at("pty", || "give it to the user".into())
    }

    /// Becomes descriptors 0, 1, 2 and the controlling terminal of the session that this process leads.
    pub fn take(self) -> Result<()> {
        let at = || "attach it".to_string();
        rustix::stdio::dup2_stdin(&self.0).at("pty", at)?;
        rustix::stdio::dup2_stdout(&self.0).at("pty", at)?;
        rustix::stdio::dup2_stderr(&self.0).at("pty", at)?;
        ioctl_tiocsctty(&self.0).at("pty", at)
    }
}
