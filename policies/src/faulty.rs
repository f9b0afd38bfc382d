//! **Never load this in production. It exists so that you can see the ejection work.**
//!
//! [`Priority`], until it goes wrong in the one way that it was told to. Load it beside a real workload, watch every
//! task complete, and read the exit info. Not a model for a policy, and not random: a fault comes at the call whose
//! number you gave (counted from 1, over all workers), so a test that uses it fails the same way twice.
//!
//! # Promised order
//!
//! That of [`Priority`] up to the fault, and again once it is released ([`Release`]). In between only what core promises
//! whatever a policy does: every task runs.
//!
//! # State and cost
//!
//! One shared counter per callback and one read-modify-write per call, which is far too much for a real policy. The ids
//! of starved tasks, in a list under a lock.
//!
//! # Source
//!
//! The switches `-e`, `-l` and `-t` of `scx_qmap`, and the failing selftests of sched_ext
//! (`select_cpu_dispatch_bad_dsq`, `select_cpu_dispatch_dbl_dsp`, `ddsp_bogus_dsq_fail`).

mod fault;
mod release;

pub use fault::{Callback, Fault};
pub use release::Release;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use polity_policy::{
    DequeueReason, DsqId, ExitInfo, Host, InitError, Policy, Position, Stopped, TaskId, TaskView,
    WorkerId,
};

use crate::Priority;
use release::{Gate, Waiting};

/// Of sched_ext's selftests: no DSQ has it, and none may.
const UNKNOWN_DSQ: DsqId = DsqId::Custom(0xcafe_f00d);
const DESTROYED_DSQ: u32 = DsqId::MAX_CUSTOM;
const NO_WORKER: WorkerId = WorkerId::new(u16::MAX);
const NO_TASK: TaskId = TaskId::from_parts(u32::MAX, 1);

/// Never load this in production: a [`Priority`] that goes wrong on purpose, so that you can see the ejection work.
///
/// ```
/// use polity_policies::{Fault, Faulty};
/// use polity_policy::{Policy, fake::FakeHost};
///
/// let (fake, policy) = (FakeHost::new(1), Faulty::new(Fault::ErrorAfterEnqueues(2)));
/// policy.init(&fake.host()).unwrap();
/// policy.enqueue(&fake.host(), &fake.task(1).view());
/// assert!(fake.ended().is_none());
/// policy.enqueue(&fake.host(), &fake.task(2).view());
/// assert_eq!(fake.ended().unwrap().message, "faulty: error in enqueue, call 2, as ordered");
/// ```
#[derive(Debug)]
pub struct Faulty {
    fault: Fault,
    calls: [AtomicU64; Callback::ALL.len()],
    gate: Arc<Gate>,
    /// The tasks that [`Fault::Starve`] keeps from running, in order of arrival.
    starved: Mutex<Vec<TaskId>>,
    stall_timeout: Option<Duration>,
    inner: Priority,
}

impl Faulty {
    /// A policy that will go wrong in this way. Its name is `faulty`.
    ///
    /// ```
    /// use polity_policies::{Fault, Faulty};
    /// use polity_policy::Policy;
    /// assert_eq!(Faulty::new(Fault::ForgetEveryNth(10)).name(), "faulty");
    /// ```
    pub fn new(fault: Fault) -> Self {
        Faulty {
            fault,
            calls: Default::default(),
            gate: Arc::default(),
            starved: Mutex::default(),
            stall_timeout: None,
            inner: Priority::new(),
        }
    }

    /// The same with a stall timeout of its own, for [`Policy::stall_timeout`].
    ///
    /// ```
    /// use polity_policies::{Fault, Faulty};
    /// use polity_policy::Policy;
    /// use std::time::Duration;
    ///
    /// let policy = Faulty::new(Fault::Starve { weight: 1_000 }).with_stall_timeout(Duration::from_millis(50));
    /// assert_eq!(policy.stall_timeout(), Some(Duration::from_millis(50)));
    /// ```
    #[must_use]
    pub fn with_stall_timeout(mut self, timeout: Duration) -> Self {
        self.stall_timeout = Some(timeout);
        self
    }

    /// What ends [`Fault::NeverReturn`], [`Fault::Block`] and [`Fault::Starve`]. The others pass by themselves.
    ///
    /// ```
    /// use polity_policies::{Fault, Faulty};
    /// use polity_policy::{Policy, WorkerId, fake::FakeHost};
    ///
    /// let (fake, policy) = (FakeHost::new(1), Faulty::new(Fault::Starve { weight: 1_000 }));
    /// let release = policy.release_handle();
    /// policy.init(&fake.host()).unwrap();
    /// policy.enqueue(&fake.host(), &fake.task(1).weight(1_000).view());
    /// policy.dispatch(&fake.host(), WorkerId::new(0), None);
    /// assert!(fake.inserts().is_empty());
    ///
    /// release.release();
    /// policy.dispatch(&fake.host(), WorkerId::new(0), None);
    /// assert_eq!(fake.inserts()[0].task.slot(), 1);
    /// ```
    pub fn release_handle(&self) -> Release {
        Release::of(&self.gate)
    }

