use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use polity_policy::fake::FakeHost;
use polity_policy::{Attributes, DsqError, HostApi, Slice, TaskId};

use super::*;

const W0: WorkerId = WorkerId::new(0);
/// A weight for each level.
const WEIGHTS: [u32; LEVELS] = [9000, 3000, 1000, 300, 100, 30, 10, 1];

fn loaded(policy: Priority, workers: usize) -> (FakeHost, Priority) {
    let fake = FakeHost::new(workers);
    policy.init(&fake.host()).unwrap();
    (fake, policy)
}

fn enqueue(fake: &FakeHost, policy: &Priority, slot: u32, level: usize) {
    let task = fake.task(slot).weight(WEIGHTS[level]).view();
    policy.enqueue(&fake.host(), &task);
}

fn ran(fake: &FakeHost) -> Vec<u32> {
    std::iter::from_fn(|| fake.run_next().map(TaskId::slot)).collect()
}

fn dispatch(fake: &FakeHost, policy: &Priority, worker: WorkerId) -> Vec<u32> {
    policy.dispatch(&fake.host(), worker, None);
    ran(fake)
}

#[test]
fn every_weight_has_a_level_and_more_weight_is_never_less_urgent() {
    assert_eq!(WEIGHTS.map(Priority::level_of), [0, 1, 2, 3, 4, 5, 6, 7]);
    for weight in 1..10_000 {
        assert!(Priority::level_of(weight) >= Priority::level_of(weight + 1));
    }
    assert_eq!(Priority::level_of(Attributes::DEFAULT_WEIGHT), 4);
}

#[test]
fn the_most_urgent_task_comes_first_and_equals_in_the_order_of_their_enqueue() {
    let (fake, policy) = loaded(Priority::new(), 1);
    for (slot, level) in (0..).zip([4, 7, 4, 2, 0, 0]) {
        enqueue(&fake, &policy, slot, level);
    }
    let order: Vec<u32> = (0..5).flat_map(|_| dispatch(&fake, &policy, W0)).collect();
    assert_eq!(order, [4, 5, 3, 0, 2, 1]);
}

#[test]
fn only_the_most_urgent_level_is_moved_in_batches() {
    let (fake, policy) = loaded(Priority::new(), 1);
    for level in [0, 4] {
        (0..9).for_each(|slot| enqueue(&fake, &policy, slot, level));
    }
    let sizes: Vec<usize> = (0..5).map(|_| dispatch(&fake, &policy, W0).len()).collect();
    assert_eq!(sizes, [4, 4, 1, 1, 1]);
}

#[test]
fn a_low_level_is_served_after_sixteen_passes_over_it() {
    let (fake, policy) = loaded(Priority::new(), 1);
    enqueue(&fake, &policy, 1000, 7);
    for decision in 0..=16 {
        enqueue(&fake, &policy, decision, 1);
        let expected = if decision < 16 { decision } else { 1000 };
        assert_eq!(dispatch(&fake, &policy, W0), [expected]);
    }
}

#[test]
fn a_level_that_was_empty_meanwhile_starts_to_wait_anew() {
    let (fake, policy) = loaded(Priority::with_ageing(2), 1);
    enqueue(&fake, &policy, 1000, 7);
    enqueue(&fake, &policy, 0, 1);
    assert_eq!(dispatch(&fake, &policy, W0), [0]);
    assert_eq!(dispatch(&fake, &policy, W0), [1000]);
    enqueue(&fake, &policy, 1, 1);
    enqueue(&fake, &policy, 2, 1);
    enqueue(&fake, &policy, 1001, 7);
    assert_eq!(dispatch(&fake, &policy, W0), [1]);
    assert_eq!(dispatch(&fake, &policy, W0), [2]);
}

#[test]
fn the_turns_that_one_worker_gives_a_level_do_not_use_up_those_of_another() {
    let (fake, policy) = loaded(Priority::with_ageing(3), 2);
    (0..100).for_each(|slot| enqueue(&fake, &policy, slot, 1));
    (100..200).for_each(|slot| enqueue(&fake, &policy, slot, 7));
    for worker in [0, 1].map(WorkerId::new) {
        let low = |tasks: Vec<u32>| tasks[0] >= 100;
        let turns: Vec<bool> = (0..8)
            .map(|_| low(dispatch(&fake, &policy, worker)))
            .collect();
        assert_eq!(
            turns,
            [false, false, false, true, false, false, false, true]
        );
    }
}

