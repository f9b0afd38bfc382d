//! The affinity mask of a whole thread, which core_affinity can read but not put back.
//!
//! A thread starts with the mask of the one that spawned it. tokio starts the threads of its blocking pool from
//! whichever worker asks, so without this they would all share that worker's core.

use std::mem::{size_of, zeroed};
use std::sync::OnceLock;

static AT_START: OnceLock<Option<libc::cpu_set_t>> = OnceLock::new();

/// Notes the mask of this thread, the first time. Called by the builder, before any worker is pinned.
pub(crate) fn remember() {
    AT_START.get_or_init(read);
}

fn read() -> Option<libc::cpu_set_t> {
    // SAFETY: all-zero is a valid `cpu_set_t`, an array of integers: the empty set.
    let mut mask: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: `sched_getaffinity` requires (1) a thread id: 0 means ourselves; (2) `size` writable bytes at the pointer:
    // `mask` has exactly that size and outlives the call.
    let rc = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut mask) };
    (rc == 0).then_some(mask)
}

/// Gives a thread of this process the remembered mask, by its id.
pub(crate) fn release(thread: i32) -> bool {
    matches!(AT_START.get(), Some(Some(mask)) if set(thread, mask))
}

/// Lets a thread of this process run on this core only.
pub(crate) fn pin(thread: i32, core: usize) -> bool {
    if core >= libc::CPU_SETSIZE as usize {
        return false;
    }
    // SAFETY: all-zero is a valid `cpu_set_t`, an array of integers: the empty set.
    let mut mask: libc::cpu_set_t = unsafe { zeroed() };
    // SAFETY: `CPU_SET` indexes the array, and panics beyond its end; the core is below its size.
    unsafe { libc::CPU_SET(core, &mut mask) };
    set(thread, &mask)
}

fn set(thread: i32, mask: &libc::cpu_set_t) -> bool {
    // SAFETY: `sched_setaffinity` requires (1) a thread id: 0 means ourselves, one that does not exist is refused; (2) `size`
    // readable bytes at the pointer: a reference to exactly that size.
    unsafe { libc::sched_setaffinity(thread, size_of::<libc::cpu_set_t>(), mask) == 0 }
}

/// Gives this thread the remembered mask. Where that is not possible, it keeps the one it has.
pub(crate) fn restore() {
    release(0);
}
