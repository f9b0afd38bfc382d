//! What the tests of policies share: policies made of closures, one that checks every call it gets, and loads.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use polity::{
    Accounting, Attributes, DequeueReason, DsqError, DsqId, EnqueueReason, ExitInfo, Generation,
    Handle, Host, HostApi, InitError, JoinHandle, Policy, Position, Runtime, Slice, Stopped,
    TaskId, TaskView, Wakes, WorkerId, yield_now,
};
use polity_tests::{DEADLINE, receive, wait_for, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// For what tests lock; a panic elsewhere must not hide behind a second one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps panics that a test has ordered off stderr. Their text must say so: "as ordered".
pub(crate) fn expect_ordered_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.to_string().contains("as ordered") {
                default(info);
            }
        }));
    });
}

/// Waits for the exit info of a policy.
#[track_caller]
pub(crate) fn exit_of(runtime: &Handle, generation: Generation) -> Arc<ExitInfo> {
    match runtime.wait_exit(generation, DEADLINE) {
        Some(info) => info,
        None => panic!("generation {generation} did not end within {DEADLINE:?}"),
    }
}

/// splitmix64: the same numbers for the same seed.
pub(crate) struct Random(u64);

impl Random {
    /// From `POLITY_SEED`, or a new one; printed either way, and shown when the test fails.
    pub(crate) fn from_env(test: &str) -> Random {
        let seed = match std::env::var("POLITY_SEED") {
            Ok(seed) => seed.parse().expect("POLITY_SEED is a number"),
            Err(_) => RandomState::new().hash_one(0),
        };
        println!("{test}: POLITY_SEED={seed}");
        Random(seed)
    }

    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

type OnTask = Box<dyn Fn(&Host<'_>, &TaskView<'_>) + Send + Sync>;
type OnSelect = Box<dyn Fn(&Host<'_>, &TaskView<'_>) -> WorkerId + Send + Sync>;
type OnDequeue = Box<dyn Fn(&Host<'_>, &TaskView<'_>, DequeueReason) + Send + Sync>;
type OnDispatch = Box<dyn Fn(&Host<'_>, WorkerId, Option<&TaskView<'_>>) + Send + Sync>;
type OnStopping = Box<dyn Fn(&Host<'_>, &TaskView<'_>, Stopped) + Send + Sync>;
type OnInit = Box<dyn Fn(&Host<'_>) -> Result<(), InitError> + Send + Sync>;
type OnInitTask = Box<dyn Fn(&Host<'_>, &TaskView<'_>) -> Result<(), InitError> + Send + Sync>;
type OnExit = Box<dyn Fn(&ExitInfo) + Send + Sync>;
type OnDrop = Box<dyn Fn() + Send + Sync>;

/// A policy made of closures. What is not given is the contract's default.
pub(crate) struct Script {
    name: String,
    init: Option<OnInit>,
    exit: Option<OnExit>,
    init_task: Option<OnInitTask>,
    exit_task: Option<OnTask>,
    select_worker: Option<OnSelect>,
    enqueue: Option<OnTask>,
    dequeue: Option<OnDequeue>,
    dispatch: Option<OnDispatch>,
    runnable: Option<OnTask>,
    running: Option<OnTask>,
    stopping: Option<OnStopping>,
    quiescent: Option<OnTask>,
    set_weight: Option<OnTask>,
    set_affinity: Option<OnTask>,
    dropped: Option<OnDrop>,
}

macro_rules! setters {
    ($($name:ident: ($($argument:ty),*) $(-> $answer:ty)?;)*) => {
        $(pub(crate) fn $name(
            mut self,
            body: impl Fn($($argument),*) $(-> $answer)? + Send + Sync + 'static,
        ) -> Self {
            self.$name = Some(Box::new(body));
            self
        })*
    };
}

impl Script {
    pub(crate) fn new(name: impl Into<String>) -> Script {
        Script {
            name: name.into(),
            init: None,
            exit: None,
            init_task: None,
            exit_task: None,
            select_worker: None,
            enqueue: None,
            dequeue: None,
            dispatch: None,
            runnable: None,
            running: None,
            stopping: None,
            quiescent: None,
            set_weight: None,
            set_affinity: None,
            dropped: None,
        }
    }

    setters! {
        init: (&Host<'_>) -> Result<(), InitError>;
        exit: (&ExitInfo);
        init_task: (&Host<'_>, &TaskView<'_>) -> Result<(), InitError>;
        exit_task: (&Host<'_>, &TaskView<'_>);
        select_worker: (&Host<'_>, &TaskView<'_>) -> WorkerId;
        enqueue: (&Host<'_>, &TaskView<'_>);
        dequeue: (&Host<'_>, &TaskView<'_>, DequeueReason);
        dispatch: (&Host<'_>, WorkerId, Option<&TaskView<'_>>);
        runnable: (&Host<'_>, &TaskView<'_>);
        running: (&Host<'_>, &TaskView<'_>);
        stopping: (&Host<'_>, &TaskView<'_>, Stopped);
        quiescent: (&Host<'_>, &TaskView<'_>);
        set_weight: (&Host<'_>, &TaskView<'_>);
        set_affinity: (&Host<'_>, &TaskView<'_>);
        dropped: ();
    }
}

/// What the contract does by itself.
struct Defaults;

impl Policy for Defaults {
    type Task = ();

    fn name(&self) -> &str {
        "defaults"
    }
}

impl Policy for Script {
    type Task = ();

    fn name(&self) -> &str {
        &self.name
    }
    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        self.init.as_ref().map_or(Ok(()), |init| init(host))
    }
    fn exit(&self, info: &ExitInfo) {
        if let Some(exit) = &self.exit {
            exit(info);
        }
    }
    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<(), InitError> {
        self.init_task
            .as_ref()
            .map_or(Ok(()), |init| init(host, task))
    }
    fn exit_task(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(exit) = &self.exit_task {
            exit(host, task);
        }
    }
    fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_>) -> WorkerId {
        match &self.select_worker {
            Some(select) => select(host, task),
            None => Defaults.select_worker(host, task),
        }
    }
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        match &self.enqueue {
            Some(enqueue) => enqueue(host, task),
            None => Defaults.enqueue(host, task),
        }
    }
    fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_>, reason: DequeueReason) {
        if let Some(dequeue) = &self.dequeue {
            dequeue(host, task, reason);
        }
    }
    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&TaskView<'_>>) {
        if let Some(dispatch) = &self.dispatch {
            dispatch(host, worker, prev);
        }
    }
    fn runnable(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(runnable) = &self.runnable {
            runnable(host, task);
        }
    }
    fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(running) = &self.running {
            running(host, task);
        }
    }
    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_>, stopped: Stopped) {
        if let Some(stopping) = &self.stopping {
            stopping(host, task, stopped);
        }
    }
    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(quiescent) = &self.quiescent {
            quiescent(host, task);
        }
    }
    fn set_weight(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(set_weight) = &self.set_weight {
            set_weight(host, task);
        }
    }
    fn set_affinity(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if let Some(set_affinity) = &self.set_affinity {
            set_affinity(host, task);
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let Some(dropped) = &self.dropped {
            dropped();
        }
    }
}

