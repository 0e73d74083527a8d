//! Two sides talk over a wire that cuts at random; hosts come and go at any byte; bytes are damaged on the way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use link::{BLOCK_BYTES, Endpoint, Event, HEADER_BYTES, Hello, INITIAL_SENTINEL, Identity, MAJOR, MAX_PAYLOAD};
use proptest::prelude::*;

/// xorshift64*: the same numbers for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % sides.max(1)
    }

    fn sixteen(&mut self) -> [u8; 16] {
        std::array::from_fn(|_| self.roll(256) as u8)
    }
}

/// One side, what it has sent on each stream, and what came.
struct Side {
    endpoint: Endpoint,
    /// Bytes of streams under way to this side.
    wire: Vec<u8>,
    open: Vec<u32>,
    sent: BTreeMap<u32, Vec<u8>>,
    came: BTreeMap<u32, Vec<u8>>,
    faults: usize,
    hellos: usize,
}

impl Side {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            wire: Vec::new(),
            open: Vec::new(),
            sent: BTreeMap::new(),
            came: BTreeMap::new(),
            faults: 0,
            hellos: 0,
        }
    }

    fn forget(&mut self) {
        self.open.clear();
        self.sent.clear();
        self.came.clear();
    }

    /// Takes up to `most` bytes off the wire.
    fn take(&mut self, most: usize) {
        let space = self.endpoint.space();
        let count = most.min(self.wire.len()).min(space.len());
        space[..count].copy_from_slice(&self.wire[..count]);
        self.wire.drain(..count);
        self.endpoint.filled(count);
        while let Some(event) = self.endpoint.poll() {
            match event {
                Event::Opened { stream, .. } => self.open.push(stream),
                Event::Data { stream, payload, .. } => {
                    let count = payload.len();
                    self.came.entry(stream).or_default().extend_from_slice(self.endpoint.bytes(payload));
                    self.endpoint.consumed(stream, count);
                }
                Event::Reset { stream, .. } => self.open.retain(|open| *open != stream),
                Event::Hello { .. } => {
                    self.hellos += 1;
                    self.forget();
                }
                Event::Fault(_) => {
                    self.faults += 1;
                    self.forget();
                }
                Event::Ended { .. } | Event::Credit { .. } | Event::Pong(_) => {}
            }
        }
    }

    /// Does something at random, and gives what goes on the wire.
    fn act(&mut self, dice: &mut Dice) -> Vec<u8> {
        let mut out = std::mem::take(self.endpoint.control());
        match dice.roll(8) {
            0 if self.open.len() < 20 => {
                if let Ok(stream) = self.endpoint.open(dice.roll(1 << 16) as u32, 0) {
                    self.open.push(stream);
                }
                out.append(self.endpoint.control());
            }
            1 => self.endpoint.ping([7; 8]),
            _ if !self.open.is_empty() => {
                let stream = self.open[dice.roll(self.open.len())];
                let largest = [64, 5000, MAX_PAYLOAD + 1][dice.roll(3)];
                let count = dice.roll(largest).min(self.endpoint.budget(stream));
                if count > 0 {
                    let payload: Vec<u8> = (0..count).map(|at| (at as u8) ^ (stream as u8)).collect();
                    out.extend_from_slice(&self.endpoint.data_header(stream, count));
                    out.extend_from_slice(&payload);
                    self.sent.entry(stream).or_default().extend_from_slice(&payload);
                }
            }
            _ => {}
        }
        out
    }
}

struct Pair {
    host: Side,
    guest: Side,
    sentinel: [u8; 16],
}

impl Pair {
    fn new(dice: &mut Dice) -> Self {
        let guest = Side::new(Endpoint::guest(INITIAL_SENTINEL, Identity::default()));
        let mut pair = Self { host: Side::new(Endpoint::host()), guest, sentinel: INITIAL_SENTINEL };
        pair.connect(dice);
        pair
    }

    /// A new host says HELLO behind whatever the last one left on the wire, and discards what is before the answer.
    fn connect(&mut self, dice: &mut Dice) {
        let (nonce, next) = (dice.sixteen(), dice.sixteen());
        let hello = Hello { sentinel: self.sentinel, major: MAJOR, nonce, next };
        self.sentinel = next;
        self.guest.wire.extend_from_slice(&hello.encode());
        self.guest.forget();
        let before = self.guest.hellos;
        while self.guest.hellos == before {
            assert!(!self.guest.wire.is_empty(), "the guest missed a HELLO");
            self.guest.take(1 + dice.roll(5000));
        }
        let answer = std::mem::take(self.guest.endpoint.control());
        assert_eq!(answer[..16], nonce);
        self.host = Side::new(Endpoint::host());
        self.host.wire.extend_from_slice(&answer[BLOCK_BYTES..]);
    }

