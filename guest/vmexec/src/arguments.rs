//! The command line, as docs/internals.md fixes it.

use std::os::fd::RawFd;

use crate::failure::{Failure, Result};

/// What the caller asks for.
#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    /// `run`, `park` or `exec`.
    pub verb: Verb,
    pub id: String,
    pub spec_fd: RawFd,
    pub sync_fd: RawFd,
    /// Columns and rows of the pty.
    pub pty: Option<(u16, u16)>,
}

/// The things that vmexec does.
#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    /// Make a container and its first process.
    Run,
    /// Make a container that waits for its root and its first process.
    Park,
    /// Make a further process in the container of this one (a pid as the caller sees it).
    Exec { init: i32 },
}

impl Arguments {
    /// Reads what follows the program's name.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
        let verb = words.next().unwrap_or_default();
        let (mut id, mut spec_fd, mut sync_fd, mut init, mut pty) = (String::new(), -1, -1, 0, None);
        while let Some(name) = words.next() {
            let value = words.next().ok_or_else(|| usage(&format!("{name} has no value")))?;
            match name.as_str() {
                "--id" => id = value,
                "--spec-fd" => spec_fd = number(&name, &value, 0)?,
                "--sync-fd" => sync_fd = number(&name, &value, 3)?,
                "--pid" => init = number(&name, &value, 1)?,
                "--pty" => pty = Some(size(&value)?),
                _ => return Err(usage(&format!("unknown argument {name}"))),
            }
        }
        let verb = match (verb.as_str(), init) {
            ("run", 0) => Verb::Run,
            ("park", 0) => Verb::Park,
            ("exec", 1..) => Verb::Exec { init },
            _ => return Err(usage("it is `run`, `park`, or `exec` with --pid")),
        };
        if id.is_empty() || spec_fd < 0 || sync_fd < 0 {
            return Err(usage("--id, --spec-fd and --sync-fd are needed"));
        }
        Ok(Arguments { verb, id, spec_fd, sync_fd, pty })
    }
}

fn usage(message: &str) -> Failure {
    Failure::invalid("arguments", message.to_string())
}

fn number(name: &str, value: &str, least: i32) -> Result<i32> {
    let number = value.parse().ok().filter(|n| *n >= least);
    number.ok_or_else(|| usage(&format!("{name} {value:?} is not a number from {least}")))
}

fn size(value: &str) -> Result<(u16, u16)> {
    let parsed = value.split_once('x').and_then(|(columns, rows)| Some((columns.parse().ok()?, rows.parse().ok()?)));
    parsed.ok_or_else(|| usage(&format!("--pty {value:?} is not COLUMNSxROWS")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments> {
        Arguments::parse(line.split_whitespace().map(String::from))
    }

    #[test]
    fn reads_all_verbs() {
        let run = parse("run --id a --spec-fd 3 --sync-fd 4 --pty 80x24").unwrap();
        assert_eq!((run.verb, run.pty), (Verb::Run, Some((80, 24))));
        assert_eq!(parse("park --id a --spec-fd 3 --sync-fd 4").unwrap().verb, Verb::Park);
        let exec = parse("exec --id a --spec-fd 3 --sync-fd 4 --pid 7").unwrap();
        assert_eq!(exec.verb, Verb::Exec { init: 7 });
    }

    #[test]
    fn refuses_what_is_incomplete_or_unknown() {
        for line in [
            "",
            "run",
            "run --id",
            "run --id a --spec-fd 3",
            "run --id a --spec-fd x --sync-fd 4",
            "run --id a --spec-fd 3 --sync-fd 1",
            "run --id a --spec-fd 3 --sync-fd 4 --pid 1",
            "run --id a --spec-fd 3 --sync-fd 4 --pty 80",
            "run --id a --spec-fd 3 --sync-fd 4 --what 1",
            "exec --id a --spec-fd 3 --sync-fd 4",
            "exec --id a --spec-fd 3 --sync-fd 4 --pid -1",
        ] {
            assert_eq!(parse(line).unwrap_err().stage, "arguments", "{line}");
        }
    }
}
