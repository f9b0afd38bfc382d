//! A policy without its type.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::{
    Accounting, DequeueReason, ExitInfo, Host, InitError, Policy, Slice, Stopped, TaskView, Wakes,
    WorkerId,
};

/// A policy whose type was chosen at run time, for instance by name.
///
/// Not for a policy whose type is known: each callback costs one virtual call more, and what the policy keeps for a task
/// ([`Policy::Task`]) lies in an allocation of its own, one per task, unless it is `()`.
///
/// ```
/// use polity_policy::{BoxPolicy, Policy};
/// struct Empty;
/// impl Policy for Empty {
///     type Task = ();
///     fn name(&self) -> &str {
///         "empty"
///     }
/// }
/// let chosen: BoxPolicy = BoxPolicy::new(Empty);
/// assert_eq!(chosen.name(), "empty");
/// ```
pub struct BoxPolicy(Arc<dyn Erased>);

impl BoxPolicy {
    /// Forgets the type of `policy`. One that has none any more is left as it is.
    ///
    /// ```
    /// # struct Empty;
    /// # impl polity_policy::Policy for Empty { type Task = (); fn name(&self) -> &str { "empty" } }
    /// let list = [polity_policy::BoxPolicy::new(Empty)];
    /// assert_eq!(list.len(), 1);
    /// ```
    pub fn new<P: Policy>(policy: P) -> Self {
        // A box in a box would pay for both.
        let mut policy = Some(policy);
        let boxed = (&mut policy as &mut dyn Any).downcast_mut::<Option<BoxPolicy>>();
        if let Some(boxed) = boxed.and_then(Option::take) {
            return boxed;
        }
        let policy = policy.expect("taken only if it is a box");
        BoxPolicy(Arc::new(policy))
    }

    /// Whether the policy inside keeps something for each task. Machines ask, to spare themselves a table if not.
    ///
    /// ```
    /// # struct Empty;
    /// # impl polity_policy::Policy for Empty { type Task = (); fn name(&self) -> &str { "empty" } }
    /// assert!(!polity_policy::BoxPolicy::new(Empty).keeps_task_data());
    /// ```
    pub fn keeps_task_data(&self) -> bool {
        self.0.keeps_task_data()
    }

    /// The policy inside, shared, to be downcast to its type. Machines use it for typed handles.
    ///
    /// ```
    /// # struct Empty;
    /// # impl polity_policy::Policy for Empty { type Task = (); fn name(&self) -> &str { "empty" } }
    /// assert!(polity_policy::BoxPolicy::new(Empty).inner().downcast::<Empty>().is_ok());
    /// ```
    pub fn inner(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.0).into_any()
    }
}

impl fmt::Debug for BoxPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxPolicy").finish_non_exhaustive()
    }
}

/// What a [`BoxPolicy`] keeps for a task: the value of the policy inside, its type forgotten.
///
/// In a unit test of a boxed policy, take it from [`Policy::init_task`], or use the default, which shows the policy its own.
///
/// ```
/// use polity_policy::{BoxPolicy, BoxTask, Policy, fake::FakeHost};
/// # struct Empty;
/// # impl polity_policy::Policy for Empty { type Task = (); fn name(&self) -> &str { "empty" } }
/// let (fake, data) = (FakeHost::new(1), BoxTask::default());
/// BoxPolicy::new(Empty).enqueue(&fake.host(), &fake.task(1).view_with(&data));
/// assert_eq!(fake.inserts().len(), 1);
/// ```
#[derive(Default)]
pub struct BoxTask(Option<Box<dyn Any + Send + Sync>>);

impl fmt::Debug for BoxTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxTask").finish_non_exhaustive()
    }
}

