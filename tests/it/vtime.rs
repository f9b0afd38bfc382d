//! The policy [`Vtime`] on the real machine.
//!
//! A busy machine must not decide. So time is what the policy charged, and not the wall clock; and a poll that takes longer than
//! its task meant it to (the system took the processor away in the middle) is charged what the task meant. That is what
//! [`Watched`] is for. On one worker nothing else is left for the machine to decide. On two such a gap also keeps a task from
//! competing, and it makes up for that in the next few milliseconds: so there the bound for each window is for those without a gap,
//! and on a machine too busy for that, for all of them together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use polity::{
    Accounting, Attributes, ExitInfo, Handle, Host, InitError, Policy, Stopped, TaskView, WorkerId,
    yield_now,
};
use polity_policies::{Vtime, VtimeTask};
use polity_tests::{builder, check, now, wait_for, wait_until, within};

use crate::workload::{Random, lock};

const US: Duration = Duration::from_micros(1);
const MS: Duration = Duration::from_millis(1);
/// A worker that does nothing for so long was kept from it.
const GAP: Duration = Duration::from_micros(500);

/// What happened to a task, by its tag.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Event {
    Enqueued(u64),
    Begun(u64),
    Charged(u64, Duration),
    /// The system took the processor away.
    Gap,
}

type Log = Arc<Mutex<Vec<Event>>>;

/// [`Vtime`], with no poll longer than it may be, and with a log.
struct Watched {
    inner: Vtime,
    longest: Duration,
    log: Log,
    /// When a worker was last seen at work.
    last: Mutex<HashMap<WorkerId, Instant>>,
}

fn watched(longest: Duration) -> (Watched, Log) {
    let log = Log::default();
    let watched = Watched {
        inner: Vtime::new(),
        longest,
        log: Arc::clone(&log),
        last: Mutex::default(),
    };
    (watched, log)
}

impl Watched {
    fn note(&self, event: Event) {
        lock(&self.log).push(event);
    }

    fn note_at_work(&self, host: &Host<'_>) -> Option<Duration> {
        let last = lock(&self.last).insert(host.worker()?, now());
        last.map(|last| last.elapsed())
    }
}

impl Policy for Watched {
    type Task = VtimeTask;

    fn name(&self) -> &str {
        self.inner.name()
    }
    fn accounting(&self) -> Accounting {
        self.inner.accounting()
    }
    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        self.inner.init(host)
    }
    fn exit(&self, info: &ExitInfo) {
        self.inner.exit(info);
    }
    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<VtimeTask, InitError> {
        self.inner.init_task(host, task)
    }
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_, VtimeTask>) {
        self.note(Event::Enqueued(task.tag()));
        self.inner.enqueue(host, task);
    }
    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&TaskView<'_, VtimeTask>>) {
        self.inner.dispatch(host, worker, prev);
    }
    fn running(&self, host: &Host<'_>, task: &TaskView<'_, VtimeTask>) {
        if self.note_at_work(host).is_some_and(|idle| idle > GAP) {
            self.note(Event::Gap);
        }
        self.note(Event::Begun(task.tag()));
        self.inner.running(host, task);
    }
    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_, VtimeTask>, stopped: Stopped) {
        self.note_at_work(host);
        let ran = task.ran().min(self.longest);
        self.note(Event::Charged(task.tag(), ran));
        if task.ran() > self.longest + GAP {
            self.note(Event::Gap);
        }
        self.inner.stopping(host, &task.with_ran(ran), stopped);
    }
}

fn spin(length: Duration) {
    let until = now() + length;
    while now() < until {
        std::hint::spin_loop();
    }
}

/// A task that never waits, until it is told to stop.
fn always(
    runtime: &Handle,
    attributes: Attributes,
    stop: &Arc<AtomicBool>,
    mut length: impl FnMut() -> Duration + Send + 'static,
) -> polity::JoinHandle<()> {
    let stop = Arc::clone(stop);
    let task = async move {
        while !stop.load(Ordering::Relaxed) {
            spin(length());
            yield_now().await;
        }
    };
    runtime.spawn_with(attributes, task).unwrap()
}

