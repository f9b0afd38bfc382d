//! The callbacks.

use std::error::Error;
use std::time::Duration;

use crate::{
    Accounting, DequeueReason, ExitInfo, Host, Optional, Slice, Stopped, TaskView, Wakes, WorkerId,
};

/// Why `init` refused. Any error will do; its text reaches whoever called `load`.
///
/// ```
/// let error: polity_policy::InitError = "no such class".into();
/// assert_eq!(error.to_string(), "no such class");
/// ```
pub type InitError = Box<dyn Error + Send + Sync>;

/// A scheduling policy. Only [`name`](Policy::name) must be written, and [`Task`](Policy::Task), which is `()` for most; a
/// policy with nothing else runs every task, first come, first served. Most callbacks, if not written, are called once, and then known to be
/// the default ([`Optional`]).
///
/// All callbacks take `&self` and may run on several workers at once: state needs locks or atomics of its own. Calls
/// that name one worker ([`Host::worker`]) never overlap, so state kept per worker has no rivals.
/// They are called by workers between polls, except `init` and `exit`, which get a thread of their own. Core holds
/// no lock during a callback. A callback must not block: its worker polls nothing meanwhile. One that has run for 10 ms of
/// processor time, or has been blocked in a system call for 20 ms and waits for no thread that gets no processor, counts as stuck: the policy is ejected, another thread
/// takes over, and what the call says later is refused. **A panic in any callback ejects the policy**, too. No task is lost
/// by either.
///
/// While a worker's thread sits in one long poll, another thread may do that worker's work, under the same id. Their calls
/// take turns; but `running` of another task may come before the `stopping` of the long poll.
///
/// | callback | how often | may insert |
/// |---|---|---|
/// | `init_task`, `exit_task` | once per task that the policy meets | no |
/// | `select_worker` | once per wake or spawn | the task at hand |
/// | `enqueue` | once per wake, spawn, or poll after which the task is still runnable; again if its affinity was changed before it ran | the task at hand |
/// | `dispatch` | up to 32 times when a worker has nothing | tasks in this policy's custody |
/// | `dequeue` | once per custody | no |
/// | `runnable`, `running`, `stopping`, `quiescent` | around polls, if written | no |
/// | `timer` | when a time comes that the policy has set | no |
/// | `set_weight`, `set_affinity` | once per change by a handle, or for several at once | no |
///
/// ```
/// struct Empty;
/// impl polity_policy::Policy for Empty {
///     type Task = ();
///     fn name(&self) -> &str {
///         "empty"
///     }
/// }
/// ```
#[allow(unused_variables)] // the defaults name their arguments for the reader
pub trait Policy: Send + Sync + 'static {
    /// What the policy keeps for each task, as a value that it finds again in every callback about the task
    /// ([`TaskView::data`]): a virtual time, a class, a count. `()` for a policy that keeps nothing, and then neither memory
    /// nor time is spent on it; the same holds for any type without size and without a `Drop`.
    ///
    /// The values lie in a table that belongs to this load of the policy, indexed by [`TaskId::slot`](crate::TaskId::slot), so
    /// looking one up takes a few instructions, and no policy sees what another one has kept, nor what the same one kept in an earlier load.
    /// A value lives from [`init_task`](Policy::init_task) to [`exit_task`](Policy::exit_task), also through a bypass. Those that are left when
    /// the policy ends are dropped after [`exit`](Policy::exit), on the same thread of its own. Not a place for what is shared
    /// between tasks: that belongs into the policy itself.
    ///
    /// ```
    /// # use polity_policy::*;
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// struct CountsPolls;
    ///
    /// impl Policy for CountsPolls {
    ///     type Task = AtomicU32;
    ///     fn name(&self) -> &str {
    ///         "counts_polls"
    ///     }
    ///     fn running(&self, _host: &Host<'_>, task: &TaskView<'_, AtomicU32>) {
    ///         task.data().fetch_add(1, Ordering::Relaxed);
    ///     }
    ///     fn exit_task(&self, _host: &Host<'_>, task: &TaskView<'_, AtomicU32>) {
    ///         println!("{} was polled {} times", task.id(), task.data().load(Ordering::Relaxed));
    ///     }
    /// }
    /// # let fake = fake::FakeHost::new(1);
    /// # let data = CountsPolls.init_task(&fake.host(), &fake.task(1).view()).unwrap();
    /// # CountsPolls.running(&fake.host(), &fake.task(1).view_with(&data));
    /// # CountsPolls.exit_task(&fake.host(), &fake.task(1).view_with(&data));
    /// # assert_eq!(data.into_inner(), 1);
    /// ```
    type Task: Default + Send + Sync + 'static;

    /// Names the policy in reports: 1 to 128 bytes of printable text, checked at load.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// impl Policy for Mine {
    ///     type Task = ();
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
    /// #     type Task = ();
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
    /// #     type Task = ();
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

    /// For how long a task that stays runnable goes on on its worker before `dispatch` is asked for another one. The default
    /// is [`Slice::POLL`]: it is asked after each poll. Asked once per load, as `stall_timeout` is.
    ///
    /// A task goes on without an `enqueue` in between, as after a `dispatch` that found nothing else; `running` and
    /// `stopping` come as always. It does not go on if it has yielded, nor if it has an affinity mask. Longer slices cost a
    /// reading of the clock after each poll.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # use std::time::Duration;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     type Task = ();
    /// #     fn name(&self) -> &str { "mine" }
    /// fn slice(&self) -> Slice {
    ///     Slice::new(Duration::from_micros(500))
    /// }
    /// # }
    /// # assert!(Mine.slice() > Slice::POLL);
    /// ```
    fn slice(&self) -> Slice {
        Slice::POLL
    }

    /// Whether polls are to be timed, for [`TaskView::ran`]. Asked once per load, on the thread that loads, before `init`.
    /// `None`, the default, reads no clock.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     type Task = ();
    /// #     fn name(&self) -> &str { "mine" }
    /// fn accounting(&self) -> Accounting {
    ///     Accounting::Exact
    /// }
    /// # }
    /// # assert_eq!(Mine.accounting(), Accounting::Exact);
    /// ```
    fn accounting(&self) -> Accounting {
        Accounting::None
    }

    /// Whether core should record who wakes whom, for [`TaskView::woken_by`], [`TaskView::wake_source`] and
    /// [`TaskView::woken_at`]: for policies that follow chains of wakes, such as one that runs a waker's partner next. Asked
    /// once per load, on the thread that loads, before `init`. The default is no, and then wakes cost nothing more.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     type Task = ();
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
    /// #     type Task = ();
    /// #     fn name(&self) -> &str { "mine" }
    /// fn exit(&self, info: &ExitInfo) {
    ///     eprintln!("{info}");
    /// }
    /// # }
    /// # Mine.exit(&ExitInfo::new(ExitKind::Unload, "mine", Generation::new(1)));
    /// ```
    fn exit(&self, info: &ExitInfo) {}

    /// The policy meets this task, which is new, or was there before the policy: the first call about it, by the worker that
    /// offers it, right before its first `runnable`. What is returned is what the callbacks that follow find in
    /// [`TaskView::data`]. The default is `Default::default()`.
    ///
    /// # Errors
    /// An error ejects the policy with [`ExitKind::PolicyError`](crate::ExitKind::PolicyError), and the exit info names the
    /// task, which goes on like all others: a policy cannot refuse a task. (sched_ext's `ops.init_task` can make the fork
    /// fail; here `spawn` has returned long before a policy hears of the task.)
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// type Task = u32;
    /// #     fn name(&self) -> &str { "mine" }
    /// fn init_task(&self, _host: &Host<'_>, task: &TaskView<'_>) -> Result<u32, InitError> {
    ///     Ok(10_000 / task.weight())
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # assert_eq!(Mine.init_task(&fake.host(), &fake.task(1).view()).unwrap(), 100);
    /// ```
    #[inline]
    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<Self::Task, InitError> {
        host.not_written::<Self>(Optional::InitTask);
        Ok(Self::Task::default())
    }

    /// The task has ended, or is being dropped unfinished: the last call about it, by the worker that has it. Its data is
    /// dropped when this has returned. Comes once for each task that was met, except that a policy that ends before the task gets
    /// [`exit`](Policy::exit) instead.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// # struct Mine { alive: AtomicUsize }
    /// # impl Policy for Mine {
    /// #     type Task = ();
    /// #     fn name(&self) -> &str { "mine" }
    /// fn exit_task(&self, _host: &Host<'_>, _task: &TaskView<'_>) {
    ///     self.alive.fetch_sub(1, Ordering::Relaxed);
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # let mine = Mine { alive: AtomicUsize::new(1) };
    /// # mine.exit_task(&fake.host(), &fake.task(1).view());
    /// # assert_eq!(mine.alive.into_inner(), 0);
    /// ```
    #[inline]
    fn exit_task(&self, host: &Host<'_>, task: &TaskView<'_, Self::Task>) {
        host.not_written::<Self>(Optional::ExitTask);
    }

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
    /// #     type Task = ();
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
    fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_, Self::Task>) -> WorkerId {
        host.not_written::<Self>(Optional::SelectWorker);
        task.last_worker()
    }

    /// This runnable task is now the policy's. Either insert it here, or remember its id and insert it in a later
    /// `dispatch`. Inserting one task twice in one call is an error; so is inserting another task.
    ///
    /// The default inserts at the tail of the global DSQ.
    ///
    /// While a worker has tasks in its local DSQ, those that become runnable meanwhile are gathered, and then enqueued one after the
    /// other: after four polls at most, after sixteen what has yielded, and always when some 20 µs have passed. What is woken or new does not wait
    /// for others if a worker is idle, or if the policy inserts at heads: it might come first.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     type Task = ();
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
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_, Self::Task>) {
        host.not_written::<Self>(Optional::Enqueue);
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
    /// #     type Task = ();
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
    fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_, Self::Task>, reason: DequeueReason) {
        host.not_written::<Self>(Optional::Dequeue);
    }

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
    /// #     type Task = ();
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
    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&TaskView<'_, Self::Task>>) {
    }

    /// The task has become runnable. Pairs with `quiescent`.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # use std::sync::atomic::{AtomicUsize, Ordering};
    /// # struct Mine { runnable: AtomicUsize }
    /// # impl Policy for Mine {
    /// #     type Task = ();
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
    fn runnable(&self, host: &Host<'_>, task: &TaskView<'_, Self::Task>) {
        host.not_written::<Self>(Optional::Runnable);
    }

    /// The task is about to be polled on this worker. Pairs with `stopping`, inside runnable and quiescent.
    ///
    /// As with every [`Optional`] callback, the default is called only until core knows that it is the default.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     type Task = ();
    /// #     fn name(&self) -> &str { "mine" }
    /// fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
    ///     println!("{} runs on {:?}", task.id(), host.worker());
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # Mine.running(&fake.host(), &fake.task(1).view());
    /// ```
    #[inline]
    fn running(&self, host: &Host<'_>, task: &TaskView<'_, Self::Task>) {
        host.not_written::<Self>(Optional::Running);
    }

    /// The poll is over; `stopped` says what the task does next, [`TaskView::ran`] how long it took, if
    /// [`accounting`](Policy::accounting) asked for that.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     type Task = ();
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
    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_, Self::Task>, stopped: Stopped) {
        host.not_written::<Self>(Optional::Stopping);
    }

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
    /// #     type Task = ();
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
    /// #     type Task = ();
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
    /// #     type Task = ();
    /// #     fn name(&self) -> &str { "mine" }
    /// fn quiescent(&self, host: &Host<'_>, _task: &TaskView<'_>) {
    ///     let _slept_at = host.now();
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # Mine.quiescent(&fake.host(), &fake.task(1).view());
    /// ```
    #[inline]
    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_, Self::Task>) {
        host.not_written::<Self>(Optional::Quiescent);
    }

    /// The time has come that was set with [`Host::kick_at`] for `worker`, which makes this call between two polls; it
    /// passes through its cycle afterwards. Set the next one here for a timer that repeats.
    ///
    /// ```
    /// # use polity_policy::*;
    /// # use std::time::Duration;
    /// # struct Mine;
    /// # impl Policy for Mine {
    /// #     type Task = ();
    /// #     fn name(&self) -> &str { "mine" }
    /// fn timer(&self, host: &Host<'_>, worker: WorkerId) {
    ///     // ... once every 100 ms ...
    ///     host.kick_at(worker, host.now() + Duration::from_millis(100));
    /// }
    /// # }
    /// # let fake = fake::FakeHost::new(1);
    /// # Mine.timer(&fake.host(), WorkerId::new(0));
    /// # assert!(fake.timer(WorkerId::new(0)).is_some());
    /// ```
    #[inline]
    fn timer(&self, host: &Host<'_>, worker: WorkerId) {}
}
