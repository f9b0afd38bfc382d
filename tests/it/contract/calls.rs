//! Which calls come for a task, in which order, and what they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use polity::{
    Attributes, BoxPolicy, DsqId, EnqueueReason, ExitKind, Host, Policy, Position, Runtime,
    TaskView, WorkerMask, yield_now,
};
use polity_policies::{Fifo, Priority, Vtime};
use polity_tests::{check, now, receive, wait_for, wait_until, within};

use super::{Log, W0, W1};
use crate::workload::{
    GiveBack, Held, Keeper, Mixed, Random, Record, Recorder, Script, exit_of, lock, tagged,
};

struct OnlyAName;

impl Policy for OnlyAName {
    type Task = ();

    fn name(&self) -> &str {
        "only_a_name"
    }
}

#[test]
fn a_policy_that_has_only_a_name_runs_everything() {
    check(2, |runtime| {
        let generation = runtime.load(OnlyAName).unwrap();
        assert_eq!(runtime.policy_status().unwrap().name, "only_a_name");
        Mixed::start(&runtime, 20).finish();
        assert!(runtime.metrics().offered > 0);
        let info = runtime.unload().unwrap();
        assert_eq!(
            (info.kind, info.generation),
            (ExitKind::Unload, generation),
            "{info}"
        );
    });
}

fn policies() -> Vec<BoxPolicy> {
    let mut policies = vec![
        BoxPolicy::new(OnlyAName),
        BoxPolicy::new(Fifo::new()),
        BoxPolicy::new(Fifo::per_worker()),
        BoxPolicy::new(Priority::new()),
        BoxPolicy::new(Vtime::new()),
    ];
    policies.extend(
        GiveBack::ALL
            .into_iter()
            .map(|how| BoxPolicy::new(Keeper::new(how))),
    );
    policies
}

#[test]
fn calls_pair_up_for_each_task_under_load() {
    for (nth, policy) in policies().into_iter().enumerate() {
        check(2, move |runtime| {
            let name = policy.name().to_owned();
            let (policy, record) = Recorder::new(policy, 2);
            let generation = runtime.load(policy).unwrap();
            Mixed::start(&runtime, 20).finish();
            wait_until("the last task is quiescent", || {
                record.known_runnable() == 0
            });
            let kept = record.kept.load(Ordering::Relaxed);
            let dequeued = record.dequeues.load(Ordering::Relaxed);
            assert_eq!(kept, dequeued, "{name}: custodies and their ends");
            assert_eq!(kept > 0, nth >= 3, "{name}: {kept} custodies");
            runtime.unload();
            exit_of(&runtime, generation);
            wait_until("exit", || record.exits() == 1);
            record.check();
        });
    }
}

#[test]
fn calls_pair_up_for_each_generation_through_swaps_unloads_and_ejections() {
    within(|| {
        let runtime = polity_tests::runtime(2);
        let mut random = Random::from_env("calls_pair_up_for_each_generation");
        let mut records: Vec<Arc<Record>> = Vec::new();
        for _ in 0..12 {
            let load = Mixed::start(&runtime, 8);
            for _ in 0..12 {
                let mut policies = policies();
                let policy = policies.swap_remove(random.below(policies.len() as u64) as usize);
                let (policy, record) = Recorder::new(policy, 2);
                runtime.load(policy).unwrap();
                records.push(record);
                let some_more = runtime.metrics().polls + random.below(200);
                let until = now() + Duration::from_millis(2);
                wait_until("some polls or some time have passed", || {
                    runtime.metrics().polls >= some_more || now() > until
                });
                match random.below(4) {
                    0 => drop(runtime.unload()),
                    1 => drop(runtime.eject("as ordered")),
                    _ => {} // the next load is a swap
                }
            }
            load.finish();
        }
        runtime.unload();
        wait_until("every policy has had its exit", || {
            records.iter().all(|record| record.exits() == 1)
        });
        for record in &records {
            record.check();
        }
        let sum = |count: fn(&Record) -> &AtomicUsize| {
            let counts = records.iter().map(|record| count(record));
            counts.map(|n| n.load(Ordering::Relaxed)).sum::<usize>()
        };
        assert!(sum(|record| &record.runs) > 0 && sum(|record| &record.dequeues) > 0);
    });
}

