//! A host for the unit tests of a policy: it writes down what the policy says, and runs nothing.
//!
//! Not for judging a policy: queues here are plain lists, nothing is checked but what is documented, and there is
//! one thread. To see a policy schedule, load it into a runtime.
//!
//! ```
//! use polity_policy::fake::FakeHost;
//! use polity_policy::{DsqId, Policy};
//!
//! struct Empty;
//! impl Policy for Empty {
//!     type Task = ();
//!     fn name(&self) -> &str {
//!         "empty"
//!     }
//! }
//!
//! let fake = FakeHost::new(1);
//! Empty.enqueue(&fake.host(), &fake.task(1).view());
//! assert_eq!(fake.inserts()[0].dsq, DsqId::Global);
//! ```

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::{
    Attributes, DsqError, DsqId, EnqueueReason, ExitInfo, ExitKind, Generation, Host, HostApi,
    Position, Slice, TaskId, TaskView, WakeSource, WorkerId,
};

/// One insert, as the policy asked for it.
///
/// ```
/// # use polity_policy::{fake::FakeHost, DsqId, Position};
/// let fake = FakeHost::new(1);
/// fake.host().insert(fake.task(1).view().id(), DsqId::Global, Position::Head);
/// assert_eq!(fake.inserts()[0].at, Position::Head);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Insert {
    /// Which task.
    pub task: TaskId,
    /// Into which DSQ.
    pub dsq: DsqId,
    /// At which end; [`Position::Tail`] for an insert with a vtime.
    pub at: Position,
    /// At which vtime, if it was [`Host::insert_vtime`].
    pub vtime: Option<u64>,
}

/// A host without a runtime. See the [module](self).
///
/// ```
/// let fake = polity_policy::fake::FakeHost::new(4);
/// assert_eq!(fake.host().worker_count(), 4);
/// ```
#[derive(Debug)]
pub struct FakeHost {
    workers: usize,
    now: Cell<Duration>,
    batch_hint: Cell<usize>,
    inserts: RefCell<Vec<Insert>>,
    kicks: RefCell<Vec<WorkerId>>,
    timers: RefCell<BTreeMap<WorkerId, Duration>>,
    slices: RefCell<BTreeMap<TaskId, Slice>>,
    idle: RefCell<BTreeSet<WorkerId>>,
    local: RefCell<VecDeque<TaskId>>,
    custom: RefCell<BTreeMap<u32, Custom>>,
    ended: RefCell<Option<ExitInfo>>,
}

#[derive(Debug)]
enum Custom {
    Fifo(VecDeque<TaskId>),
    /// In order.
    Vtime(VecDeque<(u64, TaskId)>),
}

impl Custom {
    fn len(&self) -> usize {
        match self {
            Custom::Fifo(tasks) => tasks.len(),
            Custom::Vtime(tasks) => tasks.len(),
        }
    }

    fn pop(&mut self) -> Option<TaskId> {
        match self {
            Custom::Fifo(tasks) => tasks.pop_front(),
            Custom::Vtime(tasks) => tasks.pop_front().map(|(_, task)| task),
        }
    }
}

/// A task that exists only for a test, from [`FakeHost::task`].
///
/// ```
/// let fake = polity_policy::fake::FakeHost::new(1);
/// assert_eq!(fake.task(1).weight(300).view().weight(), 300);
/// ```
#[derive(Clone, Debug)]
pub struct FakeTask {
    id: TaskId,
    attributes: Attributes,
    deadline: Option<Duration>,
    woken: Option<(WakeSource, Option<TaskId>)>,
    reason: EnqueueReason,
}

impl FakeTask {
    /// The same with a tag.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(1).task(1).tag(2).view().tag(), 2);
    /// ```
    #[must_use]
    pub fn tag(mut self, tag: u64) -> Self {
        self.attributes = self.attributes.tag(tag);
        self
    }

