//! What a policy may say to the runtime, and ask of it.

use std::any::TypeId;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::{DsqId, Optional, Position, Slice, TaskId, TaskView, WorkerId};

/// Why a DSQ could not be created or destroyed.
///
/// ```
/// use polity_policy::{DsqError, DsqId};
/// assert_eq!(DsqError::Exists(DsqId::Custom(3)).to_string(), "DSQ custom 3 exists already");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum DsqError {
    /// A DSQ with this number was created before and not destroyed.
    Exists(DsqId),
    /// No such DSQ.
    Unknown(DsqId),
    /// The number is above [`DsqId::MAX_CUSTOM`], or the DSQ is built in.
    OutOfRange(DsqId),
    /// Tasks wait in it.
    NotEmpty(DsqId, usize),
}

impl fmt::Display for DsqError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DsqError::Exists(dsq) => write!(f, "DSQ {dsq} exists already"),
            DsqError::Unknown(dsq) => write!(f, "DSQ {dsq} does not exist"),
            DsqError::OutOfRange(dsq) => {
                write!(
                    f,
                    "DSQ {dsq}: custom DSQs are numbered 0 to {}",
                    DsqId::MAX_CUSTOM
                )
            }
            DsqError::NotEmpty(dsq, tasks) => {
                write!(f, "DSQ {dsq} is not empty: {tasks} tasks wait in it")
            }
        }
    }
}

impl Error for DsqError {}

/// What a machine must offer so that policies can run on it. Policies use [`Host`] instead.
///
/// The methods are those of [`Host`], which documents them.
///
/// ```
/// // `FakeHost` is an implementation to look at.
/// let fake = polity_policy::fake::FakeHost::new(1);
/// let _: &dyn polity_policy::HostApi = &fake;
/// ```
pub trait HostApi {
    /// See [`Host::insert`].
    fn insert(&self, task: TaskId, dsq: DsqId, at: Position) -> bool;
    /// See [`Host::insert_vtime`].
    fn insert_vtime(&self, task: TaskId, dsq: DsqId, vtime: u64) -> bool;
    /// See [`Host::move_to_local`].
    fn move_to_local(&self, from: DsqId, at_most: usize) -> usize;
    /// See [`Host::set_slice`].
    fn set_slice(&self, task: TaskId, slice: Slice);
    /// See [`Host::kick`].
    fn kick(&self, worker: WorkerId);
    /// See [`Host::kick_at`].
    fn kick_at(&self, worker: WorkerId, at: Duration);
    /// See [`Host::worker_count`].
    fn worker_count(&self) -> usize;
    /// See [`Host::worker`].
    fn worker(&self) -> Option<WorkerId>;
    /// See [`Host::is_idle`].
    fn is_idle(&self, worker: WorkerId) -> bool;
    /// See [`Host::claim_idle`].
    fn claim_idle(&self, worker: WorkerId) -> bool;
    /// See [`Host::claim_idle_worker`].
    fn claim_idle_worker(&self, task: &TaskView<'_>) -> Option<WorkerId>;
    /// See [`Host::create_dsq`].
    fn create_dsq(&self, number: u32) -> Result<DsqId, DsqError>;
    /// See [`Host::create_vtime_dsq`].
    fn create_vtime_dsq(&self, number: u32) -> Result<DsqId, DsqError>;
    /// See [`Host::destroy_dsq`].
    fn destroy_dsq(&self, dsq: DsqId) -> Result<(), DsqError>;
    /// See [`Host::dsq_len`].
    fn dsq_len(&self, dsq: DsqId) -> Option<usize>;
    /// See [`Host::first_vtime`].
    fn first_vtime(&self, dsq: DsqId) -> Option<u64>;
    /// See [`Host::batch_hint`].
    fn batch_hint(&self) -> usize;
    /// See [`Host::now`].
    fn now(&self) -> Duration;
    /// See [`Host::error`].
    fn error(&self, message: &str);
    /// See [`Host::exit`].
    fn exit(&self, code: u64, message: &str);

    /// What is being called is the default of this callback, of the policy type `by`. A machine that has loaded a policy of
    /// that very type need not call it again. For another type it says nothing: a policy may hold others and pass on to them
    /// what it is told.
    fn not_written(&self, callback: Optional, by: TypeId) {
        let _ = (callback, by);
    }
}

/// What a policy may talk to. Lives as long as the callback that got it, and cannot leave its thread.
///
/// Nothing here blocks. A wrong argument does not come back as an error code: it ejects the policy, with a message
/// that names the callback and the value, and the task concerned stays runnable.
///
/// ```
/// let fake = polity_policy::fake::FakeHost::new(2);
/// assert_eq!(fake.host().worker_count(), 2);
/// ```
#[derive(Clone, Copy)]
pub struct Host<'a> {
    api: &'a dyn HostApi,
}

