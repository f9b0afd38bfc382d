//! Eight levels by weight: the most urgent level that has a task is served, and no level is forgotten.
//!
//! Not a share scheduler: twice the weight is not twice the time, it is a place before or beside. Blind to how long
//! polls take (a long poll of the least urgent task still holds its worker to its end) and to who woke whom (an
//! urgent task that waits for an unurgent one waits as long as that one does). If all tasks have one weight, use
//! [`Fifo`](crate::Fifo) or no policy: this one would be a slower FIFO.
//!
//! # Promised order
//!
//! A *decision* of a worker is a call of `dispatch` that gives it something to poll, be it its previous task.
//!
//! 1. Within a level tasks are dispatched in the order in which they were enqueued; a worker passes over those that
//!    may not run on it.
//! 2. A decision serves the most urgent level that has a task for this worker, the previous task (if it is still
//!    runnable) standing last in its own level; unless, by 3, a level is overdue.
//! 3. **Nothing starves.** With ageing *k* (16 unless said otherwise), a level that has a task for a worker is
//!    passed over by at most *k* + 7 decisions of that worker in a row.
//! 4. A decision brings one task; of a level where polls are short as many as are polled in some 20 µs
//!    ([`Host::batch_hint`]), 16 at most, and of level 0 four or more. So the only less urgent polls that a task waits
//!    for on a worker are those that were begun or decided before it came, and those of overdue levels: at most one
//!    decision in *k* + 1 for each level that waits.
//!
//! Proof of 3: once a level has been passed over *k* times it is overdue, and of the overdue levels that with most
//! passes is served. A level that is served starts again from none while all that still wait gain one, so it never
//! overtakes a waiting level in passes, and each of the other seven can come first at most once.
//!
//! # State and cost
//!
//! Eight custom DSQs, one per level, numbered 0 to 7. Per worker: eight counts and a flag, on lines of their own.
//!
//! | callback | cost |
//! |---|---|
//! | `enqueue` | a load, one insert; from the second task between two dispatches on, a look at the idle set |
//! | `dispatch` | eight lengths, nearly always one move |
//! | others | nothing |
//!
//! Counts are kept per worker because one count for all would let a worker that cannot run the overdue task (its
//! affinity forbids) spend the level's turn on the task behind it, every time. It also makes ageing free of
//! contention: calls for one worker never overlap, so plain loads and stores do.
//!
//! # Source
//!
//! FIFO levels by weight: `scx_qmap`. Ageing is the textbook's, counted in decisions and not in time, so that the
//! bound holds at any speed and no clock is read. Rejected: one task at a time whatever it does. Two workers whose tasks
//! did nothing spent more time on taking the queue from each other than on all the rest. And larger batches: what was
//! moved to a local DSQ cannot be overtaken, and waits here while another worker takes something less urgent.

use std::cmp::Reverse;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use polity_policy::{DsqId, Host, InitError, Policy, Position, TaskView, WorkerId};

use crate::per_worker::PerWorker;

const LEVELS: usize = Priority::LEVELS;

/// Strict priority between eight levels by weight, with ageing so that nothing starves.
///
/// Do not use it to share time in proportion, nor where long polls are the trouble: it chooses what a free worker
/// polls next and nothing else. A level is passed over by at most *k* + 7 decisions of a worker in a row.
///
/// ```
/// use polity_policies::Priority;
/// use polity_policy::{Policy, WorkerId, fake::FakeHost};
///
/// let (fake, policy) = (FakeHost::new(1), Priority::new());
/// policy.init(&fake.host()).unwrap();
/// policy.enqueue(&fake.host(), &fake.task(1).view());
/// policy.enqueue(&fake.host(), &fake.task(2).weight(1000).view());
///
/// policy.dispatch(&fake.host(), WorkerId::new(0), None);
/// assert_eq!(fake.run_next().unwrap().slot(), 2);
/// ```
#[derive(Debug)]
pub struct Priority {
    ageing: u32,
    workers: PerWorker<Mine>,
}

/// What one worker remembers.
#[derive(Debug, Default)]
struct Mine {
    /// How many decisions in a row passed over each level while tasks waited there.
    passes: [AtomicU32; LEVELS],
    /// Whether it has enqueued a task since its last dispatch, which it will probably take itself.
    has_next: AtomicBool,
}

impl Priority {
    /// How many levels there are: 8. Level 0 is the most urgent.
    ///
    /// ```
    /// assert_eq!(polity_policies::Priority::LEVELS, 8);
    /// ```
    pub const LEVELS: usize = 8;

    /// The ageing *k* of [`Priority::new`]: 16.
    ///
    /// ```
    /// assert_eq!(polity_policies::Priority::AGEING, 16);
    /// ```
    pub const AGEING: u32 = 16;

    /// With an ageing of 16: a level is overdue when it has been passed over sixteen times. Its name is `priority`.
    ///
    /// ```
    /// use polity_policy::Policy;
    /// assert_eq!(polity_policies::Priority::new().name(), "priority");
    /// ```
    pub fn new() -> Self {
        Priority::with_ageing(Self::AGEING)
    }

