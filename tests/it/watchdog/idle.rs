//! What the watchdog costs: nothing while nothing runs, and little while much waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use polity::{ExitKind, Runtime};
use polity_policies::Fifo;
use polity_tests::{
    alone, builder, in_a_process_of_its_own, now, pass, wait_for, wait_until, within,
};

use crate::support::{Blocker, yield_until};
use crate::watchdog::{FORGET, MS, forgetful, threads};
use crate::workload::{Mixed, exit_of, tagged};

const SECOND: Duration = Duration::from_secs(1);

/// How often each thread went to sleep so far, this one and the one that runs the tests excepted.
fn sleeps() -> std::collections::HashMap<String, u64> {
    let this = std::fs::read_link("/proc/thread-self").unwrap();
    let this = format!(" {}", this.file_name().unwrap().to_string_lossy());
    let mut all = threads("status", |text| {
        let line = text
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt_switches:"))?;
        line.split_whitespace().nth(1)?.parse().ok()
    });
    all.retain(|thread, _| !thread.ends_with(&this));
    all
}

/// The threads that woke up more than `most` times since `before`.
fn woken_since(before: &std::collections::HashMap<String, u64>, most: u64) -> Vec<(String, u64)> {
    let now = sleeps();
    let times = now.into_iter().map(|(thread, times)| {
        let before = before.get(&thread).copied().unwrap_or(0);
        (thread, times - before)
    });
    times.filter(|(_, times)| *times > most).collect()
}

/// Returns when no thread has woken up more than once in a second.
fn wait_for_quiet() {
    let (mut since, mut before) = (now(), sleeps());
    wait_until("no thread wakes up more than once a second", || {
        if !woken_since(&before, 1).is_empty() {
            (since, before) = (now(), sleeps());
        }
        now() - since >= SECOND
    });
}

fn idle_for_three_seconds() {
    let before = sleeps();
    pass(3 * SECOND);
    let woken = woken_since(&before, 3);
    println!("in 3 s: {:?}", woken_since(&before, 0));
    assert!(woken.is_empty(), "woken up in 3 s: {woken:?}");
    assert!(
        before
            .keys()
            .any(|thread| thread.starts_with("polity-watchdog")),
        "{before:?}"
    );
}

fn check_that_it_wakes_up(runtime: &Runtime) {
    let hogs = runtime.metrics().hogs;
    let hog = Blocker::new(runtime);
    wait_until("the long poll is reported", || {
        runtime.metrics().hogs == hogs + 1
    });
    hog.end();
}

#[test]
fn an_idle_runtime_wakes_up_at_most_once_a_second_and_the_watchdog_is_there_when_work_begins() {
    alone(|| {
        in_a_process_of_its_own(
            "watchdog::idle::an_idle_runtime_wakes_up_at_most_once_a_second_and_the_watchdog_is_there_when_work_begins",
            || {
                within(|| {
                    let builder = builder(2).hog_threshold(30 * MS).watchdog(50 * MS);
                    let runtime = builder.build().unwrap();
                    Mixed::start(&runtime, 5).finish();
                    wait_for_quiet();
                    idle_for_three_seconds();
                    check_that_it_wakes_up(&runtime);

                    let generation = runtime.load(forgetful()).unwrap();
                    Mixed::start(&runtime, 5).finish();
                    wait_for_quiet();
                    idle_for_three_seconds();
                    check_that_it_wakes_up(&runtime);

                    wait_for_quiet();
                    wait_for("a forgotten task", tagged(&runtime, FORGET, async {})).unwrap();
                    assert_eq!(exit_of(&runtime, generation).kind, ExitKind::Stall);
                });
            },
        );
    });
}

/// Processor time of the watchdog in nanoseconds.
fn watchdog_ns() -> u64 {
    let all = threads("schedstat", |text| {
        text.split(' ').next()?.parse::<u64>().ok()
    });
    let of_the_watchdog = all
        .iter()
        .filter(|(thread, _)| thread.starts_with("polity-watchdog"));
    of_the_watchdog.map(|(_, ns)| ns).sum()
}

#[test]
fn a_hundred_thousand_waiting_tasks_beside_a_load_cost_the_watchdog_next_to_nothing() {
    alone(|| {
        in_a_process_of_its_own(
            "watchdog::idle::a_hundred_thousand_waiting_tasks_beside_a_load_cost_the_watchdog_next_to_nothing",
            || {
                within(|| {
                    let timeout = 500 * MS;
                    let runtime = builder(2).watchdog(timeout).build().unwrap();
                    let polled = Arc::new(AtomicUsize::new(0));
                    let waiting: Vec<_> = (0..100_000)
                        .map(|_| {
                            let polled = Arc::clone(&polled);
                            runtime.spawn(async move {
                                polled.fetch_add(1, Ordering::Relaxed);
                                std::future::pending::<()>().await
                            })
                        })
                        .collect();
                    wait_until("all wait", || {
                        polled.load(Ordering::Relaxed) == waiting.len()
                    });
                    let generation = runtime.load(Fifo::new()).unwrap();
                    let stop = Arc::new(AtomicBool::new(false));
                    for _ in 0..4 {
                        drop(runtime.spawn(yield_until(&stop)));
                    }
                    // From then on it looks for late tasks at each tick.
                    let loaded_for = || runtime.policy_status().map(|policy| policy.loaded_for);
                    wait_until("the timeout has passed", || {
                        loaded_for() > Some(timeout + 100 * MS)
                    });
                    let polls = runtime.metrics().polls;
                    let (begun, before) = (now(), watchdog_ns());
                    // The interval is the subject.
                    wait_until("a second has passed", || now() - begun >= SECOND);
                    let (used, passed) = (watchdog_ns() - before, now() - begun);
                    stop.store(true, Ordering::Relaxed);
                    let polls = runtime.metrics().polls - polls;
                    let percent = used as f64 / passed.as_nanos() as f64 * 100.0;
                    println!("{percent:.2} % of a processor, beside {polls} polls");
                    assert!(percent < 5.0, "{percent:.1} % of a processor");
                    assert!(used > 0 && polls > 1_000, "else this proves nothing");
                    let info = runtime.exit_info(generation);
                    assert!(info.is_none(), "{info:?}");
                });
            },
        );
    });
}
