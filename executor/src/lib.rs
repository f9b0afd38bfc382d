//! An async runtime whose scheduling policy is an object that you load, swap and throw out while the program runs.
//!
//! **When not to use it.** If your tasks are all of one kind, a runtime without policies is simpler. If one poll of yours
//! takes long, no policy can help: scheduling happens between polls. If most of your tasks are started by libraries with
//! `tokio::spawn`, they run on the driver and no policy sees them ([`Handle::foreign_tasks`] counts them).
//!
//! # The smallest program
//!
//! ```
//! let runtime = polity::Runtime::new()?;
//! let answer = runtime.block_on(async {
//!     polity::spawn(async { 6 * 7 }).await
//! });
//! assert_eq!(answer.unwrap(), 42);
//! # Ok::<(), polity::BuildError>(())
//! ```
//!
//! `tokio::net`, `tokio::time` and `tokio::sync` work unchanged inside.
//!
//! # A policy, loaded and thrown out
//!
//! ```
//! use polity::{DsqId, ExitKind, Host, Policy, Position, TaskView};
//!
//! struct TaggedFirst;
//!
//! impl Policy for TaggedFirst {
//!     type Task = ();
//!     fn name(&self) -> &str {
//!         "tagged_first"
//!     }
//!     fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
//!         let at = if task.tag() == 1 { Position::Head } else { Position::Tail };
//!         host.insert(task.id(), DsqId::Global, at);
//!     }
//! }
//!
//! let runtime = polity::Runtime::new()?;
//! runtime.load(TaggedFirst).unwrap();
//! assert_eq!(runtime.policy_status().unwrap().name, "tagged_first");
//! let info = runtime.unload().unwrap();
//! assert_eq!(info.kind, ExitKind::Unload);
//! # Ok::<(), polity::BuildError>(())
//! ```
//!
//! While it runs, `kill -QUIT <pid>` has the same effect as `unload`, says who was ejected, and prints a dump. A policy that
//! panics, passes a value that makes no sense, lets a task wait for too long, or does not return is ejected by itself. In every case its tasks go on under the built-in FIFO, and an
//! [`ExitInfo`] says why.
//!
//! # Threads
//!
//! N workers, pinned (see [`Pin::Auto`]); for each runtime spares (twice as many, asleep), `polity-control` (loads, sweeps) and `polity-watchdog`;
//! for the process `polity-report` and `polity-signal`. `init`, `exit` and the drop of a policy run on threads of their own. tokio is the I/O and timer driver: one
//! `current_thread` runtime, driven by whichever worker is idle.

#![deny(unsafe_code)]

mod builder;
mod bypass;
mod context;
mod control;
mod driver;
mod error;
mod foreign;
mod guard;
mod handle;
mod in_place;
mod join_set;
mod local;
mod machine;
mod panics;
mod pin;
mod policy_ref;
mod report;
mod runtime;
mod scope;
mod signals;
mod spares;
mod spawn;
#[expect(
    unsafe_code,
    reason = "thread-local pointer, signal dispositions, affinity masks; nothing else"
)]
mod sys;
pub mod task;
mod threads;
mod watch;

pub use polity_core::{
    AbortHandle, Callback, ChangeError, Dump, JoinError, JoinHandle, LoadRefused, Metrics,
    SpawnError,
};
pub use polity_policy::{
    Accounting, Attributes, BoxPolicy, BoxTask, DequeueReason, DsqError, DsqId, EnqueueReason,
    ExitInfo, ExitKind, Generation, Host, HostApi, InitError, Policy, Position, Slice, Stopped,
    TaskId, TaskView, WakeSource, Wakes, WorkerId, WorkerMask, fake,
};

pub use crate::builder::Builder;
pub use crate::bypass::Bypass;
pub use crate::context::EnterGuard;
pub use crate::error::{BuildError, LoadError, TryCurrentError};
pub use crate::handle::{Handle, PolicyStatus};
pub use crate::in_place::block_in_place;
pub use crate::join_set::JoinSet;
pub use crate::local::{LocalJoinHandle, LocalSet, RunUntil, spawn_local, spawn_local_with};
pub use crate::pin::Pin;
pub use crate::policy_ref::PolicyRef;
pub use crate::runtime::Runtime;
pub use crate::scope::{With, with};
pub use crate::signals::Signals;
pub use crate::spawn::{
    YieldIfDue, YieldNow, spawn, spawn_blocking, spawn_with, yield_if_due, yield_now,
};

/// ```
/// use polity::JoinError;
///
/// #[polity::main(worker_threads = 2)]
/// async fn main() -> Result<(), JoinError> {
///     let answer = polity::spawn(async { 6 * 7 }).await?;
///     assert_eq!(answer, 42);
///     Ok(())
/// }
/// ```
#[cfg(feature = "macros")]
pub use polity_macros::main;

/// ```
/// #[polity::test(worker_threads = 2)]
/// async fn a_task_answers() -> Result<(), polity::JoinError> {
///     assert_eq!(polity::spawn(async { 6 * 7 }).await?, 42);
///     Ok(())
/// }
/// ```
#[cfg(feature = "macros")]
pub use polity_macros::test;
