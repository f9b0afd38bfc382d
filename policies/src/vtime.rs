//! Weighted fair sharing: tasks that want to run all the time get processor time in proportion to their weights.
//!
//! Not for urgency: a heavy task gets more, not sooner, once it has had its share; for "before all others" use
//! [`Priority`](crate::Priority). It knows tasks, not tenants: who has twice the tasks of a weight has twice the time.
//! And it cannot cut a poll short: shares hold over spans that are long compared with the longest poll.
//!
//! # Promised order
//!
//! Each task has a *vtime*: the time that its polls took, times 100, divided by its weight. A worker polls the runnable
//! task with the earliest vtime, ties in the order of their coming; where polls are short it takes as many at once as it
//! polls in some 20 µs ([`Host::batch_hint`]), 16 at most. The latest vtime at which a task was begun, of those whose
//! polls are over, is called *now*, and is exact to 10 µs.
//!
//! 1. **Shares.** Tasks that never wait get time in proportion to their weights. On one worker, over any span, the
//!    vtimes that two of them gain differ by no more than what the longest poll of each costs it. On several it is a
//!    little more: tasks at 8 : 3 : 1 stay within 2 percentage points over 100 ms with polls up to 1 ms. So do classes of
//!    a few such tasks, unless those of one class have come to run in step, one after the other. A task never has more
//!    than one worker, so a weight beyond that is void.
//! 2. **Sleepers** neither hoard nor pay. A task that wakes keeps its vtime, but is at most the *credit* (1 ms unless
//!    said otherwise) behind *now*: it comes before those that have had their share, and after a long sleep it may use
//!    `credit * weight / 100` before it waits in line like the others. What it owes from a long poll it still owes.
//! 3. **A new task** begins, on average, one average poll after *now*. At *now* itself a stream of new tasks that end
//!    after one poll would keep all others waiting for ever. Each begins a bit earlier or later than the next, so that
//!    tasks that were spawned together do not run in step.
//! 4. **Nothing starves**, whatever the weights: what has been waiting for twice the *patience* (1 s unless said
//!    otherwise) comes before all that is enqueued after that. Beyond this the light are served better than their
//!    shares, and the heavy worse.
//! 5. A worker takes what may run on it: a task that is restricted to other workers is passed over and keeps its place.
//!
//! Proof of 4: every patience, the latest vtime that was ever queued is written down. If *now* has not reached it one
//! patience later, *now* is set to one credit beyond it. By 2, whatever comes from then on is placed behind what was
//! there when it was written down.
//!
//! # State and cost
//!
//! One DSQ ordered by vtime, numbered 0, and eight bytes for each task. A few counters for each worker, on lines of their
//! own.
//!
//! | callback | cost |
//! |---|---|
//! | `enqueue` | a few loads, two plain stores, one insert; from the second task between two dispatches on, a look at the idle set |
//! | `dispatch` | a few loads; one move, unless the task polled before goes on |
//! | `stopping` | a division; a few loads and plain stores; a compare-and-swap if *now* moves by 10 µs |
//!
//! With [`Vtime::new`] core reads the clock before and after each poll ([`Accounting::Exact`]); with [`Vtime::coarse`] it
//! does not, and shares hold roughly, over seconds. Either way what the operating system takes from a worker in the middle of a poll is
//! charged to that poll. No more is moved at a time than is soon polled: what lies in a local DSQ cannot be overtaken. With
//! many workers and short polls the one lock is the bottleneck.
//!
//! # Source
//!
//! `scx_simple` for vtime, *now* and the credit, which is a slice there; start-time fair queueing (Goyal, Vin, Cheng 1996)
//! for the bound in 1. Differences from `scx_simple`: the task polled before competes with those in the queue (there it always
//! waits one turn, so that two tasks on one processor alternate whatever their weights); and points 3 and 4, without
//! which a flood of new tasks, or a weight of 1 beside one of 10,000, ends in a stall. Rejected: to move *now* on when a poll begins, as there. On one
//! worker nothing is placed before that poll ends, and on several the difference is that poll; it would be one more call for each. Rejected for 4: a bound on how far
//! a vtime may run ahead of *now*. Where it would have to lie depends on who comes later.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use polity_policy::{Accounting, DsqId, Host, InitError, Policy, Stopped, TaskView, WorkerId};

