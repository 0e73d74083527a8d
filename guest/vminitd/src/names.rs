//! etc/resolv.conf and etc/hosts.

use std::path::Path;

use rustix::io::Errno;

use crate::boot::CONTAINERS;
use crate::failure::{Failure, Result};
use crate::files;
use crate::guest_root::{GuestRoot, absolute, make_own_folders};
use crate::messages::{ConfigureDns, ConfigureHosts, WriteFile};

/// The call.
///
/// # Errors
/// A value that would be more than one word, or as open(2).
pub fn configure_dns(call: &ConfigureDns) -> Result<()> {
    let mut text = String::new();
    for server in &call.nameservers {
        push(&mut text, "nameserver", &[server])?;
    }
    if let Some(domain) = &call.domain {
        push(&mut text, "domain", &[domain])?;
    }
    let words = |list: &[String]| list.iter().map(String::clone).collect::<Vec<_>>();
    for (key, list) in [("search", words(&call.search_domains)), ("options", words(&call.options))] {
        if !list.is_empty() {
            push(&mut text, key, &list.iter().collect::<Vec<_>>())?;
        }
    }
    write(&call.location, "resolv.conf", text)
}

/// The call.
///
/// # Errors
/// A value that would be more than one word, or as open(2).
pub fn configure_hosts(call: &ConfigureHosts) -> Result<()> {
    let mut text = String::new();
    if let Some(comment) = &call.comment {
        push_comment(&mut text, comment)?;
    }
    for entry in &call.entries {
        push(&mut text, &entry.ip, &entry.hostnames.iter().collect::<Vec<_>>())?;
        if let Some(comment) = &entry.comment {
            text.pop();
            text.push(' ');
            push_comment(&mut text, comment)?;
        }
    }
    write(&call.location, "hosts", text)
}

fn push(text: &mut String, key: &str, words: &[&String]) -> Result<()> {
    let words = words.iter().map(|word| word.as_str());
    for (index, word) in [key].into_iter().chain(words).enumerate() {
        if word.is_empty()
            || word.contains(|letter: char| letter.is_whitespace() || letter.is_control() || letter == '#')
        {
            return Err(Failure::new("names", Errno::INVAL, format!("{word:?} is not one word")));
        }
        if index > 0 {
            text.push(' ');
        }
        text.push_str(word);
    }
    text.push('\n');
    Ok(())
}

fn push_comment(text: &mut String, comment: &str) -> Result<()> {
    if comment.contains(char::is_control) {
        return Err(Failure::new("names", Errno::INVAL, "a comment is one line"));
    }
    text.push_str("# ");
    text.push_str(comment);
    text.push('\n');
    Ok(())
}

/// A container's root may be read-only: its files are the agent's own beside the root, for the specification to bind.
fn place(location: &str, name: &str) -> (String, String) {
    let root = Path::new(location);
    match root.parent() {
        Some(folder) if root.file_name() == Some("rootfs".as_ref()) && folder.starts_with(CONTAINERS) => {
            (folder.to_string_lossy().into_owned(), ["/", name].concat())
        }
        _ => (location.to_owned(), ["/etc/", name].concat()),
    }
}

fn write(location: &str, name: &str, text: String) -> Result<()> {
    absolute("names", location)?;
    let (root, path) = place(location, name);
    // It is nearly always there.
    let folder = match GuestRoot::at(&root) {
        Err(failure) if failure.errno == Errno::NOENT.raw_os_error() => {
            make_own_folders(&root)?;
            GuestRoot::at(&root)?
        }
        found => found?,
    };
    let create_parents = path.rfind('/') != Some(0);
    let content = text.into_bytes();
    let call = WriteFile { path, content, mode: 0o644, create_parents, ..WriteFile::default() };
    files::write_file(&folder, &call)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::HostsEntry;

    #[test]
    fn files_of_a_container_are_beside_its_root() {
        let place = |location| place(location, "hosts");
        assert_eq!(place("/run/container/a/rootfs"), ("/run/container/a".to_owned(), "/hosts".to_owned()));
        assert_eq!(place("/srv/rootfs"), ("/srv/rootfs".to_owned(), "/etc/hosts".to_owned()));
        assert_eq!(place("/run/container/a/other"), ("/run/container/a/other".to_owned(), "/etc/hosts".to_owned()));
    }

    #[test]
    fn both_files_read_back() {
        let root = std::env::temp_dir().join(format!("firkin-names-{}", std::process::id()));
        let location = root.to_string_lossy().into_owned();
        configure_dns(&ConfigureDns {
            location: location.clone(),
            nameservers: vec!["192.0.2.1".to_owned()],
            domain: Some("example.org".to_owned()),
            search_domains: vec!["a.example".to_owned(), "b.example".to_owned()],
            options: vec!["ndots:2".to_owned()],
        })
        .expect("written");
        let entry = HostsEntry {
            ip: "192.0.2.7".to_owned(),
            hostnames: vec!["db".to_owned()],
            comment: Some("the db".to_owned()),
        };
        configure_hosts(&ConfigureHosts { location, entries: vec![entry], comment: None }).expect("written");
        let read = |name| std::fs::read_to_string(root.join("etc").join(name)).expect("is there");
        let expected = "nameserver 192.0.2.1\ndomain example.org\nsearch a.example b.example\noptions ndots:2\n";
        assert_eq!(read("resolv.conf"), expected);
        assert_eq!(read("hosts"), "192.0.2.7 db # the db\n");
        std::fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn no_value_smuggles_a_line() {
        let call = ConfigureDns {
            location: "/tmp".to_owned(),
            nameservers: vec!["1.1.1.1\nsearch x".to_owned()],
            ..Default::default()
        };
        assert!(configure_dns(&call).is_err());
    }
}