#[test]
fn a_task_that_is_still_runnable_is_not_displaced_by_a_less_urgent_one() {
    let (fake, policy) = loaded(Priority::with_ageing(2), 1);
    let prev = fake.task(99).weight(WEIGHTS[3]).view();
    let round = || {
        policy.dispatch(&fake.host(), W0, Some(&prev));
        ran(&fake)
    };
    enqueue(&fake, &policy, 0, 4);
    assert_eq!([round(), round()], [[], []]);
    assert_eq!(round(), [0], "overdue");
    enqueue(&fake, &policy, 1, 3);
    assert_eq!(round(), [1], "equals take turns");
}

#[test]
fn an_empty_runtime_makes_no_progress() {
    let (fake, policy) = loaded(Priority::new(), 1);
    assert!(dispatch(&fake, &policy, W0).is_empty());
    assert!(fake.inserts().is_empty() && fake.kicks().is_empty() && fake.ended().is_none());
}

#[test]
fn idle_workers_are_kicked_once_each_for_all_but_the_first_task() {
    let (fake, policy) = loaded(Priority::new(), 4);
    fake.set_idle(WorkerId::new(1));
    fake.set_idle(WorkerId::new(3));
    enqueue(&fake, &policy, 0, 4);
    assert!(fake.kicks().is_empty());
    (1..9).for_each(|slot| enqueue(&fake, &policy, slot, 4));
    assert_eq!(fake.kicks(), [1, 3].map(WorkerId::new));
}

#[test]
fn a_level_whose_tasks_may_not_run_here_does_not_hide_the_next() {
    let (picky, policy) = picky();
    let host = Host::new(&picky);
    for (slot, level) in [(0, 2), (1, 5)] {
        enqueue(&picky.fake, &policy, slot, level);
    }
    picky.forbidden.borrow_mut()[2] = true;
    for _ in 0..40 {
        policy.dispatch(&host, W0, None);
        enqueue(&picky.fake, &policy, 1, 5);
        assert_eq!(ran(&picky.fake), [1]);
    }
    picky.forbidden.borrow_mut()[2] = false;
    policy.dispatch(&host, W0, None);
    assert_eq!(ran(&picky.fake), [0]);
}

#[test]
fn no_level_is_passed_over_more_than_k_plus_seven_times() {
    for seed in 1..=300 {
        check(seed, Affinity::None);
    }
}

