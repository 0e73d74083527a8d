//! Looks for a sentinel in a byte stream, with one look for every 16 bytes or so (Horspool).

use crate::hello::NONCE_BYTES;

/// A tail that matches at least this much of the sentinel may be its first half; a shorter match is likely chance,
/// and to hold such bytes back could hold back the end of a frame that nothing follows.
const WORTH_WAITING: usize = 8;

/// What [`Search::find`] steps over at once where none of its looks meets a byte of the sentinel.
const STRIDE: usize = 4 * NONCE_BYTES;

/// A sentinel, and how far each byte that a look meets lets the search jump: 0 for the sentinel's last one.
pub(crate) struct Search {
    sentinel: [u8; NONCE_BYTES],
    skip: [u8; 256],
    /// How far to jump from a last byte that has not the sentinel before it.
    retry: usize,
}

impl Search {
    pub(crate) fn new(sentinel: [u8; NONCE_BYTES]) -> Self {
        let mut skip = [NONCE_BYTES as u8; 256];
        for (index, byte) in sentinel.iter().enumerate().take(NONCE_BYTES - 1) {
            skip[usize::from(*byte)] = (NONCE_BYTES - 1 - index) as u8;
        }
        let last = usize::from(sentinel[NONCE_BYTES - 1]);
        let retry = usize::from(std::mem::replace(&mut skip[last], 0));
        Self { sentinel, skip, retry }
    }

    /// The first place in `bytes` where the whole sentinel stands.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<usize> {
        let mut place = 0;
        loop {
            place += self.plain(&bytes[place..]);
            let window = bytes.get(place..place + NONCE_BYTES)?;
            place += match self.skip[usize::from(window[NONCE_BYTES - 1])] {
                0 if window == self.sentinel => return Some(place),
                0 => self.retry,
                jump => usize::from(jump),
            };
        }
    }

    /// How many of the first bytes hold no beginning of a sentinel, as four looks at a time show. Only the number 16
    /// among the jumps has its bit.
    fn plain(&self, bytes: &[u8]) -> usize {
        const FULL: u8 = NONCE_BYTES as u8;
        let look = |byte: u8| self.skip[usize::from(byte)];
        let misses =
            |block: &&[u8; STRIDE]| look(block[15]) & look(block[31]) & look(block[47]) & look(block[63]) == FULL;
        bytes.as_chunks::<STRIDE>().0.iter().take_while(misses).count() * STRIDE
    }

    /// How many of the last bytes may be the beginning of a sentinel.
    pub(crate) fn pending(&self, bytes: &[u8]) -> usize {
        (WORTH_WAITING..NONCE_BYTES).rev().find(|length| bytes.ends_with(&self.sentinel[..*length])).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::Search;

    const SENTINEL: [u8; 16] = *b"abcabcabcabcabcd";

    #[test]
    fn finds_a_repetitive_sentinel_at_every_offset() {
        let search = Search::new(SENTINEL);
        for offset in 0..64 {
            let mut bytes = b"abc".repeat(30)[..offset].to_vec();
            bytes.extend_from_slice(&SENTINEL);
            let found = search.find(&bytes).expect("is there");
            assert_eq!(&bytes[found..found + 16], &SENTINEL);
        }
    }

    #[test]
    fn finds_what_a_look_at_every_place_finds() {
        let sentinel = *b"0123456789abcde0";
        let search = Search::new(sentinel);
        let mut bytes = [b"0".repeat(70), b"zzzzzzzz".repeat(40), b"e0".repeat(40)].concat();
        for place in 0..bytes.len() - sentinel.len() {
            let kept = bytes[place..place + sentinel.len()].to_vec();
            bytes[place..place + sentinel.len()].copy_from_slice(&sentinel);
            assert_eq!(search.find(&bytes), bytes.windows(sentinel.len()).position(|window| window == sentinel));
            assert_eq!(search.find(&bytes), Some(place));
            bytes[place..place + sentinel.len()].copy_from_slice(&kept);
            assert_eq!(search.find(&bytes), None);
        }
    }

    #[test]
    fn holds_back_only_a_long_beginning() {
        let search = Search::new(SENTINEL);
        assert_eq!(search.pending(b"xxabcabca"), 0);
        assert_eq!(search.pending(b"xxabcabcab"), 8);
        assert_eq!(search.pending(&SENTINEL[..15]), 15);
    }
}
