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

/// Gives this thread the remembered mask. Where that is not possible, it keeps the one it has.
pub(crate) fn restore() {
    if let Some(Some(mask)) = AT_START.get() {
        // SAFETY: `sched_setaffinity` requires (1) a thread id: 0 means ourselves; (2) `size` readable bytes at the
        // pointer: a static of exactly that size.
        let _may_fail = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), mask) };
    }
}
