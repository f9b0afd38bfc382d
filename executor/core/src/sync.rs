//! std or loom: nothing else in the protocols names either.
//!
//! The header slab and the queues, but for the ring, stay on std in both builds: loom cannot model a process-wide static or
//! crossbeam's deque, and the models put stand-ins in their place.

#[cfg(not(polity_loom))]
pub(crate) use std::sync::Mutex;
#[cfg(not(polity_loom))]
pub(crate) use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

#[cfg(polity_loom)]
pub(crate) use loom::sync::Mutex;
#[cfg(polity_loom)]
pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};

pub(crate) use std::sync::PoisonError;
