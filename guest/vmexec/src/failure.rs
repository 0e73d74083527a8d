//! The one error of vmexec: where it failed, the errno, one line of text, and the exit code that a shell would give.

use rustix::io::Errno;

/// Exit code of a failed set-up (Docker's convention).
pub const SETUP: u8 = 125;
/// Exit code of a program that was found and can't be run.
pub const NOT_EXECUTABLE: u8 = 126;
/// Exit code of a program that was not found.
pub const NOT_FOUND: u8 = 127;

/// Why no process was made.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// One word: the step that failed.
    pub stage: &'static str,
    /// Linux's number, 0 where no system call failed.
    pub errno: i32,
    /// One line, the errno's own text included.
    pub message: String,
    /// 125, 126 or 127.
    pub exit_code: u8,
}

/// What every step returns.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A step refused its input.
    pub fn invalid(stage: &'static str, message: String) -> Failure {
        Failure { stage, errno: libc::EINVAL, message, exit_code: SETUP }
    }

    /// The specification is not one, or asks for what a guest cannot do.
    pub fn spec(message: String) -> Failure {
        Failure::invalid("spec", message)
    }

    /// A system call failed; `doing` says at what.
    pub fn system(stage: &'static str, errno: Errno, doing: &str) -> Failure {
        let message = format!("{doing}: {}", text(errno));
        Failure { stage, errno: errno.raw_os_error(), message, exit_code: SETUP }
    }

    /// The program can't be run: `exit_code` is 126 or 127.
    pub fn exec(errno: Errno, message: String, exit_code: u8) -> Failure {
        Failure { stage: "exec", errno: errno.raw_os_error(), message, exit_code }
    }

    /// The content of the `E` message.
    pub fn to_json(&self) -> Vec<u8> {
        let json = serde_json::json!({
            "stage": self.stage, "errno": self.errno, "message": self.message, "exit_code": self.exit_code,
        });
        json.to_string().into_bytes()
    }
}

/// The errno's own text.
pub fn text(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    // The standard library adds the number, which has a field of its own.
    text.split(" (os error").next().unwrap_or_default().to_string()
}

/// Names the step in which a system call failed.
pub trait At<T> {
    /// `doing` is built only when it failed.
    fn at(self, stage: &'static str, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, stage: &'static str, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|errno| Failure::system(stage, errno, &doing()))
    }
}
