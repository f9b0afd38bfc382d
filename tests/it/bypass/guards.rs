//! Guards: they nest, and may be dropped in any order, anywhere.

use std::sync::{Arc, Mutex};
use std::thread;

use polity::Bypass;
use polity_tests::{check, wait_for};

use super::{
    Calls, bypass_between_passes, held, holding, kept, load, load_holding, pass_each_worker,
};
use crate::workload::{lock, tagged};

#[test]
fn the_policy_has_its_tasks_again_only_when_the_last_guard_is_dropped_in_whatever_order() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [2, 0, 1]] {
        check(2, move |runtime| {
            let (_, record) = load_holding(&runtime);
            assert_eq!(runtime.bypass_depth(), 0);
            let mut guards: Vec<Option<Bypass>> = Vec::new();
            for depth in 1..=3 {
                guards.push(Some(runtime.bypass()));
                assert_eq!(runtime.bypass_depth(), depth);
            }
            for (nth, guard) in order.into_iter().enumerate() {
                let task = tagged(&runtime, 1, async {});
                wait_for("a task past the policy", task).unwrap();
                guards[guard] = None;
                assert_eq!(runtime.bypass_depth(), 2 - nth, "{order:?}");
            }
            assert_eq!(kept(&record), 0, "nothing was enqueued in the bypass");
            let task = held(&runtime, &record, 1);
            assert!(!task.is_finished());
            record.check();
        });
    }
}

#[test]
fn a_second_bypass_takes_back_what_the_policy_got_after_the_first() {
    check(2, |runtime| {
        let (calls, record) = load_holding(&runtime);
        for round in 1..=20 {
            let tasks = [1, 2].map(|tag| held(&runtime, &record, tag));
            let guard = bypass_between_passes(&runtime);
            for task in tasks {
                wait_for("a task that was held", task).unwrap();
            }
            drop(guard);
            for tag in [1, 2] {
                assert_eq!(calls.count(tag, "dequeue Bypass"), round);
            }
        }
        record.check();
    });
}

#[test]
fn guards_may_be_taken_and_dropped_on_any_thread_and_inside_tasks() {
    check(2, |runtime| {
        let (_, record) = load_holding(&runtime);
        let first = held(&runtime, &record, 1);
        let handle = runtime.handle().clone();
        let guard = thread::spawn(move || handle.bypass()).join().unwrap();
        wait_for("a task that was held", first).unwrap();
        // From a thread into a task, where it ends.
        let ends_it = tagged(&runtime, 1, async move { drop(guard) });
        wait_for("the end of the bypass", ends_it).unwrap();
        assert_eq!(runtime.bypass_depth(), 0);

        let second = held(&runtime, &record, 2);
        let handle = runtime.handle().clone();
        // Out of a task, in which it began.
        let begins_it = tagged(&runtime, 0, async move { handle.bypass() });
        let guard = wait_for("the beginning of a bypass", begins_it).unwrap();
        assert_eq!(runtime.bypass_depth(), 1);
        wait_for("a task that was held", second).unwrap();
        thread::spawn(move || drop(guard)).join().unwrap();
        assert_eq!(runtime.bypass_depth(), 0);
        held(&runtime, &record, 1);
        record.check();
    });
}

#[test]
fn a_task_may_bypass_the_policy_across_its_own_polls() {
    check(1, |runtime| {
        let (calls, record) = load_holding(&runtime);
        let waits_in_custody = held(&runtime, &record, 1);
        let handle = runtime.handle().clone();
        let task = tagged(&runtime, 0, async move {
            let _guard = handle.bypass();
            // Each of them would be held, and this task with them.
            waits_in_custody.await.unwrap();
            tagged(&handle, 2, async {}).await.unwrap();
        });
        wait_for("the task", task).unwrap();
        assert_eq!(runtime.bypass_depth(), 0);
        assert_eq!(calls.count(2, "enqueue"), 0);
        pass_each_worker(&runtime);
        record.check();
    });
}

#[test]
fn a_policy_may_be_bypassed_from_inside_its_own_callback() {
    check(1, |runtime| {
        let handle = runtime.handle().clone();
        let guard = Arc::new(Mutex::new(None));
        let calls = Calls::default();
        let taken = Arc::clone(&guard);
        let policy = holding(&calls).select_worker(move |_, task| {
            if task.tag() == 2 {
                *lock(&taken) = Some(handle.bypass());
            }
            task.last_worker()
        });
        let record = load(&runtime, policy);
        let before = held(&runtime, &record, 1);
        let at_hand = tagged(&runtime, 2, async {});
        wait_for("the task that it held", before).unwrap();
        wait_for("the task at hand, which it kept", at_hand).unwrap();
        for tag in [1, 2] {
            assert!(calls.all_bypassed(tag), "{:?}", calls.of(tag));
        }
        drop(lock(&guard).take().expect("taken in the callback"));
        held(&runtime, &record, 3);
        record.check();
    });
}
