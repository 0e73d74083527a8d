//! What a call answers when it fails: where, with which errno, and in words.

use std::borrow::Cow;

use rustix::io::Errno;

use crate::messages;

/// A call's failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Where it failed, one word or two.
    pub stage: Cow<'static, str>,
    /// Linux's number.
    pub errno: i32,
    /// For people.
    pub message: String,
    /// 125, 126 or 127 for a process that could not be started; else 0.
    pub exit_code: i32,
}

/// What a call gives.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure of `stage`.
    pub fn new(stage: &'static str, errno: Errno, message: impl Into<String>) -> Self {
        Self { stage: Cow::Borrowed(stage), errno: errno.raw_os_error(), message: message.into(), exit_code: 0 }
    }

    /// As it travels.
    pub fn into_message(self) -> messages::Error {
        messages::Error {
            stage: self.stage.into_owned(),
            errno: self.errno,
            message: self.message,
            exit_code: self.exit_code,
        }
    }
}

/// Turns an errno into a [`Failure`] that says what was tried.
pub trait Context<T> {
    /// `what` is the object of the attempt: a path, a name.
    fn context(self, stage: &'static str, what: &str) -> Result<T>;
}

impl<T> Context<T> for std::result::Result<T, Errno> {
    fn context(self, stage: &'static str, what: &str) -> Result<T> {
        self.map_err(|errno| {
            let reason = std::io::Error::from(errno);
            Failure::new(stage, errno, format!("{what}: {reason}"))
        })
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, stage: &'static str, what: &str) -> Result<T> {
        self.map_err(|error| {
            let errno = error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error);
            Failure::new(stage, errno, format!("{what}: {error}"))
        })
    }
}