/// What three classes used in each whole window of charged time.
#[derive(Default)]
struct Windows {
    seen: usize,
    quiet: Vec<[Duration; 3]>,
    /// With a gap in them.
    loud: Vec<[Duration; 3]>,
    used: [Duration; 3],
    has_gap: bool,
}

impl Windows {
    const LENGTH: Duration = Duration::from_millis(100);

    fn read(&mut self, log: &[Event], workers: usize) {
        for event in &log[self.seen..] {
            match event {
                Event::Gap => self.has_gap |= workers > 1,
                Event::Charged(class, ran) => self.charge(*class as usize, *ran),
                _ => {}
            }
        }
        self.seen = log.len();
    }

    fn charge(&mut self, class: usize, ran: Duration) {
        let room = Self::LENGTH - self.used.iter().sum::<Duration>();
        self.used[class] += ran.min(room);
        if ran >= room {
            let used = std::mem::take(&mut self.used);
            self.used[class] = ran - room;
            if std::mem::take(&mut self.has_gap) {
                self.loud.push(used);
            } else {
                self.quiet.push(used);
            }
        }
    }

    fn are_enough(&self) -> bool {
        self.quiet.len() >= 10 || self.quiet.len() + self.loud.len() >= 25
    }
}

/// By how many percentage points the class that is worst off is away from its share.
fn points_off(used: &[Duration; 3], weights: [u32; 3]) -> f64 {
    let all: Duration = used.iter().sum();
    let off = used.iter().zip(weights).map(|(used, weight)| {
        let part = used.as_secs_f64() / all.as_secs_f64();
        (part - f64::from(weight) / 1200.0).abs() * 100.0
    });
    off.fold(0.0, f64::max)
}

/// Spawns so many tasks of each class and looks at ten windows or more.
fn shares(workers: usize, tasks: usize, shortest: Duration) {
    const WEIGHTS: [u32; 3] = [800, 300, 100];
    let name =
        format!("{workers} workers, {tasks} tasks of each class, polls of {shortest:?} to 1 ms");
    let mut random = Random::from_env(&name);
    check(workers, move |runtime| {
        let (policy, log) = watched(MS);
        runtime.load(policy).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let all: Vec<_> = (0..3 * tasks)
            .map(|nth| {
                let class = nth % 3;
                let mut random = Random::new(random.next());
                let spread = (MS - shortest).as_nanos() as u64 + 1;
                let length = move || shortest + Duration::from_nanos(random.below(spread));
                let attributes = Attributes::new().weight(WEIGHTS[class]).tag(class as u64);
                always(&runtime, attributes, &stop, length)
            })
            .collect();
        let mut windows = Windows::default();
        wait_until("there are enough windows", || {
            windows.read(&lock(&log), workers);
            windows.are_enough()
        });
        stop.store(true, Ordering::Relaxed);
        for task in all {
            wait_for("a task", task).unwrap();
        }
        // The first has the spawns in it.
        for used in windows.quiet.iter().skip(1) {
            let off = points_off(used, WEIGHTS);
            assert!(off <= 2.0, "{name}: {used:?} are {off:.1} points off");
        }
        let mut sum = [Duration::ZERO; 3];
        for used in windows.quiet.iter().chain(&windows.loud) {
            (0..3).for_each(|class| sum[class] += used[class]);
        }
        let off = points_off(&sum, WEIGHTS);
        let (quiet, loud) = (windows.quiet.len(), windows.loud.len());
        println!("{quiet} quiet windows, {loud} others, {off:.2} points off in all");
        assert!(off <= 2.0, "{name}: {sum:?} are {off:.1} points off");
        assert!(runtime.policy_status().is_some());
    });
}

#[test]
fn three_classes_share_one_worker_by_weight_within_two_points_in_every_100_ms() {
    shares(1, 1, 10 * US);
    shares(1, 2, 500 * US);
    shares(1, 3, MS);
}

#[test]
fn three_classes_share_two_workers_by_weight_within_two_points_in_every_100_ms() {
    shares(2, 2, 500 * US);
    shares(2, 3, MS);
}

