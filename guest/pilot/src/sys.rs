//! System calls and the start, without a C library. All `unsafe` of this program is here.

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;

/// The number of a system call (asm/unistd.h).
#[derive(Clone, Copy)]
pub struct Call(usize);

#[cfg(target_arch = "x86_64")]
impl Call {
    pub const READ: Call = Call(0);
    pub const WRITE: Call = Call(1);
    pub const MPROTECT: Call = Call(10);
    pub const BRK: Call = Call(12);
    /// pause(2): waits for a signal.
    pub const WAIT: Call = Call(34);
    pub const GETUID: Call = Call(102);
    pub const PRCTL: Call = Call(157);
    pub const ARCH_PRCTL: Call = Call(158);
    pub const SET_TID_ADDRESS: Call = Call(218);
    pub const READLINKAT: Call = Call(267);
    pub const SET_ROBUST_LIST: Call = Call(273);
    pub const PIPE2: Call = Call(293);
    pub const PRLIMIT64: Call = Call(302);
    pub const GETRANDOM: Call = Call(318);
    pub const RSEQ: Call = Call(334);
}

#[cfg(target_arch = "aarch64")]
impl Call {
    pub const READ: Call = Call(63);
    pub const WRITE: Call = Call(64);
    pub const MPROTECT: Call = Call(226);
    pub const BRK: Call = Call(214);
    /// ppoll(2) of nothing: waits for a signal.
    pub const WAIT: Call = Call(73);
    pub const GETUID: Call = Call(174);
    pub const PRCTL: Call = Call(167);
    pub const SET_TID_ADDRESS: Call = Call(96);
    pub const READLINKAT: Call = Call(78);
    pub const SET_ROBUST_LIST: Call = Call(99);
    pub const PIPE2: Call = Call(59);
    pub const PRLIMIT64: Call = Call(261);
    pub const GETRANDOM: Call = Call(278);
    pub const RSEQ: Call = Call(293);
}

/// Asks the kernel. What it writes to is this program's own, as every caller here sees to.
pub fn call(Call(number): Call, arguments: [usize; 4]) -> usize {
    let result;
    let [first, second, third, fourth] = arguments;
    // SAFETY: the kernel keeps all other registers, and writes only where an argument points.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => result,
            in("rdi") first,
            in("rsi") second,
            in("rdx") third,
            in("r10") fourth,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack)
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") first => result,
            in("x1") second,
            in("x2") third,
            in("x3") fourth,
            options(nostack)
        );
    }
    result
}

/// Where the kernel enters a program: the stack is as it made it (System V ABI, "Process Initialization").
#[unsafe(naked)]
#[unsafe(no_mangle)]
extern "C" fn _start() -> ! {
    #[cfg(target_arch = "x86_64")]
    naked_asm!("xor ebp, ebp", "and rsp, -16", "call {}", "ud2", sym crate::main);
    #[cfg(target_arch = "aarch64")]
    naked_asm!("mov x29, 0", "mov x30, 0", "bl {}", "brk 1", sym crate::main);
}

const PAGE: usize = 4096;

/// The program's data, all of it in its file: the kernel gives it a page when that is written to.
#[repr(C, align(4096))]
struct Data {
    pages: UnsafeCell<[u8; 3 * PAGE]>,
    /// What it is told of the thread: `struct rseq` (linux/rseq.h), `struct robust_list_head` (linux/futex.h), and where
    /// an id would be cleared.
    thread: UnsafeCell<[usize; 8]>,
}

// SAFETY: there is one thread.
unsafe impl Sync for Data {}

static DATA: Data = Data { pages: UnsafeCell::new([1; 3 * PAGE]), thread: UnsafeCell::new([0; 8]) };

/// Room for what the kernel answers: a page.
pub fn answer() -> usize {
    DATA.pages.get().addr() + 2 * PAGE
}

/// Tells the kernel of this thread, as a C library does.
pub fn own_thread() {
    const RSEQ_BYTES: usize = 32;
    const ROBUST_BYTES: usize = 24;
    let rseq: *mut usize = DATA.thread.get().cast();
    let robust = rseq.wrapping_byte_add(RSEQ_BYTES);
    let id = robust.wrapping_byte_add(ROBUST_BYTES);
    #[cfg(target_arch = "x86_64")]
    {
        const ARCH_SET_FS: usize = 0x1002;
        call(Call::ARCH_PRCTL, [ARCH_SET_FS, rseq.addr(), 0, 0]);
    }
    call(Call::SET_TID_ADDRESS, [id.addr(), 0, 0, 0]);
    // SAFETY: within the static, which this thread alone has; an empty list leads to itself.
    unsafe { robust.write(robust.addr()) };
    call(Call::SET_ROBUST_LIST, [robust.addr(), ROBUST_BYTES, 0, 0]);
    // glibc's signature for aborted sequences; there are none here.
    call(Call::RSEQ, [rseq.addr(), RSEQ_BYTES, 0, 0x5305_3053]);
}

/// Writes to a page that was read before, as a program's first variable, and makes another one read-only, as relocations.
pub fn protect_own_data() {
    const PROT_READ: usize = 1;
    let pages: *mut u8 = DATA.pages.get().cast();
    for page in [0, PAGE] {
        // SAFETY: within the static, which this thread alone has.
        let byte = unsafe { pages.add(page) };
        // SAFETY: as above.
        let read = unsafe { byte.read_volatile() };
        // SAFETY: as above.
        unsafe { byte.write_volatile(read + 1) };
    }
    call(Call::MPROTECT, [pages.addr(), PAGE, PROT_READ, 0]);
}
