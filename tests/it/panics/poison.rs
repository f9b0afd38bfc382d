//! A panic that poisons a lock of the policy's own, and the panics over that lock: the first one is the report.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use polity::yield_now;
use polity_tests::{check, receive, wait_for, wait_until};

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
                        handle.policy().is_none()
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