use crate::per_worker::PerWorker;

mod error;

pub use error::VtimeError;
use error::check;

const QUEUE: DsqId = DsqId::Custom(0);

/// A weight at which vtime is time.
const PAR: u64 = 100;
/// No poll is cheaper than this: what core and the policy spend on it.
const LEAST_CHARGE_NS: u64 = 100;
/// *Now* stays where it is for so long: all workers read it for each task, and whoever writes it takes it from them.
const GRAIN_NS: u64 = 10_000;
/// What a poll is thought to take before any was measured.
const FIRST_GUESS_NS: u64 = 500_000;

/// Weighted fair sharing of processor time, by measured run time.
///
/// Do not use it to make some tasks wait less than others at any price: that is [`Priority`](crate::Priority). Weights of 800, 300
/// and 100 get two thirds, a quarter and a twelfth, if all three want to run all the time; what one leaves goes to the others.
///
/// Credit, patience and statistics can be used while it runs: by `runtime.policy::<Vtime>()`.
///
/// ```
/// use polity_policies::Vtime;
/// use polity_policy::{Policy, fake::FakeHost};
///
/// let (fake, policy) = (FakeHost::new(1), Vtime::new());
/// policy.init(&fake.host()).unwrap();
/// let task = fake.task(1).weight(200);
/// let data = policy.init_task(&fake.host(), &task.clone().view()).unwrap();
/// policy.enqueue(&fake.host(), &task.view_with(&data));
/// assert!(fake.inserts()[0].vtime.is_some());
/// ```
#[derive(Debug)]
pub struct Vtime {
    accounting: Accounting,
    credit_ns: AtomicU64,
    patience_ns: AtomicU64,
    now: Padded<AtomicU64>,
    /// When to look at the promise again, in the host's nanoseconds.
    next_look: AtomicU64,
    /// What `now` should have reached by then.
    promised: Mutex<u64>,
    workers: PerWorker<Mine>,
}

/// On lines of their own, two because processors fetch them in pairs: written by all workers.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// What one worker remembers. Calls for one worker never overlap, so plain loads and stores count right.
#[derive(Debug)]
struct Mine {
    /// It has enqueued a task since its last dispatch, which it will probably take itself.
    has_next: AtomicBool,
    /// The latest vtime that it has put into the queue, and the latest at which it has begun one whose poll is over.
    latest: AtomicU64,
    begun: AtomicU64,
    /// How long its polls take, on a moving average.
    mean_ns: AtomicU64,
    polls: AtomicU64,
    charged_ns: AtomicU64,
    kept: AtomicU64,
    credits_cut: AtomicU64,
    rescues: AtomicU64,
}

impl Default for Mine {
    fn default() -> Self {
        Mine {
            has_next: AtomicBool::new(false),
            latest: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            mean_ns: AtomicU64::new(FIRST_GUESS_NS),
            polls: AtomicU64::new(0),
            charged_ns: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            credits_cut: AtomicU64::new(0),
            rescues: AtomicU64::new(0),
        }
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.store(count.load(Relaxed) + more, Relaxed);
}

/// What [`Vtime`] has done since it was loaded. Read while it goes on, so the numbers are of slightly different moments.
///
/// ```
/// assert_eq!(polity_policies::Vtime::new().stats().polls, 0);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct VtimeStats {
    /// Polls that were charged.
    pub polls: u64,
    /// The processor time of those polls.
    pub charged: Duration,
    /// Polls of a task that went on because no other had an earlier vtime.
    pub kept: u64,
    /// Tasks that had slept for so long that their vtime was set to one credit behind *now*.
    pub credits_cut: u64,
    /// How often a task had waited for so long that all others were placed behind it.
    pub rescues: u64,
}

