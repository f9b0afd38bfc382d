//! The callbacks.

use std::error::Error;
use std::time::Duration;

use crate::{ExitInfo, Host, TaskView, Wakes, WorkerId};

/// Why `init` refused. Any error will do; its text reaches whoever called `load`.
///
/// ```
/// let error: polity_policy::InitError = "no such class".into();
/// assert_eq!(error.to_string(), "no such class");
/// ```
pub type InitError = Box<dyn Error + Send + Sync>;

/// How a poll ended, for [`Policy::stopping`].
///
/// ```
/// assert_ne!(polity_policy::Stopped::Waiting, polity_policy::Stopped::Finished);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Stopped {
    /// The task yielded or was woken during the poll: `enqueue` or another `running` follows.
    StillRunnable,
    /// The task waits for something: `quiescent` follows.
    Waiting,
    /// The task is done, panicked or was cancelled: `quiescent` follows, and nothing after it.
    Finished,
}

/// Why a task left the policy's custody, for [`Policy::dequeue`].
///
/// ```
/// assert_ne!(polity_policy::DequeueReason::Dispatched, polity_policy::DequeueReason::Cancelled);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum DequeueReason {
    /// The policy itself moved it to a local or the global DSQ, in `dispatch`.
    Dispatched,
    /// It was aborted while the policy had it.
    Cancelled,
    /// A bypass has begun: core runs it, and it comes back by `enqueue` if it is still runnable afterwards.
    Bypass,
    /// Its affinity was changed while the policy had it: it comes back by `enqueue` at once, with the new mask. So no queue
    /// need be searched for tasks that its workers may not run any more.
    Affinity,
}

