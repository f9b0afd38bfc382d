//! The policy on a fake host and a clock of its own: polls take as long as the test says, and every run is the same.

use std::collections::BTreeMap;

use polity_policy::EnqueueReason;
use polity_policy::fake::FakeHost;

use super::*;

const W0: WorkerId = WorkerId::new(0);
const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// Of the coarse clock.
const TICK: u64 = 5 * MS;

/// What a task does: polls of up to `longest`, then goes to sleep for `sleeps`, if that is not zero.
#[derive(Clone, Copy)]
struct Habit {
    class: usize,
    weight: u32,
    shortest: u64,
    longest: u64,
    sleeps: u64,
}

fn busy(class: usize, weight: u32, longest: u64) -> Habit {
    Habit {
        class,
        weight,
        shortest: longest,
        longest,
        sleeps: 0,
    }
}

struct Task {
    habit: Habit,
    data: VtimeTask,
    enqueued_at: u64,
    began_at: u64,
    longest_wait: u64,
    used: u64,
}

/// One poll: which class, and for how long.
type Poll = (usize, u64);

/// As many workers as there are places, in simulated time.
struct World {
    fake: FakeHost,
    policy: Vtime,
    time: u64,
    tasks: BTreeMap<u32, Task>,
    next_slot: u32,
    /// What each worker polls, and until when.
    workers: Vec<Option<(u32, u64)>>,
    sleeping: Vec<(u64, u32)>,
    polls: Vec<Poll>,
    random: u64,
}

impl World {
    fn new(workers: usize) -> World {
        World::with(Vtime::new(), workers)
    }

    fn with(policy: Vtime, workers: usize) -> World {
        let fake = FakeHost::new(workers);
        policy.init(&fake.host()).unwrap();
        World {
            fake,
            policy,
            time: 0,
            tasks: BTreeMap::new(),
            next_slot: 1,
            workers: vec![None; workers],
            sleeping: Vec::new(),
            polls: Vec::new(),
            random: 1,
        }
    }

    fn view(&self, slot: u32, reason: EnqueueReason) -> TaskView<'_, VtimeTask> {
        let task = &self.tasks[&slot];
        let fake = self.fake.task(slot).weight(task.habit.weight);
        fake.reason(reason).view_with(&task.data)
    }

    fn enqueue(&mut self, slot: u32, reason: EnqueueReason) {
        let time = self.time;
        self.tasks.get_mut(&slot).expect("a live task").enqueued_at = time;
        self.policy
            .enqueue(&self.fake.host(), &self.view(slot, reason));
    }

    fn spawn(&mut self, habit: Habit) -> u32 {
        let slot = self.next_slot;
        self.next_slot += 1;
        let view = self.fake.task(slot).weight(habit.weight).view();
        let data = self.policy.init_task(&self.fake.host(), &view).unwrap();
        let task = Task {
            habit,
            data,
            enqueued_at: 0,
            began_at: 0,
            longest_wait: 0,
            used: 0,
        };
        self.tasks.insert(slot, task);
        self.enqueue(slot, EnqueueReason::Spawn);
        slot
    }

    fn length(&mut self, habit: Habit) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.random;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        habit.shortest + (x ^ (x >> 31)) % (habit.longest - habit.shortest + 1)
    }

    fn begin(&mut self, worker: usize, slot: u32) {
        self.policy
            .running(&self.fake.host(), &self.view(slot, EnqueueReason::Wake));
        let length = self.length(self.tasks[&slot].habit);
        let time = self.time;
        let task = self.tasks.get_mut(&slot).expect("a live task");
        task.longest_wait = task.longest_wait.max(time - task.enqueued_at);
        task.began_at = time;
        self.workers[worker] = Some((slot, time + length));
    }

    /// The poll on `worker` is over. Returns the task, if it is still runnable.
    fn end(&mut self, worker: usize) -> Option<u32> {
        let (slot, _) = self.workers[worker].take()?;
        let time = self.time;
        let task = self.tasks.get_mut(&slot).expect("a live task");
        let ran = time - task.began_at;
        task.used += ran;
        let habit = task.habit;
        self.polls.push((habit.class, ran));
        let stopped = match habit.sleeps {
            0 => Stopped::StillRunnable,
            u64::MAX => Stopped::Finished,
            _ => Stopped::Waiting,
        };
        let view = self.view(slot, EnqueueReason::Wake);
        let told = match self.policy.accounting() {
            Accounting::Coarse => time / TICK * TICK - (time - ran) / TICK * TICK,
            _ => ran,
        };
        let view = view.with_ran(Duration::from_nanos(told));
        self.policy.stopping(&self.fake.host(), &view, stopped);
        match stopped {
            Stopped::StillRunnable => return Some(slot),
            Stopped::Finished => drop(self.tasks.remove(&slot)),
            Stopped::Waiting => self.sleeping.push((time + habit.sleeps, slot)),
        }
        None
    }

    fn fill(&mut self, worker: usize, prev: Option<u32>) {
        let view = prev.map(|slot| self.view(slot, EnqueueReason::StillRunnable));
        self.policy.dispatch(&self.fake.host(), W0, view.as_ref());
        match (self.fake.run_next().map(|task| task.slot()), prev) {
            (Some(next), _) => {
                self.begin(worker, next);
                if let Some(prev) = prev {
                    self.enqueue(prev, EnqueueReason::StillRunnable);
                }
            }
            (None, Some(prev)) => {
                let time = self.time;
                self.tasks.get_mut(&prev).expect("a live task").enqueued_at = time;
                self.begin(worker, prev);
            }
            (None, None) => {}
        }
    }

    fn advance(&mut self, to: u64) {
        self.fake.advance(Duration::from_nanos(to - self.time));
        self.time = to;
    }

    /// The next end of a poll, or the next wake.
    fn step(&mut self) {
        for worker in 0..self.workers.len() {
            if self.workers[worker].is_none() {
                self.fill(worker, None);
            }
        }
        let busy = |worker: &usize| self.workers[*worker].map(|(_, until)| until);
        let first = (0..self.workers.len())
            .filter(|worker| busy(worker).is_some())
            .min_by_key(busy);
        let ends = first.and_then(|worker| busy(&worker)).unwrap_or(u64::MAX);
        let wakes = self.sleeping.iter().map(|(at, _)| *at).min();
        if let Some(at) = wakes
            && at <= ends
        {
            self.advance(at);
            let index = self.sleeping.iter().position(|(it, _)| *it == at);
            let (_, slot) = self.sleeping.swap_remove(index.expect("just found"));
            self.enqueue(slot, EnqueueReason::Wake);
            return;
        }
        let worker = first.expect("somebody polls or sleeps");
        self.advance(ends);
        let prev = self.end(worker);
        self.fill(worker, prev);
    }

    fn run_until(&mut self, time: u64) {
        while self.time < time {
            self.step();
        }
    }

    fn used(&self, slot: u32) -> u64 {
        self.tasks[&slot].used
    }
}

