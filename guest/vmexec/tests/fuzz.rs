//! Whatever bytes the decoders of vmexec get, they answer: no panic, no endless work, nothing accepted that later steps
//! must not see. A short run always; `FIRKIN_FUZZ_SECONDS` makes it a long one.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use vmexec::caps::Sets;
use vmexec::namespaces::Namespaces;
use vmexec::options::Options;
use vmexec::seccomp::Filter;
use vmexec::spec::{ExecSpec, Spec};

/// A specification with every field that is read, to be damaged.
const SEED: &str = include_str!("seed.json");

/// Damages: bytes replaced, cut out, doubled, or exchanged for a token that means something.
#[derive(Debug, Clone)]
enum Damage {
    Replace(usize, u8),
    Cut(usize, usize),
    Repeat(usize, usize),
    Token(usize, usize, &'static str),
}

const TOKENS: [&str; 16] = [
    "null",
    "-1",
    "18446744073709551616",
    "1e400",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "[[[[",
    "{}",
    "[]",
    "\"..\"",
    "true",
    "\"\"",
    "0.5",
    ",",
    "\"/proc/self\"",
    "9007199254740993",
];

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Damage::Replace(at, byte)),
        (any::<usize>(), 1usize..64).prop_map(|(at, length)| Damage::Cut(at, length)),
        (any::<usize>(), 1usize..64).prop_map(|(at, length)| Damage::Repeat(at, length)),
        (any::<usize>(), 0usize..24, proptest::sample::select(&TOKENS[..]))
            .prop_map(|(a, l, t)| Damage::Token(a, l, t)),
    ]
}

fn apply(bytes: &mut Vec<u8>, damage: &Damage) {
    let place = |at: usize| at % (bytes.len() + 1);
    match *damage {
        Damage::Replace(at, byte) if !bytes.is_empty() => {
            let index = at % bytes.len();
            bytes[index] = byte;
        }
        Damage::Replace(..) => {}
        Damage::Cut(at, length) => {
            let start = place(at);
            let end = (start + length).min(bytes.len());
            bytes.drain(start..end);
        }
        Damage::Repeat(at, length) => {
            let start = place(at);
            let part = bytes[start..(start + length).min(bytes.len())].to_vec();
            bytes.splice(start..start, part);
        }
        Damage::Token(at, length, token) => {
            let start = place(at);
            let end = (start + length).min(bytes.len());
            bytes.splice(start..end, token.bytes());
        }
    }
}

/// Everything of a specification that is read before anything is made, and what must then hold.
fn decode(bytes: &[u8]) {
    let _ = ExecSpec::parse(bytes);
    let Ok(spec) = Spec::parse(bytes) else { return };
    assert!(!spec.process.args.is_empty());
    assert!(spec.root.path.starts_with('/') && spec.process.cwd.starts_with('/'));
    assert!(!spec.process.args.iter().chain(&spec.process.env).any(|text| text.contains('\0')));
    let _ = Namespaces::parse(&spec.linux);
    let _ = Sets::parse(spec.process.capabilities.as_ref());
    let _ = Filter::parse(&spec.annotations);
    for mount in &spec.mounts {
        if let Ok(options) = Options::parse(&mount.options, &mount.destination) {
            assert!(options.data.len() < 4096 && !options.data.contains('\0'));
        }
    }
    if let Ok(folder) = vmexec::cgroup::folder(&spec.linux.cgroups_path) {
        assert!(folder.starts_with("/sys/fs/cgroup/") && !folder.contains("/../"));
    }
    for setting in spec.linux.resources.as_ref().and_then(|r| r.settings().ok()).unwrap_or_default() {
        assert!(!setting.file.contains('/') && !setting.file.starts_with('.'));
    }
}

#[test]
fn the_seed_is_sound() {
    let spec = Spec::parse(SEED.as_bytes()).unwrap();
    assert_eq!(Namespaces::parse(&spec.linux).err(), None);
    assert_eq!(Sets::parse(spec.process.capabilities.as_ref()).err(), None);
    assert!(Filter::parse(&spec.annotations).unwrap().is_some());
    assert!(spec.linux.resources.unwrap().settings().unwrap().len() > 10);
}

#[test]
fn damaged_specifications() {
    let long = std::env::var("FIRKIN_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let start = Instant::now();
    loop {
        let mut runner = TestRunner::new(Config { cases: 2000, failure_persistence: None, ..Config::default() });
        let damages = proptest::collection::vec(damage(), 1..6);
        let outcome = runner.run(&damages, |damages| {
            let mut bytes = SEED.as_bytes().to_vec();
            damages.iter().for_each(|damage| apply(&mut bytes, damage));
            decode(&bytes);
            Ok(())
        });
        outcome.unwrap();
        if long.is_none_or(|long| start.elapsed() > long) {
            break;
        }
    }
}

#[test]
fn truncated_specifications() {
    for length in 0..SEED.len() {
        decode(&SEED.as_bytes()[..length]);
    }
}
