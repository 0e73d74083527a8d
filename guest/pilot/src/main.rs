//! `pilot`, the program of a container that nobody waits for (docs/internals.md, "pilot").
//!
//! Under software emulation the first time that code runs is its translation, which is every processor's. So this
//! program asks the kernel for what any program asks it for while it starts and says its first word, in that order and
//! at once: no C library is in its way. What the answers are matters to nobody. Then it waits until it is killed.

#![no_std]
#![no_main]

mod sys;

use sys::Call;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    wait()
}

/// Called by `_start`.
pub extern "C" fn main() -> ! {
    start();
    say_a_word();
    wait()
}

fn wait() -> ! {
    loop {
        sys::call(Call::WAIT, [0; 4]);
    }
}

/// What glibc 2.36 does in a static program until its `main`.
fn start() {
    let heap = sys::call(Call::BRK, [0; 4]);
    sys::call(Call::BRK, [heap + 0xe00, 0, 0, 0]);
    sys::own_thread();
    // RLIMIT_STACK
    sys::call(Call::PRLIMIT64, [0, 3, 0, sys::answer()]);
    // AT_FDCWD
    sys::call(Call::READLINKAT, [-100_isize as usize, c"/proc/self/exe".as_ptr().addr(), sys::answer(), 256]);
    // GRND_NONBLOCK
    sys::call(Call::GETRANDOM, [sys::answer(), 8, 1, 0]);
    sys::call(Call::BRK, [heap + 0x2_2000, 0, 0, 0]);
    sys::protect_own_data();
}

/// To a pipe of its own.
fn say_a_word() {
    // PR_SET_NAME
    sys::call(Call::PRCTL, [15, c"pilot".as_ptr().addr(), 0, 0]);
    sys::call(Call::GETUID, [0; 4]);
    let mut ends = [0_i32; 2];
    sys::call(Call::PIPE2, [ends.as_mut_ptr().addr(), 0, 0, 0]);
    let [reader, writer] = ends.map(|end| end as usize);
    let mut word = *b"pilot\n";
    sys::call(Call::WRITE, [writer, word.as_ptr().addr(), word.len(), 0]);
    sys::call(Call::READ, [reader, word.as_mut_ptr().addr(), word.len(), 0]);
}
