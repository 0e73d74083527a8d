//! Looks for a sentinel in a byte stream, with one look for every 16 bytes or so (Horspool).

use crate::hello::NONCE_BYTES;

/// A tail that matches at least this much of the sentinel may be its first half; a shorter match is likely chance,
/// and to hold such bytes back could hold back the end of a frame that nothing follows.
const WORTH_WAITING: usize = 8;

/// A sentinel, and how far a mismatch at each byte lets the search jump.
pub(crate) struct Search {
    sentinel: [u8; NONCE_BYTES],
    skip: [u8; 256],
}

impl Search {
    pub(crate) fn new(sentinel: [u8; NONCE_BYTES]) -> Self {
        let mut skip = [NONCE_BYTES as u8; 256];
        for (index, byte) in sentinel.iter().enumerate().take(NONCE_BYTES - 1) {
            skip[usize::from(*byte)] = (NONCE_BYTES - 1 - index) as u8;
        }
        Self { sentinel, skip }
    }

    /// The first place in `bytes` where the whole sentinel stands.
    pub(crate) fn find(&self, bytes: &[u8]) -> Option<usize> {
        let mut place = 0;
        while let Some(window) = bytes.get(place..place + NONCE_BYTES) {
            if window == self.sentinel {
                return Some(place);
            }
            place += usize::from(self.skip[usize::from(window[NONCE_BYTES - 1])]);
        }
        None
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
    fn holds_back_only_a_long_beginning() {
        let search = Search::new(SENTINEL);
        assert_eq!(search.pending(b"xxabcabca"), 0);
        assert_eq!(search.pending(b"xxabcabcab"), 8);
        assert_eq!(search.pending(&SENTINEL[..15]), 15);
    }
}
