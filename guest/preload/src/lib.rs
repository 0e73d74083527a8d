//! `libpreload.so`, which a lean QEMU (`firkin.vmm.lean`) has in front of its libraries on the host.
//!
//! It has what QEMU calls of libgnutls whether it has TLS or not: random numbers, the guest's RDRAND among them, which
//! here are the kernel's. And it gives a restored VM those pages of its RAM that each clone writes while it starts
//! (`firkin.vmm.first_pages`) in a few system calls, instead of by an interrupt each, for which the other processor
//! has to be interrupted too. Of libc it uses what QEMU's own has.

#![cfg_attr(not(test), no_std)]

mod gnutls;
mod pages;

#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics: who called is told that it failed, or notices nothing.
    loop {}
}
