//! What is left of libgnutls.

use core::ffi::{c_int, c_uint, c_void};

/// `GNUTLS_E_RANDOM_FAILED` (gnutls/gnutls.h).
const RANDOM_FAILED: c_int = -206;
/// So many bytes come at once, and no signal interrupts (getrandom(2)).
const AT_ONCE: usize = 256;

unsafe extern "C" {
    fn getrandom(data: *mut c_void, len: usize, flags: c_uint) -> isize;
}

/// Nothing is to be made ready: success.
#[unsafe(no_mangle)]
pub extern "C" fn gnutls_global_init() -> c_int {
    0
}

/// Fills `len` bytes at `data`; 0, or a negative number where there is no randomness. Every level is the kernel's.
///
/// # Safety
/// `data` is valid for writes of `len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn gnutls_rnd(_level: c_int, data: *mut c_void, len: usize) -> c_int {
    let mut done = 0;
    while done < len {
        let part = (len - done).min(AT_ONCE);
        // SAFETY: `done` is less than `len`, so this is inside of what the caller vouches for.
        let next = unsafe { data.byte_add(done) };
        // SAFETY: as `done + part` is at most `len`, so are these bytes.
        let got = unsafe { getrandom(next, part, 0) };
        if usize::try_from(got) != Ok(part) {
            return RANDOM_FAILED;
        }
        done += part;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_bytes_are_filled_and_no_others() {
        for len in [0, 1, 8, 255, 256, 257, 1000] {
            let mut data = [0_u8; 1032];
            // SAFETY: the buffer is longer.
            assert_eq!(unsafe { gnutls_rnd(1, data.as_mut_ptr().cast(), len) }, 0);
            assert!(data[len..].iter().all(|byte| *byte == 0), "{len}");
            let filled = |chunk: &[u8]| chunk.len() < 8 || chunk.iter().any(|byte| *byte != 0);
            assert!(data[..len].chunks(32).all(filled), "{len}");
        }
    }

    #[test]
    fn no_two_are_the_same() {
        let mut data = [[0_u8; 16]; 2];
        for half in &mut data {
            // SAFETY: the buffer is as long.
            assert_eq!(unsafe { gnutls_rnd(1, half.as_mut_ptr().cast(), 16) }, 0);
        }
        assert_ne!(data[0], data[1]);
        assert_eq!(gnutls_global_init(), 0);
    }

    #[test]
    fn what_the_kernel_refuses_is_a_failure() {
        // SAFETY: nothing is written: the kernel finds that the address is nobody's.
        assert_eq!(unsafe { gnutls_rnd(1, core::ptr::dangling_mut::<c_void>(), 8) }, RANDOM_FAILED);
    }
}
