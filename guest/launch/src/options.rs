//! The command line.

use rustix::process::{Gid, Resource, Uid};

/// Who to become.
#[derive(Debug, PartialEq)]
pub struct User {
    /// The user.
    pub uid: Uid,
    /// The group, of the same number.
    pub gid: Gid,
    /// The only other groups.
    pub groups: Vec<Gid>,
}

/// What is asked for.
#[derive(Debug, PartialEq)]
pub struct Options {
    /// Whose child this is, and dies with.
    pub parent: i32,
    /// Soft and hard.
    pub limits: Vec<(Resource, u64)>,
    /// None: it stays who it is.
    pub user: Option<User>,
    /// prctl(2), PR_SET_NO_NEW_PRIVS.
    pub no_new_privs: bool,
    /// prctl(2), PR_SET_THP_DISABLE.
    pub no_huge_pages: bool,
    /// The file to become under the name of the program. Like `preload` it is opened as who starts it.
    pub file: Option<String>,
    /// A library that the program loads before all others (ld.so(8), LD_PRELOAD).
    pub preload: Option<String>,
    /// What to become, looked for in PATH where there is no `file`.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Options {
    /// Reads them.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
        let (mut parent, mut limits, mut uid, mut groups) = (None, Vec::new(), None, Vec::new());
        let (mut no_new_privs, mut no_huge_pages, mut file, mut preload) = (false, false, None, None);
        loop {
            let word = words.next().ok_or("no program")?;
            let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
            match word.as_str() {
                "--" => break,
                "--no-new-privs" => no_new_privs = true,
                "--no-huge-pages" => no_huge_pages = true,
                "--parent" => parent = Some(number(&value()?)?),
                "--limit" => limits.push(limit(&value()?)?),
                "--user" => uid = Some(number(&value()?)?),
                "--file" => file = Some(value()?),
                "--preload" => preload = Some(value()?),
                "--groups" => groups = value()?.split(',').map(number).collect::<Result<Vec<u32>, _>>()?,
                _ => return Err(format!("{word:?} is not known")),
            }
        }
        let user = uid.map(|id: u32| {
            let groups = groups.iter().map(|group| Gid::from_raw(*group)).collect();
            User { uid: Uid::from_raw(id), gid: Gid::from_raw(id), groups }
        });
        let parent = parent.ok_or("--parent is missing")?;
        let program = words.next().ok_or("no program")?;
        let arguments = words.collect();
        Ok(Options { parent, limits, user, no_new_privs, no_huge_pages, file, preload, program, arguments })
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number"))
}

fn limit(text: &str) -> Result<(Resource, u64), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?} is no limit"))?;
    let resource = match name {
        "core" => Resource::Core,
        "fsize" => Resource::Fsize,
        "memlock" => Resource::Memlock,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        _ => return Err(format!("there is no limit {name:?}")),
    };
    Ok((resource, number(value)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split(' ').map(str::to_owned))
    }

    #[test]
    fn everything_is_read() {
        let line = "--parent 7 --limit core=0 --limit nofile=64 --user 5 --groups 8,9 --no-new-privs --no-huge-pages \
                    --file /f --preload /p -- a -- -b";
        let options = parse(line).expect("well-formed");
        let user =
            User { uid: Uid::from_raw(5), gid: Gid::from_raw(5), groups: vec![Gid::from_raw(8), Gid::from_raw(9)] };
        assert_eq!(
            options,
            Options {
                parent: 7,
                limits: vec![(Resource::Core, 0), (Resource::Nofile, 64)],
                user: Some(user),
                no_new_privs: true,
                no_huge_pages: true,
                file: Some("/f".into()),
                preload: Some("/p".into()),
                program: "a".into(),
                arguments: vec!["--".into(), "-b".into()],
            }
        );
        assert_eq!(parse("--parent 7 -- a").map(|options| options.user), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (line, why) in [
            ("--parent 7", "no program"),
            ("--parent 7 --", "no program"),
            ("-- a", "--parent is missing"),
            ("--parent x -- a", "\"x\" is no number"),
            ("--parent", "--parent wants a value"),
            ("--limit stack=1 -- a", "there is no limit \"stack\""),
            ("--limit core -- a", "\"core\" is no limit"),
            ("--umask 0 -- a", "\"--umask\" is not known"),
        ] {
            assert_eq!(parse(line), Err(why.to_owned()), "{line}");
        }
    }
}
