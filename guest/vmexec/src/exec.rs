//! The last step: find the program, as a shell would, and become it.

use std::ffi::CString;

use rustix::fs::{AtFlags, CWD, statat};
use rustix::io::Errno;

use crate::failure::{self, Failure, NOT_EXECUTABLE, NOT_FOUND};
use crate::raw::{self, Pointers};

/// PATH of a process that has none: Docker's default.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program with its arguments, in the form that execve(2) takes.
pub struct Program {
    name: String,
    candidates: Vec<CString>,
    argv: Pointers,
    envp: Pointers,
}

impl Program {
    /// Prepares all that allocates. A name without `/` is looked up in the PATH of `env`, an empty part of which is the
    /// working directory (exec(3)).
    pub fn new(args: Vec<String>, env: Vec<String>) -> Result<Program, Failure> {
        let name = args[0].clone();
        let mut candidates = Vec::new();
        if name.contains('/') {
            candidates.push(c_string(&name)?);
        } else if !name.is_empty() {
            let path = env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
            for folder in path.split(':') {
                let folder = if folder.is_empty() { "." } else { folder };
                candidates.push(c_string(&format!("{folder}/{name}"))?);
            }
        }
        let failed = |_| Failure::spec("a string of process holds a NUL".into());
        Ok(Program {
            name,
            candidates,
            argv: Pointers::new(args).map_err(failed)?,
            envp: Pointers::new(env).map_err(failed)?,
        })
    }

    /// execve(2) of the first that can be; comes back only with why none could.
    pub fn execute(&self) -> Failure {
        let mut refused = None;
        for path in &self.candidates {
            match raw::execve(path, &self.argv, &self.envp) {
                // A shell goes on searching past what it may not run, too.
                Errno::NOENT | Errno::NOTDIR => {}
                errno @ Errno::ACCESS => refused = refused.or(Some((path, errno))),
                errno => return self.failure(path, errno),
            }
        }
        // A script or program can be there and its interpreter not: execve(2) says the same of both.
        let lost = || self.candidates.iter().find(|path| exists(path)).map(|path| (path, Errno::NOENT));
        match refused.or_else(lost) {
            Some((path, errno)) => self.failure(path, errno),
            None if self.name.contains('/') => self.missing("no such file"),
            None => self.missing("not found in PATH"),
        }
    }

    fn missing(&self, why: &str) -> Failure {
        Failure::exec(Errno::NOENT, format!("{:?}: {why}", self.name), NOT_FOUND)
    }

    fn failure(&self, path: &CString, errno: Errno) -> Failure {
        let shown = path.to_string_lossy();
        match errno {
            Errno::NOENT => Failure::exec(errno, format!("{shown}: its interpreter or loader is missing"), NOT_FOUND),
            Errno::ACCESS if is_dir(path) => {
                Failure::exec(Errno::ISDIR, format!("{shown}: it is a directory"), NOT_EXECUTABLE)
            }
            Errno::NOEXEC => {
                Failure::exec(errno, format!("{shown}: not a program of this machine, nor a script"), NOT_EXECUTABLE)
            }
            _ => Failure::exec(errno, format!("{shown}: {}", failure::text(errno)), NOT_EXECUTABLE),
        }
    }
}

fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text).map_err(|_| Failure::spec("a string of process holds a NUL".into()))
}

fn exists(path: &CString) -> bool {
    statat(CWD, path, AtFlags::empty()).is_ok()
}

fn is_dir(path: &CString) -> bool {
    statat(CWD, path, AtFlags::empty())
        .is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(name: &str, env: &[&str]) -> Vec<String> {
        let program = Program::new(vec![name.into()], env.iter().map(|s| s.to_string()).collect()).unwrap();
        program.candidates.iter().map(|path| path.to_str().unwrap().to_string()).collect()
    }

    #[test]
    fn searches_the_path_given() {
        assert_eq!(candidates("a", &["PATH=/x:/y"]), ["/x/a", "/y/a"]);
        assert_eq!(candidates("a", &["PATH=/x::"]), ["/x/a", "./a", "./a"]);
        assert_eq!(candidates("./a", &["PATH=/x"]), ["./a"]);
        assert_eq!(candidates("a", &[])[0], "/usr/local/sbin/a");
        assert_eq!(candidates("", &["PATH=/x"]), Vec::<String>::new());
    }

    #[test]
    fn tells_not_found_from_not_executable() {
        let run = |name: &str| Program::new(vec![name.into()], vec!["PATH=/nowhere:/etc".into()]).unwrap().execute();
        assert_eq!((run("vmexec-none").exit_code, run("/vmexec-none").exit_code), (127, 127));
        assert_eq!((run("passwd").exit_code, run("passwd").errno), (126, libc::EACCES));
        assert_eq!((run("/etc").exit_code, run("/etc").errno), (126, libc::EISDIR));
    }
}