/// How a [`Keeper`] gives tasks back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum GiveBack {
    /// From its own hands to the worker that asks.
    Local,
    /// From its own hands to the local DSQ of another worker.
    Elsewhere,
    /// From its own hands to the global DSQ.
    Global,
    /// Through a custom DSQ: into it in `enqueue`, out of it in `dispatch`.
    Custom,
    /// From its own hands into a custom DSQ, both in `dispatch`.
    HandsThenCustom,
}

impl GiveBack {
    pub(crate) const ALL: [GiveBack; 5] = [
        GiveBack::Local,
        GiveBack::Elsewhere,
        GiveBack::Global,
        GiveBack::Custom,
        GiveBack::HandsThenCustom,
    ];
}

/// Has every task in its custody, first come, first served.
pub(crate) struct Keeper {
    how: GiveBack,
    kept: Mutex<Vec<TaskId>>,
}

impl Keeper {
    pub(crate) fn new(how: GiveBack) -> Keeper {
        Keeper {
            how,
            kept: Mutex::default(),
        }
    }
}

const KEEPERS_DSQ: DsqId = DsqId::Custom(7);

impl Policy for Keeper {
    type Task = ();

    fn name(&self) -> &str {
        "keeper"
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        host.create_dsq(7)?;
        Ok(())
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if self.how == GiveBack::Custom {
            host.insert(task.id(), KEEPERS_DSQ, Position::Tail);
        } else {
            lock(&self.kept).push(task.id());
        }
    }

    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, _prev: Option<&TaskView<'_>>) {
        let next = |index| WorkerId::new(((index + 1) % host.worker_count()) as u16);
        let dsq = match self.how {
            GiveBack::Local => DsqId::Local,
            GiveBack::Elsewhere => DsqId::LocalOn(next(worker.index())),
            GiveBack::Global => DsqId::Global,
            GiveBack::Custom | GiveBack::HandsThenCustom => KEEPERS_DSQ,
        };
        let mut kept = lock(&self.kept);
        let some = kept.len().min(4);
        let given: Vec<TaskId> = kept.drain(..some).collect();
        drop(kept);
        for task in given {
            host.insert(task, dsq, Position::Tail);
        }
        if dsq == KEEPERS_DSQ {
            host.move_to_local(dsq, 2);
        }
    }
}