/// A scheduling policy. Only [`name`](Policy::name) must be written; a policy with nothing else runs every task.
///
/// All callbacks take `&self` and may run on several workers at once: state needs locks or atomics of its own. Calls
/// that name one worker ([`Host::worker`]) never overlap, so state kept per worker has no rivals.
/// They are called by workers between polls, except `init` and `exit`, which get a thread of their own. Core holds
/// no lock during a callback. A callback must not block: its worker polls nothing meanwhile. One that has run for 10 ms of
/// processor time, or has been blocked in a system call for 20 ms, counts as stuck: the policy is ejected, another thread
/// takes over, and what the call says later is refused. **A panic in any callback ejects the policy**, too. No task is lost
/// by either.
///
/// While a worker's thread sits in one long poll, another thread may do that worker's work, under the same id. Their calls
/// take turns; but `running` of another task may come before the `stopping` of the long poll.
///
/// | callback | how often | may insert |
/// |---|---|---|
/// | `select_worker` | once per wake or spawn | the task at hand |
/// | `enqueue` | once per wake, spawn, or poll after which the task is still runnable; again if its affinity was changed before it ran | the task at hand |
/// | `dispatch` | up to 32 times when a worker has nothing | tasks in this policy's custody |
/// | `dequeue` | once per custody | no |
/// | `runnable`, `running`, `stopping`, `quiescent` | around polls | no |
/// | `set_weight`, `set_affinity` | once per change by a handle, or for several at once | no |
///
/// ```
/// struct Empty;
/// impl polity_policy::Policy for Empty {
///     fn name(&self) -> &str {
///         "empty"
///     }
/// }
/// ```
#[allow(unused_variables)] // the defaults name their arguments for the reader
pub trait Policy: Send + Sync + 'static {
    /// Names the policy in reports: 1 to 128 bytes of printable text, checked at load.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// impl Policy for Mine {
    ///     fn name(&self) -> &str {
    ///         "mine"
    ///     }
    /// }
    /// # assert_eq!(Mine.name(), "mine");
    /// ```
    fn name(&self) -> &str;

    /// Called once per load, before anything else, on a thread of its own: create DSQs here. The previous policy
    /// runs on until `init` has returned; an error, a panic or a missed deadline leaves it running.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
    ///     host.create_dsq(0)?;
    ///     Ok(())
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # Mine.init(&fake.host()).unwrap();
    /// # assert_eq!(fake.host().dsq_len(DsqId::Custom(0)), Some(0));
    /// ```
    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        Ok(())
    }

    /// How long a runnable task may wait in this policy's hands while a worker could have run it, before the policy is
    /// ejected with [`ExitKind::Stall`](crate::ExitKind::Stall): 10 ms to 30 s, anything else refuses the load. `None`, the
    /// default, takes the runtime's. Asked once per load, on the thread that loads, before `init`.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # use std::time::Duration;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn stall_timeout(&self) -> Option<Duration> {
    ///     Some(Duration::from_millis(500))
    /// }
    /// # }
    /// # assert!(Mine.stall_timeout().unwrap() < Duration::from_secs(1));
    /// ```
    fn stall_timeout(&self) -> Option<Duration> {
        None
    }

    /// Whether core should record who wakes whom, for [`TaskView::woken_by`], [`TaskView::wake_source`] and
    /// [`TaskView::woken_at`]: for policies that follow chains of wakes, such as one that runs a waker's partner next. Asked
    /// once per load, on the thread that loads, before `init`. The default is no, and then wakes cost nothing more.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn wakes(&self) -> Wakes {
    ///     Wakes::Recorded
    /// }
    ///
    /// fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
    ///     // Woken by a task that is about to wait for it: it goes first.
    ///     let at = match task.wake_source() {
    ///         Some(WakeSource::Task) => Position::Head,
    ///         _ => Position::Tail,
    ///     };
    ///     host.insert(task.id(), DsqId::Local, at);
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # Mine.enqueue(&fake.host(), &fake.task(1).woken(WakeSource::Task, None).view());
    /// # assert_eq!((Mine.wakes(), fake.inserts()[0].at), (Wakes::Recorded, Position::Head));
    /// ```
    fn wakes(&self) -> Wakes {
        Wakes::Ignored
    }

    /// Called once per load, last of all, on a thread of its own, when no worker is inside the policy any more.
    /// By then its tasks have long gone on without it.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn exit(&self, info: &ExitInfo) {
    ///     eprintln!("{info}");
    /// }
    /// # }
    /// # Mine.exit(&ExitInfo::new(ExitKind::Unload, "mine", Generation::new(1)));
    /// ```
    fn exit(&self, info: &ExitInfo) {}

    /// Where a woken or new task might run: a hint, which becomes the meaning of
    /// [`DsqId::Local`](crate::DsqId::Local). A worker that the task's affinity forbids is replaced by one that it
    /// allows; one that does not exist is an error. May insert the task, and then `enqueue` is skipped.
    ///
    /// The default is the task's last worker. (sched_ext's default gives the task to an idle CPU; waking another
    /// worker costs more than most polls, so here that is the policy's choice:
    /// [`Host::claim_idle_worker`](crate::Host::claim_idle_worker).)
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_>) -> WorkerId {
    ///     match host.claim_idle_worker(task) {
    ///         Some(idle) => {
    ///             host.insert(task.id(), DsqId::Local, Position::Tail);
    ///             idle
    ///         }
    ///         None => task.last_worker(),
    ///     }
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(2);
    /// # fake.set_idle(WorkerId::new(1));
    /// # assert_eq!(Mine.select_worker(&fake.host(), &fake.task(1).view()).index(), 1);
    /// ```
    #[inline]
    fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_>) -> WorkerId {
        task.last_worker()
    }

    /// This runnable task is now the policy's. Either insert it here, or remember its id and insert it in a later
    /// `dispatch`. Inserting one task twice in one call is an error; so is inserting another task.
    ///
    /// The default inserts at the tail of the global DSQ.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
    ///     host.insert(task.id(), DsqId::Custom(0), Position::Tail);
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # fake.host().create_dsq(0).unwrap();
    /// # Mine.enqueue(&fake.host(), &fake.task(1).view());
    /// # assert_eq!(fake.host().dsq_len(DsqId::Custom(0)), Some(1));
    /// ```
    #[inline]
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        host.insert(task.id(), crate::DsqId::Global, crate::Position::Tail);
    }

    /// The task has left the policy's custody: forget its id. Called exactly once for each custody, except that a
    /// policy that is being removed gets `exit` instead. A task inserted straight into a local or the global DSQ
    /// never was in custody.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_>, reason: DequeueReason) {
    ///     if reason == DequeueReason::Cancelled {
    ///         println!("task {} was aborted", task.id());
    ///     }
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # Mine.dequeue(&fake.host(), &fake.task(1).view(), DequeueReason::Cancelled);
    /// ```
    #[inline]
    fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_>, reason: DequeueReason) {}

    /// `worker` has nothing in its local DSQ nor in the global one: fill it, with `insert` for tasks whose ids the
    /// policy kept, with `move_to_local` for those in a custom DSQ. `prev` is the task that the worker has just
    /// polled, if it is still runnable. It is in nobody's custody: if the worker finds something else to run, `prev` is
    /// enqueued again; if not, it is polled again without an `enqueue` in between.
    ///
    /// A round that inserts or moves something but leaves the worker with nothing to run is followed by another,
    /// 32 at most (`SCX_DSP_MAX_LOOPS` in sched_ext); then the worker serves I/O and control before it asks again.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn dispatch(&self, host: &Host<'_>, _worker: WorkerId, _prev: Option<&TaskView<'_>>) {
    ///     host.move_to_local(DsqId::Custom(0), 8);
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # fake.host().create_dsq(0).unwrap();
    /// # fake.host().insert(fake.task(1).view().id(), DsqId::Custom(0), Position::Tail);
    /// # Mine.dispatch(&fake.host(), WorkerId::new(0), None);
    /// # assert_eq!(fake.host().dsq_len(DsqId::Local), Some(1));
    /// ```
    #[inline]
    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&TaskView<'_>>) {}

    /// The task has become runnable. Pairs with `quiescent`.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// # struct Mine { runnable: AtomicUsize }
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn runnable(&self, _host: &Host<'_>, _task: &TaskView<'_>) {
    ///     self.runnable.fetch_add(1, Ordering::Relaxed);
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # let mine = Mine { runnable: AtomicUsize::new(0) };
    /// # mine.runnable(&fake.host(), &fake.task(1).view());
    /// # assert_eq!(mine.runnable.into_inner(), 1);
    /// ```
    #[inline]
    fn runnable(&self, host: &Host<'_>, task: &TaskView<'_>) {}

    /// The task is about to be polled on this worker. Pairs with `stopping`, inside runnable and quiescent.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
    ///     println!("{} runs on {:?}", task.id(), host.worker());
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # Mine.running(&fake.host(), &fake.task(1).view());
    /// ```
    #[inline]
    fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {}

    /// The poll is over; `stopped` says what the task does next.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn stopping(&self, _host: &Host<'_>, task: &TaskView<'_>, stopped: Stopped) {
    ///     if stopped == Stopped::Finished {
    ///         println!("{} is done", task.id());
    ///     }
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # Mine.stopping(&fake.host(), &fake.task(1).view(), Stopped::Finished);
    /// ```
    #[inline]
    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_>, stopped: Stopped) {}

    /// The weight of a runnable task has been changed, by its handle. `task` shows the new one; several changes may
    /// have merged into one call. For policies that keep something per task that follows from the weight; whoever reads
    /// `task.weight()` in `enqueue` need not write this.
    ///
    /// Called between polls by some worker, not by the thread that made the change: perhaps at the same time as another
    /// callback about the same task on another worker, perhaps just after its `quiescent`. A task that waits is not
    /// reported: its next `runnable` shows what has become of it.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # use std::sync::atomic::{AtomicU32, Ordering};
    /// # struct Mine { heaviest: AtomicU32 }
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn set_weight(&self, _host: &Host<'_>, task: &TaskView<'_>) {
    ///     self.heaviest.fetch_max(task.weight(), Ordering::Relaxed);
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # let mine = Mine { heaviest: AtomicU32::new(0) };
    /// # mine.set_weight(&fake.host(), &fake.task(1).weight(300).view());
    /// # assert_eq!(mine.heaviest.into_inner(), 300);
    /// ```
    #[inline]
    fn set_weight(&self, host: &Host<'_>, task: &TaskView<'_>) {}

    /// The affinity of a runnable task has been changed, by its handle. As [`set_weight`](Policy::set_weight). Core keeps
    /// the task off the workers that the new mask does not name, whatever the policy does, and takes a task that is in its
    /// custody back to offer it again ([`DequeueReason::Affinity`]); that may come before this call or after it.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn set_affinity(&self, host: &Host<'_>, task: &TaskView<'_>) {
    ///     if host.worker().is_some_and(|worker| !task.allows(worker)) {
    ///         println!("{} will not run here any more", task.id());
    ///     }
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # Mine.set_affinity(&fake.host(), &fake.task(1).view());
    /// ```
    #[inline]
    fn set_affinity(&self, host: &Host<'_>, task: &TaskView<'_>) {}

    /// The task is not runnable any more. Pairs with `runnable`.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     fn name(&self) -> &str { "mine" }
    /// fn quiescent(&self, host: &Host<'_>, _task: &TaskView<'_>) {
    ///     let _slept_at = host.now();
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # Mine.quiescent(&fake.host(), &fake.task(1).view());
    /// ```
    #[inline]
    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_>) {}
}

