//! A fence on every thread of the process at once: `membarrier(2)`, private and expedited (Linux 4.14).
//!
//! What it buys: the frequent side of a protocol need not fence at all. Where the system call is missing (an old kernel, a
//! sandbox), both sides fence.

use std::sync::OnceLock;
use std::sync::atomic::{Ordering, compiler_fence, fence};

const REGISTER_PRIVATE_EXPEDITED: libc::c_long = 1 << 4;
const PRIVATE_EXPEDITED: libc::c_long = 1 << 3;

fn membarrier(command: libc::c_long) -> bool {
    // SAFETY: `membarrier` takes a command, flags and a CPU number, no pointers; an unknown command is refused.
    let rc = unsafe {
        libc::syscall(
            libc::SYS_membarrier,
            command,
            0 as libc::c_long,
            0 as libc::c_long,
        )
    };
    rc == 0
}

/// Registers the process, the first time. Called before a runtime's threads start.
pub(crate) fn register() -> bool {
    static REGISTERED: OnceLock<bool> = OnceLock::new();
    *REGISTERED.get_or_init(|| membarrier(REGISTER_PRIVATE_EXPEDITED))
}

/// Half of an asymmetric fence. `registered`: what [`register`] has answered.
#[inline]
pub(crate) fn light(registered: bool) {
    if registered {
        compiler_fence(Ordering::SeqCst);
    } else {
        // Ordering: SeqCst fence, partner of the one in `heavy`.
        fence(Ordering::SeqCst);
    }
}

/// The other half.
pub(crate) fn heavy(registered: bool) {
    // Ordering: SeqCst fence, partner of the one in `light`; also orders this thread, whatever the system call does.
    fence(Ordering::SeqCst);
    if registered {
        // It cannot fail once registered.
        membarrier(PRIVATE_EXPEDITED);
    }
}