/// What the policy of a [`Recorder`] knows of a task, by the calls so far.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    met: bool,
    parted: bool,
    runnable: bool,
    running: bool,
    /// `stopping` said that it waits or is done: `quiescent` is due.
    stopped: bool,
    finished: bool,
    custody: bool,
    polled: bool,
}

/// How often each callback came, and what was wrong with the calls.
#[derive(Default)]
pub(crate) struct Record {
    tasks: Vec<Mutex<HashMap<TaskId, Known>>>,
    inside: Vec<AtomicBool>,
    violations: Mutex<Vec<String>>,
    exits: AtomicUsize,
    exit_thread: Mutex<String>,
    pub(crate) enqueues: AtomicUsize,
    pub(crate) kept: AtomicUsize,
    pub(crate) dequeues: AtomicUsize,
    pub(crate) cancelled: AtomicUsize,
    pub(crate) runs: AtomicUsize,
    pub(crate) quiescents: AtomicUsize,
    pub(crate) finished: AtomicUsize,
    pub(crate) met: AtomicUsize,
    pub(crate) parted: AtomicUsize,
    kept_values: AtomicUsize,
    dropped_values: AtomicUsize,
}

/// What a [`Recorder`] keeps for a task: whose it is, by the record of which load, and what its policy keeps.
#[derive(Default)]
pub(crate) struct Kept<T> {
    of: Option<(TaskId, Arc<Record>)>,
    inner: T,
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if let Some((_, record)) = &self.of {
            record.dropped_values.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Record {
    /// Every value that was kept for a task has been dropped, once: the task has ended, or the generation.
    #[track_caller]
    pub(crate) fn check_nothing_is_kept(&self) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        wait_until("what was kept is dropped", || {
            count(&self.dropped_values) >= count(&self.kept_values)
        });
        assert_eq!(count(&self.dropped_values), count(&self.kept_values));
    }

    fn violation(&self, text: impl fmt::Display) {
        let mut violations = lock(&self.violations);
        if violations.len() < 20 {
            violations.push(text.to_string());
        }
    }

    /// Panics if a call came that should not have come.
    #[track_caller]
    pub(crate) fn check(&self) {
        let violations = lock(&self.violations);
        assert!(violations.is_empty(), "{violations:#?}");
    }

    pub(crate) fn exits(&self) -> usize {
        self.exits.load(Ordering::SeqCst)
    }

    pub(crate) fn exit_thread(&self) -> String {
        lock(&self.exit_thread).clone()
    }

    /// Tasks that the policy has been told are runnable, and not yet otherwise.
    pub(crate) fn known_runnable(&self) -> usize {
        let runnable = |tasks: &Mutex<HashMap<TaskId, Known>>| {
            lock(tasks).values().filter(|task| task.runnable).count()
        };
        self.tasks.iter().map(runnable).sum()
    }

    fn with(&self, task: TaskId, callback: &str, body: impl FnOnce(&mut Known) -> bool) {
        let mut tasks = lock(&self.tasks[task.slot() as usize % self.tasks.len()]);
        let known = tasks.entry(task).or_default();
        let before = *known;
        let ended = self.exits() > 0;
        if !body(known) || !known.met || before.parted || ended {
            let ended = if ended { ", after exit" } else { "" };
            self.violation(format_args!("{callback} of {task}{ended}: {before:?}"));
        }
    }

    /// Calls for one worker must not overlap.
    fn enter(&self, host: &Host<'_>) -> Inside<'_> {
        let Some(worker) = host.worker() else {
            self.violation("a callback without a worker");
            return Inside(None);
        };
        let inside = &self.inside[worker.index()];
        if inside.swap(true, Ordering::SeqCst) {
            self.violation(format_args!("calls for worker {worker} overlap"));
        }
        Inside(Some(inside))
    }
}

struct Inside<'a>(Option<&'a AtomicBool>);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some(inside) = self.0 {
            inside.store(false, Ordering::SeqCst);
        }
    }
}