/// By how many percentage points a class was off its share in the worst window of 100 ms of processor time.
fn worst_window(polls: &[Poll], shares: [f64; 3]) -> f64 {
    const WINDOW: u64 = 100 * MS;
    let mut windows = vec![[0_u64; 3]];
    let mut room = WINDOW;
    for &(class, mut ran) in polls {
        while ran >= room {
            windows.last_mut().expect("one at least")[class] += room;
            ran -= room;
            room = WINDOW;
            windows.push([0; 3]);
        }
        windows.last_mut().expect("one at least")[class] += ran;
        room -= ran;
    }
    windows.pop(); // not full
    assert!(windows.len() >= 20);
    let off = |used: [u64; 3]| {
        (0..3)
            .map(|class| (used[class] as f64 / WINDOW as f64 - shares[class]).abs() * 100.0)
            .fold(0.0, f64::max)
    };
    windows.into_iter().map(off).fold(0.0, f64::max)
}

#[test]
fn eight_to_three_to_one_holds_in_every_100_ms_on_one_worker_and_on_two() {
    let weights = [800, 300, 100];
    let shares = weights.map(|weight| f64::from(weight) / 1200.0);
    for (workers, tasks) in [(1, 1), (1, 2), (1, 4), (2, 2), (2, 3), (2, 4)] {
        for shortest in [10 * US, 500 * US, MS] {
            let mut world = World::new(workers);
            for (class, weight) in weights.into_iter().enumerate() {
                for _ in 0..tasks {
                    world.spawn(Habit {
                        shortest,
                        ..busy(class, weight, MS)
                    });
                }
            }
            world.run_until(5_000 * MS / workers as u64);
            let off = worst_window(&world.polls, shares);
            println!("{workers} {tasks} {shortest}: {off:.2}");
            assert!(
                off <= 2.0,
                "{off:.2} points off with {tasks} tasks a class on {workers} workers, polls of {shortest} to {MS} ns"
            );
            assert_eq!(world.policy.stats().rescues, 0);
        }
    }
}

#[test]
fn two_tasks_on_one_worker_share_by_weight_and_do_not_take_turns() {
    let mut world = World::new(1);
    let heavy = world.spawn(busy(0, 800, 100 * US));
    let light = world.spawn(busy(1, 100, 100 * US));
    world.run_until(900 * MS);
    let ratio = world.used(heavy) as f64 / world.used(light) as f64;
    assert!((ratio - 8.0).abs() < 0.1, "{ratio}");
    assert!(world.policy.stats().kept > 0);
}

