//! The program: see the library.

#![no_main]

// SAFETY: no other `main` is linked, and it has the type that C gives it. Rust's own would first look for the bounds of
// its stack in /proc/self/maps and install handlers for its overflow, at each of many starts; the arguments are known
// to the standard library without it.
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    vmexec::main(std::env::args().skip(1))
}