#[test]
fn no_level_with_a_task_for_a_worker_is_passed_over_longer_because_of_affinity() {
    for seed in 1..=300 {
        check(seed, Affinity::Some);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Affinity {
    None,
    Some,
}

/// Random enqueues and decisions of three workers, against queues that are plain lists and a count of the decisions
/// in a row that passed over a level with a task for the worker.
fn check(seed: u64, affinity: Affinity) {
    let mut random = Random(seed);
    let k = [0, 1, 4, 16][random.below(4)];
    let (picky, policy) = (Picky::new(), Priority::with_ageing(k));
    let host = Host::new(&picky);
    policy.init(&host).unwrap();
    let mut queues: [VecDeque<u32>; LEVELS] = Default::default();
    let mut passes = [[0; LEVELS]; 3];
    let mut forbidden = [[false; LEVELS]; 3];
    let flood = 1 + random.below(LEVELS);

    for slot in 0..600 {
        let level = if random.below(4) > 0 {
            random.below(flood)
        } else {
            random.below(LEVELS)
        };
        enqueue(&picky.fake, &policy, slot, level);
        queues[level].push_back(slot);

        let worker = random.below(3);
        if affinity == Affinity::Some && random.below(20) == 0 {
            forbidden[worker] = std::array::from_fn(|_| random.below(3) == 0);
        }
        *picky.forbidden.borrow_mut() = forbidden[worker];
        let prev = (random.below(4) == 0).then(|| random.below(LEVELS));
        let view = prev.map(|level| picky.fake.task(9999).weight(WEIGHTS[level]).view());
        let has_task = |level: usize| !forbidden[worker][level] && !queues[level].is_empty();
        let had_task: [bool; LEVELS] = std::array::from_fn(has_task);
        let best = (0..=prev.unwrap_or(LEVELS - 1)).find(|level| had_task[*level]);

        let hint = 1 + random.below(16);
        picky.fake.set_batch_hint(hint);
        policy.dispatch(&host, WorkerId::new(worker as u16), view.as_ref());

        let got = ran(&picky.fake);
        let served = (0..LEVELS).find(|level| queues[*level].front() == got.first());
        let served = served.filter(|_| !got.is_empty());
        let story = format!("seed {seed}, k {k}, slot {slot}: {got:?} from {served:?}");
        match served {
            None => assert!(got.is_empty() && best.is_none(), "{story}: best {best:?}"),
            Some(level) => {
                let expected: Vec<u32> = queues[level].drain(..got.len()).collect();
                assert_eq!(got, expected, "{story}: order within the level");
                assert!(
                    had_task[level] && got.len() <= batch(level, hint),
                    "{story}"
                );
                // Under affinity the policy also counts while none of the level's tasks may run here.
                let strict = best == served || passes[worker][level] >= k;
                assert!(strict || affinity == Affinity::Some, "{story}: not due");
            }
        }
        for level in 0..LEVELS {
            let passed = had_task[level] && served != Some(level);
            let count = &mut passes[worker][level];
            *count = if passed { *count + 1 } else { 0 };
            let bound = k + LEVELS as u32 - 1;
            assert!(*count <= bound, "{story}: level {level} starves");
        }
    }
    assert!(picky.fake.ended().is_none());
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        // xorshift64: enough to shuffle a test, and the seed is all there is to reproduce.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 33) % bound as u64) as usize
    }
}

/// A [`FakeHost`] on which no task of a forbidden level may run on the worker that asks.
struct Picky {
    fake: FakeHost,
    forbidden: RefCell<[bool; LEVELS]>,
}

impl Picky {
    fn new() -> Self {
        Picky {
            fake: FakeHost::new(3),
            forbidden: RefCell::default(),
        }
    }
}

fn picky() -> (Picky, Priority) {
    let (picky, policy) = (Picky::new(), Priority::new());
    policy.init(&Host::new(&picky)).unwrap();
    (picky, policy)
}

impl HostApi for Picky {
    fn move_to_local(&self, from: DsqId, at_most: usize) -> usize {
        match from {
            DsqId::Custom(level) if self.forbidden.borrow()[level as usize] => 0,
            _ => self.fake.move_to_local(from, at_most),
        }
    }
    fn insert(&self, task: TaskId, dsq: DsqId, at: Position) -> bool {
        self.fake.insert(task, dsq, at)
    }
    fn insert_vtime(&self, task: TaskId, dsq: DsqId, vtime: u64) -> bool {
        self.fake.insert_vtime(task, dsq, vtime)
    }
    fn kick(&self, worker: WorkerId) {
        self.fake.kick(worker);
    }
    fn set_slice(&self, task: TaskId, slice: Slice) {
        self.fake.set_slice(task, slice);
    }
    fn kick_at(&self, worker: WorkerId, at: Duration) {
        self.fake.kick_at(worker, at);
    }
    fn worker_count(&self) -> usize {
        self.fake.worker_count()
    }
    fn worker(&self) -> Option<WorkerId> {
        self.fake.worker()
    }
    fn is_idle(&self, worker: WorkerId) -> bool {
        self.fake.is_idle(worker)
    }
    fn claim_idle(&self, worker: WorkerId) -> bool {
        self.fake.claim_idle(worker)
    }
    fn claim_idle_worker(&self, task: &TaskView<'_>) -> Option<WorkerId> {
        self.fake.claim_idle_worker(task)
    }
    fn create_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.fake.create_dsq(number)
    }
    fn create_vtime_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.fake.create_vtime_dsq(number)
    }
    fn destroy_dsq(&self, dsq: DsqId) -> Result<(), DsqError> {
        self.fake.destroy_dsq(dsq)
    }
    fn dsq_len(&self, dsq: DsqId) -> Option<usize> {
        self.fake.dsq_len(dsq)
    }
    fn first_vtime(&self, dsq: DsqId) -> Option<u64> {
        self.fake.first_vtime(dsq)
    }
    fn batch_hint(&self) -> usize {
        self.fake.batch_hint()
    }
    fn now(&self) -> Duration {
        self.fake.now()
    }
    fn error(&self, message: &str) {
        self.fake.error(message);
    }
    fn exit(&self, code: u64, message: &str) {
        self.fake.exit(code, message);
    }
}
