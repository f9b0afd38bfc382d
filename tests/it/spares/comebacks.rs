//! Threads that come back, or are convicted, at an awkward moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use polity::{Attributes, Handle, Runtime, yield_now};
use polity_policies::Callback;
use polity_tests::{builder, burn, wait_for, wait_until, within};

use crate::spares::ledger::Ledger;
use crate::spares::trap::{How, Kind, Trap, Trigger};
use crate::spares::turns::slow;
use crate::support::{Blocker, Yielding};
use crate::workload::{Mixed, Random, Recorder, Script, exit_of};

fn runtime(workers: usize, spares: usize) -> Runtime {
    let builder = builder(workers).spares(spares);
    builder.watchdog(Duration::from_secs(30)).build().unwrap()
}

/// How nice the calling thread is.
fn nice() -> i32 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    // The name, in brackets, may contain anything; it is the second of the fields, this is the nineteenth.
    let fields = stat.rsplit_once(')').unwrap().1;
    fields.split_whitespace().nth(16).unwrap().parse().unwrap()
}

/// Conviction and return race for what the thread had in its hands.
#[test]
fn a_callback_that_returns_at_the_moment_of_its_conviction_costs_neither_a_task_nor_a_thread() {
    within(|| {
        let mut random = Random::from_env("at_the_moment");
        let runtime = runtime(2, 2);
        let mut convicted = 0;
        for _ in 0..40 {
            let (handle, delay) = (runtime.handle().clone(), random.below(300));
            let stuck = AtomicBool::new(false);
            let policy = Script::new("late").dispatch(move |_, _, _| {
                if !stuck.swap(true, Ordering::SeqCst) {
                    while handle.policy_status().is_some() {}
                    burn(Duration::from_micros(delay));
                }
            });
            let generation = runtime.load(policy).unwrap();
            let before = runtime.metrics().convictions;
            let mut books = Ledger::default();
            for _ in 0..20 {
                books.spawn(&runtime, Attributes::new(), yield_now());
            }
            exit_of(&runtime, generation);
            books.settle();
            convicted += runtime.metrics().convictions - before;
            wait_until("no thread is missed", || runtime.abandoned_threads() == 0);
        }
        println!("{convicted} of 40 were convicted");
        for _ in 0..200 {
            let nice = wait_for("a task", runtime.spawn(async { nice() })).unwrap();
            assert_eq!(nice, 0, "of a thread that was never convicted, or is back");
        }
    });
}

/// The bait runs as soon as it is out of the stuck thread's hands, which may be before the watchdog has noted the
/// conviction anywhere else.
#[test]
fn a_thread_that_is_back_before_its_conviction_has_been_noted_is_not_counted_as_abandoned() {
    within(|| {
        let runtime = runtime(2, 2);
        for _ in 0..200 {
            let (trap, trigger) = Trap::new(Callback::Enqueue, How::Spinning, 1);
            runtime.load(trap).unwrap();
            trigger.arm();
            let bait = runtime.spawn_with(Kind::Bait.attributes(), async {});
            wait_for("the bait", bait.unwrap()).unwrap();
            trigger.release();
            wait_until("all threads are back", || runtime.abandoned_threads() == 0);
            runtime.unload();
        }
    });
}

/// The only worker is in a long poll, and its stand-in stuck in a policy.
fn stand_in_stuck(runtime: &Handle) -> (Blocker, polity::Generation, Trigger) {
    let (trap, trigger) = Trap::new(Callback::Dispatch, How::Spinning, 1);
    let generation = runtime.load(trap).unwrap();
    let blocker = Blocker::with(|body| runtime.spawn(body));
    wait_for("a task on the stand-in", runtime.spawn(async {})).unwrap();
    trigger.arm();
    drop(runtime.spawn(async {}));
    wait_until("the stand-in is stuck", || trigger.stuck() == 1);
    (blocker, generation, trigger)
}

/// It is dismissed first, and then convicted.
#[test]
fn a_stand_in_that_is_stuck_when_its_worker_returns_can_come_back() {
    within(|| {
        let runtime = runtime(1, 3);
        let (blocker, generation, trigger) = stand_in_stuck(&runtime);
        blocker.end();
        exit_of(&runtime, generation);
        wait_until("it is convicted", || runtime.abandoned_threads() == 1);
        Mixed::start(&runtime, 1).finish();
        trigger.release();
        wait_until("it is back", || runtime.abandoned_threads() == 0);
        Mixed::start(&runtime, 1).finish();
    });
}

