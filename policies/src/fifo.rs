//! First come, first served: in one queue for all workers, or in one queue for each.
//!
//! Not for a program with several kinds of work: a FIFO is blind to weight, to tags, and to how long a poll takes,
//! so a heartbeat waits behind every compaction that was woken before it. And not for speed alone: with no policy at
//! all polity runs its built-in FIFO, which steals work and costs less than either of these.
//!
//! # Promised order
//!
//! [`Fifo`]: tasks leave the queue in the order in which they were enqueued, whichever worker takes them. A task
//! that is still runnable after its poll goes to the tail. With several workers, tasks taken at the same moment begin
//! in either order; and no order is promised between a task that is restricted to some workers and the others.
//!
//! [`FifoPerWorker`]: tasks that stay on one worker run in the order in which they were enqueued there. Nothing
//! is promised between workers, nor between a task that stayed and one that was shared: a worker turns to the shared
//! queue when its own is empty (and, by core's fairness interval, now and then before).
//!
//! # State and cost
//!
//! | callback | [`Fifo`] | [`FifoPerWorker`] |
//! |---|---|---|
//! | `enqueue` | is the default, and not called | a length, one insert; if tasks wait already, a load and a look at the idle set |
//! | all others | nothing | nothing |
//!
//! Neither ever has a task in custody: so they cost core plain stores, an ejection finds
//! nothing to sweep, and an abort finds nothing to take back. State: none, and one flag per worker.
//!
//! # Source
//!
//! [`Fifo`] is `scx_simple -f`. [`FifoPerWorker`] is the local queue with overflow of Go and tokio, with the switch from
//! local to shared by load of `scx_cosmos`. Rejected for [`Fifo`]: giving a task straight to an idle worker. Its queue
//! is empty, but the global one need not be (an idle worker is one that has not looked yet, and the verdicts of a
//! batch are carried out together), so the task would overtake. Core unparks a worker after the batch anyway.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use polity_policy::{DsqId, Host, InitError, Policy, Position, TaskView};

use crate::per_worker::PerWorker;

/// So many tasks may wait on one worker; the next is shared.
const LOCAL_BOUND: usize = 64;

/// First come, first served, in one queue. Blind to weight, tag and length of polls: do not use it where some tasks matter more.
///
/// It writes nothing but its name: to put each task at the tail of the global DSQ is what the contract's defaults do, and core does that
/// without asking ([`Optional`](polity_policy::Optional)).
///
/// ```
/// use polity_policies::Fifo;
/// use polity_policy::{DsqId, Policy, fake::FakeHost};
///
/// let (fake, policy) = (FakeHost::new(2), Fifo::new());
/// policy.init(&fake.host()).unwrap();
/// policy.enqueue(&fake.host(), &fake.task(1).view());
/// assert_eq!(fake.inserts()[0].dsq, DsqId::Global);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Fifo {
    // So that it can get parameters.
    _private: (),
}

impl Fifo {
    /// One queue for all workers, in exact order. Every task passes through one lock: on many workers with short
    /// polls that is the bottleneck. Its name is `fifo`.
    ///
    /// ```
    /// use polity_policy::Policy;
    /// assert_eq!(polity_policies::Fifo::new().name(), "fifo");
    /// ```
    pub fn new() -> Self {
        Fifo::default()
    }

    /// One queue per worker: [`FifoPerWorker::new`].
    ///
    /// ```
    /// use polity_policy::Policy;
    /// assert_eq!(polity_policies::Fifo::per_worker().name(), "fifo_per_worker");
    /// ```
    pub fn per_worker() -> FifoPerWorker {
        FifoPerWorker::new()
    }
}

impl Policy for Fifo {
    type Task = ();

    fn name(&self) -> &str {
        "fifo"
    }
}

/// First come, first served, in one queue per worker. As blind as [`Fifo`].
///
/// A task stays where it ran last. It is shared (put into the global DSQ, from which every
/// worker takes) when 64 tasks wait there already, or when one waits and another worker is idle.
///
/// What one worker was given is not given to another later: behind a poll of less than about 200 µs a task waits
/// although others may have become idle meanwhile; behind a longer one core steals it.
///
/// ```
/// use polity_policies::FifoPerWorker;
/// use polity_policy::{DsqId, Policy, WorkerId, fake::FakeHost};
///
/// let (fake, policy) = (FakeHost::new(2), FifoPerWorker::new());
/// policy.init(&fake.host()).unwrap();
/// fake.set_idle(WorkerId::new(1));
/// policy.enqueue(&fake.host(), &fake.task(1).view());
/// policy.enqueue(&fake.host(), &fake.task(2).view());
/// let places: Vec<DsqId> = fake.inserts().iter().map(|insert| insert.dsq).collect();
/// assert_eq!(places, [DsqId::Local, DsqId::Global]);
/// ```
#[derive(Debug, Default)]
pub struct FifoPerWorker {
    // An idle worker was found while tasks waited on this one. What comes is shared until its queue is empty.
    shares: PerWorker<AtomicBool>,
}

impl FifoPerWorker {
    /// Its name is `fifo_per_worker`.
    ///
    /// ```
    /// use polity_policy::Policy;
    /// assert_eq!(polity_policies::FifoPerWorker::new().name(), "fifo_per_worker");
    /// ```
    pub fn new() -> Self {
        FifoPerWorker::default()
    }

