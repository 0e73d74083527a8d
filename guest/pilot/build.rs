//! No C library's start: what that would run for the first time is time of the container that follows.

fn main() {
    println!("cargo::rustc-link-arg-bins=-nostartfiles");
}