#[test]
fn a_runtime_can_be_dropped_while_a_stand_in_is_stuck_whose_worker_has_returned() {
    within(|| {
        let runtime = runtime(1, 3);
        let (blocker, generation, trigger) = stand_in_stuck(&runtime);
        blocker.end();
        exit_of(&runtime, generation);
        wait_until("it is convicted", || runtime.abandoned_threads() == 1);
        Mixed::start(&runtime, 1).finish();
        drop(runtime);
        assert_eq!(trigger.stuck(), 1);
    });
}

/// The worker's thread and the heir of its stand-in are two threads of one worker.
#[test]
fn calls_for_one_worker_do_not_overlap_when_the_heir_of_a_stand_in_is_at_work() {
    within(|| {
        for _ in 0..5 {
            let runtime = runtime(1, 3);
            let (blocker, generation, trigger) = stand_in_stuck(&runtime);
            exit_of(&runtime, generation);
            wait_until("it is convicted", || runtime.abandoned_threads() == 1);
            let (policy, record) = Recorder::new(slow(), 1);
            runtime.load(policy).unwrap();
            let busy = Yielding::start(&runtime, 6);
            let run_a_little = || {
                let polls = runtime.metrics().polls + 20;
                wait_until("it has run a little", || runtime.metrics().polls >= polls);
            };
            run_a_little();
            blocker.end();
            run_a_little();
            busy.end();
            trigger.release();
            record.check();
        }
    });
}

/// The watchdog's thread sits in for the only worker.
fn watchdog_stuck(runtime: &Handle) -> (Blocker, Trigger) {
    let blocker = Blocker::with(|body| runtime.spawn(body));
    wait_for("a task on the watchdog's thread", runtime.spawn(async {})).unwrap();
    let (trap, trigger) = Trap::new(Callback::Dispatch, How::Spinning, 1);
    let generation = runtime.load(trap).unwrap();
    trigger.arm();
    drop(runtime.spawn(async {}));
    exit_of(runtime, generation);
    wait_until("it is convicted", || runtime.abandoned_threads() == 1);
    (blocker, trigger)
}

#[test]
fn the_watchdogs_own_thread_can_come_back_from_a_policy() {
    within(|| {
        let runtime = runtime(1, 0);
        let (blocker, trigger) = watchdog_stuck(&runtime);
        trigger.release();
        wait_until("it is back", || runtime.abandoned_threads() == 0);
        wait_for("a task", runtime.spawn(async {})).unwrap();
        blocker.end();
        Mixed::start(&runtime, 1).finish();
    });
}

#[test]
fn a_runtime_can_be_dropped_while_the_watchdogs_own_thread_is_stuck_in_a_policy() {
    within(|| {
        let runtime = runtime(1, 0);
        let (blocker, trigger) = watchdog_stuck(&runtime);
        blocker.end();
        Mixed::start(&runtime, 1).finish();
        drop(runtime);
        assert_eq!(trigger.stuck(), 1);
    });
}

/// Callbacks that belong to one task come in one batch.
#[test]
fn the_call_that_was_stuck_is_the_last_one() {
    within(|| {
        for callback in [
            Callback::InitTask,
            Callback::ExitTask,
            Callback::Runnable,
            Callback::SelectWorker,
            Callback::Enqueue,
            Callback::Running,
            Callback::Stopping,
            Callback::Quiescent,
        ] {
            let runtime = runtime(1, 2);
            let (trap, trigger) = Trap::new(callback, How::Spinning, 1);
            let generation = runtime.load(trap).unwrap();
            trigger.arm();
            let tasks = [Kind::Held, Kind::Bait, Kind::Bait].map(|kind| {
                let attributes = kind.attributes();
                runtime.spawn_with(attributes, async {}).unwrap()
            });
            exit_of(&runtime, generation);
            trigger.is_over();
            for task in tasks {
                wait_for("a task", task).unwrap();
            }
            trigger.release();
            wait_until("all threads are back", || runtime.abandoned_threads() == 0);
            wait_until("exit", || trigger.exits() == 1);
            assert!(
                trigger.late().is_empty(),
                "{callback}: {:?}",
                trigger.late()
            );
        }
    });
}