    /// The same with a weight.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(1).task(1).weight(2).view().weight(), 2);
    /// ```
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.attributes = self.attributes.weight(weight);
        self
    }

    /// The same in a group.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(1).task(1).group(2).view().group(), 2);
    /// ```
    #[must_use]
    pub fn group(mut self, group: u32) -> Self {
        self.attributes = self.attributes.group(group);
        self
    }

    /// The same with a deadline, on the host's clock.
    ///
    /// ```
    /// use std::time::Duration;
    /// let task = polity_policy::fake::FakeHost::new(1).task(1).deadline(Duration::from_secs(1));
    /// assert_eq!(task.view().deadline(), Some(Duration::from_secs(1)));
    /// ```
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// The same, with a recorded wake: at time zero.
    ///
    /// ```
    /// # use polity_policy::{fake::FakeHost, WakeSource};
    /// let task = FakeHost::new(1).task(1).woken(WakeSource::Outside, None);
    /// assert_eq!(task.view().wake_source(), Some(WakeSource::Outside));
    /// ```
    #[must_use]
    pub fn woken(mut self, source: WakeSource, by: Option<TaskId>) -> Self {
        self.woken = Some((source, by));
        self
    }

    /// The same, offered for another reason than a wake.
    ///
    /// ```
    /// # use polity_policy::{fake::FakeHost, EnqueueReason};
    /// let task = FakeHost::new(1).task(1).reason(EnqueueReason::Spawn);
    /// assert_eq!(task.view().reason(), EnqueueReason::Spawn);
    /// ```
    #[must_use]
    pub fn reason(mut self, reason: EnqueueReason) -> Self {
        self.reason = reason;
        self
    }

    /// What a callback sees of it. The task is leaked, which is fine in a test.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(1).task(1).view().id().slot(), 1);
    /// ```
    pub fn view(self) -> TaskView<'static> {
        let attributes = Box::leak(Box::new(self.attributes));
        let view = TaskView::new(self.id, attributes, WorkerId::new(0), self.reason);
        let view = match self.woken {
            Some((source, by)) => view.with_wake(source, by, Duration::ZERO),
            None => view,
        };
        match self.deadline {
            Some(deadline) => view.with_deadline(deadline),
            None => view,
        }
    }

    /// The same for a policy that keeps data for each task. A runtime calls [`Policy::init_task`](crate::Policy::init_task)
    /// for the data; a test may do so, too.
    ///
    /// ```
    /// assert_eq!(*polity_policy::fake::FakeHost::new(1).task(1).view_with(&5).data(), 5);
    /// ```
    pub fn view_with<T>(self, data: &T) -> TaskView<'_, T> {
        self.view().with_data(data)
    }
}

impl FakeHost {
    /// A host with so many workers, none of them idle, worker 0 calling.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(2).host().worker_count(), 2);
    /// ```
    pub fn new(workers: usize) -> Self {
        FakeHost {
            workers,
            now: Cell::default(),
            batch_hint: Cell::new(1),
            inserts: RefCell::default(),
            kicks: RefCell::default(),
            timers: RefCell::default(),
            slices: RefCell::default(),
            idle: RefCell::default(),
            local: RefCell::default(),
            custom: RefCell::default(),
            ended: RefCell::default(),
        }
    }

