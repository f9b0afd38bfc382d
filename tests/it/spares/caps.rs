//! When there are more stuck threads than spares.

use std::time::Duration;

use polity::{BuildError, Runtime};
use polity_policies::Callback;
use polity_tests::{builder, receive, wait_for, wait_until, within};

use crate::spares::trap::{How, Kind, Trap};
use crate::support::Blocker;
use crate::workload::Mixed;

fn with_spares(workers: usize, spares: usize) -> Runtime {
    let builder = builder(workers).spares(spares);
    builder.watchdog(Duration::from_secs(30)).build().unwrap()
}

/// As many tasks as the runtime has threads for, each in one poll: workers, spares, and the watchdog.
fn block_all(runtime: &Runtime, spares: usize) -> Vec<Blocker> {
    let threads = runtime.worker_count() + spares + 1;
    (0..threads).map(|_| Blocker::new(runtime)).collect()
}

#[test]
fn without_spares_the_watchdog_becomes_the_last_worker() {
    within(|| {
        for workers in [1, 2] {
            let runtime = with_spares(workers, 0);
            for _ in 0..3 {
                let blockers: Vec<_> = (0..workers).map(|_| Blocker::new(&runtime)).collect();
                Mixed::start(&runtime, 2).finish();
                wait_until("the want of a thread has been counted", || {
                    runtime.metrics().spares_exhausted > 0
                });
                blockers.into_iter().for_each(Blocker::end);
                Mixed::start(&runtime, 2).finish();
            }
        }
    });
}

#[test]
fn without_spares_the_watchdog_does_the_work_of_a_worker_that_is_stuck_in_a_policy() {
    within(|| {
        for (how, callback) in [
            (How::Spinning, Callback::Enqueue),
            (How::Blocked, Callback::Running),
        ] {
            let runtime = with_spares(2, 0);
            let (trap, trigger) = Trap::new(callback, how, 2);
            let generation = runtime.load(trap).unwrap();
            trigger.arm();
            let baits = [0, 1].map(|_| {
                let bait = Kind::Bait.attributes();
                runtime.spawn_with(bait, async {}).unwrap()
            });
            let ended = || runtime.exit_info(generation).is_some();
            let caught = trigger.wait_caught(2, ended);
            for bait in baits {
                wait_for("a task that the policy was stuck at", bait).unwrap();
            }
            Mixed::start(&runtime, 2).finish();
            if caught {
                wait_until("both are convicted", || runtime.abandoned_threads() == 2);
                assert!(runtime.metrics().spares_exhausted > 0);
            }
            trigger.release();
            wait_until("all threads are back", || runtime.abandoned_threads() == 0);
            Mixed::start(&runtime, 2).finish();
        }
    });
}

#[test]
fn with_more_blocked_tasks_than_threads_nothing_runs_until_one_returns() {
    within(|| {
        for (workers, spares) in [(1, 0), (2, 0), (1, 1), (2, 2)] {
            let runtime = with_spares(workers, spares);
            let mut blockers = block_all(&runtime, spares);
            let (ran, has_run) = std::sync::mpsc::channel();
            let waits = runtime.spawn(async move { ran.send(()).unwrap() });
            wait_until("the want of a thread has been counted", || {
                runtime.metrics().spares_exhausted > 0
            });
            assert!(has_run.try_recv().is_err(), "all threads are in polls");
            let last = blockers.pop().unwrap();
            last.end();
            receive("the task that had to wait", &has_run);
            wait_for("its end", waits).unwrap();
            Mixed::start(&runtime, 2).finish();
            blockers.into_iter().for_each(Blocker::end);
            Mixed::start(&runtime, 2).finish();
            // And once more: all have gone back to where they belong.
            let blockers = block_all(&runtime, spares);
            blockers.into_iter().for_each(Blocker::end);
            Mixed::start(&runtime, 2).finish();
        }
    });
}

#[test]
fn a_number_of_spares_that_makes_no_sense_is_refused() {
    let error = builder(1).spares(1025).build().unwrap_err();
    let said = "spares is 1025, but must be from 0 to 1024";
    assert!(
        matches!(&error, BuildError::Invalid(why) if why == said),
        "{error:?}"
    );
    drop(builder(1).spares(0).build().unwrap());
}
