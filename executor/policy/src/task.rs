//! What a policy sees of a task.

use std::fmt;
use std::time::Duration;

use crate::{Attributes, TaskId, WakeSource, WorkerId};

/// Why a task is offered to `select_worker` and `enqueue`.
///
/// ```
/// assert_ne!(polity_policy::EnqueueReason::Spawn, polity_policy::EnqueueReason::Wake);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum EnqueueReason {
    /// It is new.
    Spawn,
    /// It waited, and was woken.
    Wake,
    /// It was polled and is runnable still: it yielded, or was woken during the poll. `select_worker` is skipped.
    StillRunnable,
    /// It was runnable already while this policy did not have it: another policy or the built-in FIFO had it until this
    /// one was loaded, or a bypass has ended.
    Inherited,
}

/// A task, as it is shown to a callback: a copy of what is known, valid for the length of the call.
///
/// `T` is [`Policy::Task`](crate::Policy::Task), what the policy keeps for each task; a policy that keeps nothing writes
/// `TaskView<'_>`.
///
/// ```
/// use polity_policy::{Attributes, EnqueueReason, TaskId, TaskView, WorkerId};
/// let attributes = Attributes::new().name("ping");
/// let view = TaskView::new(TaskId::from_parts(3, 1), &attributes, WorkerId::new(0), EnqueueReason::Wake);
/// assert_eq!(view.name(), Some("ping"));
/// ```
pub struct TaskView<'a, T = ()> {
    id: TaskId,
    tag: u64,
    /// In nanoseconds of the host's clock; `NO_DEADLINE` for none.
    deadline: u64,
    /// `NO_TASK` for none.
    woken_by: TaskId,
    /// In nanoseconds of the host's clock. Valid if there is a source.
    woken_at: u64,
    wake_source: Option<WakeSource>,
    attributes: &'a Attributes,
    last_worker: WorkerId,
    reason: EnqueueReason,
    ran: Duration,
    data: &'a T,
}

const NO_DEADLINE: u64 = u64::MAX;
/// Slot 0 is never used.
const NO_TASK: TaskId = TaskId::from_parts(0, 0);

impl<'a> TaskView<'a> {
    /// Describes a task. Core makes these; the tag is taken from `attributes`.
    ///
    /// ```
    /// use polity_policy::{Attributes, EnqueueReason, TaskId, TaskView, WorkerId};
    /// let attributes = Attributes::new().tag(5);
    /// let view = TaskView::new(TaskId::from_parts(3, 1), &attributes, WorkerId::new(0), EnqueueReason::Wake);
    /// assert_eq!(view.tag(), 5);
    /// ```
    #[inline]
    pub const fn new(
        id: TaskId,
        attributes: &'a Attributes,
        last_worker: WorkerId,
        reason: EnqueueReason,
    ) -> Self {
        let tag = attributes.get_tag();
        TaskView {
            id,
            tag,
            deadline: NO_DEADLINE,
            woken_by: NO_TASK,
            woken_at: 0,
            wake_source: None,
            attributes,
            last_worker,
            reason,
            ran: Duration::ZERO,
            data: &(),
        }
    }
}

