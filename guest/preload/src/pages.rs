//! The first pages of a clone's RAM.

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char, c_int, c_long, c_void};
use core::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_arch = "x86_64")]
const SYS_MADVISE: c_long = 28;
#[cfg(target_arch = "aarch64")]
const SYS_MADVISE: c_long = 233;
// asm-generic/mman-common.h
const MADV_DONTFORK: c_int = 10;
const MADV_POPULATE_WRITE: c_int = 23;

/// The number of the descriptor of the list.
const LIST: &CStr = c"FIRKIN_FIRST_PAGES";
/// How much of it is read: some thousand runs.
const MOST: usize = 32 << 10;
const PAGE: usize = 4096;

/// Where a list is read to. Not on the stack: QEMU 7.2 boots no kernel any more where that was written to so far below what
/// it had used itself: it seems to read there what it never wrote.
struct Space {
    taken: AtomicBool,
    bytes: UnsafeCell<[u8; MOST]>,
}

// SAFETY: who has set `taken` has it alone.
unsafe impl Sync for Space {}

static SPACE: Space = Space { taken: AtomicBool::new(false), bytes: UnsafeCell::new([0; MOST]) };

unsafe extern "C" {
    fn getenv(name: *const c_char) -> *const c_char;
    fn pread(fd: c_int, data: *mut c_void, len: usize, offset: i64) -> isize;
    fn syscall(number: c_long, ...) -> c_long;
}

/// madvise(2). QEMU keeps each piece of RAM from its children: the one that is as large as the list says is the guest's.
///
/// # Safety
/// As madvise(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn madvise(address: *mut c_void, len: usize, advice: c_int) -> c_int {
    // SAFETY: the caller's.
    let result = unsafe { syscall(SYS_MADVISE, address, len, advice) };
    if result == 0 && advice == MADV_DONTFORK && !SPACE.taken.swap(true, Ordering::Acquire) {
        // SAFETY: until `taken` is given back nobody else is here.
        let space = unsafe { &mut *SPACE.bytes.get() };
        for (first, count) in runs(list(space), len) {
            // SAFETY: within `len`, which was mapped a moment ago; no content changes. A kernel before 5.14 refuses.
            unsafe { syscall(SYS_MADVISE, address.wrapping_byte_add(first), count, MADV_POPULATE_WRITE) };
        }
        SPACE.taken.store(false, Ordering::Release);
    }
    // Fits: 0 or -1.
    result as c_int
}

/// What the descriptor that the environment names has, as far as there is room for it.
fn list(space: &mut [u8; MOST]) -> &[u8] {
    // SAFETY: a string; QEMU changes no variable.
    let value = unsafe { getenv(LIST.as_ptr()) };
    if value.is_null() {
        return &[];
    }
    // SAFETY: a variable's value ends with a NUL and stays.
    let value = unsafe { CStr::from_ptr(value) };
    let Some(fd) = value.to_str().ok().and_then(|text| text.parse().ok()) else { return &[] };
    // SAFETY: writes at most as many bytes as there is room for.
    let got = unsafe { pread(fd, space.as_mut_ptr().cast(), space.len(), 0) };
    usize::try_from(got).ok().and_then(|got| space.get(..got)).unwrap_or(&[])
}

/// The runs (first byte and length) of a list that is for RAM of `len` bytes: its size in bytes (u64), then the number of
/// the first page and that of pages (each u32, little-endian). None of them leads out of it.
fn runs(list: &[u8], len: usize) -> impl Iterator<Item = (usize, usize)> {
    let (size, rest) = list.split_first_chunk().map_or((0, &[][..]), |(size, rest)| (u64::from_le_bytes(*size), rest));
    let rest = if usize::try_from(size) == Ok(len) { rest } else { &[] };
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte)) * PAGE;
    rest.chunks_exact(8)
        .map(move |run| (word(&run[..4]), word(&run[4..])))
        .filter(move |(first, count)| first.checked_add(*count).is_some_and(|end| end <= len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(size: u64, words: &[u32]) -> Vec<u8> {
        let words = words.iter().flat_map(|word| word.to_le_bytes());
        size.to_le_bytes().into_iter().chain(words).collect()
    }

    #[test]
    fn runs_are_those_of_this_ram_and_within_it() {
        let len = 16 * PAGE;
        let list = listed(len as u64, &[0, 1, 4, 3, 15, 1, 15, 2, 16, 0, 17, 0, u32::MAX, u32::MAX]);
        let found: Vec<_> = runs(&list, len).map(|(first, count)| (first / PAGE, count / PAGE)).collect();
        assert_eq!(found, [(0, 1), (4, 3), (15, 1), (16, 0)]);
        assert_eq!(runs(&list, len / 2).count(), 0);
        assert_eq!(runs(&list[..15], len).count(), 0);
        assert_eq!(runs(&list[..7], len).count(), 0);
        assert_eq!(runs(&[], 0).count(), 0);
    }
}