    fn step(&mut self, dice: &mut Dice) {
        let (to_guest, to_host) = (self.host.act(dice), self.guest.act(dice));
        self.guest.wire.extend_from_slice(&to_guest);
        self.host.wire.extend_from_slice(&to_host);
        self.guest.take(dice.roll(9000));
        self.host.take(dice.roll(9000));
    }

    fn settle(&mut self) {
        for _ in 0..4 {
            let (to_guest, to_host) =
                (std::mem::take(self.host.endpoint.control()), std::mem::take(self.guest.endpoint.control()));
            self.guest.wire.extend_from_slice(&to_guest);
            self.host.wire.extend_from_slice(&to_host);
            while !self.guest.wire.is_empty() {
                self.guest.take(usize::MAX);
            }
            while !self.host.wire.is_empty() {
                self.host.take(usize::MAX);
            }
        }
    }

    fn check(&self) {
        assert_eq!((self.host.faults, self.guest.faults), (0, 0));
        assert_eq!(self.host.sent, self.guest.came);
        assert_eq!(self.guest.sent, self.host.came);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn every_byte_arrives_in_order(seed in 1_u64..) {
        let mut dice = Dice(seed);
        let mut pair = Pair::new(&mut dice);
        for _ in 0..300 {
            pair.step(&mut dice);
        }
        pair.settle();
        pair.check();
    }

    #[test]
    fn a_new_host_gets_nothing_of_the_old_one(seed in 1_u64..) {
        let mut dice = Dice(seed);
        let mut pair = Pair::new(&mut dice);
        for _ in 0..8 {
            for _ in 0..dice.roll(40) {
                pair.step(&mut dice);
            }
            // The old host died in the middle of something: the rest of its bytes never comes.
            let cut = dice.roll(pair.guest.wire.len() + 1);
            pair.guest.wire.truncate(cut);
            pair.guest.faults = 0;
            pair.connect(&mut dice);
            pair.guest.faults = 0;
        }
        for _ in 0..60 {
            pair.step(&mut dice);
        }
        pair.settle();
        pair.check();
    }
}

/// Damages bytes, repeats and swaps parts, and invents frames whose headers are well-formed.
fn damage(wire: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..1 + dice.roll(4) {
        let at = dice.roll(wire.len().max(1));
        match dice.roll(5) {
            0 if !wire.is_empty() => wire[at] ^= 1 << dice.roll(8),
            1 => wire.truncate(at),
            2 => {
                let part = wire[at..].to_vec();
                wire.extend_from_slice(&part);
            }
            3 => {
                let mut header = [b'F', b'K', dice.roll(9) as u8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
                header[4] = dice.roll(6) as u8;
                header[8..10].copy_from_slice(&(dice.roll(40_000) as u16).to_le_bytes());
                let sum = link::crc32(&header[..12]);
                header[12..].copy_from_slice(&sum.to_le_bytes());
                wire.splice(at..at, header);
            }
            _ => wire.insert(at, dice.roll(256) as u8),
        }
    }
}

/// Feeds a guest with damaged traffic: it never panics, its output stays bounded, and a HELLO always brings it back.
fn torture(seed: u64) {
    let mut dice = Dice(seed);
    let mut pair = Pair::new(&mut dice);
    for _ in 0..20 {
        let mut wire: Vec<u8> = (0..6).flat_map(|_| pair.host.act(&mut dice)).collect();
        damage(&mut wire, &mut dice);
        pair.guest.wire.extend_from_slice(&wire);
        while !pair.guest.wire.is_empty() {
            pair.guest.take(1 + dice.roll(4096));
            assert!(pair.guest.endpoint.control().len() < 1 << 20);
        }
        pair.guest.act(&mut dice);
    }
    pair.connect(&mut dice);
    pair.guest.faults = 0;
    pair.guest.forget();
    for _ in 0..20 {
        pair.step(&mut dice);
    }
    pair.settle();
    pair.check();
}

#[test]
fn damaged_traffic_is_survived() {
    // `make soak` sets a time; by default a fixed number of seeds.
    let Some(seconds) = std::env::var("FIRKIN_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()) else {
        return (1..60).for_each(torture);
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let first = std::env::var("FIRKIN_FUZZ_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1_u64);
    let mut seed = first;
    while Instant::now() < end {
        torture(seed);
        seed += 1;
    }
    println!("seeds {first} to {seed}");
}

#[test]
fn a_header_is_sixteen_bytes() {
    assert_eq!(HEADER_BYTES + MAX_PAYLOAD, 32 * 1024);
}
