//! Seats: what others may reach of a thread that runs tasks.
//!
//! A *worker* is what policies and affinity masks name: `0..workers`. A *seat* is a place for one thread. Seats
//! `0..workers` are the workers' own; the seats after them are for spares, which do the work of a worker whose thread is
//! stuck. So two seats may serve one worker for a while: what is placed on a worker ([`Placed`]) lies apart from what
//! belongs to a thread ([`Seat`]).
//!
//! Not a place for decisions: who is stuck is the watchdog's, what to run is the worker's.
//!
//! | file | what it holds |
//! |---|---|
//! | `call_word.rs` | "is this thread inside a policy, and do its words still count?" |

pub(crate) mod call_word;
#[cfg(not(polity_loom))]
mod places;

#[cfg(all(test, polity_loom))]
mod loom_tests;

#[cfg(not(polity_loom))]
pub use places::SeatId;
#[cfg(not(polity_loom))]
pub(crate) use places::{Activity, BATCH, Place, Placed, Seat};