/// Passes every call on to another policy, and checks that calls come in the order that the contract promises.
pub(crate) struct Recorder<P> {
    inner: P,
    record: Arc<Record>,
}

impl<P: Policy> Recorder<P> {
    pub(crate) fn new(inner: P, workers: usize) -> (Recorder<P>, Arc<Record>) {
        let record = Arc::new(Record {
            tasks: (0..64).map(|_| Mutex::default()).collect(),
            inside: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            ..Record::default()
        });
        let recorder = Recorder {
            inner,
            record: Arc::clone(&record),
        };
        (recorder, record)
    }
}

/// Notes the verdict on the task at hand.
struct Spy<'a> {
    host: Host<'a>,
    verdict: Cell<Option<DsqId>>,
}

impl HostApi for Spy<'_> {
    fn insert(&self, task: TaskId, dsq: DsqId, at: Position) -> bool {
        let done = self.host.insert(task, dsq, at);
        if done {
            self.verdict.set(Some(dsq));
        }
        done
    }
    fn insert_vtime(&self, task: TaskId, dsq: DsqId, vtime: u64) -> bool {
        let done = self.host.insert_vtime(task, dsq, vtime);
        if done {
            self.verdict.set(Some(dsq));
        }
        done
    }
    fn move_to_local(&self, from: DsqId, at_most: usize) -> usize {
        self.host.move_to_local(from, at_most)
    }
    fn kick(&self, worker: WorkerId) {
        self.host.kick(worker);
    }
    fn set_slice(&self, task: TaskId, slice: Slice) {
        self.host.set_slice(task, slice);
    }
    fn kick_at(&self, worker: WorkerId, at: Duration) {
        self.host.kick_at(worker, at);
    }
    fn worker_count(&self) -> usize {
        self.host.worker_count()
    }
    fn worker(&self) -> Option<WorkerId> {
        self.host.worker()
    }
    fn is_idle(&self, worker: WorkerId) -> bool {
        self.host.is_idle(worker)
    }
    fn claim_idle(&self, worker: WorkerId) -> bool {
        self.host.claim_idle(worker)
    }
    fn claim_idle_worker(&self, task: &TaskView<'_>) -> Option<WorkerId> {
        self.host.claim_idle_worker(task)
    }
    fn create_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.host.create_dsq(number)
    }
    fn create_vtime_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.host.create_vtime_dsq(number)
    }
    fn destroy_dsq(&self, dsq: DsqId) -> Result<(), DsqError> {
        self.host.destroy_dsq(dsq)
    }
    fn dsq_len(&self, dsq: DsqId) -> Option<usize> {
        self.host.dsq_len(dsq)
    }
    fn first_vtime(&self, dsq: DsqId) -> Option<u64> {
        self.host.first_vtime(dsq)
    }
    fn now(&self) -> Duration {
        self.host.now()
    }
    fn error(&self, message: &str) {
        self.host.error(message);
    }
    fn exit(&self, code: u64, message: &str) {
        self.host.exit(code, message);
    }
}