/// A policy whose type was chosen at run time, for instance by name.
///
/// ```
/// use polity_policy::{BoxPolicy, Policy};
/// struct Empty;
/// impl Policy for Empty {
///     fn name(&self) -> &str {
///         "empty"
///     }
/// }
/// let chosen: BoxPolicy = BoxPolicy::new(Empty);
/// assert_eq!(chosen.name(), "empty");
/// ```
pub struct BoxPolicy(Box<dyn Policy>);

impl BoxPolicy {
    /// Forgets the type of `policy`.
    ///
    /// ```
    /// # struct Empty;
    /// # impl polity_policy::Policy for Empty { fn name(&self) -> &str { "empty" } }
    /// let list = [polity_policy::BoxPolicy::new(Empty)];
    /// assert_eq!(list.len(), 1);
    /// ```
    pub fn new(policy: impl Policy) -> Self {
        BoxPolicy(Box::new(policy))
    }
}

impl Policy for BoxPolicy {
    fn name(&self) -> &str {
        self.0.name()
    }
    fn stall_timeout(&self) -> Option<Duration> {
        self.0.stall_timeout()
    }
    fn wakes(&self) -> Wakes {
        self.0.wakes()
    }
    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        self.0.init(host)
    }
    fn exit(&self, info: &ExitInfo) {
        self.0.exit(info);
    }
    fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_>) -> WorkerId {
        self.0.select_worker(host, task)
    }
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.enqueue(host, task);
    }
    fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_>, reason: DequeueReason) {
        self.0.dequeue(host, task, reason);
    }
    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&TaskView<'_>>) {
        self.0.dispatch(host, worker, prev);
    }
    fn runnable(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.runnable(host, task);
    }
    fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.running(host, task);
    }
    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_>, stopped: Stopped) {
        self.0.stopping(host, task, stopped);
    }
    fn set_weight(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.set_weight(host, task);
    }
    fn set_affinity(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.set_affinity(host, task);
    }
    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.quiescent(host, task);
    }
}
