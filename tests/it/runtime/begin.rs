//! The beginning: what is refused, and what threads are started.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use polity::{BuildError, Pin, Runtime};
use polity_policies::Priority;
use polity_tests::{builder, runtime, wait_for, within};

use crate::support::Hoarder;

#[track_caller]
fn check_refused(builder: polity::Builder, must_name: &[&str]) {
    match builder.build() {
        Err(BuildError::Invalid(text)) => {
            for word in must_name {
                assert!(text.contains(word), "{word:?} is not in {text:?}");
            }
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_number_of_workers_that_makes_no_sense_is_refused() {
    check_refused(builder(0), &["worker_threads", "0"]);
    check_refused(builder(1025), &["worker_threads", "1025"]);
}

#[test]
fn a_watchdog_that_makes_no_sense_is_refused() {
    for timeout in [Duration::from_millis(9), Duration::from_secs(31)] {
        check_refused(builder(1).watchdog(timeout), &["watchdog"]);
    }
}

#[test]
fn a_core_that_is_not_there_is_refused() {
    check_refused(builder(1).pin(Pin::Cores(vec![100_000])), &["100000"]);
    check_refused(builder(2).pin(Pin::Cores(vec![])), &["0", "2"]);
}

#[test]
fn a_pool_without_threads_is_refused() {
    check_refused(
        builder(1).max_blocking_threads(0),
        &["max_blocking_threads is 0"],
    );
}

#[test]
fn threads_that_cannot_be_started_as_asked_are_refused() {
    for bytes in [0, (16 << 10) - 1, (1 << 30) + 1, usize::MAX] {
        let said = format!("thread_stack_size is {bytes} bytes");
        check_refused(builder(1).thread_stack_size(bytes), &[&said]);
    }
    drop(builder(1).thread_stack_size(1 << 20).build().unwrap());
    check_refused(
        builder(1).thread_name("a\0b"),
        &["thread_name is \"a\\0b\""],
    );
}

#[test]
fn a_runtime_can_start_with_a_policy() {
    within(|| {
        let runtime = builder(2).policy(Priority::new()).build().unwrap();
        assert_eq!(runtime.policy_status().unwrap().name, "priority");
        wait_for("a task", runtime.spawn(async {})).unwrap();
    });
}

#[test]
fn workers_have_the_name_that_was_asked_for_and_each_runs_its_hooks_once() {
    within(|| {
        let started = Arc::new(Mutex::new(HashSet::new()));
        let stopped = Arc::new(AtomicUsize::new(0));
        let (note_start, note_stop) = (Arc::clone(&started), Arc::clone(&stopped));
        let runtime = builder(3)
            .thread_name("svc")
            .on_thread_start(move || {
                assert!(note_start.lock().unwrap().insert(thread::current().id()));
            })
            .on_thread_stop(move || {
                note_stop.fetch_add(1, Ordering::SeqCst);
            })
            .build()
            .unwrap();
        assert_eq!(runtime.worker_count(), 3);
        let (name, id) = wait_for(
            "a task",
            runtime.spawn(async {
                let thread = thread::current();
                (thread.name().unwrap().to_owned(), thread.id())
            }),
        )
        .unwrap();
        assert_eq!(name, "svc");
        assert!(started.lock().unwrap().contains(&id));
        drop(runtime);
        assert_eq!(started.lock().unwrap().len(), 3);
        assert_eq!(stopped.load(Ordering::SeqCst), 3);
    });
}

#[test]
fn several_runtimes_run_at_once_and_work_for_each_other() {
    within(|| {
        let runtimes: Vec<Runtime> = (0..4).map(|n| runtime(n % 2 + 1)).collect();
        // Each message goes round all runtimes.
        let mut first = None;
        let mut receiver = None;
        let mut tasks = Vec::new();
        for runtime in &runtimes {
            let (sender, next) = tokio::sync::mpsc::channel::<u64>(4);
            match receiver.replace(next) {
                None => first = Some(sender),
                Some(mut from) => tasks.push(runtime.spawn(async move {
                    while let Some(n) = from.recv().await {
                        sender.send(n + 1).await.unwrap();
                    }
                })),
            }
        }
        let (first, mut last) = (first.unwrap(), receiver.unwrap());
        let sender = runtimes[0].spawn(async move {
            for n in 0..1000 {
                first.send(n).await.unwrap();
            }
        });
        let hops = tasks.len() as u64;
        let sum = runtimes[3].spawn(async move {
            let mut sum = 0;
            while let Some(n) = last.recv().await {
                sum += n;
            }
            sum
        });
        let sum = wait_for("the sum", sum).unwrap();
        assert_eq!(sum, (0..1000).sum::<u64>() + 1000 * hops);
        wait_for("the sender", sender).unwrap();
    });
}

#[test]
fn the_policy_of_one_runtime_is_not_that_of_another() {
    within(|| {
        let (starved, free) = (runtime(2), runtime(2));
        starved.load(Hoarder).unwrap();
        let stuck = starved.spawn(async {});
        wait_for("a task", free.spawn(async {})).unwrap();
        assert!(free.policy_status().is_none());
        assert!(!stuck.is_finished());
        // Woken and awaited across: the one that is starved does not hold the other up.
        assert!(starved.unload().is_some());
        let across = free.spawn(stuck);
        wait_for("the task", across).unwrap().unwrap();
    });
}
