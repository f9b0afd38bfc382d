//! A panic that poisons a lock of the policy's own, and the panics over that lock: the first one is the report.

use std::panic::catch_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use polity::{ExitInfo, ExitKind, Runtime, yield_now};
use polity_tests::{DEADLINE, check, in_a_process_of_its_own, receive, wait_for, wait_until};

use super::policies::check_another_can_be_loaded;
use super::{check_every_worker_works, check_panic, load_while_busy, only};
use crate::workload::{Script, exit_of, expect_ordered_panics, lock};

/// The first panic poisons a lock of the policy's own. Callbacks that are inside meanwhile panic over that, and say
/// nothing of what went wrong.
#[test]
fn panics_over_a_poisoned_lock_do_not_hide_the_panic_that_poisoned_it() {
    const WORKERS: usize = 4;
    expect_ordered_panics();
    for _ in 0..20 {
        check(WORKERS, |runtime| {
            let books = Arc::new(Mutex::new(()));
            let (inside, are_inside) = channel();
            let are_inside = Mutex::new(are_inside);
            let poisoned_too = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&poisoned_too);
            let handle = runtime.handle().clone();
            let policy = Script::new("poisoner").running(move |_, task| match task.tag() {
                1 => {
                    let _held = lock(&books);
                    for _ in 1..WORKERS {
                        receive("the other workers to come in", &lock(&are_inside));
                    }
                    panic!("the books do not balance, as ordered");
                }
                _ => {
                    inside.send(()).unwrap();
                    wait_until("the first panic has ended the policy", || {
                        handle.policy_status().is_none()
                    });
                    counted.fetch_add(1, Ordering::SeqCst);
                    drop(
                        books
                            .lock()
                            .expect("a lock that nobody poisoned, as ordered"),
                    );
                }
            });
            let generation = load_while_busy(&runtime, policy);
            let tasks: Vec<_> = (0..WORKERS)
                .map(|worker| {
                    let tag = u64::from(worker == 0);
                    let attributes = only(worker).tag(tag);
                    runtime.spawn_with(attributes, yield_now()).unwrap()
                })
                .collect();
            let info = exit_of(&runtime, generation);
            let text = "running: the books do not balance, as ordered";
            check_panic(&info, text);
            for task in tasks {
                wait_for("a task", task).unwrap();
            }
            assert_eq!(poisoned_too.load(Ordering::SeqCst), WORKERS - 1);
            check_panic(&exit_of(&runtime, generation), text);
            check_every_worker_works(&runtime);
            check_another_can_be_loaded(&runtime);
        });
    }
}

/// Waits for a message when it is dropped, also while a panic unwinds.
struct WaitsInDrop(Arc<Mutex<Receiver<()>>>);

impl Drop for WaitsInDrop {
    fn drop(&mut self) {
        let _ = lock(&self.0).recv_timeout(DEADLINE);
    }
}

/// How the first one of two panics unwinds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unwinds {
    AtOnce,
    /// Until the second one has been caught.
    Slowly,
}

/// The end of a policy of which two callbacks panic: the first one while it holds a lock, the second one over that lock.
fn end_by_two_panics(runtime: &Runtime, first: Unwinds) -> Arc<ExitInfo> {
    let books = Arc::new(Mutex::new(()));
    let (held, is_held) = channel();
    let (caught, is_caught) = channel();
    let is_held = Mutex::new(is_held);
    let is_caught = Arc::new(Mutex::new(is_caught));
    let policy = Script::new("poisoner").running(move |_, task| match task.tag() {
        1 => {
            // Taken before the lock, so dropped after it.
            let slowly = first == Unwinds::Slowly;
            let _unwinds_slowly = slowly.then(|| WaitsInDrop(Arc::clone(&is_caught)));
            let _held = lock(&books);
            held.send(()).unwrap();
            panic!("the books do not balance, as ordered");
        }
        2 => {
            receive("the lock to be held", &lock(&is_held));
            let held = books.lock();
            drop(held.expect("a lock that nobody poisoned, as ordered"));
        }
        _ => {}
    });
    let generation = load_while_busy(runtime, policy);
    let first = only(0).tag(1);
    let first = runtime.spawn_with(first, async {}).unwrap();
    let second = only(1).tag(2);
    // Polled when its `running` is over. Nobody listens if the first one has given up: then the watchdog has seen it wait.
    let second = runtime
        .spawn_with(second, async move {
            let _ = caught.send(());
        })
        .unwrap();
    let info = exit_of(runtime, generation);
    for task in [first, second] {
        wait_for("a task", task).unwrap();
    }
    info
}

/// Which panic was first is noted by polity's hook, also below one that the application has set before. Where another test
/// has built a runtime already, that of the ordered panics is above it and keeps them to itself: so, `test` is given a process
/// of its own.
#[track_caller]
fn check_first_is_reported(test: &str, first: Unwinds) {
    in_a_process_of_its_own(test, || {
        expect_ordered_panics();
        check(2, move |runtime| {
            let mut reported = 0;
            while reported < 200 {
                let info = end_by_two_panics(&runtime, first);
                // A callback that unwinds for too long is stuck, and a loaded machine may take so long for two passes.
                if info.kind != ExitKind::StuckCallback {
                    check_panic(&info, "running: the books do not balance, as ordered");
                    assert!(info.message.contains(" (at "), "polity's hook notes");
                    reported += 1;
                }
            }
            check_every_worker_works(&runtime);
            check_another_can_be_loaded(&runtime);
        });
    });
}

#[test]
fn a_panic_that_unwinds_slowly_is_not_hidden_by_a_panic_over_the_lock_that_it_poisoned() {
    check_first_is_reported(
        "panics::poison::a_panic_that_unwinds_slowly_is_not_hidden_by_a_panic_over_the_lock_that_it_poisoned",
        Unwinds::Slowly,
    );
}

#[test]
fn a_panic_over_a_poisoned_lock_does_not_overtake_the_panic_that_poisoned_it() {
    check_first_is_reported(
        "panics::poison::a_panic_over_a_poisoned_lock_does_not_overtake_the_panic_that_poisoned_it",
        Unwinds::AtOnce,
    );
}

/// In a process of its own for the reason of `check_first_is_reported`.
#[test]
fn a_panic_that_a_policy_has_caught_itself_does_not_excuse_a_later_one_of_another_worker() {
    in_a_process_of_its_own(
        "panics::poison::a_panic_that_a_policy_has_caught_itself_does_not_excuse_a_later_one_of_another_worker",
        || {
            expect_ordered_panics();
            check(2, |runtime| {
                let policy = Script::new("catches").running(|_, task| match task.tag() {
                    1 => drop(catch_unwind(|| panic!("the inner one, as ordered"))),
                    2 => panic!("the outer one, as ordered"),
                    _ => {}
                });
                let generation = load_while_busy(&runtime, policy);
                for (worker, tag) in [(0, 1), (1, 2)] {
                    let attributes = only(worker).tag(tag);
                    let task = runtime.spawn_with(attributes, async {}).unwrap();
                    wait_for("a task", task).unwrap();
                }
                check_panic(
                    &exit_of(&runtime, generation),
                    "running: the outer one, as ordered",
                );
            });
        },
    );
}
