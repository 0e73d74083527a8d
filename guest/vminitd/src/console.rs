//! The agent's own lines in the boot log.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, open};

static CONSOLE: OnceLock<File> = OnceLock::new();

/// Finds the console, or the kernel's log where there is none. Called once /dev is there.
pub fn attach() {
    for path in ["/dev/console", "/dev/kmsg"] {
        // Not blocking: nobody may be reading the console, and PID 1 must not wait for them.
        let flags = OFlags::WRONLY | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(found) = open(path, flags, Mode::empty()) {
            CONSOLE.get_or_init(|| File::from(found));
            return;
        }
    }
}

/// Writes `vminitd: LINE`.
pub fn log(line: &str) {
    if let Some(mut console) = CONSOLE.get() {
        let whole = ["vminitd: ", line, "\n"].concat();
        // A log line that can't be written has nowhere else to go.
        let _ = console.write(whole.as_bytes());
    }
}