/// Notes every call for tasks with tag 1, and leaves the rest to the defaults.
fn logging() -> (Script, Log) {
    let log = Log::default();
    let note = |what: &'static str| {
        let log = Arc::clone(&log);
        move |_: &Host<'_>, task: &TaskView<'_>| {
            if task.tag() == 1 {
                lock(&log).push(what.to_owned());
            }
        }
    };
    let (selected, enqueued) = (note("select_worker"), Arc::clone(&log));
    let (dequeued, stopped) = (Arc::clone(&log), Arc::clone(&log));
    let script = Script::new("logging")
        .runnable(note("runnable"))
        .running(note("running"))
        .quiescent(note("quiescent"))
        .select_worker(move |host, task| {
            selected(host, task);
            task.last_worker()
        })
        .enqueue(move |host, task| {
            if task.tag() == 1 {
                lock(&enqueued).push(format!("enqueue {:?}", task.reason()));
            }
            host.insert(task.id(), DsqId::Global, Position::Tail);
        })
        .dequeue(move |_, task, reason| {
            if task.tag() == 1 {
                lock(&dequeued).push(format!("dequeue {reason:?}"));
            }
        })
        .stopping(move |_, task, how| {
            if task.tag() == 1 {
                lock(&stopped).push(format!("stopping {how:?}"));
            }
        });
    (script, log)
}

#[test]
fn a_task_that_yields_and_waits_is_told_in_full() {
    check(1, |runtime| {
        let (policy, log) = logging();
        runtime.load(policy).unwrap();
        let (wake, woken) = tokio::sync::oneshot::channel::<()>();
        let task = tagged(&runtime, 1, async move {
            yield_now().await;
            woken.await.unwrap();
        });
        wait_until("the task waits", || {
            lock(&log).last().is_some_and(|last| last == "quiescent")
        });
        wake.send(()).unwrap();
        wait_for("the task", task).unwrap();
        let spawned = ["runnable", "select_worker", "enqueue Spawn", "running"];
        // Alone, it is kept: `enqueue` is skipped as well.
        let yielded = [
            "stopping StillRunnable",
            "running",
            "stopping Waiting",
            "quiescent",
        ];
        let woken = ["runnable", "select_worker", "enqueue Wake", "running"];
        let done = ["stopping Finished", "quiescent"];
        let expected: Vec<&str> = [&spawned[..], &yielded, &woken, &done].concat();
        wait_until("the end is told", || {
            lock(&log).last().is_some_and(|last| last == "quiescent")
                && lock(&log).len() >= expected.len()
        });
        assert_eq!(*lock(&log), expected);
    });
}

#[test]
fn a_task_that_yields_among_others_is_enqueued_again_without_select_worker() {
    check(1, |runtime| {
        let (policy, log) = logging();
        runtime.load(policy).unwrap();
        let held = Held::new(&runtime);
        let task = tagged(&runtime, 1, yield_now());
        let other = tagged(&runtime, 2, async {});
        held.end();
        wait_for("the task", task).unwrap();
        wait_for("the other task", other).unwrap();
        wait_until("the end is told", || {
            lock(&log).last().is_some_and(|last| last == "quiescent")
        });
        let expected = [
            "runnable",
            "select_worker",
            "enqueue Spawn",
            "running",
            "stopping StillRunnable",
            "enqueue StillRunnable",
            "running",
            "stopping Finished",
            "quiescent",
        ];
        assert_eq!(*lock(&log), expected);
    });
}

#[test]
fn the_first_call_of_a_generation_is_runnable_also_for_a_task_in_the_middle_of_a_poll() {
    check(1, |runtime| {
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let task = tagged(&runtime, 1, async move {
            begun.send(()).unwrap();
            let _ = released.recv();
            yield_now().await;
        });
        receive("the poll to begin", &has_begun);
        let (policy, log) = logging();
        runtime.load(policy).unwrap();
        drop(release);
        wait_for("the task", task).unwrap();
        wait_until("the end is told", || {
            lock(&log).last().is_some_and(|last| last == "quiescent")
        });
        // Not `stopping`, for the poll in which the policy came: it never saw that one's `running`.
        let expected = [
            "runnable",
            "enqueue Inherited",
            "running",
            "stopping Finished",
            "quiescent",
        ];
        assert_eq!(*lock(&log), expected);
    });
}

