//! polity's tasks, queues, idle protocol and policy hosting.
//!
//! You want the `polity` crate instead: this one runs nothing by itself. It owns no clock, starts and blocks no
//! thread and names no I/O library; a [`Machine`] tells it the time, and [`Worker::pass`] answers "park" instead of
//! blocking. So the same code runs under real threads and under a simulated machine.
//!
//! Modules, each importing only from those before it:
//!
//! | module | what it holds |
//! |---|---|
//! | `sync`, `machine` | std or loom; what core needs from outside |
//! | `task` | header slab, lifecycle and custody words, cell, join handle, waker: all unsafe code of this crate |
//! | `queue` | ingress of a worker, injector, pinned inbox, DSQs |
//! | `idle` | who is parked, and how nobody sleeps through work |
//! | `seat` | what others may reach of a thread that runs tasks |
//! | `hosting` | a loaded policy: publication, the door to its callbacks, what it may say |
//! | `core` | a runtime's shared state: spawn, wake, load, sweep, close |
//! | `dump` | what a runtime looks like, as text |
//! | `worker` | the cycle |
//! | `watchdog` | who waits too long, who is stuck, and whose fault it is |

#![deny(unsafe_code)] // allowed in `task`, with the obligations written beside each use
#![cfg_attr(polity_loom, allow(dead_code))] // the models use parts of the protocols; the std build still warns

mod sync;

/// Whether threads say what they are in and policies' tasks are counted, so that a watchdog can see. `false` only in the
/// second build of the bench `safety`, which shows what that costs: nothing is found and nobody is rescued there.
pub const WATCHED: bool = cfg!(not(polity_unwatched));

pub(crate) mod idle;
pub(crate) mod seat;
pub(crate) mod task;

#[cfg(not(polity_loom))]
mod callback;
#[cfg(not(polity_loom))]
mod core;
#[cfg(not(polity_loom))]
mod dump;
#[cfg(not(polity_loom))]
mod hosting;
#[cfg(not(polity_loom))]
mod machine;
#[cfg(not(polity_loom))]
mod queue;
#[cfg(all(test, not(polity_loom)))]
mod scripted;
#[cfg(not(polity_loom))]
mod stats;
#[cfg(not(polity_loom))]
mod watchdog;
#[cfg(not(polity_loom))]
mod worker;

#[cfg(polity_loom)]
mod hosting {
    //! Under loom only the publication protocol is compiled: the rest leans on crates that loom cannot see into.
    #[cfg(test)]
    #[allow(unsafe_code)] // loom's cells hand out raw pointers
    mod loom_tests;
    pub(crate) mod published;
}

#[cfg(polity_loom)]
mod queue {
    //! Under loom only the ring, for the same reason.
    pub(crate) mod ring;
    #[cfg(test)]
    mod ring_tests;
}

#[cfg(all(test, polity_loom))]
mod model {
    //! `RUSTFLAGS="--cfg polity_loom" cargo test -p polity-core --release --lib loom` runs all models.

    /// Runs `body` under all interleavings, or those with at most so many preemptions.
    pub(crate) fn check(preemptions: Option<usize>, body: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = preemptions;
        builder.check(body);
    }
}

#[cfg(not(polity_loom))]
pub use crate::{
    callback::Callback,
    core::{
        Cause, Core, CoreConfig, LoadRefused, PendingLoad, Retired, STALL_TIMEOUTS, Scope,
        SpawnError,
    },
    dump::Dump,
    hosting::LoadedPolicy,
    machine::{Machine, OsThread, PanicNote, ThreadState},
    seat::SeatId,
    stats::Metrics,
    task::{AbortHandle, ChangeError, JoinError, JoinHandle},
    watchdog::{Finding, Hog, Next, Others, Watchdog},
    worker::{Local, Park, Pass, Worker},
};
