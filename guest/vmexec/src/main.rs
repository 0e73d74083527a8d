//! See the library.

fn main() {
    std::process::exit(vmexec::main(std::env::args().skip(1)));
}
