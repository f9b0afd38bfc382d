//! Start and stop hooks that panic: their thread works on, and ends as it should.

use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use polity::{Builder, Runtime};
use polity_tests::{builder, receive, wait_for, wait_until, within};

use super::{check_every_worker_works, throw_endless_bomb};
use crate::support::{Drops, waiting};
use crate::workload::expect_ordered_panics;

/// What a hook throws in its n-th call, from 0.
type Throw = fn(usize);

const THROWS: [Throw; 3] = [
    |nth| assert!(nth > 0, "the first hook, as ordered"),
    |_| panic!("every hook, as ordered"),
    |_| throw_endless_bomb(),
];

/// A hook, and how often it was called.
fn hook(throw: Throw) -> (impl Fn() + Send + Sync + 'static, Arc<AtomicUsize>) {
    let calls = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&calls);
    let hook = move || throw(counted.fetch_add(1, Ordering::SeqCst));
    (hook, calls)
}

/// Workers of a runtime with such hooks work, and its end drops a task that waits.
#[track_caller]
fn check_life(builder: Builder, begin: impl FnOnce(&Runtime)) {
    let runtime = builder.build().unwrap();
    begin(&runtime);
    check_every_worker_works(&runtime);
    let drops = Drops::default();
    let (future, is_polled) = waiting(&drops);
    let polled = runtime.spawn(future);
    receive("its first poll", &is_polled);
    let unpolled = runtime.spawn(pending::<()>());
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(runtime))) {
        std::mem::forget(payload); // its drop may panic
        panic!("the drop of the runtime panicked");
    }
    assert_eq!(drops.count(), 1);
    for task in [polled, unpolled] {
        assert!(task.is_finished(), "the drop of a runtime waits for it");
        assert!(wait_for("a task", task).unwrap_err().is_cancelled());
    }
}

#[test]
fn start_hooks_that_panic_cost_no_worker_and_no_task() {
    expect_ordered_panics();
    for throw in THROWS {
        for workers in 1..=3 {
            within(move || {
                let (hook, calls) = hook(throw);
                check_life(builder(workers).on_thread_start(hook), |_| {
                    wait_until("every worker has begun", || {
                        calls.load(Ordering::SeqCst) == workers
                    });
                });
            });
        }
    }
}

#[test]
fn stop_hooks_that_panic_cost_no_task_at_the_end() {
    expect_ordered_panics();
    for throw in THROWS {
        for workers in 1..=3 {
            within(move || {
                let (hook, calls) = hook(throw);
                check_life(builder(workers).on_thread_stop(hook), |_| {});
                assert_eq!(calls.load(Ordering::SeqCst), workers);
            });
        }
    }
}