    /// What to hand to a callback.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(2).host().worker_count(), 2);
    /// ```
    pub fn host(&self) -> Host<'_> {
        Host::new(self)
    }

    /// A woken task in `slot`, with default attributes.
    ///
    /// ```
    /// assert_eq!(polity_policy::fake::FakeHost::new(2).task(5).view().id().slot(), 5);
    /// ```
    pub fn task(&self, slot: u32) -> FakeTask {
        FakeTask {
            id: TaskId::from_parts(slot, 1),
            attributes: Attributes::new(),
            deadline: None,
            woken: None,
            reason: EnqueueReason::Wake,
        }
    }

    /// Makes `worker` idle and unclaimed.
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(2);
    /// fake.set_idle(polity_policy::WorkerId::new(1));
    /// assert!(fake.host().is_idle(polity_policy::WorkerId::new(1)));
    /// ```
    pub fn set_idle(&self, worker: WorkerId) {
        self.idle.borrow_mut().insert(worker);
    }

    /// Moves the clock on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # let fake = polity_policy::fake::FakeHost::new(2);
    /// fake.advance(Duration::from_millis(5));
    /// assert_eq!(fake.host().now(), Duration::from_millis(5));
    /// ```
    pub fn advance(&self, by: Duration) {
        self.now.set(self.now.get() + by);
    }

    /// What [`Host::batch_hint`](crate::Host::batch_hint) says; 1 until then.
    ///
    /// ```
    /// # let fake = polity_policy::fake::FakeHost::new(2);
    /// fake.set_batch_hint(16);
    /// assert_eq!(fake.host().batch_hint(), 16);
    /// ```
    pub fn set_batch_hint(&self, tasks: usize) {
        self.batch_hint.set(tasks);
    }

    /// Every insert so far, in order.
    ///
    /// ```
    /// assert!(polity_policy::fake::FakeHost::new(1).inserts().is_empty());
    /// ```
    pub fn inserts(&self) -> Vec<Insert> {
        self.inserts.borrow().clone()
    }

    /// Every kick so far, in order, those of claims included.
    ///
    /// ```
    /// assert!(polity_policy::fake::FakeHost::new(1).kicks().is_empty());
    /// ```
    pub fn kicks(&self) -> Vec<WorkerId> {
        self.kicks.borrow().clone()
    }

    /// The slice that the policy has set for this task.
    ///
    /// ```
    /// let fake = polity_policy::fake::FakeHost::new(1);
    /// assert_eq!(fake.slice(fake.task(1).view().id()), None);
    /// ```
    pub fn slice(&self, task: TaskId) -> Option<Slice> {
        self.slices.borrow().get(&task).copied()
    }

    /// The time that is set for `worker`.
    ///
    /// ```
    /// let fake = polity_policy::fake::FakeHost::new(1);
    /// assert_eq!(fake.timer(polity_policy::WorkerId::new(0)), None);
    /// ```
    pub fn timer(&self, worker: WorkerId) -> Option<Duration> {
        self.timers.borrow().get(&worker).copied()
    }

    /// Takes the head of the local DSQ of worker 0, as the worker would.
    ///
    /// ```
    /// # use polity_policy::{DsqId, Position};
    /// # let fake = polity_policy::fake::FakeHost::new(1);
    /// fake.host().insert(fake.task(4).view().id(), DsqId::Local, Position::Tail);
    /// assert_eq!(fake.run_next().unwrap().slot(), 4);
    /// ```
    pub fn run_next(&self) -> Option<TaskId> {
        self.local.borrow_mut().pop_front()
    }

    /// The first report of [`Host::error`] or [`Host::exit`], if the policy ended itself.
    ///
    /// ```
    /// assert!(polity_policy::fake::FakeHost::new(1).ended().is_none());
    /// ```
    pub fn ended(&self) -> Option<ExitInfo> {
        self.ended.borrow().clone()
    }

    fn wrong(&self, message: &str) {
        self.end(ExitKind::Error, 0, message);
    }

    fn create(&self, number: u32, empty: Custom) -> Result<DsqId, DsqError> {
        let dsq = DsqId::Custom(number);
        if number > DsqId::MAX_CUSTOM {
            return Err(DsqError::OutOfRange(dsq));
        }
        let mut custom = self.custom.borrow_mut();
        if custom.contains_key(&number) {
            return Err(DsqError::Exists(dsq));
        }
        custom.insert(number, empty);
        Ok(dsq)
    }

    fn end(&self, kind: ExitKind, code: u64, message: &str) {
        let mut info = ExitInfo::new(kind, "fake", Generation::new(1)).with_message(message);
        info.code = code;
        self.ended.borrow_mut().get_or_insert(info);
    }
}

fn push(queue: &mut VecDeque<TaskId>, task: TaskId, at: Position) {
    match at {
        Position::Tail => queue.push_back(task),
        Position::Head => queue.push_front(task),
    }
}

fn refused(fake: &FakeHost, dsq: DsqId, why: &str) -> bool {
    fake.wrong(&format!("insert_vtime: DSQ {dsq} {why}"));
    false
}

impl HostApi for FakeHost {
    fn insert(&self, task: TaskId, dsq: DsqId, at: Position) -> bool {
        self.inserts.borrow_mut().push(Insert {
            task,
            dsq,
            at,
            vtime: None,
        });
        match dsq {
            DsqId::Local => push(&mut self.local.borrow_mut(), task, at),
            DsqId::Custom(number) => match self.custom.borrow_mut().get_mut(&number) {
                Some(Custom::Fifo(queue)) => push(queue, task, at),
                Some(Custom::Vtime(_)) => {
                    self.wrong(&format!("insert: DSQ {dsq} is ordered by vtime"));
                }
                None => self.wrong(&format!("insert: DSQ {dsq} does not exist")),
            },
            _ => {}
        }
        true
    }