/// What [`Vtime`] keeps for each task: its vtime.
///
/// ```
/// use polity_policies::{Vtime, VtimeTask};
/// fn of<P: polity_policy::Policy<Task = VtimeTask>>(_: P) {}
/// of(Vtime::new());
/// ```
#[derive(Debug, Default)]
pub struct VtimeTask(AtomicU64);

// Ordering, for vtimes, `now` and all that workers remember: Relaxed. A task's vtime is read and written in calls about that task,
// which follow each other through its queues; the others are single words to which nothing else is tied.
impl VtimeTask {
    fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn set(&self, vtime: u64) {
        self.0.store(vtime, Relaxed);
    }
}

/// `time_before64` of the kernel.
fn is_before(a: u64, b: u64) -> bool {
    (a.wrapping_sub(b) as i64) < 0
}

/// Moves a word on to `vtime`, if that is later. Usually it is not, and then nothing is written.
fn advance(word: &AtomicU64, vtime: u64) {
    let mut seen = word.load(Relaxed);
    while is_before(seen, vtime) {
        match word.compare_exchange_weak(seen, vtime, Relaxed, Relaxed) {
            Ok(_) => return,
            Err(newer) => seen = newer,
        }
    }
}

/// The same for a word that only this worker writes.
fn later(word: &AtomicU64, vtime: u64) {
    if is_before(word.load(Relaxed), vtime) {
        word.store(vtime, Relaxed);
    }
}

/// So much time, as vtime at this weight.
fn scaled(ns: u64, weight: u32) -> u64 {
    ns.saturating_mul(PAR) / u64::from(weight.max(1))
}

impl Vtime {
    /// Charged by the clock, which is read before and after each poll. Its name is `vtime`.
    ///
    /// ```
    /// use polity_policy::{Accounting, Policy};
    /// assert_eq!(polity_policies::Vtime::new().accounting(), Accounting::Exact);
    /// ```
    pub fn new() -> Self {
        Vtime::with(Accounting::Exact)
    }

    /// Charged by the runtime's tick ([`Accounting::Coarse`]), which costs a load: for very short polls. Its name is
    /// `vtime_coarse`.
    ///
    /// Shares hold over seconds, not over 100 ms: a task that never waits goes on until a tick hits it, for some
    /// milliseconds, before the next has its turn. And only roughly: turns begin at ticks, so the rest of the poll that is
    /// hit is for free. With polls of 2 ms beside polls of 0.1 ms that is 3 percentage points.
    ///
    /// ```
    /// use polity_policy::{Accounting, Policy};
    /// assert_eq!(polity_policies::Vtime::coarse().accounting(), Accounting::Coarse);
    /// ```
    pub fn coarse() -> Self {
        Vtime::with(Accounting::Coarse)
    }

    fn with(accounting: Accounting) -> Self {
        Vtime {
            accounting,
            credit_ns: AtomicU64::new(Self::CREDIT.as_nanos() as u64),
            patience_ns: AtomicU64::new(Self::PATIENCE.as_nanos() as u64),
            now: Padded::default(),
            next_look: AtomicU64::new(0),
            promised: Mutex::new(0),
            workers: PerWorker::default(),
        }
    }

    /// The credit of a policy that was not told otherwise: 1 ms.
    ///
    /// ```
    /// assert_eq!(polity_policies::Vtime::CREDIT.as_millis(), 1);
    /// ```
    pub const CREDIT: Duration = Duration::from_millis(1);

    /// The patience of a policy that was not told otherwise: 1 s.
    ///
    /// ```
    /// assert_eq!(polity_policies::Vtime::PATIENCE.as_secs(), 1);
    /// ```
    pub const PATIENCE: Duration = Duration::from_secs(1);