/// The callbacks, object-safe.
trait Erased: Send + Sync {
    fn keeps_task_data(&self) -> bool;
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    fn name(&self) -> &str;
    fn stall_timeout(&self) -> Option<Duration>;
    fn slice(&self) -> Slice;
    fn accounting(&self) -> Accounting;
    fn wakes(&self) -> Wakes;
    fn timer(&self, host: &Host<'_>, worker: WorkerId);
    fn set_weight(&self, host: &Host<'_>, task: &TaskView<'_>);
    fn set_affinity(&self, host: &Host<'_>, task: &TaskView<'_>);
    fn init(&self, host: &Host<'_>) -> Result<(), InitError>;
    fn exit(&self, info: &ExitInfo);
    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<BoxTask, InitError>;
    fn exit_task(&self, host: &Host<'_>, task: &Boxed<'_>);
    fn select_worker(&self, host: &Host<'_>, task: &Boxed<'_>) -> WorkerId;
    fn enqueue(&self, host: &Host<'_>, task: &Boxed<'_>);
    fn dequeue(&self, host: &Host<'_>, task: &Boxed<'_>, reason: DequeueReason);
    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&Boxed<'_>>);
    fn runnable(&self, host: &Host<'_>, task: &Boxed<'_>);
    fn running(&self, host: &Host<'_>, task: &Boxed<'_>);
    fn stopping(&self, host: &Host<'_>, task: &Boxed<'_>, stopped: Stopped);
    fn quiescent(&self, host: &Host<'_>, task: &Boxed<'_>);
}

type Boxed<'a> = TaskView<'a, BoxTask>;

/// Whether values of this type are worth a place: nobody could tell two of them apart otherwise, nor when they go.
const fn is_something<T>() -> bool {
    size_of::<T>() > 0 || std::mem::needs_drop::<T>()
}

/// Shows the task with the data of the policy inside. A view that has none comes from a test, or from a machine that asked
/// [`BoxPolicy::keeps_task_data`]: it gets a default.
fn open<T: Default + 'static, R>(task: &Boxed<'_>, show: impl FnOnce(&TaskView<'_, T>) -> R) -> R {
    let value = match &task.data().0 {
        Some(value) if is_something::<T>() => value.downcast_ref::<T>(),
        _ => None,
    };
    match value {
        Some(value) => show(&task.with_data(value)),
        None => show(&task.with_data(&T::default())),
    }
}

impl<P: Policy> Erased for P {
    fn keeps_task_data(&self) -> bool {
        is_something::<P::Task>()
    }
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
    fn name(&self) -> &str {
        Policy::name(self)
    }
    fn stall_timeout(&self) -> Option<Duration> {
        Policy::stall_timeout(self)
    }
    fn slice(&self) -> Slice {
        Policy::slice(self)
    }
    fn accounting(&self) -> Accounting {
        Policy::accounting(self)
    }
    fn wakes(&self) -> Wakes {
        Policy::wakes(self)
    }
    fn timer(&self, host: &Host<'_>, worker: WorkerId) {
        Policy::timer(self, host, worker);
    }
    fn set_weight(&self, host: &Host<'_>, task: &TaskView<'_>) {
        Policy::set_weight(self, host, task);
    }
    fn set_affinity(&self, host: &Host<'_>, task: &TaskView<'_>) {
        Policy::set_affinity(self, host, task);
    }
    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        Policy::init(self, host)
    }
    fn exit(&self, info: &ExitInfo) {
        Policy::exit(self, info);
    }
    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<BoxTask, InitError> {
        let value = Policy::init_task(self, host, task)?;
        Ok(BoxTask(
            is_something::<P::Task>().then(|| Box::new(value) as _),
        ))
    }
    fn exit_task(&self, host: &Host<'_>, task: &Boxed<'_>) {
        open(task, |task| Policy::exit_task(self, host, task));
    }
    fn select_worker(&self, host: &Host<'_>, task: &Boxed<'_>) -> WorkerId {
        open(task, |task| Policy::select_worker(self, host, task))
    }
    fn enqueue(&self, host: &Host<'_>, task: &Boxed<'_>) {
        open(task, |task| Policy::enqueue(self, host, task));
    }
    fn dequeue(&self, host: &Host<'_>, task: &Boxed<'_>, reason: DequeueReason) {
        open(task, |task| Policy::dequeue(self, host, task, reason));
    }
    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&Boxed<'_>>) {
        match prev {
            Some(prev) => open(prev, |prev| {
                Policy::dispatch(self, host, worker, Some(prev))
            }),
            None => Policy::dispatch(self, host, worker, None),
        }
    }
    fn runnable(&self, host: &Host<'_>, task: &Boxed<'_>) {
        open(task, |task| Policy::runnable(self, host, task));
    }
    fn running(&self, host: &Host<'_>, task: &Boxed<'_>) {
        open(task, |task| Policy::running(self, host, task));
    }
    fn stopping(&self, host: &Host<'_>, task: &Boxed<'_>, stopped: Stopped) {
        open(task, |task| Policy::stopping(self, host, task, stopped));
    }
    fn quiescent(&self, host: &Host<'_>, task: &Boxed<'_>) {
        open(task, |task| Policy::quiescent(self, host, task));
    }
}

impl Policy for BoxPolicy {
    type Task = BoxTask;

    fn name(&self) -> &str {
        self.0.name()
    }
    fn stall_timeout(&self) -> Option<Duration> {
        self.0.stall_timeout()
    }
    fn slice(&self) -> Slice {
        self.0.slice()
    }
    fn accounting(&self) -> Accounting {
        self.0.accounting()
    }
    fn wakes(&self) -> Wakes {
        self.0.wakes()
    }
    fn timer(&self, host: &Host<'_>, worker: WorkerId) {
        self.0.timer(host, worker);
    }
    fn set_weight(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.set_weight(host, task);
    }
    fn set_affinity(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.set_affinity(host, task);
    }
    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        self.0.init(host)
    }
    fn exit(&self, info: &ExitInfo) {
        self.0.exit(info);
    }
    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<BoxTask, InitError> {
        self.0.init_task(host, task)
    }
    fn exit_task(&self, host: &Host<'_>, task: &Boxed<'_>) {
        self.0.exit_task(host, task);
    }
    fn select_worker(&self, host: &Host<'_>, task: &Boxed<'_>) -> WorkerId {
        self.0.select_worker(host, task)
    }
    fn enqueue(&self, host: &Host<'_>, task: &Boxed<'_>) {
        self.0.enqueue(host, task);
    }
    fn dequeue(&self, host: &Host<'_>, task: &Boxed<'_>, reason: DequeueReason) {
        self.0.dequeue(host, task, reason);
    }
    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&Boxed<'_>>) {
        self.0.dispatch(host, worker, prev);
    }
    fn runnable(&self, host: &Host<'_>, task: &Boxed<'_>) {
        self.0.runnable(host, task);
    }
    fn running(&self, host: &Host<'_>, task: &Boxed<'_>) {
        self.0.running(host, task);
    }
    fn stopping(&self, host: &Host<'_>, task: &Boxed<'_>, stopped: Stopped) {
        self.0.stopping(host, task, stopped);
    }
    fn quiescent(&self, host: &Host<'_>, task: &Boxed<'_>) {
        self.0.quiescent(host, task);
    }
}
