//! Who the process runs as, looked up in the container's own /etc/passwd and /etc/group.
//!
//! `process.user.username` holds what a user wrote: `name`, `uid`, `name:group`, `uid:gid`, `:group`. As in Docker, a user
//! without a group takes the group of passwd and the further groups of group(5); one with a group takes that alone.

use rustix::fs::Gid;
use rustix::io::Errno;
use rustix::process::Uid;

use crate::failure::{At, Failure, Result};
use crate::files;
use crate::spec;

/// Longest passwd or group file read, in bytes.
const MAX_FILE: usize = 16 << 20;
/// NGROUPS_MAX of linux/limits.h.
const MAX_GROUPS: usize = 65_536;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Of passwd; none if the user isn't in it.
    pub home: Option<String>,
}

/// Resolves `user`; `added` are the names or numbers of `dev.firkin.group_add`, comma separated.
pub fn resolve(user: &spec::User, added: &str, want_home: bool) -> Result<Identity> {
    if user.username.is_empty() && added.is_empty() && !want_home {
        return Ok(Identity { uid: user.uid, gid: user.gid, groups: user.additional_gids.clone(), home: None });
    }
    let passwd = read("/etc/passwd")?;
    let by_name = !user.username.is_empty() || !added.is_empty();
    let group = if by_name { read("/etc/group")? } else { String::new() };
    look_up(user, added, &passwd, &group)
}

fn look_up(user: &spec::User, added: &str, passwd: &str, group: &str) -> Result<Identity> {
    let (name, group_name) = match user.username.split_once(':') {
        Some((name, group_name)) => (name, group_name),
        None => (user.username.as_str(), ""),
    };
    let wanted: Option<u32> = if name.is_empty() { Some(user.uid) } else { name.parse().ok() };
    let entry = passwd.lines().find_map(|line| Entry::parse(line).filter(|e| e.is(name, wanted)));
    let mut identity = Identity { uid: wanted.unwrap_or(0), ..Identity::default() };
    match &entry {
        Some(entry) => {
            (identity.uid, identity.gid) = (entry.uid, entry.gid);
            identity.home = Some(entry.home.to_string()).filter(|home| !home.is_empty());
        }
        None if wanted.is_none() => return Err(unknown("user", name, "/etc/passwd")),
        None => {}
    }
    if user.username.is_empty() {
        identity.gid = user.gid;
    } else if !group_name.is_empty() {
        identity.gid = group_id(group_name, group)?;
    } else if let Some(entry) = &entry {
        identity.groups = member_of(entry.name, group);
    }
    for gid in user.additional_gids.iter().copied() {
        push(&mut identity.groups, gid);
    }
    for name in added.split(',').filter(|name| !name.is_empty()) {
        push(&mut identity.groups, group_id(name, group)?);
    }
    if identity.groups.len() > MAX_GROUPS {
        return Err(Failure::invalid("user", format!("more than {MAX_GROUPS} groups")));
    }
    Ok(identity)
}

/// Becomes the user for good; capabilities are kept for `caps.rs` to choose from.
pub fn become_user(identity: &Identity) -> Result<()> {
    let at = |doing: &'static str| move || doing.to_string();
    let groups: Vec<Gid> = identity.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups).at("user", at("set the groups"))?;
    let (uid, gid) = (Uid::from_raw(identity.uid), rustix::process::Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).at("user", at("set the group"))?;
    if identity.uid != 0 {
        rustix::thread::set_keep_capabilities(true).at("user", at("keep capabilities"))?;
    }
    rustix::thread::set_thread_res_uid(uid, uid, uid).at("user", at("set the user"))
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    /// passwd(5): name:password:uid:gid:comment:home:shell.
    fn parse(line: &'a str) -> Option<Entry<'a>> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Entry { name, uid, gid, home: fields.nth(1).unwrap_or("") })
    }

    /// A number is a uid even if somebody is named so.
    fn is(&self, name: &str, uid: Option<u32>) -> bool {
        uid.map_or(self.name == name, |uid| self.uid == uid)
    }
}

/// group(5): name:password:gid:members.
fn groups(file: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    file.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

fn group_id(name: &str, file: &str) -> Result<u32> {
    if let Ok(gid) = name.parse() {
        return Ok(gid);
    }
    let found = groups(file).find(|(known, ..)| *known == name);
    found.map(|(_, gid, _)| gid).ok_or_else(|| unknown("group", name, "/etc/group"))
}

fn member_of(user: &str, file: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for (_, gid, members) in groups(file) {
        if members.split(',').any(|member| member == user) {
            push(&mut found, gid);
        }
    }
    found
}

fn push(groups: &mut Vec<u32>, gid: u32) {
    if !groups.contains(&gid) {
        groups.push(gid);
    }
}

fn read(path: &str) -> Result<String> {
    match files::read_regular(path, MAX_FILE) {
        Ok(content) => Ok(String::from_utf8_lossy(&content).into_owned()),
        // Images of one static program have none, others hide it behind /dev/null: numbers still work.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::INVAL) => Ok(String::new()),
        Err(errno) => Err(errno).at("user", || format!("read {path}")),
    }
}

fn unknown(what: &str, name: &str, file: &str) -> Failure {
    Failure { stage: "user", errno: libc::ENOENT, message: format!("{what} {name:?} is not in {file}"), exit_code: 125 }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nann:x:1000:100:Ann:/home/ann:/bin/sh\n7:x:9:9::/seven:\n";
    const GROUP: &str = "root:x:0:\naudio:x:29:ann,bob\nvideo:x:44:bob\nstaff:x:50:ann\n";

    fn find(username: &str) -> Result<Identity> {
        let user = spec::User { username: username.into(), ..spec::User::default() };
        look_up(&user, "", PASSWD, GROUP)
    }

    #[test]
    fn docker_rules() {
        for (name, uid, gid, groups, home) in [
            ("ann", 1000, 100, vec![29, 50], Some("/home/ann")),
            ("1000", 1000, 100, vec![29, 50], Some("/home/ann")),
            ("ann:video", 1000, 44, vec![], Some("/home/ann")),
            ("1000:7", 1000, 7, vec![], Some("/home/ann")),
            ("4242", 4242, 0, vec![], None),
            ("4242:audio", 4242, 29, vec![], None),
            ("7", 7, 0, vec![], None),
            (":staff", 0, 50, vec![], Some("/root")),
        ] {
            let found = find(name).unwrap();
            let expected = Identity { uid, gid, groups, home: home.map(String::from) };
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn unknown_names_are_errors() {
        assert_eq!(find("carl").unwrap_err().errno, libc::ENOENT);
        assert_eq!(find("ann:nogroup").unwrap_err().message, "group \"nogroup\" is not in /etc/group");
    }

    #[test]
    fn added_groups_come_after_and_once() {
        let user = spec::User { username: "ann".into(), additional_gids: vec![29, 7], ..spec::User::default() };
        let found = look_up(&user, "video,7,12", PASSWD, GROUP).unwrap();
        assert_eq!(found.groups, [29, 50, 7, 44, 12]);
    }

    #[test]
    fn numbers_alone_stay_as_given() {
        let user = spec::User { uid: 1000, gid: 5, ..spec::User::default() };
        let found = look_up(&user, "audio", PASSWD, GROUP).unwrap();
        assert_eq!((found.uid, found.gid, found.groups), (1000, 5, vec![29]));
    }
}