    /// Where a task goes that would like to stay on its worker.
    fn place(&self, host: &Host<'_>, task: &TaskView<'_>) -> DsqId {
        let waiting = host.dsq_len(DsqId::Local).unwrap_or(0);
        // Ordering: Relaxed, here and below. A guess, to which nothing else is tied.
        let shares = self.shares.of(task.last_worker());
        // A first task stays even if others are idle: this worker is about to look, and waking another costs more
        // than most polls.
        if waiting == 0 {
            if shares.load(Relaxed) {
                shares.store(false, Relaxed);
            }
            return DsqId::Local;
        }
        if waiting >= LOCAL_BOUND || shares.load(Relaxed) {
            return DsqId::Global;
        }
        if host.claim_idle_worker(task).is_some() {
            // The rest of the batch is shared too, or it would wait here when the idle ones have done their first.
            shares.store(true, Relaxed);
            return DsqId::Global;
        }
        DsqId::Local
    }
}

impl Policy for FifoPerWorker {
    type Task = ();

    fn name(&self) -> &str {
        "fifo_per_worker"
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        self.shares.provide(host.worker_count());
        Ok(())
    }

    #[inline]
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        host.insert(task.id(), self.place(host, task), Position::Tail);
    }
}

#[cfg(test)]
mod tests {
    use polity_policy::WorkerId;
    use polity_policy::fake::FakeHost;

    use super::*;

    fn loaded<P: Policy>(policy: P, workers: usize) -> (FakeHost, P) {
        let fake = FakeHost::new(workers);
        policy.init(&fake.host()).unwrap();
        (fake, policy)
    }

    fn enqueue(
        fake: &FakeHost,
        policy: &impl Policy<Task = ()>,
        slots: std::ops::Range<u32>,
    ) -> Vec<DsqId> {
        let before = fake.inserts().len();
        for slot in slots {
            policy.enqueue(&fake.host(), &fake.task(slot).view());
        }
        fake.inserts()[before..].iter().map(|i| i.dsq).collect()
    }

    fn count(places: &[DsqId], dsq: DsqId) -> usize {
        places.iter().filter(|place| **place == dsq).count()
    }

    #[test]
    fn one_queue_takes_every_task_at_its_tail() {
        let (fake, policy) = loaded(Fifo::new(), 2);
        enqueue(&fake, &policy, 0..100);
        for (slot, insert) in (0..).zip(fake.inserts()) {
            assert_eq!((insert.dsq, insert.at), (DsqId::Global, Position::Tail));
            assert_eq!(insert.task.slot(), slot);
        }
    }

    #[test]
    fn an_idle_worker_does_not_let_a_task_overtake_in_one_queue() {
        let (fake, policy) = loaded(Fifo::new(), 2);
        fake.set_idle(WorkerId::new(1));
        let task = fake.task(0).view();
        assert_eq!(
            policy.select_worker(&fake.host(), &task),
            task.last_worker()
        );
        assert!(fake.inserts().is_empty() && fake.kicks().is_empty());
    }

    #[test]
    fn a_lone_task_stays_on_its_worker_even_if_others_are_idle() {
        let (fake, policy) = loaded(Fifo::per_worker(), 2);
        fake.set_idle(WorkerId::new(1));
        for slot in 0..10 {
            assert_eq!(enqueue(&fake, &policy, slot..slot + 1), [DsqId::Local]);
            fake.run_next().unwrap();
        }
        assert!(fake.kicks().is_empty());
    }

    #[test]
    fn the_rest_of_a_batch_is_shared_once_an_idle_worker_was_found() {
        let (fake, policy) = loaded(Fifo::per_worker(), 4);
        fake.set_idle(WorkerId::new(2));
        let places = enqueue(&fake, &policy, 0..32);
        assert_eq!(places[0], DsqId::Local);
        assert_eq!(count(&places, DsqId::Global), 31);
        assert_eq!(fake.kicks(), [WorkerId::new(2)]);
    }

    #[test]
    fn tasks_beyond_the_bound_are_shared_and_the_others_keep_their_order() {
        let (fake, policy) = loaded(Fifo::per_worker(), 2);
        let places = enqueue(&fake, &policy, 0..200);
        let stayed = count(&places, DsqId::Local);
        assert_eq!(stayed, LOCAL_BOUND);
        let ran: Vec<u32> = std::iter::from_fn(|| fake.run_next().map(|t| t.slot())).collect();
        assert_eq!(ran, (0..stayed as u32).collect::<Vec<_>>());
    }

    #[test]
    fn a_worker_whose_queue_has_become_empty_keeps_tasks_again() {
        let (fake, policy) = loaded(Fifo::per_worker(), 2);
        fake.set_idle(WorkerId::new(1));
        enqueue(&fake, &policy, 0..200);
        assert_eq!(enqueue(&fake, &policy, 200..201), [DsqId::Global]);
        while fake.run_next().is_some() {}
        let kept = [DsqId::Local; 2];
        assert_eq!(enqueue(&fake, &policy, 201..203), kept);
    }
}