#[test]
fn time_counts_and_not_polls() {
    let mut world = World::new(1);
    let long = world.spawn(busy(0, 100, 5 * MS));
    let short = world.spawn(busy(1, 100, 50 * US));
    world.run_until(1_000 * MS);
    let part = world.used(long) as f64 / (world.used(long) + world.used(short)) as f64;
    assert!((part - 0.5).abs() < 0.01, "{part}");
}

#[test]
fn what_one_leaves_goes_to_the_others_by_weight() {
    let mut world = World::new(1);
    let habit = Habit {
        sleeps: 9 * MS, // at most a tenth, although its weight is worth nine tenths
        ..busy(0, 3600, MS)
    };
    let modest = world.spawn(habit);
    let heavy = world.spawn(busy(1, 300, 100 * US));
    let light = world.spawn(busy(2, 100, 100 * US));
    world.run_until(2_000 * MS);
    let part = |slot| world.used(slot) as f64 / world.time as f64;
    assert!((part(modest) - 0.1).abs() < 0.01, "{}", part(modest));
    assert!((part(heavy) - 0.675).abs() < 0.02, "{}", part(heavy));
    assert!((part(light) - 0.225).abs() < 0.02, "{}", part(light));
}

#[test]
fn a_sleeper_waits_for_no_more_than_the_poll_that_is_under_way() {
    let mut world = World::new(1);
    for _ in 0..20 {
        world.spawn(busy(0, 100, MS));
    }
    let habit = Habit {
        sleeps: 20 * MS,
        ..busy(1, 100, 100 * US) // 100 us in 20 ms: less than its share
    };
    let sleeper = world.spawn(habit);
    world.run_until(100 * MS); // its first turn comes in line
    world.tasks.get_mut(&sleeper).unwrap().longest_wait = 0;
    world.run_until(5_000 * MS);
    let wait = world.tasks[&sleeper].longest_wait;
    assert!(wait <= MS, "{wait} ns");
    assert!(world.policy.stats().credits_cut > 0);
}

#[test]
fn a_long_sleep_is_worth_the_credit_and_no_more() {
    let mut world = World::new(1);
    let other = world.spawn(busy(0, 100, 100 * US));
    let habit = Habit {
        sleeps: 10_000 * MS,
        ..busy(1, 100, 100 * US)
    };
    let sleeper = world.spawn(habit);
    world.run_until(9_000 * MS);
    // When it wakes, it never sleeps again.
    world.tasks.get_mut(&sleeper).unwrap().habit.sleeps = 0;
    let woken_at = world.sleeping[0].0;
    world.run_until(woken_at);
    let before = [world.used(sleeper), world.used(other)];
    world.run_until(woken_at + 100 * MS);
    let used = [
        world.used(sleeper) - before[0],
        world.used(other) - before[1],
    ];
    let ahead = used[0] as i64 - used[1] as i64;
    let credit = Vtime::CREDIT.as_nanos() as i64;
    assert!(
        (0..=credit + 2 * 100 * US as i64).contains(&ahead),
        "{ahead} ns ahead"
    );
}

#[test]
fn a_long_poll_is_paid_back() {
    let mut world = World::new(1);
    let hog = world.spawn(busy(0, 100, 200 * MS));
    let other = world.spawn(busy(1, 100, MS));
    while world.used(hog) == 0 {
        world.step();
    }
    let (from, before) = (world.time, world.used(other));
    while world.used(hog) < 400 * MS {
        world.step();
    }
    let paid = world.used(other) - before;
    assert!(
        paid >= 195 * MS,
        "{paid} ns for the other, in {} ns",
        world.time - from
    );
}

#[test]
fn a_stream_of_new_tasks_gets_its_share_and_not_all() {
    let mut world = World::new(1);
    let old = world.spawn(busy(0, 100, 50 * US));
    let new = Habit {
        sleeps: u64::MAX,
        ..busy(1, 100, 50 * US)
    };
    // Whenever one of two has ended the next is there: as if two more tasks never slept.
    while world.time < 1_000 * MS {
        while world.tasks.len() < 3 {
            world.spawn(new);
        }
        world.step();
    }
    let part = world.used(old) as f64 / world.time as f64;
    assert!((0.25..0.5).contains(&part), "{part}");
}