impl<P: Policy> Recorder<P> {
    /// What the policy inside is shown. It must be this load's, and of this task.
    fn inside<'a>(&self, task: &TaskView<'a, Kept<P::Task>>) -> TaskView<'a, P::Task> {
        let kept = task.data();
        match &kept.of {
            Some((id, record)) if *id == task.id() && Arc::ptr_eq(record, &self.record) => {}
            Some((id, _)) => self.record.violation(format_args!(
                "{} was shown what is kept for {id}",
                task.id()
            )),
            None => self
                .record
                .violation(format_args!("{} was shown a default", task.id())),
        }
        task.with_data(&kept.inner)
    }

    /// The verdict has been given: the task is in custody, unless it went to a local or the global DSQ.
    fn judged(&self, task: TaskId, verdict: Option<DsqId>) {
        if matches!(verdict, None | Some(DsqId::Custom(_))) {
            self.record.kept.fetch_add(1, Ordering::Relaxed);
            self.record.with(task, "keeping", |known| {
                !std::mem::replace(&mut known.custody, true)
            });
        }
    }
}

impl<P: Policy> Policy for Recorder<P> {
    type Task = Kept<P::Task>;

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn stall_timeout(&self) -> Option<Duration> {
        self.inner.stall_timeout()
    }

    fn slice(&self) -> Slice {
        self.inner.slice()
    }

    fn accounting(&self) -> Accounting {
        self.inner.accounting()
    }

    fn wakes(&self) -> Wakes {
        self.inner.wakes()
    }

    fn timer(&self, host: &Host<'_>, worker: WorkerId) {
        self.inner.timer(host, worker);
    }

    fn set_weight(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.inner.set_weight(host, task);
    }

    fn set_affinity(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.inner.set_affinity(host, task);
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        self.inner.init(host)
    }

    fn exit(&self, info: &ExitInfo) {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        *lock(&self.record.exit_thread) = name;
        if self.record.exits.fetch_add(1, Ordering::SeqCst) > 0 {
            self.record.violation("exit twice");
        }
        self.inner.exit(info);
    }

    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<Self::Task, InitError> {
        let _inside = self.record.enter(host);
        self.record.met.fetch_add(1, Ordering::SeqCst);
        self.record.with(task.id(), "init_task", |known| {
            !std::mem::replace(&mut known.met, true)
        });
        let inner = self.inner.init_task(host, task)?;
        self.record.kept_values.fetch_add(1, Ordering::SeqCst);
        let of = Some((task.id(), Arc::clone(&self.record)));
        Ok(Kept { of, inner })
    }

    fn exit_task(&self, host: &Host<'_>, task: &TaskView<'_, Self::Task>) {
        let _inside = self.record.enter(host);
        self.record.parted.fetch_add(1, Ordering::SeqCst);
        self.record.with(task.id(), "exit_task", |known| {
            known.parted = true;
            !known.runnable && !known.running && !known.custody
        });
        self.inner.exit_task(host, &self.inside(task));
    }

    fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>) -> WorkerId {
        let _inside = self.record.enter(host);
        let fresh = matches!(task.reason(), EnqueueReason::Spawn | EnqueueReason::Wake);
        self.record.with(task.id(), "select_worker", |known| {
            fresh && known.runnable && !known.running && !known.custody
        });
        let spy = Spy {
            host: *host,
            verdict: Cell::new(None),
        };
        let worker = self
            .inner
            .select_worker(&Host::new(&spy), &self.inside(task));
        if let Some(verdict) = spy.verdict.get() {
            self.judged(task.id(), Some(verdict));
        }
        worker
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>) {
        let _inside = self.record.enter(host);
        self.record.enqueues.fetch_add(1, Ordering::Relaxed);
        self.record.with(task.id(), "enqueue", |known| {
            known.runnable && !known.running && !known.custody
        });
        let spy = Spy {
            host: *host,
            verdict: Cell::new(None),
        };
        self.inner.enqueue(&Host::new(&spy), &self.inside(task));
        self.judged(task.id(), spy.verdict.get());
    }

    fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>, reason: DequeueReason) {
        let _inside = self.record.enter(host);
        self.record.dequeues.fetch_add(1, Ordering::Relaxed);
        if reason == DequeueReason::Cancelled {
            self.record.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        self.record.with(task.id(), "dequeue", |known| {
            std::mem::replace(&mut known.custody, false) && known.runnable && !known.running
        });
        self.inner.dequeue(host, &self.inside(task), reason);
    }

    fn dispatch(
        &self,
        host: &Host<'_>,
        worker: WorkerId,
        prev: Option<&TaskView<'_, Kept<P::Task>>>,
    ) {
        let _inside = self.record.enter(host);
        if host.worker() != Some(worker) {
            self.record.violation("dispatch for another worker");
        }
        if let Some(prev) = prev {
            self.record.with(prev.id(), "dispatch with prev", |known| {
                known.runnable && !known.running && !known.custody
            });
        }
        let prev = prev.map(|prev| self.inside(prev));
        self.inner.dispatch(host, worker, prev.as_ref());
    }

    fn runnable(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>) {
        let _inside = self.record.enter(host);
        self.record.with(task.id(), "runnable", |known| {
            let due = !known.runnable && !known.finished && !known.stopped && !known.custody;
            known.runnable = true;
            known.polled = false;
            due
        });
        self.inner.runnable(host, &self.inside(task));
    }

    fn running(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>) {
        let _inside = self.record.enter(host);
        self.record.runs.fetch_add(1, Ordering::Relaxed);
        self.record.with(task.id(), "running", |known| {
            let due = known.runnable && !known.running && !known.stopped && !known.custody;
            known.running = true;
            known.polled = true;
            due
        });
        self.inner.running(host, &self.inside(task));
    }

    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>, stopped: Stopped) {
        let _inside = self.record.enter(host);
        self.record.with(task.id(), "stopping", |known| {
            let due = known.runnable && known.running && !known.custody;
            known.running = false;
            known.stopped = stopped != Stopped::StillRunnable;
            known.finished |= stopped == Stopped::Finished;
            due
        });
        if stopped == Stopped::Finished {
            self.record.finished.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.stopping(host, &self.inside(task), stopped);
    }

    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>) {
        let _inside = self.record.enter(host);
        self.record.quiescents.fetch_add(1, Ordering::Relaxed);
        self.record.with(task.id(), "quiescent", |known| {
            // Without `stopping`: it was aborted.
            let due = known.runnable && !known.running && !known.custody;
            known.finished |= !known.stopped;
            known.runnable = false;
            known.stopped = false;
            due
        });
        self.inner.quiescent(host, &self.inside(task));
    }
}

/// The only worker in one long poll: what is spawned meanwhile is offered in this order when it ends.
pub(crate) struct Held {
    release: Sender<()>,
    task: JoinHandle<()>,
}