    /// How far behind *now* a task is that has slept for long, in processor time at weight 100.
    ///
    /// ```
    /// use polity_policies::Vtime;
    /// assert_eq!(Vtime::new().credit(), Vtime::CREDIT);
    /// ```
    pub fn credit(&self) -> Duration {
        Duration::from_nanos(self.credit_ns.load(Relaxed))
    }

    /// Changes the credit, also while the policy runs. More lets tasks that sleep a lot begin sooner and use more before
    /// they wait in line; 0 lets them begin with those that are next.
    ///
    /// # Errors
    /// If it is more than a second.
    ///
    /// ```
    /// use std::time::Duration;
    /// let policy = polity_policies::Vtime::new();
    /// policy.set_credit(Duration::from_millis(3)).unwrap();
    /// assert_eq!(policy.credit(), Duration::from_millis(3));
    /// ```
    pub fn set_credit(&self, credit: Duration) -> Result<(), VtimeError> {
        let range = Duration::ZERO..=Duration::from_secs(1);
        self.credit_ns
            .store(check("credit", credit, range)?, Relaxed);
        Ok(())
    }

    /// After twice this a waiting task comes before what is enqueued then.
    ///
    /// ```
    /// use polity_policies::Vtime;
    /// assert_eq!(Vtime::new().patience(), Vtime::PATIENCE);
    /// ```
    pub fn patience(&self) -> Duration {
        Duration::from_nanos(self.patience_ns.load(Relaxed))
    }

    /// Changes the patience, also while the policy runs, from the next look on. Keep it below a third of the stall timeout. Less
    /// than the time in which every task has its turn makes shares more equal than weights say.
    ///
    /// # Errors
    /// If it is less than 1 ms or more than 10 s.
    ///
    /// ```
    /// use std::time::Duration;
    /// let policy = polity_policies::Vtime::new();
    /// policy.set_patience(Duration::from_millis(300)).unwrap();
    /// assert_eq!(policy.patience(), Duration::from_millis(300));
    /// ```
    pub fn set_patience(&self, patience: Duration) -> Result<(), VtimeError> {
        let range = Duration::from_millis(1)..=Duration::from_secs(10);
        self.patience_ns
            .store(check("patience", patience, range)?, Relaxed);
        Ok(())
    }

    /// What it has done so far. Complexity: one step for each worker.
    ///
    /// ```
    /// assert_eq!(polity_policies::Vtime::new().stats().charged, std::time::Duration::ZERO);
    /// ```
    pub fn stats(&self) -> VtimeStats {
        let mut stats = VtimeStats::default();
        for mine in self.workers.all() {
            stats.polls += mine.polls.load(Relaxed);
            stats.charged += Duration::from_nanos(mine.charged_ns.load(Relaxed));
            stats.kept += mine.kept.load(Relaxed);
            stats.credits_cut += mine.credits_cut.load(Relaxed);
            stats.rescues += mine.rescues.load(Relaxed);
        }
        stats
    }

    /// The vtime that a task has in line: its own, or one credit behind now.
    fn place(&self, task: &VtimeTask) -> u64 {
        let least = self
            .now
            .0
            .load(Relaxed)
            .wrapping_sub(self.credit_ns.load(Relaxed));
        let own = task.get();
        if is_before(own, least) { least } else { own }
    }

    /// The latest of the vtimes that each worker remembers in this place.
    fn latest(&self, place: impl Fn(&Mine) -> &AtomicU64) -> u64 {
        let later = |a, b| if is_before(a, b) { b } else { a };
        let of_each = self.workers.all().map(|mine| place(mine).load(Relaxed));
        of_each.reduce(later).unwrap_or(0)
    }