const SLEEPER: u64 = 7;

#[test]
fn a_sleeper_is_polled_next_when_it_wakes() {
    check(1, |runtime| {
        let (policy, log) = watched(MS);
        runtime.load(policy).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..10)
            .map(|_| always(&runtime, Attributes::new(), &stop, || 300 * US))
            .collect();
        let sleeper = runtime
            .spawn_with(Attributes::new().tag(SLEEPER), async {
                for _ in 0..50 {
                    tokio::time::sleep(5 * MS).await;
                }
            })
            .unwrap();
        wait_for("the sleeper", sleeper).unwrap();
        stop.store(true, Ordering::Relaxed);
        for task in busy {
            wait_for("a task", task).unwrap();
        }
        let mut before = Vec::new();
        let mut others = None;
        for event in &*lock(&log) {
            match event {
                Event::Enqueued(SLEEPER) => others = Some(0),
                Event::Begun(SLEEPER) => before.extend(others.take()),
                Event::Begun(_) => others = others.map(|others| others + 1),
                _ => {}
            }
        }
        // The first was its spawn, when it had not slept yet.
        assert_eq!(before[1..], [0; 50], "others begun between wake and poll");
    });
}

#[test]
fn a_sleeper_does_not_hoard() {
    check(1, |runtime| {
        let (policy, log) = watched(MS);
        runtime.load(policy).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = vec![always(&runtime, Attributes::new(), &stop, || 200 * US)];
        let stopped = Arc::clone(&stop);
        let sleeper = async move {
            // Half a second behind the other, if it could hoard.
            tokio::time::sleep(500 * MS).await;
            while !stopped.load(Ordering::Relaxed) {
                spin(200 * US);
                yield_now().await;
            }
        };
        let attributes = Attributes::new().tag(SLEEPER);
        tasks.push(runtime.spawn_with(attributes, sleeper).unwrap());
        let used_since = |log: &[Event]| {
            let mut used = [Duration::ZERO; 2];
            let mut enqueued = 0;
            let mut most = 0.0_f64;
            for event in log {
                match event {
                    Event::Enqueued(SLEEPER) => enqueued += 1,
                    // The first is its spawn.
                    Event::Charged(tag, ran) if enqueued > 1 => {
                        used[usize::from(*tag == SLEEPER)] += *ran;
                        most = most.max(used[1].as_secs_f64() - used[0].as_secs_f64());
                    }
                    _ => {}
                }
            }
            (used, most)
        };
        wait_until("both have run for 50 ms since", || {
            used_since(&lock(&log))
                .0
                .iter()
                .all(|used| *used >= 50 * MS)
        });
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        let (_, most) = used_since(&lock(&log));
        // One credit, and a poll of each.
        let bound = Vtime::CREDIT + 2 * MS;
        assert!(most <= bound.as_secs_f64(), "{most} s ahead");
    });
}

#[test]
fn a_weight_of_one_beside_ten_thousand_is_no_stall() {
    within(|| {
        let runtime = builder(1).watchdog(1000 * MS).build().unwrap();
        let policy = Vtime::new();
        policy.set_patience(100 * MS).unwrap();
        let generation = runtime.load(policy).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let polls = Arc::new(Mutex::new(0));
        let counted = Arc::clone(&polls);
        let light = always(&runtime, Attributes::new().weight(1), &stop, move || {
            *lock(&counted) += 1;
            MS
        });
        wait_until("it has run alone", || *lock(&polls) > 10);
        let heavy = Attributes::new().weight(10_000);
        let heavy: Vec<_> = (0..4)
            .map(|_| always(&runtime, heavy.clone(), &stop, || 500 * US))
            .collect();
        // Its share would be one poll in 40 s.
        let before = *lock(&polls);
        wait_until("it has had ten turns", || *lock(&polls) >= before + 10);
        assert!(runtime.exit_info(generation).is_none());
        stop.store(true, Ordering::Relaxed);
        for task in heavy.into_iter().chain([light]) {
            wait_for("a task", task).unwrap();
        }
    });
}