    /// Counts a call; panics, or stays, if its time has come; else returns which call it is.
    fn count(&self, callback: Callback) -> u64 {
        // Ordering: Relaxed. The number of the call is all that is wanted, and a read-modify-write gives each once.
        let nth = self.calls[callback as usize].fetch_add(1, Relaxed) + 1;
        let has_come = |ordered, first| ordered == callback && (1..=nth).contains(&first);
        match self.fault {
            Fault::Panic { callback: c, call } if c == callback && call == nth => {
                panic!("faulty: panic in {callback}, call {nth}, as ordered");
            }
            Fault::NeverReturn { callback: c, call } if has_come(c, call) => {
                self.gate.pass(Waiting::Spinning);
            }
            Fault::Block { callback: c, call } if has_come(c, call) => {
                self.gate.pass(Waiting::Blocked)
            }
            _ => {}
        }
        nth
    }

    fn starves(&self, task: &TaskView<'_>) -> bool {
        match self.fault {
            Fault::Starve { weight } => task.weight() >= weight && !self.gate.is_open(),
            _ => false,
        }
    }

    fn starved(&self) -> MutexGuard<'_, Vec<TaskId>> {
        self.starved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Policy for Faulty {
    type Task = ();

    fn name(&self) -> &str {
        "faulty"
    }

    fn stall_timeout(&self) -> Option<Duration> {
        self.stall_timeout
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        self.count(Callback::Init);
        if self.fault == Fault::RefuseInit {
            return Err("faulty: init refuses, as ordered".into());
        }
        let destroyed = host.create_dsq(DESTROYED_DSQ)?;
        host.destroy_dsq(destroyed)?;
        self.inner.init(host)
    }

    fn exit(&self, info: &ExitInfo) {
        self.count(Callback::Exit);
        self.inner.exit(info);
    }

    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<(), InitError> {
        let nth = self.count(Callback::InitTask);
        if self.fault == Fault::RefuseTask(nth) {
            return Err(format!("faulty: task {nth} refused, as ordered").into());
        }
        self.inner.init_task(host, task)
    }

    fn exit_task(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.count(Callback::ExitTask);
        self.inner.exit_task(host, task);
    }

    fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_>) -> WorkerId {
        let nth = self.count(Callback::SelectWorker);
        match self.fault {
            Fault::SelectWorkerOutOfRange(n) if n == nth => NO_WORKER,
            _ => self.inner.select_worker(host, task),
        }
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        let nth = self.count(Callback::Enqueue);
        let insert = |task, dsq| {
            host.insert(task, dsq, Position::Tail);
        };
        match self.fault {
            _ if self.starves(task) => self.starved().push(task.id()),
            Fault::ErrorAfterEnqueues(n) if n == nth => {
                host.error(&format!("faulty: error in enqueue, call {nth}, as ordered"));
            }
            Fault::ForgetEveryNth(n) if nth.is_multiple_of(n) => {}
            Fault::InsertUnknownDsq(n) if n == nth => insert(task.id(), UNKNOWN_DSQ),
            Fault::InsertDestroyedDsq(n) if n == nth => {
                insert(task.id(), DsqId::Custom(DESTROYED_DSQ));
            }
            Fault::InsertTwice(n) if n == nth => {
                self.inner.enqueue(host, task);
                insert(task.id(), DsqId::Global);
            }
            Fault::InsertOtherTask(n) if n == nth => insert(NO_TASK, DsqId::Global),
            Fault::InsertWorkerOutOfRange(n) if n == nth => {
                insert(task.id(), DsqId::LocalOn(NO_WORKER));
            }
            _ => self.inner.enqueue(host, task),
        }
    }

    fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_>, reason: DequeueReason) {
        self.count(Callback::Dequeue);
        self.starved().retain(|starved| *starved != task.id());
        self.inner.dequeue(host, task, reason);
    }

    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&TaskView<'_>>) {
        let nth = self.count(Callback::Dispatch);
        match self.fault {
            Fault::Starve { .. } if self.gate.is_open() => {
                // Taken out first: the lock is not held while core is called.
                for task in std::mem::take(&mut *self.starved()) {
                    host.insert(task, DsqId::Global, Position::Tail);
                }
                self.inner.dispatch(host, worker, prev);
            }
            Fault::DispatchEndlesslyAfter(n) if nth > n => {
                host.insert(NO_TASK, DsqId::Local, Position::Tail);
            }
            _ => self.inner.dispatch(host, worker, prev),
        }
    }

    fn runnable(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.count(Callback::Runnable);
        self.inner.runnable(host, task);
    }

    fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.count(Callback::Running);
        self.inner.running(host, task);
    }

    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_>, stopped: Stopped) {
        self.count(Callback::Stopping);
        self.inner.stopping(host, task, stopped);
    }

    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.count(Callback::Quiescent);
        self.inner.quiescent(host, task);
    }
}

#[cfg(test)]
mod tests;