#[test]
fn nothing_starves_beside_a_weight_of_ten_thousand() {
    let mut world = World::new(1);
    let least = world.spawn(busy(0, 1, MS));
    world.run_until(100 * MS); // far ahead before the others come
    for _ in 0..50 {
        world.spawn(busy(1, 10_000, MS));
    }
    world.run_until(20_000 * MS);
    let wait = world.tasks[&least].longest_wait;
    let bound = 2 * Vtime::PATIENCE.as_nanos() as u64 + 60 * MS;
    assert!(wait <= bound, "{wait} ns");
    assert!(world.policy.stats().rescues > 0);
}

#[test]
fn shares_hold_while_vtime_wraps() {
    let mut world = World::new(1);
    let start = 0_u64.wrapping_sub(100 * MS);
    world.policy.now.0.store(start, Relaxed);
    for mine in world.policy.workers.all() {
        mine.begun.store(start, Relaxed);
        mine.latest.store(start, Relaxed);
    }
    *world.policy.promised.lock().unwrap() = start;
    let heavy = world.spawn(busy(0, 300, 100 * US));
    let light = world.spawn(busy(1, 100, 100 * US));
    world.run_until(2_000 * MS);
    assert!(world.policy.now.0.load(Relaxed) < start, "it has wrapped");
    let ratio = world.used(heavy) as f64 / world.used(light) as f64;
    assert!((ratio - 3.0).abs() < 0.05, "{ratio}");
    assert_eq!(world.policy.stats().rescues, 0);
}

#[test]
fn by_the_coarse_clock_shares_hold_roughly_over_seconds() {
    let mut world = World::with(Vtime::coarse(), 1);
    let habit = |class, weight, longest| Habit {
        shortest: 1,
        ..busy(class, weight, longest)
    };
    let heavy = world.spawn(habit(0, 300, 100 * US));
    let light = world.spawn(habit(1, 100, 2 * MS));
    world.run_until(20_000 * MS);
    let part = world.used(heavy) as f64 / (world.used(heavy) + world.used(light)) as f64;
    // Less than it should be: see `Vtime::coarse`.
    assert!((0.70..0.76).contains(&part), "{part}");
}

#[test]
fn polls_in_which_the_coarse_clock_stood_still_are_not_for_free() {
    let (fake, policy) = (FakeHost::new(1), Vtime::coarse());
    policy.init(&fake.host()).unwrap();
    let data = [0, 50 * LEAST_CHARGE_NS].map(|vtime| VtimeTask(AtomicU64::new(vtime)));
    let view = |index: usize| fake.task(index as u32).view_with(&data[index]);
    policy.enqueue(&fake.host(), &view(1));
    let mut ran = [0; 2];
    let mut current = 0;
    for _ in 0..100 {
        policy.running(&fake.host(), &view(current));
        policy.stopping(&fake.host(), &view(current), Stopped::StillRunnable);
        ran[current] += 1;
        policy.dispatch(&fake.host(), W0, Some(&view(current)));
        if let Some(next) = fake.run_next() {
            policy.enqueue(&fake.host(), &view(current));
            current = next.slot() as usize;
        }
    }
    assert_eq!(ran, [75, 25], "fifty, and then they take turns");
}

#[test]
fn statistics_and_parameters_can_be_used_while_it_runs() {
    let mut world = World::new(1);
    assert_eq!(world.policy.stats(), VtimeStats::default());
    world.spawn(busy(0, 100, MS));
    world.run_until(10 * MS);
    let stats = world.policy.stats();
    assert_eq!(
        (stats.polls, stats.charged),
        (10, Duration::from_millis(10))
    );
    world.policy.set_credit(Duration::ZERO).unwrap();
    world.policy.set_patience(Duration::from_secs(10)).unwrap();
    assert_eq!(world.policy.credit(), Duration::ZERO);
    assert_eq!(world.policy.patience(), Duration::from_secs(10));
}

#[test]
fn a_parameter_out_of_range_is_refused_by_name_and_value_and_changes_nothing() {
    let policy = Vtime::new();
    let error = policy.set_credit(Duration::from_millis(1001)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "credit of 1.001s: must be from 0ns to 1s"
    );
    let error = policy.set_patience(Duration::ZERO).unwrap_err();
    assert_eq!(
        error.to_string(),
        "patience of 0ns: must be from 1ms to 10s"
    );
    assert_eq!(
        (policy.credit(), policy.patience()),
        (Vtime::CREDIT, Vtime::PATIENCE)
    );
}

#[test]
fn the_host_is_asked_for_a_dsq_with_vtimes() {
    let world = World::new(1);
    assert!(world.fake.host().create_dsq(0).is_err());
    assert_eq!(world.fake.host().first_vtime(QUEUE), None);
    assert!(world.fake.ended().is_none());
}
