use std::fs;
use std::io::{Cursor, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use tar::{Builder, EntryType, Header};

use super::pack::{find, pack};
use super::unpack::unpack;
use super::*;
use crate::guest_root::GuestRoot;

/// A folder that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("firkin-copy-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("made");
        Self(path)
    }

    fn unpacked(&self, archive: Vec<u8>) -> Result<Count> {
        let folder = open(&self.0, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("is there");
        let owner = Owner::All { uid: rustix::process::getuid().as_raw(), gid: rustix::process::getgid().as_raw() };
        unpack(Cursor::new(archive), folder, owner)
    }

    fn packed(&self, name: &str) -> Vec<u8> {
        let root = GuestRoot::at(&self.0.to_string_lossy()).expect("is there");
        let found = find(&root, &PathBuf::from("/").join(name), false).expect("is there");
        let path = self.0.with_extension("tar");
        pack(fs::File::create(&path).expect("made"), &found, name.as_ref()).expect("packed");
        let archive = fs::read(&path).expect("is there");
        fs::remove_file(path).expect("removed");
        archive
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

fn archive(entries: &[(&str, EntryType, &str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, kind, link, content) in entries {
        let mut header = Header::new_gnu();
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o640);
        header.set_size(content.len() as u64);
        header.set_mtime(1_000_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        builder.append(&header, *content).expect("written");
    }
    builder.into_inner().expect("written")
}

#[test]
fn a_tree_survives_both_ways() {
    let (from, to) = (Scratch::new("from"), Scratch::new("to"));
    let tree = from.0.join("tree");
    let long = "d".repeat(150);
    fs::create_dir_all(tree.join(&long)).expect("made");
    fs::write(tree.join("empty"), "").expect("written");
    fs::write(tree.join(&long).join("file"), "content").expect("written");
    fs::hard_link(tree.join(&long).join("file"), tree.join("again")).expect("linked");
    symlink("/etc/passwd", tree.join("link")).expect("linked");
    symlink("t".repeat(200), tree.join("long link")).expect("linked");
    fs::set_permissions(tree.join("empty"), fs::Permissions::from_mode(0o4711)).expect("set");
    let count = to.unpacked(from.packed("tree")).expect("unpacked");
    assert_eq!(count, Count { entries: 7, bytes: 7 });
    let copy = to.0.join("tree");
    assert_eq!(fs::read(copy.join(&long).join("file")).expect("is there"), b"content");
    let inode = |path: PathBuf| fs::metadata(path).expect("is there").ino();
    assert_eq!(inode(copy.join("again")), inode(copy.join(&long).join("file")));
    assert_eq!(fs::read_link(copy.join("link")).expect("is a link"), PathBuf::from("/etc/passwd"));
    assert_eq!(fs::read_link(copy.join("long link")).expect("is a link"), PathBuf::from("t".repeat(200)));
    for name in ["empty", "again", "."] {
        let (old, new) =
            (fs::metadata(tree.join(name)).expect("is there"), fs::metadata(copy.join(name)).expect("is there"));
        assert_eq!((old.mode(), old.mtime(), old.mtime_nsec()), (new.mode(), new.mtime(), new.mtime_nsec()), "{name}");
    }
}

#[test]
fn holes_stay_holes() {
    let (from, to) = (Scratch::new("sparse-from"), Scratch::new("sparse-to"));
    let file = fs::File::create(from.0.join("big")).expect("made");
    file.set_len(1 << 30).expect("sized");
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 512 << 20).expect("written");
    let archive = from.packed("big");
    assert!(archive.len() < 64 * 1024, "{}", archive.len());
    to.unpacked(archive).expect("unpacked");
    let copy = fs::metadata(to.0.join("big")).expect("is there");
    assert_eq!(copy.len(), 1 << 30);
    assert!(copy.blocks() < 1024, "{}", copy.blocks());
    let mut found = [0; 6];
    let opened = fs::File::open(to.0.join("big")).expect("is there");
    std::os::unix::fs::FileExt::read_exact_at(&opened, &mut found, 512 << 20).expect("read");
    assert_eq!(&found, b"middle");
}

#[test]
fn nothing_is_written_outside() {
    let (outside, inner) = (Scratch::new("outside"), Scratch::new("inner"));
    let target = outside.0.to_string_lossy().into_owned();
    let through_link =
        archive(&[("way", EntryType::Symlink, &target, b""), ("way/evil", EntryType::Regular, "", b"x")]);
    let cases = [
        (archive(&[("../evil", EntryType::Regular, "", b"x")]), Errno::INVAL),
        (archive(&[("a/../../evil", EntryType::Regular, "", b"x")]), Errno::INVAL),
        (through_link, Errno::XDEV),
        (archive(&[("disk", EntryType::Block, "", b"")]), Errno::PERM),
    ];
    for (archive, errno) in cases {
        assert_eq!(inner.unpacked(archive).expect_err("refused").errno, errno.raw_os_error());
    }
    assert_eq!(fs::read_dir(&outside.0).expect("is there").count(), 0);
    inner.unpacked(archive(&[("/absolute", EntryType::Regular, "", b"x")])).expect("unpacked below");
    assert!(inner.0.join("absolute").exists());
}

#[test]
fn a_hard_link_cannot_reach_outside() {
    let (outside, inner) = (Scratch::new("link-outside"), Scratch::new("link-inner"));
    fs::write(outside.0.join("secret"), "s").expect("written");
    symlink(&outside.0, inner.0.join("way")).expect("linked");
    let failure = inner.unpacked(archive(&[("copy", EntryType::Link, "way/secret", b"")])).expect_err("refused");
    assert_eq!(failure.errno, Errno::XDEV.raw_os_error());
}

#[test]
fn an_archive_cut_off_is_told() {
    let whole = archive(&[("file", EntryType::Regular, "", &[7; 3000])]);
    for length in [100, 512, 2000, whole.len() - 1024] {
        let inner = Scratch::new("cut");
        let failure = inner.unpacked(whole[..length].to_vec()).expect_err("told");
        assert_eq!(failure.errno, Errno::PROTO.raw_os_error(), "{length}: {failure:?}");
    }
}

#[test]
fn new_things_replace_old_ones() {
    let inner = Scratch::new("replace");
    symlink("elsewhere", inner.0.join("a")).expect("linked");
    fs::write(inner.0.join("b"), "old").expect("written");
    let entries = [
        ("a", EntryType::Regular, "", &b"new"[..]),
        ("b", EntryType::Directory, "", b""),
        ("b/c", EntryType::Fifo, "", b""),
    ];
    inner.unpacked(archive(&entries)).expect("unpacked");
    assert_eq!(fs::read(inner.0.join("a")).expect("is there"), b"new");
    assert!(inner.0.join("b").is_dir());
    let mut file = fs::OpenOptions::new().append(true).open(inner.0.join("a")).expect("is a file");
    file.write_all(b"er").expect("written");
}

/// Every archive that damage makes of a good one is unpacked or refused, and nothing appears outside.
#[test]
fn damaged_archives_stay_inside() {
    let outside = Scratch::new("fuzz");
    let entries = [
        ("a", EntryType::Directory, "", &b""[..]),
        ("a/file", EntryType::Regular, "", &[1; 700]),
        ("a/link", EntryType::Symlink, "..", b""),
        ("a/link/up", EntryType::Regular, "", b"x"),
        ("hard", EntryType::Link, "a/file", b""),
        ("pipe", EntryType::Fifo, "", b""),
    ];
    let whole = archive(&entries);
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut dice = |sides: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 33) as usize % sides
    };
    for round in 0..300 {
        let inner = Scratch(outside.0.join(format!("inner-{round}")));
        fs::create_dir_all(&inner.0).expect("made");
        let mut bytes = whole.clone();
        for _ in 0..1 + dice(6) {
            let header = 512 * dice(bytes.len() / 512);
            let at = header + dice(512);
            bytes[at] = [b'/', b'.', b'7', 0, b'x', 0x80][dice(6)];
            // With the right checksum, so that the damage is met behind the header too.
            let mut fixed = Header::new_ustar();
            fixed.as_mut_bytes().copy_from_slice(&bytes[header..header + 512]);
            fixed.set_cksum();
            bytes[header..header + 512].copy_from_slice(fixed.as_bytes());
        }
        // Refused or not: what counts is where things are.
        let _ = inner.unpacked(bytes);
        let beside: Vec<_> =
            fs::read_dir(&outside.0).expect("is there").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(beside, [inner.0.file_name().expect("named")], "round {round}");
    }
}

#[test]
fn a_file_appears_when_it_is_whole() {
    let whole = archive(&[("file", EntryType::Regular, "", &[7; 3000])]);
    let inner = Scratch::new("whole");
    fs::write(inner.0.join("file"), "old").expect("written");
    for length in [512, 600, 2000] {
        inner.unpacked(whole[..length].to_vec()).expect_err("cut off");
        let names: Vec<_> =
            fs::read_dir(&inner.0).expect("is there").flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(names, ["file"]);
        assert_eq!(fs::read(inner.0.join("file")).expect("is there"), b"old");
    }
    inner.unpacked(whole).expect("unpacked");
    assert_eq!(fs::read(inner.0.join("file")).expect("is there"), [7; 3000]);
}