    /// Point 4 of the promise.
    fn keep_promise(&self, host: &Host<'_>, mine: &Mine) {
        let time = host.now().as_nanos() as u64;
        if time < self.next_look.load(Relaxed) {
            return;
        }
        // Whoever is here already does it.
        let Ok(mut promised) = self.promised.try_lock() else {
            return;
        };
        if time < self.next_look.load(Relaxed) {
            return;
        }
        self.next_look
            .store(time + self.patience_ns.load(Relaxed), Relaxed);
        // To the nanosecond, this time.
        advance(&self.now.0, self.latest(|mine| &mine.begun));
        let now = self.now.0.load(Relaxed);
        if is_before(now, *promised) && host.dsq_len(QUEUE).is_some_and(|len| len > 0) {
            add(&mine.rescues, 1);
            let beyond = promised.wrapping_add(self.credit_ns.load(Relaxed));
            advance(&self.now.0, beyond);
        }
        *promised = self.latest(|mine| &mine.latest);
    }
}

impl Default for Vtime {
    fn default() -> Self {
        Vtime::new()
    }
}

impl Policy for Vtime {
    type Task = VtimeTask;

    fn name(&self) -> &str {
        match self.accounting {
            Accounting::Coarse => "vtime_coarse",
            _ => "vtime",
        }
    }

    fn accounting(&self) -> Accounting {
        self.accounting
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        host.create_vtime_dsq(0)?;
        self.workers.provide(host.worker_count());
        Ok(())
    }

    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<VtimeTask, InitError> {
        let mean = host.worker().map_or(FIRST_GUESS_NS, |worker| {
            self.workers.of(worker).mean_ns.load(Relaxed)
        });
        // From 0 to 2, by the golden ratio: slots that follow each other lie far apart, and evenly.
        let part = u64::from(task.id().slot().wrapping_mul(0x9e37_79b9) >> 16);
        let delay = scaled((2 * mean).saturating_mul(part) >> 16, task.weight());
        let vtime = self.now.0.load(Relaxed).wrapping_add(delay);
        Ok(VtimeTask(AtomicU64::new(vtime)))
    }

    #[inline]
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_, VtimeTask>) {
        let vtime = self.place(task.data());
        let cut = vtime != task.data().get();
        task.data().set(vtime);
        host.insert_vtime(task.id(), QUEUE, vtime);
        // As in `Priority`: the first task since its last dispatch this worker will take itself, for the others an idle
        // worker is claimed.
        if let Some(here) = host.worker() {
            let mine = self.workers.of(here);
            later(&mine.latest, vtime);
            if cut {
                add(&mine.credits_cut, 1);
            }
            if mine.has_next.load(Relaxed) {
                host.claim_idle_worker(task);
            } else if task.allows(here) {
                mine.has_next.store(true, Relaxed);
            }
        }
    }

    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&TaskView<'_, VtimeTask>>) {
        let mine = self.workers.of(worker);
        mine.has_next.store(false, Relaxed);
        self.keep_promise(host, mine);
        if let (Some(prev), Some(first)) = (prev, host.first_vtime(QUEUE))
            && is_before(self.place(prev.data()), first)
        {
            add(&mine.kept, 1);
            return;
        }
        host.move_to_local(QUEUE, host.batch_hint());
    }

    #[inline]
    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_, VtimeTask>, _stopped: Stopped) {
        let begun = task.data().get();
        let ran = (task.ran().as_nanos() as u64).max(LEAST_CHARGE_NS);
        task.data()
            .set(begun.wrapping_add(scaled(ran, task.weight())));
        if is_before(self.now.0.load(Relaxed).wrapping_add(GRAIN_NS), begun) {
            advance(&self.now.0, begun);
        }
        if let Some(here) = host.worker() {
            let mine = self.workers.of(here);
            later(&mine.begun, begun);
            let mean = mine.mean_ns.load(Relaxed);
            mine.mean_ns.store(mean - mean / 16 + ran / 16, Relaxed);
            add(&mine.polls, 1);
            add(&mine.charged_ns, ran);
        }
    }
}

#[cfg(test)]
mod tests;
