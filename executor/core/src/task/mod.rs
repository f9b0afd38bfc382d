//! A task: a header in the slab, a cell with its future, a waker that is the header's address.
//!
//! # Who may touch what, when
//!
//! | what | by whom | when |
//! |---|---|---|
//! | `lifecycle` | anybody | always: a stale wake of a reused slot is a spurious poll at worst |
//! | `custody`, plain store | the token holder | between winning idle→runnable and handing the entry to a queue; after popping it |
//! | `custody`, compare-and-swap | dispatch, abort, sweep | the state is `Held` or `Queued` |
//! | the future in the cell | the token holder | from the pop that made it the holder until `end_poll` or `finish` |
//! | the output in the cell | the token holder, then the join handle | split by the join word |
//! | `attributes` | anybody | stored for a new tenant, then only marked as changed; what they were changed to is kept with the tenant's number |
//! | all other header fields | the token holder writes, anybody reads | relaxed: a reader may see the previous value |
//!
//! **The token.** Winning the idle→runnable transition of `lifecycle` (or spawning) makes one *token*: the right to
//! put the task into one queue. It moves with the queue entry and ends in a poll. Exactly one exists while the task
//! is runnable, none while it waits. A slot is freed only by the holder of its token, so nobody's plain store can
//! land on the slot's next tenant.
//!
//! A header is never unmapped: looking up a stale id, or waking through a stale waker, is always safe.

pub(crate) mod custody;
pub(crate) mod join_word;
pub(crate) mod lifecycle;
#[cfg(not(polity_loom))]
#[allow(unsafe_code)] // blocks of the allocator, kept
mod memory;

#[cfg(not(polity_loom))]
pub(crate) mod attributes;
#[cfg(not(polity_loom))]
#[allow(unsafe_code)] // the cell is erased, and shared between the worker and the join handle
pub(crate) mod cell;
#[cfg(not(polity_loom))]
pub(crate) mod change;
#[cfg(not(polity_loom))]
pub(crate) mod cold;
#[cfg(not(polity_loom))]
#[allow(unsafe_code)] // places of a table that the door shares between threads
pub(crate) mod data;
#[cfg(not(polity_loom))]
pub(crate) mod entry;
#[cfg(not(polity_loom))]
#[allow(unsafe_code)] // a raw pointer to the cell and one to the core lie in the header
pub(crate) mod header;
#[cfg(not(polity_loom))]
#[allow(unsafe_code)] // the join handle shares the cell with the worker
pub(crate) mod join;
#[cfg(not(polity_loom))]
#[allow(unsafe_code)] // constant memory, read through an atomic pointer
pub(crate) mod location;
#[cfg(not(polity_loom))]
#[allow(unsafe_code)] // memory that is never unmapped, handed out as references
pub(crate) mod slab;
#[cfg(not(polity_loom))]
#[allow(unsafe_code)] // the one place that turns the right to a task into the use of its cell
pub(crate) mod token;
#[cfg(not(polity_loom))]
#[allow(unsafe_code)] // a raw waker vtable
pub(crate) mod waker;

#[cfg(not(polity_loom))]
pub use change::ChangeError;
#[cfg(not(polity_loom))]
pub use join::{AbortHandle, JoinError, JoinHandle};

#[cfg(all(test, not(polity_loom)))]
mod data_tests;
#[cfg(all(test, polity_loom))]
#[allow(unsafe_code)] // loom's cells hand out raw pointers
mod loom_tests;
#[cfg(all(test, not(polity_loom)))]
mod tests;
