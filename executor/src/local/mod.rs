//! Futures that are bound to the thread on which they were made (`!Send`), as tasks of the runtime.
//!
//! A policy schedules *workers*, and a worker's work may be done by another thread: by a stand-in while its own sits in
//! a long poll, by an heir when that does not come back from a callback. So an affinity of one worker is not enough to keep a
//! `!Send` value on its thread. Therefore a local task has two halves:
//!
//! - the **future** lies in a table of its thread (`residence.rs`), in thread-local storage. It is made, polled and dropped
//!   there and never leaves it: that it does not is checked by the compiler, since nothing here needs `unsafe`.
//! - the **proxy** (`proxy.rs`) is a future that is `Send`: a key into that table. It is what core and policies have: an
//!   ordinary task with an affinity of one worker.
//!
//! A proxy that is polled on the future's thread polls the future. Polled or dropped on any other thread, it touches
//! nothing and sends a letter (`post.rs`) to the thread at home.
//!
//! **What home does with a letter**, when it is between two polls:
//!
//! | the letter | home sits where the task may run | it does not |
//! |---|---|---|
//! | "I was polled" | wakes the proxy: it goes through the policy again, and is polled here | polls the future here and now |
//! | the same, for the second time in a row | polls the future here and now | the same |
//! | "I was dropped" | drops the future | the same |
//!
//! The second column is the end of a long poll: there the policy has given the task its turn while its thread was busy. The third
//! one is a thread that was convicted and has come back as a spare, or a spare that was a task's home while it stood in for
//! somebody. Policies still decide when such a task is polled, since the letter comes when they have let the proxy run; but
//! the polls themselves are seen by nobody. The third row ends a race between home and a stand-in for one
//! proxy, which could go on for as long as both are lucky.
//!
//! **Is a wake lost?** Events: *Post* (a letter goes into the box, under its lock, and then the flag is set), *Nudge* (home is
//! unparked, as a worker and as a spare); *Look* (home looks at the flag, after each pass, and before it waits as a
//! spare). A worker's unpark stays until its next park, which it ends; home looks after each. A spare looks under the lock
//! that the nudge takes too. So Look comes after Nudge, and Nudge after Post.
//!
//! **The end.** A thread that leaves for good (the runtime closes, or the thread cannot be used again) drops its futures
//! itself, closes its box, and aborts their proxies. A proxy that finds the box closed aborts itself. A thread that is
//! stuck for ever keeps its futures for ever: they are not dropped, since nobody else may.
//!
//! Rejected: a local run queue that only its thread looks into, in core. Every queue, thief and heir would have to know
//! of threads as well as of workers, and the proof would be by review of all of them.
//!
//! | file | what it holds |
//! |---|---|
//! | `spawn.rs` | `spawn_local`, `spawn_pinned` |
//! | `residence.rs` | the futures of this thread |
//! | `post.rs` | letters from other threads |
//! | `proxy.rs` | what core has of a local task |
//! | `handle.rs` | the right to the output |
//! | `set.rs` | `LocalSet`, for threads that are no workers |

mod handle;
mod post;
mod proxy;
mod residence;
mod set;
mod spawn;

pub use handle::LocalJoinHandle;
pub(crate) use residence::Resident;
pub use set::{LocalSet, RunUntil};
pub use spawn::{spawn_local, spawn_local_with};
