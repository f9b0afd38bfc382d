//! A policy whose callback does not return: its threads are replaced, its tasks go on, and what it says when it comes
//! back after all counts for nothing.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use polity::{Attributes, ExitKind, Handle, JoinHandle, Runtime, WorkerId, WorkerMask, yield_now};
use polity_policies::{Callback, Priority};
use polity_tests::{DEADLINE, builder, now, receive, wait_for, wait_until, within};
use tokio::sync::watch;

use crate::spares::ledger::Ledger;
use crate::spares::trap::{How, Kind, Trap, Trigger};
use crate::support::ON_WORKERS;
use crate::workload::{Mixed, Recorder, Script, exit_of, lock};

const WORKERS: usize = 2;

/// Two workers, as many spares, and no stall that a slow machine might bring about.
fn runtime() -> Runtime {
    // Two for each worker: one that is back may be slow to leave.
    let builder = builder(WORKERS)
        .spares(2 * WORKERS)
        .watchdog(Duration::from_secs(30));
    builder.build().unwrap()
}

/// How the task ends about which the policy gets stuck.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bait {
    Finishes,
    Waits,
    Yields,
}

impl Bait {
    async fn run(self, mut go: watch::Receiver<bool>) {
        match self {
            Bait::Finishes => {}
            Bait::Waits => drop(go.wait_for(|go| *go).await),
            Bait::Yields => {
                yield_now().await;
                yield_now().await;
            }
        }
    }
}

fn only(worker: usize) -> WorkerMask {
    WorkerMask::from_iter([WorkerId::new(worker as u16)])
}

/// Tasks in every state that a task can be in, and a policy that is about to get stuck.
struct Scene {
    trigger: Trigger,
    generation: polity::Generation,
    books: Arc<Mutex<Ledger>>,
    /// Sends the waiting ones on.
    go: watch::Sender<bool>,
    springs: Mutex<Vec<JoinHandle<()>>>,
    calls: usize,
}

impl Scene {
    /// Loads the policy, and gives it tasks to hold.
    fn set(runtime: &Handle, callback: Callback, how: How, calls: usize, bait: Bait) -> Scene {
        let (trap, trigger) = Trap::new(callback, how, calls);
        let generation = runtime.load(trap).unwrap();
        let (go, gone) = watch::channel(false);
        let scene = Scene {
            trigger,
            generation,
            books: Arc::default(),
            go,
            springs: Mutex::default(),
            calls,
        };
        scene.fill(runtime, callback, bait, &gone);
        scene
    }

    /// Makes the calls get stuck. `None`: the machine was so slow that the first of them was convicted before the last
    /// one came.
    fn spring(self, runtime: &Handle, bait: Bait) -> Option<Scene> {
        self.trigger.arm();
        for worker in 0..WORKERS {
            self.spring_on(runtime, worker, bait);
        }
        let ended = || runtime.exit_info(self.generation).is_some();
        if self.trigger.wait_caught(self.calls, ended) {
            return Some(self);
        }
        self.wake_and_abort();
        self.trigger.release();
        self.settle();
        wait_until("all threads are back", || runtime.abandoned_threads() == 0);
        None
    }

    /// A policy with so many calls that are stuck, and not convicted yet.
    fn new(runtime: &Handle, callback: Callback, how: How, calls: usize, bait: Bait) -> Scene {
        // One that waits never comes to its `exit_task`.
        let bait = match (callback, bait) {
            (Callback::ExitTask, Bait::Waits) => Bait::Finishes,
            _ => bait,
        };
        loop {
            let scene = Scene::set(runtime, callback, how, calls, bait);
            if let Some(scene) = scene.spring(runtime, bait) {
                return scene;
            }
        }
    }

