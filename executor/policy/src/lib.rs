//! The contract that a polity scheduling policy is written against.
//!
//! Do not depend on this crate to *run* tasks: that is the `polity` crate, which re-exports everything here.
//! Depend on it alone when you publish a policy: it has no dependencies and no unsafe code, and a policy that
//! names nothing else runs under every machine that speaks the contract.
//!
//! # A policy
//!
//! ```
//! use polity_policy::{DsqId, Host, Policy, Position, TaskView};
//!
//! /// Tasks tagged 1 overtake those that wait in the global DSQ.
//! struct TaggedFirst;
//!
//! impl Policy for TaggedFirst {
//!     type Task = ();
//!     fn name(&self) -> &str {
//!         "tagged_first"
//!     }
//!
//!     fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
//!         let at = if task.tag() == 1 { Position::Head } else { Position::Tail };
//!         host.insert(task.id(), DsqId::Global, at);
//!     }
//! }
//! # let fake = polity_policy::fake::FakeHost::new(1);
//! # TaggedFirst.enqueue(&fake.host(), &fake.task(7).tag(1).view());
//! # assert_eq!(fake.inserts()[0].at, Position::Head);
//! ```
//!
//! # The life of a task under a policy
//!
//! Only `name` and the type of `Task` must be written. The rest is called in this order, and pairs up per generation (one load of the
//! policy is one generation):
//!
//! ```text
//! never seen before     init_task          what the policy keeps for it: `TaskView::data` from now on
//! woken or spawned      runnable           notifier: it wants to run
//!                       select_worker      hint: where; may insert, then enqueue is skipped
//!                       enqueue            the task is yours: insert it, or keep its id for a later dispatch
//! a worker is empty     dispatch           fill this worker: insert, or move_to_local
//!                       dequeue            the task has left your custody (once per custody)
//! the worker has it     running            notifier: it is about to be polled
//!                       stopping           notifier: the poll is over; it may be runnable still
//! still runnable        select_worker is skipped, enqueue again
//! waits, or is done     quiescent          notifier: it wants nothing now
//! changed meanwhile     set_weight         notifier: its handle has changed it
//!                       set_affinity       the same
//! is done, or dropped   exit_task          the last call about it; what was kept for it is dropped
//! ```
//!
//! What a policy does not write costs nothing: once it is known that a callback is the default one, it is not called ([`Optional`]).
//!
//! # Queues
//!
//! | DSQ | who empties it | order |
//! |---|---|---|
//! | [`DsqId::Local`], [`DsqId::LocalOn`] | that worker, before it looks anywhere else | FIFO, head inserts first |
//! | [`DsqId::Global`] | every worker by itself, after its local DSQ and before `dispatch`, up to 16 at once | the same |
//! | [`DsqId::Custom`] | nobody, until the policy moves from it in `dispatch` | the same, or [by vtime](Host::create_vtime_dsq) |
//!
//! A task in a custom DSQ, or kept by the policy as an id, is *in the policy's custody*. A task in a local or the
//! global DSQ is not: it will run whatever the policy does next.
//!
//! # What a policy cannot do
//!
//! It holds [`TaskId`]s, never tasks. It can delay a task; it cannot lose one, run one twice, free one, or run one
//! where its affinity forbids. A late, double, stale or invented id is refused without harm. What is plainly wrong
//! (an unknown DSQ, a worker that does not exist, a panic) ends the policy, not the application: it is *ejected*,
//! every task goes on under the built-in FIFO, and an [`ExitInfo`] says what was wrong.

#![forbid(unsafe_code)]

mod accounting;
mod attributes;
mod boxed;
mod exit;
pub mod fake;
mod host;
mod ids;
mod optional;
mod policy;
mod reason;
mod slice;
mod task;
mod wake;

pub use accounting::Accounting;
pub use attributes::{Attributes, WorkerMask};
pub use boxed::{BoxPolicy, BoxTask};
pub use exit::{ExitInfo, ExitKind};
pub use host::{DsqError, Host, HostApi};
pub use ids::{DsqId, Generation, Position, TaskId, WorkerId};
pub use optional::Optional;
pub use policy::{InitError, Policy};
pub use reason::{DequeueReason, Stopped};
pub use slice::Slice;
pub use task::{EnqueueReason, TaskView};
pub use wake::{WakeSource, Wakes};