impl Held {
    pub(crate) fn new(runtime: &Runtime) -> Held {
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let task = runtime.spawn(async move {
            begun.send(()).unwrap();
            let _ = released.recv();
        });
        receive("the long poll to begin", &has_begun);
        Held { release, task }
    }

    pub(crate) fn end(self) {
        drop(self.release);
        wait_for("the end of a long poll", self.task).unwrap();
    }
}

/// Spawns a task with this tag.
pub(crate) fn tagged<F>(runtime: &Handle, tag: u64, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    runtime
        .spawn_with(Attributes::new().tag(tag), future)
        .unwrap()
}

/// Some of everything: yields, channels, timers, TCP, tasks that spawn tasks, aborts.
pub(crate) struct Mixed {
    sums: Vec<JoinHandle<usize>>,
    expected: usize,
    aborted: Vec<JoinHandle<()>>,
    aborts_begun: Receiver<()>,
}

impl Mixed {
    /// 10 × `size` tasks and a few more.
    pub(crate) fn start(runtime: &Handle, size: usize) -> Mixed {
        let mut sums = Vec::new();
        let mut expected = 0;
        let (begun, aborts_begun) = channel();
        let mut aborted = Vec::new();
        for n in 0..size {
            let weight = [1, 10, 100, 1000, 10_000][n % 5];
            let with_weight = Attributes::new().weight(weight).tag(n as u64);
            let yields = async {
                for _ in 0..20 {
                    yield_now().await;
                }
                20
            };
            sums.push(runtime.spawn_with(with_weight, yields).unwrap());
            expected += 20;

            let (to, mut from) = tokio::sync::mpsc::channel(1);
            sums.push(runtime.spawn(async move {
                for n in 0..10 {
                    to.send(n).await.unwrap();
                }
                0
            }));
            sums.push(runtime.spawn(async move {
                let mut sum = 0;
                while let Some(n) = from.recv().await {
                    sum += n;
                }
                sum
            }));
            expected += 45;

            sums.push(runtime.spawn(async {
                for millis in 1..3 {
                    // A wake by the driver.
                    tokio::time::sleep(Duration::from_millis(millis)).await;
                }
                1
            }));
            expected += 1;

            sums.push(runtime.spawn(async {
                let children: Vec<_> = (0..4).map(|n| polity::spawn(async move { n })).collect();
                let mut sum = 0;
                for child in children {
                    sum += child.await.unwrap();
                }
                sum
            }));
            expected += 6;

            let begun = begun.clone();
            aborted.push(runtime.spawn(async move {
                begun.send(()).unwrap();
                std::future::pending().await
            }));
        }
        sums.push(runtime.spawn(over_tcp()));
        expected += 50;
        Mixed {
            sums,
            expected,
            aborted,
            aborts_begun,
        }
    }

    /// Waits for all of them, and checks what they say.
    #[track_caller]
    pub(crate) fn finish(self) {
        for _ in &self.aborted {
            receive("the tasks that are to be aborted", &self.aborts_begun);
        }
        for task in &self.aborted {
            task.abort();
        }
        let mut sum = 0;
        for task in self.sums {
            sum += wait_for("a task of the mixed load", task).unwrap();
        }
        assert_eq!(sum, self.expected);
        for task in self.aborted {
            let ended = wait_for("an aborted task", task);
            assert!(ended.unwrap_err().is_cancelled());
        }
    }
}

/// 50 bytes there and back, one at a time.
async fn over_tcp() -> usize {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = polity::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut byte = [0];
        while stream.read(&mut byte).await.unwrap() > 0 {
            stream.write_all(&byte).await.unwrap();
        }
    });
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut byte = [0];
    for n in 0..50 {
        stream.write_all(&[n]).await.unwrap();
        stream.read_exact(&mut byte).await.unwrap();
        assert_eq!(byte, [n]);
    }
    drop(stream);
    server.await.unwrap();
    50
}