impl<'a, T> TaskView<'a, T> {
    /// The same task with what a policy keeps for it.
    ///
    /// ```
    /// let view = polity_policy::fake::FakeHost::new(1).task(3).view();
    /// assert_eq!(*view.with_data(&7).data(), 7);
    /// ```
    #[inline]
    pub const fn with_data<'b, U>(&self, data: &'b U) -> TaskView<'b, U>
    where
        'a: 'b,
    {
        TaskView {
            id: self.id,
            tag: self.tag,
            attributes: self.attributes,
            last_worker: self.last_worker,
            reason: self.reason,
            ran: self.ran,
            deadline: self.deadline,
            wake_source: self.wake_source,
            woken_by: self.woken_by,
            woken_at: self.woken_at,
            data,
        }
    }

    /// What this policy keeps for the task: the value that [`Policy::init_task`](crate::Policy::init_task) returned for it.
    /// Shared by every callback about the task, on whatever worker, so a value that changes is an atomic, or behind a lock.
    /// The calls for one task never overlap, but for one that did not return in time and whose policy was ejected for it.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU32, Ordering};
    ///
    /// let polls = AtomicU32::new(0);
    /// let view = polity_policy::fake::FakeHost::new(1).task(3).view_with(&polls);
    /// view.data().fetch_add(1, Ordering::Relaxed);
    /// assert_eq!(polls.into_inner(), 1);
    /// ```
    #[inline]
    pub const fn data(&self) -> &'a T {
        self.data
    }

    /// The same with another tag: core keeps the tag apart from the shared attributes.
    ///
    /// ```
    /// use polity_policy::{Attributes, EnqueueReason, TaskId, TaskView, WorkerId};
    /// let attributes = Attributes::new();
    /// let view = TaskView::new(TaskId::from_parts(3, 1), &attributes, WorkerId::new(0), EnqueueReason::Wake);
    /// assert_eq!(view.with_tag(8).tag(), 8);
    /// ```
    #[inline]
    #[must_use]
    pub const fn with_tag(mut self, tag: u64) -> Self {
        self.tag = tag;
        self
    }

    /// The same after a poll that took so long. Core's, for `stopping`.
    ///
    /// ```
    /// use std::time::Duration;
    /// let view = polity_policy::fake::FakeHost::new(1).task(3).view();
    /// assert_eq!(view.with_ran(Duration::from_micros(7)).ran(), Duration::from_micros(7));
    /// ```
    #[inline]
    #[must_use]
    pub const fn with_ran(mut self, ran: Duration) -> Self {
        self.ran = ran;
        self
    }

    /// In `stopping`, how long the poll took that has just ended, as [`Policy::accounting`](crate::Policy::accounting) has
    /// asked for; zero if it asked for nothing. Zero in other callbacks.
    ///
    /// ```
    /// assert!(polity_policy::fake::FakeHost::new(1).task(3).view().ran().is_zero());
    /// ```
    #[inline]
    pub const fn ran(&self) -> Duration {
        self.ran
    }

    /// The same with a deadline, on the clock of [`Host::now`](crate::Host::now). Core makes these; more than 500 years count as
    /// none.
    ///
    /// ```
    /// use std::time::Duration;
    /// let view = polity_policy::fake::FakeHost::new(1).task(3).view().with_deadline(Duration::from_secs(2));
    /// assert_eq!(view.deadline(), Some(Duration::from_secs(2)));
    /// ```
    #[inline]
    #[must_use]
    pub const fn with_deadline(mut self, deadline: Duration) -> Self {
        let nanos = deadline.as_nanos();
        self.deadline = if nanos < NO_DEADLINE as u128 {
            nanos as u64
        } else {
            NO_DEADLINE
        };
        self
    }

    /// The same with the wake that made it runnable. Core makes these, for policies that
    /// [ask](crate::Policy::wakes).
    ///
    /// ```
    /// use polity_policy::{WakeSource, fake::FakeHost};
    /// # use std::time::Duration;
    /// # let fake = FakeHost::new(1);
    /// let waker = fake.task(1).view().id();
    /// let view = fake.task(3).view().with_wake(WakeSource::Task, Some(waker), Duration::from_micros(7));
    /// assert_eq!(view.woken_by(), Some(waker));
    /// ```
    #[inline]
    #[must_use]
    pub const fn with_wake(mut self, source: WakeSource, by: Option<TaskId>, at: Duration) -> Self {
        self.wake_source = Some(source);
        self.woken_by = match by {
            Some(task) => task,
            None => NO_TASK,
        };
        self.woken_at = at.as_nanos() as u64;
        self
    }

    /// The token by which the policy may speak of the task later.
    ///
    /// ```
    /// let fake = polity_policy::fake::FakeHost::new(1);
    /// assert_eq!(fake.task(3).view().id().slot(), 3);
    /// ```
    #[inline]
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// The worker that polled it last (for a new task: the one that spawned it, or worker 0).
    ///
    /// ```
    /// let fake = polity_policy::fake::FakeHost::new(1);
    /// assert_eq!(fake.task(3).view().last_worker().index(), 0);
    /// ```
    #[inline]
    pub const fn last_worker(&self) -> WorkerId {
        self.last_worker
    }

    /// Why it is offered now.
    ///
    /// ```
    /// let fake = polity_policy::fake::FakeHost::new(1);
    /// assert_eq!(fake.task(3).view().reason(), polity_policy::EnqueueReason::Wake);
    /// ```
    #[inline]
    pub const fn reason(&self) -> EnqueueReason {
        self.reason
    }

    /// Its name, if its author gave one.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(1).task(3).view().name(), None);
    /// ```
    #[inline]
    pub fn name(&self) -> Option<&'a str> {
        self.attributes.get_name()
    }

    /// Its weight, 1 to 10,000, 100 unless said otherwise.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(1).task(3).view().weight(), 100);
    /// ```
    #[inline]
    pub const fn weight(&self) -> u32 {
        self.attributes.get_weight()
    }

    /// The application's own word on it.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(1).task(3).tag(6).view().tag(), 6);
    /// ```
    #[inline]
    pub const fn tag(&self) -> u64 {
        self.tag
    }

    /// The group that it belongs to; 0 for none.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(1).task(3).group(2).view().group(), 2);
    /// ```
    #[inline]
    pub const fn group(&self) -> u32 {
        self.attributes.get_group()
    }

    /// When it should be done, if its author said so: to be compared with [`Host::now`](crate::Host::now). May have passed.
    ///
    /// ```
    /// use std::time::Duration;
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// let task = fake.task(3).deadline(Duration::from_millis(5)).view();
    /// fake.advance(Duration::from_millis(6));
    /// assert!(task.deadline().is_some_and(|deadline| deadline < fake.host().now()));
    /// ```
    #[inline]
    pub const fn deadline(&self) -> Option<Duration> {
        match self.deadline {
            NO_DEADLINE => None,
            deadline => Some(Duration::from_nanos(deadline)),
        }
    }

    /// The task that made it runnable, or spawned it. `None` if that was no task, or is not known: then
    /// [`wake_source`](TaskView::wake_source) says which.
    ///
    /// Of several wakes the first counts, the one that found the task waiting. One that comes during the task's own poll is
    /// not recorded: a task that is still runnable after its poll shows the wake before.
    ///
    /// ```
    /// # use polity_policy::{WakeSource, fake::FakeHost};
    /// # let fake = FakeHost::new(1);
    /// let waker = fake.task(1).view().id();
    /// let task = fake.task(3).woken(WakeSource::Task, Some(waker)).view();
    /// assert_eq!(task.woken_by(), Some(waker));
    /// ```
    #[inline]
    pub fn woken_by(&self) -> Option<TaskId> {
        (self.woken_by != NO_TASK).then_some(self.woken_by)
    }

    /// Where the wake came from. `None` if it is not known: the policy did not [ask](crate::Policy::wakes), or the task was
    /// runnable already when it was loaded.
    ///
    /// ```
    /// # use polity_policy::{WakeSource, fake::FakeHost};
    /// # let fake = FakeHost::new(1);
    /// assert_eq!(fake.task(3).view().wake_source(), None);
    /// let task = fake.task(3).woken(WakeSource::Driver, None).view();
    /// assert_eq!(task.wake_source(), Some(WakeSource::Driver));
    /// ```
    #[inline]
    pub const fn wake_source(&self) -> Option<WakeSource> {
        self.wake_source
    }

    /// When it was made runnable, on the clock of [`Host::now`](crate::Host::now) and as coarse as that. `None` as in
    /// [`wake_source`](TaskView::wake_source).
    ///
    /// ```
    /// # use polity_policy::{WakeSource, fake::FakeHost};
    /// # let fake = FakeHost::new(1);
    /// let task = fake.task(3).woken(WakeSource::Driver, None).view();
    /// assert!(task.woken_at().is_some_and(|at| at <= fake.host().now()));
    /// ```
    #[inline]
    pub fn woken_at(&self) -> Option<Duration> {
        self.wake_source
            .map(|_| Duration::from_nanos(self.woken_at))
    }

    /// Whether it may run on `worker`.
    ///
    /// ```
    /// let fake = polity_policy::fake::FakeHost::new(1);
    /// assert!(fake.task(3).view().allows(polity_policy::WorkerId::new(0)));
    /// ```
    #[inline]
    pub fn allows(&self, worker: WorkerId) -> bool {
        self.attributes.allows(worker)
    }

    /// What it shares with other tasks of its [kind](Attributes::kind): all but its tag and its deadline.
    ///
    /// ```
    /// let fake = polity_policy::fake::FakeHost::new(1);
    /// assert!(fake.task(3).view().attributes().get_affinity().is_none());
    /// ```
    #[inline]
    pub const fn attributes(&self) -> &'a Attributes {
        self.attributes
    }
}

// Not derived: a derive would ask the same of `T`.
impl<T> Clone for TaskView<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for TaskView<'_, T> {}

impl<T> fmt::Debug for TaskView<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskView")
            .field("id", &self.id)
            .field("tag", &self.tag)
            .field("attributes", &self.attributes)
            .field("last_worker", &self.last_worker)
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}