#[test]
fn a_task_that_ends_in_the_poll_in_which_a_policy_came_is_never_shown_to_it() {
    check(1, |runtime| {
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let task = tagged(&runtime, 1, async move {
            begun.send(()).unwrap();
            let _ = released.recv();
        });
        receive("the poll to begin", &has_begun);
        let (policy, log) = logging();
        runtime.load(policy).unwrap();
        drop(release);
        wait_for("the task", task).unwrap();
        wait_for("another task", runtime.spawn(async {})).unwrap();
        assert!(lock(&log).is_empty(), "{:?}", lock(&log));
    });
}

#[test]
fn a_task_that_yields_alone_runs_on_and_dispatch_is_asked_with_it_as_prev() {
    check(1, |runtime| {
        let prevs = Arc::new(AtomicUsize::new(0));
        let noted = Arc::clone(&prevs);
        let policy = Script::new("nothing_else").dispatch(move |_, _, prev| {
            if let Some(prev) = prev {
                assert_eq!(
                    (prev.tag(), prev.reason()),
                    (1, EnqueueReason::StillRunnable)
                );
                noted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (policy, record) = Recorder::new(policy, 1);
        let generation = runtime.load(policy).unwrap();
        let before = runtime.metrics();
        let task = tagged(&runtime, 1, async {
            for _ in 0..100 {
                yield_now().await;
            }
        });
        wait_for("the task", task).unwrap();
        wait_until("the counts are published", || {
            runtime.metrics().kept_last >= before.kept_last + 100
        });
        assert_eq!(prevs.load(Ordering::Relaxed), 100);
        assert_eq!(
            record.enqueues.load(Ordering::Relaxed),
            1,
            "kept, not enqueued again"
        );
        assert!(runtime.exit_info(generation).is_none());
        record.check();
    });
}

#[test]
fn prev_is_enqueued_again_when_dispatch_finds_another_task() {
    check(1, |runtime| {
        let (policy, record) = Recorder::new(Keeper::new(GiveBack::Local), 1);
        runtime.load(policy).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let polls: [Arc<AtomicUsize>; 2] = Default::default();
        let tasks: Vec<_> = polls
            .iter()
            .map(|polls| {
                let (polls, stop) = (Arc::clone(polls), Arc::clone(&stop));
                runtime.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        polls.fetch_add(1, Ordering::Relaxed);
                        yield_now().await;
                    }
                })
            })
            .collect();
        wait_until("both have run often", || {
            polls.iter().all(|n| n.load(Ordering::Relaxed) > 100)
        });
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert!(record.enqueues.load(Ordering::Relaxed) > 100);
        record.check();
    });
}

#[test]
fn a_policy_sees_what_was_said_about_a_task() {
    check(2, |runtime: Runtime| {
        let (seen, sees) = channel();
        let policy = Script::new("reads").enqueue(move |host, task| {
            seen.send((
                task.name().map(str::to_owned),
                task.weight(),
                task.tag(),
                task.allows(W0),
                task.allows(W1),
            ))
            .unwrap();
            host.insert(task.id(), DsqId::Global, Position::Tail);
        });
        runtime.load(policy).unwrap();
        let attributes = Attributes::new()
            .name("compaction")
            .weight(7)
            .tag(42)
            .affinity(WorkerMask::from_iter([W1]));
        let task = runtime.spawn_with(attributes, async {}).unwrap();
        let expected = (Some("compaction".to_owned()), 7, 42, false, true);
        assert_eq!(receive("the offer", &sees), expected);
        wait_for("the task", task).unwrap();
        wait_for("a plain task", runtime.spawn(async {})).unwrap();
        assert_eq!(receive("the offer", &sees), (None, 100, 0, true, true));
    });
}