    /// With another ageing: larger is stricter, and lets the unurgent wait longer. 0 serves the non-empty levels in
    /// turn; `u32::MAX` is strict priority for all practical purposes, and starves.
    ///
    /// ```
    /// use polity_policies::Priority;
    /// use polity_policy::{Policy, WorkerId, fake::FakeHost};
    ///
    /// let (fake, policy) = (FakeHost::new(1), Priority::with_ageing(1));
    /// policy.init(&fake.host()).unwrap();
    /// for slot in [1, 2] {
    ///     policy.enqueue(&fake.host(), &fake.task(slot).weight(200).view());
    /// }
    /// policy.enqueue(&fake.host(), &fake.task(3).weight(1).view());
    ///
    /// let next = || {
    ///     policy.dispatch(&fake.host(), WorkerId::new(0), None);
    ///     fake.run_next().unwrap().slot()
    /// };
    /// assert_eq!([next(), next(), next()], [1, 3, 2]); // task 3 has been passed over once
    /// ```
    pub fn with_ageing(k: u32) -> Self {
        Priority {
            ageing: k,
            workers: PerWorker::default(),
        }
    }

    /// The level of a weight. The steps are ratios to the default weight of 100: 50, 20, 5, 2, and the same down.
    ///
    /// | level | weight | | level | weight |
    /// |---|---|---|---|---|
    /// | 0 | 5,000 and more | | 4 | 50 to 199, the default |
    /// | 1 | 2,000 to 4,999 | | 5 | 20 to 49 |
    /// | 2 | 500 to 1,999 | | 6 | 5 to 19 |
    /// | 3 | 200 to 499 | | 7 | below 5 |
    ///
    /// ```
    /// use polity_policies::Priority;
    /// assert_eq!([10_000, 1000, 100, 10].map(Priority::level_of), [0, 2, 4, 6]);
    /// ```
    #[inline]
    pub const fn level_of(weight: u32) -> usize {
        match weight {
            5000.. => 0,
            2000.. => 1,
            500.. => 2,
            200.. => 3,
            50.. => 4,
            20.. => 5,
            5.. => 6,
            _ => 7,
        }
    }

    /// The overdue level with most passes, else the most urgent one down to `last`.
    fn choose(&self, waiting: [bool; LEVELS], passes: [u32; LEVELS], last: usize) -> Option<usize> {
        let mut levels = (0..LEVELS).filter(|level| waiting[*level]);
        let overdue = levels
            .clone()
            .filter(|level| passes[*level] >= self.ageing)
            .min_by_key(|level| Reverse(passes[*level]));
        overdue.or_else(|| levels.find(|level| *level <= last))
    }
}

impl Default for Priority {
    fn default() -> Self {
        Priority::new()
    }
}

const fn dsq(level: usize) -> DsqId {
    DsqId::Custom(level as u32)
}

/// Beyond what is polled in some microseconds, more than one only where nothing more urgent can come.
fn batch(level: usize, hint: usize) -> usize {
    if level == 0 { hint.max(4) } else { hint }
}

impl Policy for Priority {
    type Task = ();

    fn name(&self) -> &str {
        "priority"
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        for level in 0..LEVELS {
            host.create_dsq(level as u32)?;
        }
        self.workers.provide(host.worker_count());
        Ok(())
    }

    #[inline]
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        host.insert(
            task.id(),
            dsq(Self::level_of(task.weight())),
            Position::Tail,
        );
        // The first task since its last dispatch this worker will take itself. For the others an idle worker is
        // claimed, which kicks it: each at most once, and none while all are busy. Liveness does not hang on it,
        // since core unparks a worker after a batch that leaves work behind.
        if let Some(here) = host.worker() {
            let mine = self.workers.of(here);
            if mine.has_next.load(Relaxed) {
                host.claim_idle_worker(task);
            } else if task.allows(here) {
                mine.has_next.store(true, Relaxed);
            }
        }
    }

    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&TaskView<'_>>) {
        let mine = self.workers.of(worker);
        mine.has_next.store(false, Relaxed);
        let mut passes = mine.passes.each_ref().map(|count| count.load(Relaxed));
        let mut waiting: [bool; LEVELS] =
            std::array::from_fn(|level| host.dsq_len(dsq(level)).is_some_and(|len| len > 0));

        // The previous task goes on if nothing is moved, so nothing less urgent is, unless it is overdue.
        let last = prev.map_or(LEVELS - 1, |prev| Self::level_of(prev.weight()));
        let mut tried = waiting.map(|waits| !waits);
        while let Some(level) = self.choose(waiting, passes, last) {
            waiting[level] = false;
            tried[level] = true;
            if host.move_to_local(dsq(level), batch(level, host.batch_hint())) > 0 {
                break;
            }
            // Others were faster, or none of its tasks may run here: it has nothing for this worker, and must not
            // hide the next level.
        }
        for level in 0..LEVELS {
            passes[level] = if tried[level] {
                0
            } else {
                passes[level].saturating_add(1)
            };
            mine.passes[level].store(passes[level], Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