impl<'a> Host<'a> {
    /// Wraps a machine's implementation. Machines make these.
    ///
    /// ```
    /// let fake = polity_policy::fake::FakeHost::new(1);
    /// let host = polity_policy::Host::new(&fake);
    /// assert_eq!(host.worker_count(), 1);
    /// ```
    #[inline]
    pub const fn new(api: &'a dyn HostApi) -> Self {
        Host { api }
    }

    /// See [`HostApi::not_written`].
    #[inline]
    pub(crate) fn not_written<P: ?Sized + 'static>(&self, callback: Optional) {
        self.api.not_written(callback, TypeId::of::<P>());
    }

    /// Puts `task` into `dsq`.
    ///
    /// In `select_worker` and `enqueue` only the task at hand may be inserted, once; it is carried out when the
    /// callback has returned. In `dispatch` any task in this policy's own hands (enqueued, and in no DSQ) may be
    /// claimed, and `false` says that it was not there to be claimed: it ended, was aborted, or another worker was
    /// faster. That is normal and harmless. Elsewhere inserting is an error.
    ///
    /// Unknown or destroyed DSQs and workers that do not exist are errors. A local DSQ of a worker that the task's
    /// affinity forbids is replaced by that of one that it allows.
    ///
    /// Cost: one lock on the DSQ, shared by the whole batch where a batch is offered.
    ///
    /// ```
    /// # use polity_policy::{fake::FakeHost, DsqId, Position};
    /// # let fake = FakeHost::new(1);
    /// # let (host, task) = (fake.host(), fake.task(1).view());
    /// assert!(host.insert(task.id(), DsqId::Global, Position::Tail));
    /// ```
    #[inline]
    pub fn insert(&self, task: TaskId, dsq: DsqId, at: Position) -> bool {
        self.api.insert(task, dsq, at)
    }

    /// Puts `task` into a DSQ that [`create_vtime_dsq`](Host::create_vtime_dsq) made, before all that have a later
    /// `vtime` and behind all that have the same. Allowed where [`insert`](Host::insert) is, and answers the same. `vtime` is
    /// in whatever unit the policy likes.
    ///
    /// The order wraps, as in sched_ext (`time_before64`): of two values the earlier one is that from which the other is
    /// fewer than 2^63 steps ahead. So what waits in one DSQ at one time must lie within 2^63 of each other, or its order is
    /// anybody's guess; nothing else comes to harm.
    ///
    /// An insert with a vtime into a FIFO DSQ, all built-in ones included, ends the policy, and so does one without into a
    /// DSQ ordered by vtime.
    ///
    /// Cost: one lock on the DSQ and O(log n) steps; about one step if `vtime` is later than most.
    ///
    /// ```
    /// # use polity_policy::{fake::FakeHost, DsqId};
    /// # let fake = FakeHost::new(1);
    /// # let host = fake.host();
    /// let dsq = host.create_vtime_dsq(0).unwrap();
    /// host.insert_vtime(fake.task(1).view().id(), dsq, 3);
    /// host.insert_vtime(fake.task(2).view().id(), dsq, u64::MAX); // 4 steps before 3
    /// host.move_to_local(dsq, 1);
    /// assert_eq!(fake.run_next().unwrap().slot(), 2);
    /// ```
    #[inline]
    pub fn insert_vtime(&self, task: TaskId, dsq: DsqId, vtime: u64) -> bool {
        self.api.insert_vtime(task, dsq, vtime)
    }

    /// In `dispatch`: moves up to `at_most` tasks from the head of a custom DSQ to the worker's local DSQ and
    /// returns how many. Tasks that may not run on this worker are passed over and keep their place. A large
    /// `at_most` on a long DSQ is cut to the worker's fair share, so that one worker does not empty it for all, and to 1,024.
    ///
    /// Cost: one lock for the whole batch, and one step for each task passed over; in a DSQ ordered by vtime O(log n) steps
    /// for each task moved or passed over.
    ///
    /// ```
    /// # use polity_policy::{fake::FakeHost, DsqId};
    /// # let fake = FakeHost::new(1);
    /// # let host = fake.host();
    /// host.create_dsq(0).unwrap();
    /// assert_eq!(host.move_to_local(DsqId::Custom(0), 8), 0);
    /// ```
    #[inline]
    pub fn move_to_local(&self, from: DsqId, at_most: usize) -> usize {
        self.api.move_to_local(from, at_most)
    }

    /// Says how long the next slice of `task` is, instead of the policy's own ([`Policy::slice`](crate::Policy::slice)). In
    /// `select_worker` and `enqueue` for the task at hand, beside its insert; in `running` for the task that is about to be
    /// polled, which is the place for policies that decide when they dispatch. Another task, or another callback, is an error.
    ///
    /// It counts once, for the polls that follow from this insert.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use polity_policy::{fake::FakeHost, DsqId, Position, Slice};
    /// # let fake = FakeHost::new(1);
    /// # let (host, task) = (fake.host(), fake.task(1).view());
    /// host.set_slice(task.id(), Slice::new(Duration::from_micros(100)));
    /// host.insert(task.id(), DsqId::Global, Position::Tail);
    /// assert_eq!(fake.slice(task.id()), Some(Slice::new(Duration::from_micros(100))));
    /// ```
    #[inline]
    pub fn set_slice(&self, task: TaskId, slice: Slice) {
        self.api.set_slice(task, slice);
    }

    /// Makes `worker` pass through its cycle again, `dispatch` included, before it parks. Kicks merge.
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(2);
    /// fake.host().kick(polity_policy::WorkerId::new(1));
    /// assert_eq!(fake.kicks(), [polity_policy::WorkerId::new(1)]);
    /// ```
    #[inline]
    pub fn kick(&self, worker: WorkerId) {
        self.api.kick(worker);
    }

    /// At the time `at`, as [`now`](Host::now) counts, `worker` calls [`Policy::timer`](crate::Policy::timer) and passes
    /// through its cycle, `dispatch` included. It wakes up for that if it is parked. A time that has passed means at once.
    ///
    /// There is one time for each worker: of several the earliest counts, and when it has come the others are forgotten. A
    /// policy that needs more keeps a list of its own and asks for the first of it. Times go with the policy.
    ///
    /// Exact to about a millisecond, unless the worker is in a poll or a callback: then it comes right after that, or
    /// from a spare. In a bypass it waits for the end of the bypass.
    ///
    /// Cost: one atomic minimum, and for another worker a [`kick`](Host::kick). In return each worker looks at its time in
    /// each of its cycles: less than a nanosecond.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use polity_policy::WorkerId;
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// # let host = fake.host();
    /// let next = host.now() + Duration::from_millis(10);
    /// host.kick_at(WorkerId::new(0), next);
    /// assert_eq!(fake.timer(WorkerId::new(0)), Some(next));
    /// ```
    #[inline]
    pub fn kick_at(&self, worker: WorkerId, at: Duration) {
        self.api.kick_at(worker, at);
    }

    /// How many workers the runtime has. Does not change.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(3).host().worker_count(), 3);
    /// ```
    #[inline]
    pub fn worker_count(&self) -> usize {
        self.api.worker_count()
    }

    /// The worker that makes this call; `None` in `init`.
    ///
    /// ```
    /// assert!(polity_policy::fake::FakeHost::new(1).host().worker().is_some());
    /// ```
    #[inline]
    pub fn worker(&self) -> Option<WorkerId> {
        self.api.worker()
    }

    /// Whether `worker` looks idle and unclaimed. May change at once; claim it to be sure.
    ///
    /// ```
    /// assert!(!polity_policy::fake::FakeHost::new(1).host().is_idle(polity_policy::WorkerId::new(0)));
    /// ```
    #[inline]
    pub fn is_idle(&self, worker: WorkerId) -> bool {
        self.api.is_idle(worker)
    }

    /// Claims `worker` if it is idle: of several callers exactly one gets `true`. Kicks it.
    ///
    /// Claiming and then not using a worker loses nothing: core's own knowledge of who is parked is separate.
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// let worker = polity_policy::WorkerId::new(0);
    /// fake.set_idle(worker);
    /// assert!(fake.host().claim_idle(worker));
    /// assert!(!fake.host().claim_idle(worker));
    /// ```
    #[inline]
    pub fn claim_idle(&self, worker: WorkerId) -> bool {
        self.api.claim_idle(worker)
    }

    /// Claims an idle worker on which `task` may run, its last one by preference.
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(2);
    /// fake.set_idle(polity_policy::WorkerId::new(1));
    /// let claimed = fake.host().claim_idle_worker(&fake.task(1).view());
    /// assert_eq!(claimed, Some(polity_policy::WorkerId::new(1)));
    /// ```
    #[inline]
    pub fn claim_idle_worker<T>(&self, task: &TaskView<'_, T>) -> Option<WorkerId> {
        self.api.claim_idle_worker(&task.with_data(&()))
    }

    /// Creates the custom FIFO DSQ `number`, usually in `init`. It goes with the policy.
    ///
    /// # Errors
    /// If the number is taken or above [`DsqId::MAX_CUSTOM`].
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// assert!(fake.host().create_dsq(7).is_ok());
    /// assert!(fake.host().create_dsq(7).is_err());
    /// ```
    pub fn create_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.api.create_dsq(number)
    }

    /// Creates the custom DSQ `number`, ordered by vtime: [`insert_vtime`](Host::insert_vtime) fills it, and
    /// [`move_to_local`](Host::move_to_local) empties it, the earliest first. It goes with the policy.
    ///
    /// Not for order by age: a FIFO ([`create_dsq`](Host::create_dsq)) has that for less.
    ///
    /// # Errors
    /// If the number is taken, by a DSQ of either kind, or above [`DsqId::MAX_CUSTOM`].
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// assert!(fake.host().create_vtime_dsq(7).is_ok());
    /// assert!(fake.host().create_dsq(7).is_err());
    /// ```
    pub fn create_vtime_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.api.create_vtime_dsq(number)
    }

    /// Destroys an empty custom DSQ. Its number may be created again, as either kind.
    ///
    /// # Errors
    /// If there is none, or tasks wait in it.
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// let dsq = fake.host().create_dsq(7).unwrap();
    /// assert!(fake.host().destroy_dsq(dsq).is_ok());
    /// ```
    pub fn destroy_dsq(&self, dsq: DsqId) -> Result<(), DsqError> {
        self.api.destroy_dsq(dsq)
    }

    /// How many tasks wait in a DSQ, or `None` if it does not exist. May change at once. Counts entries whose task
    /// has been aborted until they are passed.
    ///
    /// What the policy has inserted in this call, or in `enqueue` for other tasks of the batch that is being offered, is carried out
    /// afterwards. For a local DSQ it counts already in `select_worker`, `enqueue` and `dispatch`; for the global one and custom ones it
    /// does not.
    ///
    /// ```
    /// # use polity_policy::DsqId;
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// assert_eq!(fake.host().dsq_len(DsqId::Global), Some(0));
    /// assert_eq!(fake.host().dsq_len(DsqId::Custom(9)), None);
    /// ```
    #[inline]
    pub fn dsq_len(&self, dsq: DsqId) -> Option<usize> {
        self.api.dsq_len(dsq)
    }

    /// The earliest vtime in a DSQ that is ordered by vtime; `None` if nothing waits in it, or it is none such. May change
    /// at once. Tells `dispatch` whether its `prev` should go on: `prev` is in no DSQ, so its vtime has to be compared with
    /// those that are.
    ///
    /// The earliest may be a task that may not run on this worker, or an entry whose task has been aborted.
    ///
    /// Cost: two loads.
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// # let host = fake.host();
    /// let dsq = host.create_vtime_dsq(0).unwrap();
    /// assert_eq!(host.first_vtime(dsq), None);
    /// host.insert_vtime(fake.task(1).view().id(), dsq, 70);
    /// host.insert_vtime(fake.task(2).view().id(), dsq, 60);
    /// assert_eq!(host.first_vtime(dsq), Some(60));
    /// ```
    #[inline]
    pub fn first_vtime(&self, dsq: DsqId) -> Option<u64> {
        self.api.first_vtime(dsq)
    }

    /// How many tasks this worker polls in some 20 µs, of late: from 1, when polls are long or it has just been parked, to 16.
    /// What [`move_to_local`](Host::move_to_local) may take at once from a queue whose order matters, if it need not be exact
    /// to less than that. A queue that all workers share costs each of them a lock, and the transfer of some cache lines,
    /// at each visit: for short polls that is more than the polls.
    ///
    /// Cost: one load.
    ///
    /// ```
    /// # use polity_policy::DsqId;
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// # let host = fake.host();
    /// # let dsq = host.create_dsq(0).unwrap();
    /// assert_eq!(host.batch_hint(), 1); // nothing was polled yet
    /// host.move_to_local(dsq, host.batch_hint());
    /// ```
    #[inline]
    pub fn batch_hint(&self) -> usize {
        self.api.batch_hint()
    }

    /// Time since the runtime started. Coarse: the worker reads the clock every few polls, so two callbacks of one
    /// cycle may get the same answer.
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// assert!(fake.host().now() >= std::time::Duration::ZERO);
    /// ```
    #[inline]
    pub fn now(&self) -> Duration {
        self.api.now()
    }

    /// Ends the policy with an error: it is ejected when the callback has returned.
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// fake.host().error("the table is full");
    /// assert_eq!(fake.ended().unwrap().message, "the table is full");
    /// ```
    #[cold]
    pub fn error(&self, message: &str) {
        self.api.error(message);
    }

    /// Ends the policy in good order, with a code and a message of its own choice.
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// fake.host().exit(3, "done");
    /// assert_eq!(fake.ended().unwrap().code, 3);
    /// ```
    #[cold]
    pub fn exit(&self, code: u64, message: &str) {
        self.api.exit(code, message);
    }
}

impl fmt::Debug for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("worker", &self.worker())
            .finish_non_exhaustive()
    }
}
