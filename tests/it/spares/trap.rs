//! A policy that gets stuck when told to, with tasks in all the places where a task can be.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use polity::{
    Attributes, DequeueReason, DsqId, ExitInfo, Host, InitError, Policy, Position, Stopped, TaskId,
    TaskView, WorkerId,
};
use polity_policies::Callback;
use polity_tests::{now, wait_until};

use crate::workload::lock;

/// What the trap does with a task, by tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Runs at once.
    Plain,
    /// Stays in the policy's own hands.
    Held,
    /// Stays in a custom DSQ.
    Queued,
    /// Is held until the call of `dispatch` that gets stuck, or whose `dequeue` does: that call inserts some.
    Claimed,
    /// The same from a custom DSQ.
    Moved,
    /// A callback about it gets stuck.
    Bait,
}

impl Kind {
    pub(crate) const ALL: [Kind; 6] = [
        Kind::Plain,
        Kind::Held,
        Kind::Queued,
        Kind::Claimed,
        Kind::Moved,
        Kind::Bait,
    ];

    fn of(task: &TaskView<'_>) -> Kind {
        Kind::ALL[task.tag() as usize]
    }

    pub(crate) fn attributes(self) -> Attributes {
        Attributes::new().tag(self as u64)
    }
}

/// How a stuck call passes its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum How {
    Spinning,
    Blocked,
}

/// A call that got stuck.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caught {
    pub(crate) worker: WorkerId,
    pub(crate) at: Instant,
}

const QUEUED: DsqId = DsqId::Custom(1);
const MOVED: DsqId = DsqId::Custom(2);

struct Shared {
    callback: Callback,
    how: How,
    armed: AtomicBool,
    /// How many calls may still get stuck.
    jaws: AtomicUsize,
    caught: Mutex<Vec<Caught>>,
    inside: AtomicUsize,
    released: AtomicBool,
    asleep: Mutex<()>,
    opened: Condvar,
    held: Mutex<Vec<TaskId>>,
    to_claim: Mutex<Vec<TaskId>>,
    baits: Mutex<Vec<TaskId>>,
    enqueued: AtomicUsize,
    /// What `insert` answered to calls that were let go.
    late_inserts: Mutex<Vec<bool>>,
    /// The policy has ended: doors may not be entered any more.
    over: AtomicBool,
    late: Mutex<Vec<Callback>>,
    exits: AtomicUsize,
}

/// The policy. Its `Trigger` stays outside.
pub(crate) struct Trap(Arc<Shared>);

/// Arms a [`Trap`] and lets go of what it caught; also when it is dropped.
pub(crate) struct Trigger(Arc<Shared>);

impl Trap {
    /// As many calls of `callback` get stuck as there are `jaws`.
    pub(crate) fn new(callback: Callback, how: How, jaws: usize) -> (Trap, Trigger) {
        let shared = Arc::new(Shared {
            callback,
            how,
            armed: AtomicBool::new(false),
            jaws: AtomicUsize::new(jaws),
            caught: Mutex::default(),
            inside: AtomicUsize::new(0),
            released: AtomicBool::new(false),
            asleep: Mutex::default(),
            opened: Condvar::new(),
            held: Mutex::default(),
            to_claim: Mutex::default(),
            baits: Mutex::default(),
            enqueued: AtomicUsize::new(0),
            late_inserts: Mutex::default(),
            over: AtomicBool::new(false),
            late: Mutex::default(),
            exits: AtomicUsize::new(0),
        });
        (Trap(Arc::clone(&shared)), Trigger(shared))
    }
}

impl Trigger {
    pub(crate) fn arm(&self) {
        self.0.armed.store(true, Ordering::SeqCst);
    }

    pub(crate) fn caught(&self) -> Vec<Caught> {
        lock(&self.0.caught).clone()
    }

    /// Waits until so many calls are stuck. `false`: the policy was gone before, since the machine was too slow.
    #[track_caller]
    pub(crate) fn wait_caught(&self, calls: usize, ended: impl Fn() -> bool) -> bool {
        wait_until("the calls are stuck", || {
            self.caught().len() >= calls || ended()
        });
        self.caught().len() >= calls
    }

    /// Tasks that `enqueue` has seen.
    pub(crate) fn enqueued(&self) -> usize {
        self.0.enqueued.load(Ordering::SeqCst)
    }

    pub(crate) fn exits(&self) -> usize {
        self.0.exits.load(Ordering::SeqCst)
    }

    /// From now on every call is one too many.
    pub(crate) fn is_over(&self) {
        self.0.over.store(true, Ordering::SeqCst);
    }

    /// The calls that came too late.
    pub(crate) fn late(&self) -> Vec<Callback> {
        lock(&self.0.late).clone()
    }

    pub(crate) fn late_inserts(&self) -> Vec<bool> {
        lock(&self.0.late_inserts).clone()
    }

    /// Calls that are stuck now.
    pub(crate) fn stuck(&self) -> usize {
        self.0.inside.load(Ordering::SeqCst)
    }

    pub(crate) fn release(&self) {
        self.0.released.store(true, Ordering::SeqCst);
        let _asleep = lock(&self.0.asleep);
        self.0.opened.notify_all();
    }
}