    fn fill(&self, runtime: &Handle, callback: Callback, bait: Bait, gone: &watch::Receiver<bool>) {
        let mut books = lock(&self.books);
        let mut kept = 0;
        for kind in [Kind::Held, Kind::Queued, Kind::Claimed, Kind::Moved] {
            for n in 0..8 {
                let attributes = match n % 4 {
                    3 => kind.attributes().affinity(only(n / 4)),
                    _ => kind.attributes(),
                };
                let how = [Bait::Finishes, Bait::Waits, Bait::Yields][n % 3];
                books.spawn(runtime, attributes, how.run(gone.clone()));
            }
            books.spawn_endless(runtime, kind.attributes());
            kept += 9;
        }
        if callback == Callback::Dequeue {
            for _ in 0..4 {
                books.spawn(runtime, Kind::Bait.attributes(), bait.run(gone.clone()));
                kept += 1;
            }
        }
        for _ in 0..4 {
            let waits = Bait::Waits.run(gone.clone());
            books.spawn(runtime, Kind::Plain.attributes(), waits);
            let gone = gone.clone();
            let ticks = async move {
                while !*gone.borrow() {
                    // The driver's timers are what is tested.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            books.spawn(runtime, Kind::Plain.attributes(), ticks);
            books.spawn_endless(runtime, Kind::Plain.attributes());
        }
        drop(books);
        wait_until("the policy has them", || self.trigger.enqueued() >= kept);
    }

    /// From a task on this worker, so that they come to the policy in one batch: the bait in the middle, and one that
    /// no other worker may take.
    fn spring_on(&self, runtime: &Handle, worker: usize, bait: Bait) {
        let books = Arc::clone(&self.books);
        let (handle, gone) = (runtime.clone(), self.go.subscribe());
        let spawns = async move {
            let mut books = lock(&books);
            let baits = Kind::Bait.attributes();
            for attributes in [
                Kind::Plain.attributes(),
                Kind::Held.attributes(),
                baits.clone(),
                Kind::Held.attributes(),
                Kind::Plain.attributes(),
                baits.affinity(only(worker)),
            ] {
                books.spawn(&handle, attributes, bait.run(gone.clone()));
            }
            books.spawn_endless(&handle, Kind::Held.attributes());
        };
        let here = Kind::Plain.attributes().affinity(only(worker));
        lock(&self.springs).push(runtime.spawn_with(here, spawns).unwrap());
    }

    fn wake_and_abort(&self) {
        self.go.send_replace(true);
        lock(&self.books).abort();
    }

    /// Every task ends.
    fn settle(&self) {
        // The callback may have got stuck before they ran.
        for spring in lock(&self.springs).drain(..) {
            wait_for("a task that spawns others", spring).unwrap();
        }
        let mut books = lock(&self.books);
        books.abort();
        books.settle();
    }

    /// Every task ends although the threads are stuck, and another policy can be loaded and used.
    fn play_on(&self, runtime: &Runtime) {
        self.settle();
        Mixed::start(runtime, 2).finish();
        let (policy, record) = Recorder::new(Priority::new(), WORKERS);
        let generation = runtime.load(policy).unwrap();
        Mixed::start(runtime, 3).finish();
        assert!(record.enqueues.load(Ordering::SeqCst) > 0);
        record.check();
        assert_eq!(runtime.policy_status().unwrap().generation, generation);
        assert_eq!(self.trigger.stuck(), self.calls, "they are stuck still");
    }

    /// Lets the threads go. Nothing of what they say counts, and they can be used again.
    fn end(self, runtime: &Runtime) {
        self.trigger.release();
        wait_until("all threads are back", || runtime.abandoned_threads() == 0);
        wait_until("exit", || self.trigger.exits() == 1);
        lock(&self.books).check();
        assert!(!self.trigger.late_inserts().contains(&true));
        Mixed::start(runtime, 2).finish();
        runtime.unload();
        lock(&self.books).check();
    }
}

fn check_stuck(callback: Callback) {
    within(move || {
        let runtime = runtime();
        let mut convictions = 0;
        for (how, calls, bait) in [
            (How::Spinning, 2, Bait::Finishes),
            (How::Blocked, 2, Bait::Waits),
            (How::Spinning, 1, Bait::Yields),
            (How::Blocked, 1, Bait::Finishes),
            (How::Spinning, 2, Bait::Waits),
            (How::Blocked, 2, Bait::Yields),
        ] {
            println!("{callback}: {calls} {how:?}, a bait that {bait:?}");
            let scene = Scene::new(&runtime, callback, how, calls, bait);
            scene.wake_and_abort();
            let info = exit_of(&runtime, scene.generation);
            if calls == WORKERS {
                scene.trigger.is_over();
            }
            assert_eq!(info.kind, ExitKind::StuckCallback, "{info}");
            let worker = info.worker.expect("a worker was stuck");
            let caught = scene.trigger.caught();
            assert!(caught.iter().any(|caught| caught.worker == worker));
            let start = format!("{callback} on worker {worker} has not returned for ");
            assert!(info.message.starts_with(&start), "{info}");
            let way = match how {
                How::Spinning => "running",
                How::Blocked => "blocked in a system call",
            };
            assert!(info.message.ends_with(way), "{info}");
            wait_until("all are convicted", || runtime.abandoned_threads() == calls);
            scene.play_on(&runtime);
            if calls == WORKERS {
                assert!(
                    scene.trigger.late().is_empty(),
                    "{:?}",
                    scene.trigger.late()
                );
            }
            scene.end(&runtime);
            convictions += calls as u64;
            assert!(runtime.metrics().convictions >= convictions);
        }
        assert_eq!(runtime.metrics().spares_exhausted, 0);
    });
}

macro_rules! stuck_in {
    ($($test:ident: $callback:ident;)*) => {
        $(#[test]
        fn $test() {
            check_stuck(Callback::$callback);
        })*
    };
}

stuck_in! {
    a_select_worker_that_does_not_return_costs_no_task: SelectWorker;
    an_enqueue_that_does_not_return_costs_no_task: Enqueue;
    a_dequeue_that_does_not_return_costs_no_task: Dequeue;
    a_dispatch_that_does_not_return_costs_no_task: Dispatch;
    a_runnable_that_does_not_return_costs_no_task: Runnable;
    an_init_task_that_does_not_return_costs_no_task: InitTask;
    an_exit_task_that_does_not_return_costs_no_task: ExitTask;
    a_running_that_does_not_return_costs_no_task: Running;
    a_stopping_that_does_not_return_costs_no_task: Stopping;
    a_quiescent_that_does_not_return_costs_no_task: Quiescent;
}

/// Gets stuck in every callback, and lets `meanwhile` happen before the conviction.
fn check_meanwhile(meanwhile: fn(&Runtime) -> ExitKind) {
    within(move || {
        let runtime = runtime();
        for (callback, how) in
            { ON_WORKERS.iter() }.zip([How::Spinning, How::Blocked].iter().cycle())
        {
            println!("{callback}, {how:?}");
            // On a slow machine the conviction may come first: then once more.
            for attempt in 1.. {
                let scene = Scene::new(&runtime, *callback, *how, 2, Bait::Finishes);
                let kind = meanwhile(&runtime);
                scene.wake_and_abort();
                let info = exit_of(&runtime, scene.generation);
                wait_until("all are convicted", || runtime.abandoned_threads() == 2);
                scene.play_on(&runtime);
                scene.end(&runtime);
                if info.kind == kind {
                    break;
                }
                assert_eq!(info.kind, ExitKind::StuckCallback, "{info}");
                assert!(attempt < 20, "{info}");
            }
        }
    });
}

#[test]
fn threads_stuck_in_a_policy_that_was_unloaded_are_replaced_too() {
    check_meanwhile(|runtime| {
        runtime.unload();
        ExitKind::Unload
    });
}

#[test]
fn threads_stuck_in_a_policy_that_was_ejected_are_replaced_too() {
    check_meanwhile(|runtime| {
        runtime.eject("too slow for us");
        ExitKind::Ejected
    });
}

#[test]
fn threads_stuck_in_a_policy_that_was_swapped_away_are_replaced_too() {
    check_meanwhile(|runtime| {
        runtime.load(Priority::new()).unwrap();
        ExitKind::Swap
    });
}

#[test]
fn a_bypass_may_begin_and_end_while_a_callback_is_stuck() {
    check_meanwhile(|runtime| {
        drop(runtime.bypass());
        let bypass = runtime.bypass();
        let inner = runtime.bypass();
        drop(bypass);
        drop(inner);
        ExitKind::StuckCallback
    });
}

#[test]
fn a_bypass_that_lasts_through_a_conviction_may_end_before_the_threads_are_back() {
    within(|| {
        let runtime = runtime();
        for callback in ON_WORKERS {
            println!("{callback}");
            let scene = Scene::new(&runtime, callback, How::Spinning, 2, Bait::Waits);
            let bypass = runtime.bypass();
            scene.wake_and_abort();
            exit_of(&runtime, scene.generation);
            wait_until("all are convicted", || runtime.abandoned_threads() == 2);
            scene.settle();
            drop(bypass);
            scene.play_on(&runtime);
            scene.end(&runtime);
        }
    });
}

#[test]
fn a_notifier_that_does_not_return_in_a_bypass_costs_no_task() {
    within(|| {
        let runtime = runtime();
        for callback in [
            Callback::InitTask,
            Callback::ExitTask,
            Callback::Dequeue,
            Callback::Runnable,
            Callback::Running,
            Callback::Stopping,
            Callback::Quiescent,
        ] {
            for how in [How::Spinning, How::Blocked] {
                println!("{callback}, {how:?}");
                let scene = loop {
                    let scene = Scene::set(&runtime, callback, how, 2, Bait::Finishes);
                    if callback == Callback::Dequeue {
                        // The bypass itself takes the baits out of custody.
                        scene.trigger.arm();
                    }
                    let bypass = runtime.bypass();
                    let sprung = scene.spring(&runtime, Bait::Finishes);
                    drop(bypass);
                    if let Some(scene) = sprung {
                        break scene;
                    }
                };
                scene.wake_and_abort();
                let info = exit_of(&runtime, scene.generation);
                assert_eq!(info.kind, ExitKind::StuckCallback, "{info}");
                assert!(info.message.starts_with(&callback.to_string()), "{info}");
                wait_until("all are convicted", || runtime.abandoned_threads() == 2);
                scene.play_on(&runtime);
                scene.end(&runtime);
            }
        }
    });
}

#[test]
fn a_load_that_is_pending_when_all_threads_get_stuck_is_completed() {
    within(|| {
        let runtime = runtime();
        let (begun, init_begun) = channel();
        let (finish, init_finish) = channel::<()>();
        let init_finish = Mutex::new(init_finish);
        let next = Script::new("next").init(move |_| {
            begun.send(()).unwrap();
            let _ = lock(&init_finish).recv();
            Ok(())
        });
        let (next, record) = Recorder::new(next, WORKERS);
        let scene = Scene::set(
            &runtime,
            Callback::Dispatch,
            How::Spinning,
            2,
            Bait::Finishes,
        );
        let handle = runtime.handle().clone();
        let load = std::thread::spawn(move || handle.load(next));
        receive("init", &init_begun);
        // If the second call came too late, one of them was stuck: that will do.
        let scene = scene.spring(&runtime, Bait::Finishes);
        if let Some(scene) = &scene {
            scene.wake_and_abort();
            wait_until("all are convicted", || runtime.abandoned_threads() == 2);
            scene.settle();
        }
        drop(finish);
        let generation = load.join().unwrap().unwrap();
        assert_eq!(runtime.policy_status().unwrap().generation, generation);
        Mixed::start(&runtime, 2).finish();
        assert!(record.enqueues.load(Ordering::SeqCst) > 0);
        record.check();
        if let Some(scene) = scene {
            scene.end(&runtime);
        }
    });
}

/// The stuck call has it: in the batch, claimed, about to be polled, or polled.
#[test]
fn a_task_that_is_aborted_while_a_stuck_call_is_about_it_ends_once() {
    within(|| {
        let runtime = runtime();
        for callback in ON_WORKERS {
            for bait in [Bait::Finishes, Bait::Waits] {
                println!("{callback}, a bait that {bait:?}");
                let scene = Scene::new(&runtime, callback, How::Spinning, 2, bait);
                lock(&scene.books).abort_all();
                exit_of(&runtime, scene.generation);
                wait_until("all are convicted", || runtime.abandoned_threads() == 2);
                for spring in lock(&scene.springs).drain(..) {
                    wait_for("a task that spawns others", spring).unwrap();
                }
                scene.go.send_replace(true);
                lock(&scene.books).settle_aborted();
                scene.play_on(&runtime);
                scene.end(&runtime);
            }
        }
    });
}

/// Drops the runtime while its threads are stuck, and never come back as long as it lasts.
fn check_end(end: fn(Runtime)) {
    for convicted_before in [true, false] {
        for callback in ON_WORKERS {
            for calls in [1, 2] {
                println!("{callback}, {calls} stuck, convicted before: {convicted_before}");
                within(move || {
                    let runtime = runtime();
                    let scene = Scene::new(&runtime, callback, How::Spinning, calls, Bait::Waits);
                    if convicted_before {
                        wait_until("all are convicted", || runtime.abandoned_threads() == calls);
                    }
                    end(runtime);
                    assert_eq!(scene.trigger.stuck(), calls);
                    lock(&scene.books).check_dropped();
                });
            }
        }
    }
}

#[test]
fn a_runtime_can_be_dropped_while_its_threads_are_stuck_in_a_policy() {
    check_end(drop);
}

#[test]
fn a_runtime_shuts_down_well_before_its_timeout_while_its_threads_are_stuck_in_a_policy() {
    check_end(|runtime| {
        let begun = now();
        runtime.shutdown_timeout(DEADLINE);
        let took = now() - begun;
        assert!(took < DEADLINE / 2, "{took:?}");
    });
}

/// Two calls of `dispatch` that wait for one another. `false`: the machine was so slow that the first of them was convicted
/// before the second one came.
fn deadlock() -> bool {
    let runtime = runtime();
    let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
    // Both have their first lock when they ask for their second one.
    let both = Arc::new(Barrier::new(WORKERS));
    let met = Arc::new(AtomicBool::new(false));
    let has_met = Arc::clone(&met);
    let policy = Script::new("abba").dispatch(move |_, worker, _| {
        let first = lock(&locks[worker.index()]);
        both.wait();
        has_met.store(true, Ordering::SeqCst);
        let second = lock(&locks[1 - worker.index()]);
        drop((first, second));
    });
    let (policy, record) = Recorder::new(policy, WORKERS);
    let generation = runtime.load(policy).unwrap();
    for worker in 0..WORKERS {
        let here = Attributes::new().affinity(only(worker));
        drop(runtime.spawn_with(here, async {}).unwrap());
    }
    let info = exit_of(&runtime, generation);
    assert_eq!(info.kind, ExitKind::StuckCallback, "{info}");
    let (start, end) = ("dispatch on worker ", "blocked in a system call");
    assert!(info.message.starts_with(start), "{info}");
    assert!(info.message.ends_with(end), "{info}");
    if !met.load(Ordering::SeqCst) {
        return false;
    }
    wait_until("both are convicted", || {
        runtime.abandoned_threads() == WORKERS
    });
    Mixed::start(&runtime, 3).finish();
    runtime.load(Priority::new()).unwrap();
    Mixed::start(&runtime, 3).finish();
    record.check();
    true
}

/// Its threads are lost for good: this test leaves two behind.
#[test]
fn a_policy_that_deadlocks_on_its_own_locks_is_ejected() {
    within(|| while !deadlock() {});
}

/// Time in one system call after which a call counts as stuck: `BLOCKED_NS` of the watchdog.
const BLOCKED: Duration = Duration::from_millis(20);
/// At the latest by then on a machine that has nothing else to do: two ticks of 5 ms, and the look of control.
const CONVICTED: Duration = Duration::from_millis(60);

/// Runs `trial`, which returns how long a conviction took, until it was as quick as it should be; the machine may be busy
/// with other things, but not for ever.
fn check_conviction_time(what: &str, mut trial: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    for _ in 0..20 {
        took.push(trial());
        assert!(took.iter().min() >= Some(&BLOCKED), "{what}: {took:?}");
        if took.last() <= Some(&CONVICTED) {
            break;
        }
    }
    println!("{what}: {took:?}");
    assert!(took.last() <= Some(&CONVICTED), "{what}: {took:?}");
}

/// Loads a policy whose `enqueue` blocks in `wait`, and returns how long it took to throw it out.
fn time_to_eject(runtime: &Runtime, wait: impl Fn() + Send + Sync + 'static) -> Duration {
    let (begin, begun) = channel();
    let policy = Script::new("blocks").enqueue(move |_, _| {
        begin.send(now()).unwrap();
        wait();
    });
    let generation = runtime.load(policy).unwrap();
    let task = runtime.spawn(async {});
    let begun = receive("the call", &begun);
    wait_until("it is ejected", || runtime.policy_status().is_none());
    let took = now() - begun;
    wait_for("the task that was at hand", task).unwrap();
    assert_eq!(exit_of(runtime, generation).kind, ExitKind::StuckCallback);
    wait_until("the conviction", || runtime.abandoned_threads() == 1);
    took
}

#[test]
fn a_policy_that_waits_for_a_message_that_does_not_come_is_ejected_in_time() {
    within(|| {
        let runtime = runtime();
        check_conviction_time("an empty channel", || {
            let (message, empty) = channel::<()>();
            let empty = Mutex::new(empty);
            let took = time_to_eject(&runtime, move || {
                let _ = lock(&empty).recv();
            });
            drop(message);
            wait_until("the thread is back", || runtime.abandoned_threads() == 0);
            took
        });
    });
}

#[test]
fn a_policy_that_reads_an_empty_pipe_is_ejected_in_time() {
    within(|| {
        let runtime = runtime();
        check_conviction_time("an empty pipe", || {
            let (empty, writer) = std::io::pipe().unwrap();
            let took = time_to_eject(&runtime, move || {
                let _ = (&empty).read(&mut [0]);
            });
            drop(writer);
            wait_until("the thread is back", || runtime.abandoned_threads() == 0);
            took
        });
    });
}

/// On a machine that is busy the holder may not run for long: the one that waits is not to blame for that.
#[test]
fn a_callback_that_waits_for_a_lock_that_another_one_holds_is_not_convicted() {
    within(|| {
        let runtime = runtime();
        let shared = Arc::new(Mutex::new(()));
        let waits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waits);
        let policy = Script::new("slow").dispatch(move |_, _, _| {
            let held = shared.try_lock().unwrap_or_else(|_| {
                counted.fetch_add(1, Ordering::SeqCst);
                lock(&shared)
            });
            spin(Duration::from_millis(5));
            drop(held);
        });
        let (policy, record) = Recorder::new(policy, WORKERS);
        let generation = runtime.load(policy).unwrap();
        while waits.load(Ordering::SeqCst) < 30 {
            let tasks = [0, 1].map(|worker| {
                let here = Attributes::new().affinity(only(worker));
                runtime.spawn_with(here, async {}).unwrap()
            });
            for task in tasks {
                wait_for("a task", task).unwrap();
            }
            let info = runtime.exit_info(generation);
            assert!(info.is_none(), "{}", info.unwrap());
        }
        assert_eq!(runtime.metrics().convictions, 0);
        record.check();
    });
}

/// Burns so much of this thread's own time, however seldom it gets the processor.
fn spin(time: Duration) {
    let ran = || {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let nanos = stat.split(' ').next().unwrap().parse().unwrap();
        Duration::from_nanos(nanos)
    };
    let until = ran() + time;
    while ran() < until {}
}