    fn insert_vtime(&self, task: TaskId, dsq: DsqId, vtime: u64) -> bool {
        self.inserts.borrow_mut().push(Insert {
            task,
            dsq,
            at: Position::Tail,
            vtime: Some(vtime),
        });
        let mut custom = self.custom.borrow_mut();
        let queue = match dsq {
            DsqId::Custom(number) => custom.get_mut(&number),
            _ => return refused(self, dsq, "is a FIFO"),
        };
        match queue {
            Some(Custom::Vtime(queue)) => {
                let later = |(other, _): &(u64, TaskId)| other.wrapping_sub(vtime) as i64 > 0;
                let index = queue.iter().position(later).unwrap_or(queue.len());
                queue.insert(index, (vtime, task));
                true
            }
            Some(Custom::Fifo(_)) => refused(self, dsq, "is a FIFO"),
            None => refused(self, dsq, "does not exist"),
        }
    }

    fn move_to_local(&self, from: DsqId, at_most: usize) -> usize {
        let DsqId::Custom(number) = from else {
            return 0;
        };
        let mut custom = self.custom.borrow_mut();
        let Some(queue) = custom.get_mut(&number) else {
            self.wrong(&format!("move_to_local: DSQ {from} does not exist"));
            return 0;
        };
        let moved = at_most.min(queue.len());
        let tasks = (0..moved).filter_map(|_| queue.pop());
        self.local.borrow_mut().extend(tasks);
        moved
    }

    fn set_slice(&self, task: TaskId, slice: Slice) {
        self.slices.borrow_mut().insert(task, slice);
    }

    fn kick(&self, worker: WorkerId) {
        self.kicks.borrow_mut().push(worker);
    }

    fn kick_at(&self, worker: WorkerId, at: Duration) {
        let mut timers = self.timers.borrow_mut();
        let time = timers.entry(worker).or_insert(at);
        *time = at.min(*time);
    }

    fn worker_count(&self) -> usize {
        self.workers
    }

    fn worker(&self) -> Option<WorkerId> {
        Some(WorkerId::new(0))
    }

    fn is_idle(&self, worker: WorkerId) -> bool {
        self.idle.borrow().contains(&worker)
    }

    fn claim_idle(&self, worker: WorkerId) -> bool {
        let claimed = self.idle.borrow_mut().remove(&worker);
        if claimed {
            self.kick(worker);
        }
        claimed
    }

    fn claim_idle_worker(&self, task: &TaskView<'_>) -> Option<WorkerId> {
        let found = self
            .idle
            .borrow()
            .iter()
            .copied()
            .find(|worker| task.allows(*worker))?;
        self.claim_idle(found).then_some(found)
    }

    fn create_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.create(number, Custom::Fifo(VecDeque::new()))
    }

    fn create_vtime_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.create(number, Custom::Vtime(VecDeque::new()))
    }

    fn destroy_dsq(&self, dsq: DsqId) -> Result<(), DsqError> {
        let DsqId::Custom(number) = dsq else {
            return Err(DsqError::OutOfRange(dsq));
        };
        let mut custom = self.custom.borrow_mut();
        match custom.get(&number).map(Custom::len) {
            None => return Err(DsqError::Unknown(dsq)),
            Some(0) => custom.remove(&number),
            Some(waiting) => return Err(DsqError::NotEmpty(dsq, waiting)),
        };
        Ok(())
    }

    fn dsq_len(&self, dsq: DsqId) -> Option<usize> {
        match dsq {
            DsqId::Custom(number) => self.custom.borrow().get(&number).map(Custom::len),
            DsqId::Local => Some(self.local.borrow().len()),
            _ => Some(0),
        }
    }

    fn first_vtime(&self, dsq: DsqId) -> Option<u64> {
        let DsqId::Custom(number) = dsq else {
            return None;
        };
        match self.custom.borrow().get(&number)? {
            Custom::Vtime(queue) => queue.front().map(|(vtime, _)| *vtime),
            Custom::Fifo(_) => None,
        }
    }

    fn batch_hint(&self) -> usize {
        self.batch_hint.get()
    }

    fn now(&self) -> Duration {
        self.now.get()
    }

    fn error(&self, message: &str) {
        self.end(ExitKind::PolicyError, 0, message);
    }

    fn exit(&self, code: u64, message: &str) {
        self.end(ExitKind::PolicyExit, code, message);
    }
}