impl Drop for Trigger {
    fn drop(&mut self) {
        self.release();
    }
}

impl Shared {
    fn entered(&self, callback: Callback) {
        if self.over.load(Ordering::SeqCst) {
            lock(&self.late).push(callback);
        }
    }

    /// At the bait, if there is a jaw left for this callback.
    fn snap(&self, host: &Host<'_>, callback: Callback) {
        if callback != self.callback || !self.armed.load(Ordering::SeqCst) {
            return;
        }
        let one_less = |jaws: usize| jaws.checked_sub(1);
        let left = self
            .jaws
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less);
        if left.is_err() {
            return;
        }
        self.inside.fetch_add(1, Ordering::SeqCst);
        lock(&self.caught).push(Caught {
            worker: host.worker().expect("a callback on a worker"),
            at: now(),
        });
        match self.how {
            How::Spinning => {
                while !self.released.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
            }
            How::Blocked => {
                let asleep = lock(&self.asleep);
                let stuck = |(): &mut ()| !self.released.load(Ordering::SeqCst);
                drop(self.opened.wait_while(asleep, stuck));
            }
        }
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }

    fn on_task(&self, host: &Host<'_>, callback: Callback, task: &TaskView<'_>) {
        self.entered(callback);
        if Kind::of(task) == Kind::Bait {
            self.snap(host, callback);
        }
    }

    fn claims(&self) -> bool {
        let ours = matches!(self.callback, Callback::Dispatch | Callback::Dequeue);
        ours && self.armed.load(Ordering::SeqCst) && self.jaws.load(Ordering::SeqCst) > 0
    }

    /// Some of everything, the bait in the middle.
    fn claim(&self, host: &Host<'_>) {
        let insert = |task: Option<TaskId>, dsq| {
            if let Some(task) = task {
                host.insert(task, dsq, Position::Tail);
            }
        };
        let claimed = || lock(&self.to_claim).pop();
        insert(claimed(), DsqId::Local);
        insert(claimed(), DsqId::Global);
        insert(claimed(), QUEUED);
        let bait = lock(&self.baits).pop();
        insert(bait, DsqId::Local);
        host.move_to_local(MOVED, 2);
        insert(claimed(), DsqId::Local);
    }
}

impl Policy for Trap {
    type Task = ();

    fn name(&self) -> &str {
        "trap"
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        host.create_dsq(1)?;
        host.create_dsq(2)?;
        Ok(())
    }

    fn exit(&self, _info: &ExitInfo) {
        self.0.exits.fetch_add(1, Ordering::SeqCst);
    }

    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<(), InitError> {
        self.0.on_task(host, Callback::InitTask, task);
        Ok(())
    }

    fn exit_task(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.on_task(host, Callback::ExitTask, task);
    }

    fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_>) -> WorkerId {
        self.0.on_task(host, Callback::SelectWorker, task);
        task.last_worker()
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        let id = task.id();
        let insert = |dsq| {
            host.insert(id, dsq, Position::Tail);
        };
        match Kind::of(task) {
            Kind::Plain => insert(DsqId::Global),
            Kind::Held => lock(&self.0.held).push(id),
            Kind::Queued => insert(QUEUED),
            Kind::Claimed => lock(&self.0.to_claim).push(id),
            Kind::Moved => insert(MOVED),
            Kind::Bait if self.0.callback == Callback::Dequeue => lock(&self.0.baits).push(id),
            Kind::Bait => insert(DsqId::Local),
        }
        self.0.enqueued.fetch_add(1, Ordering::SeqCst);
        self.0.on_task(host, Callback::Enqueue, task);
    }

    fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_>, _reason: DequeueReason) {
        self.0.on_task(host, Callback::Dequeue, task);
    }

    fn dispatch(&self, host: &Host<'_>, _worker: WorkerId, _prev: Option<&TaskView<'_>>) {
        self.0.entered(Callback::Dispatch);
        if !self.0.claims() {
            return;
        }
        self.0.claim(host);
        let before = self.0.caught_by(host);
        self.0.snap(host, Callback::Dispatch);
        if self.0.caught_by(host) > before {
            // Let go. It holds this task still, as far as it knows.
            if let Some(held) = lock(&self.0.held).pop() {
                let taken = host.insert(held, DsqId::Local, Position::Tail);
                lock(&self.0.late_inserts).push(taken);
            }
            let moved = host.move_to_local(QUEUED, 8);
            lock(&self.0.late_inserts).push(moved > 0);
        }
    }

    fn runnable(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.on_task(host, Callback::Runnable, task);
    }

    fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.on_task(host, Callback::Running, task);
    }

    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_>, _stopped: Stopped) {
        self.0.on_task(host, Callback::Stopping, task);
    }

    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.0.on_task(host, Callback::Quiescent, task);
    }
}

impl Shared {
    fn caught_by(&self, host: &Host<'_>) -> usize {
        let caught = lock(&self.caught);
        caught
            .iter()
            .filter(|caught| Some(caught.worker) == host.worker())
            .count()
    }
}
