//! Who has a task when a bypass begins, and when it ends, and what the policy is told of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{DsqId, EnqueueReason, JoinHandle, Position, Runtime};
use polity_tests::{check, now, receive, wait_for, wait_until};

use super::{
    Calls, RUNS, bypass_between_passes, held, holding, kept, load, load_holding, pass_each_worker,
};
use crate::support::yield_until;
use crate::workload::{Held, Record, Script, lock, tagged};

#[test]
fn what_a_policy_holds_in_its_memory_and_in_dsqs_runs_in_a_bypass_oldest_first() {
    check(1, |runtime| {
        // Any order but that of their slots.
        let woken = [4, 7, 1, 8, 3, 6, 2, 5];
        let (calls, ran) = (Calls::default(), Arc::new(Mutex::new(Vec::new())));
        let inner = Script::new("keeps_woken")
            .init(|host| {
                host.create_dsq(0)?;
                Ok(())
            })
            .enqueue(|host, task| {
                if task.reason() != EnqueueReason::Wake || task.tag() == 0 {
                    host.insert(task.id(), DsqId::Global, Position::Tail);
                } else if task.tag().is_multiple_of(2) {
                    host.insert(task.id(), DsqId::Custom(0), Position::Head);
                }
            });
        let noted = calls.clone();
        let policy =
            inner.dequeue(move |_, task, reason| noted.note(task, format_args!("{reason:?}")));
        let record = load(&runtime, policy);
        let (mut wakes, mut tasks) = (Vec::new(), Vec::new());
        for tag in 1..=8 {
            let (wake, waits) = tokio::sync::oneshot::channel::<()>();
            wakes.push(Some(wake));
            let (ran, (polled, is_polled)) = (Arc::clone(&ran), channel());
            tasks.push(tagged(&runtime, tag, async move {
                polled.send(()).unwrap();
                waits.await.unwrap();
                lock(&ran).push(tag);
            }));
            receive("the first poll", &is_polled);
        }
        pass_each_worker(&runtime);
        for (nth, tag) in woken.into_iter().enumerate() {
            let wake = wakes[tag as usize - 1].take().expect("woken once");
            wake.send(()).unwrap();
            wait_until("the policy has it", || kept(&record) == nth + 1);
            // More than the coarseness of the stamps.
            let until = now() + Duration::from_millis(3);
            wait_until("the clock has moved", || now() > until);
            pass_each_worker(&runtime);
        }
        let guard = bypass_between_passes(&runtime);
        for task in tasks {
            wait_for("a task that was held", task).unwrap();
        }
        assert_eq!(*lock(&ran), woken);
        for tag in 1..=8 {
            assert_eq!(calls.of(tag), ["Bypass"]);
        }
        drop(guard);
        record.check();
    });
}

#[test]
fn a_custody_that_a_bypass_ends_is_told_once_and_before_anything_else_about_the_task() {
    for workers in [1, 2] {
        check(workers, |runtime| {
            let (calls, record) = load_holding(&runtime);
            let tasks = [1, 2].map(|tag| held(&runtime, &record, tag));
            let _guard = bypass_between_passes(&runtime);
            for task in tasks {
                wait_for("a task that was held", task).unwrap();
            }
            let expected = [
                "runnable",
                "enqueue Spawn",
                "dequeue Bypass",
                "running",
                "stopping Finished",
                "quiescent",
            ];
            for tag in [1, 2] {
                calls.expect(&runtime, tag, &expected);
            }
            record.check();
        });
    }
}

#[test]
fn what_did_not_get_its_turn_in_a_bypass_comes_back_by_enqueue_after_its_dequeue() {
    check(1, |runtime| {
        let (calls, record) = load_holding(&runtime);
        let tasks = [1, 2].map(|tag| held(&runtime, &record, tag));
        let blocked = Held::new(&runtime);
        let guard = runtime.bypass();
        let spawned = tagged(&runtime, 3, async {});
        drop(guard);
        blocked.end();
        for tag in [1, 2] {
            let back = ["dequeue Bypass", "enqueue Inherited"];
            let expected = [&["runnable", "enqueue Spawn"][..], &back].concat();
            calls.expect(&runtime, tag, &expected);
        }
        calls.expect(&runtime, 3, &["runnable", "enqueue Spawn"]);
        record.check();
        assert!(!tasks.iter().any(|task| task.is_finished()));
        let _guard = bypass_between_passes(&runtime);
        for task in tasks.into_iter().chain([spawned]) {
            wait_for("a task that was held twice", task).unwrap();
        }
        for tag in [1, 2] {
            assert_eq!(calls.count(tag, "dequeue Bypass"), 2);
        }
        record.check();
    });
}

#[test]
fn a_task_that_yields_comes_back_by_enqueue_when_the_last_guard_is_dropped() {
    for workers in [1, 2] {
        check(workers, |runtime| {
            let (calls, record) = load_holding(&runtime);
            let stop = Arc::new(AtomicBool::new(false));
            let yielding = |tag| tagged(&runtime, tag, yield_until(&stop));
            let before = yielding(RUNS);
            let outer = runtime.bypass();
            let inner = runtime.bypass();
            let meanwhile = yielding(RUNS + 1);
            // From here on no offer is on its way that began before.
            pass_each_worker(&runtime);
            let enqueues = || [RUNS, RUNS + 1].map(|tag| calls.count(tag, "enqueue"));
            let [before_bypass, none] = enqueues();
            assert_eq!(none, 0, "spawned in the bypass");
            let runs = |tag| calls.count(tag, "running");
            let until = [RUNS, RUNS + 1].map(|tag| runs(tag) + 20);
            wait_until("both have run past the policy", || {
                runs(RUNS) > until[0] && runs(RUNS + 1) > until[1]
            });
            drop(outer);
            pass_each_worker(&runtime);
            assert_eq!(enqueues(), [before_bypass, 0], "one guard is left");
            drop(inner);
            wait_until("both are enqueued again", || {
                let [first, second] = enqueues();
                first > before_bypass && second > 0
            });
            stop.store(true, Ordering::Relaxed);
            for task in [before, meanwhile] {
                wait_for("a yielding task", task).unwrap();
            }
            let first = calls.of(RUNS + 1);
            let enqueued = first.iter().position(|it| it.starts_with("enqueue"));
            assert_eq!(first[enqueued.unwrap()], "enqueue StillRunnable");
            assert_eq!(calls.count(RUNS + 1, "runnable"), 1, "runnable all along");
            pass_each_worker(&runtime);
            assert_eq!(record.known_runnable(), 0);
            record.check();
        });
    }
}

#[test]
fn a_custody_that_ended_otherwise_keeps_its_own_reason() {
    check(1, |runtime| {
        let calls = Calls::default();
        let list = Arc::new(Mutex::new(Vec::new()));
        let (keeps, noted) = (Arc::clone(&list), calls.clone());
        // Gives away its whole list when it has two.
        let policy = Script::new("by_twos")
            .enqueue(move |host, task| match task.tag() {
                0 => drop(host.insert(task.id(), DsqId::Global, Position::Tail)),
                1 => lock(&keeps).push(task.id()),
                _ => {}
            })
            .dispatch(move |host, _, _| {
                let mut list = lock(&list);
                if list.len() == 2 {
                    for task in list.drain(..) {
                        assert!(host.insert(task, DsqId::Local, Position::Tail));
                    }
                }
            })
            .dequeue(move |_, task, reason| noted.note(task, format_args!("{reason:?}")));
        let record = load(&runtime, policy);
        let aborted = tagged(&runtime, 3, async {});
        let swept = tagged(&runtime, 5, async {});
        wait_until("it has both", || kept(&record) == 2);
        pass_each_worker(&runtime);
        // The first of the two blocks the worker while the second lies in its local DSQ.
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let blocks = tagged(&runtime, 1, async move {
            begun.send(()).unwrap();
            let _ = released.recv();
        });
        let dispatched = tagged(&runtime, 1, async {});
        receive("the long poll to begin", &has_begun);
        aborted.abort();
        let _guard = runtime.bypass();
        drop(release);
        for task in [blocks, dispatched, swept] {
            wait_for("a task", task).unwrap();
        }
        let ended = wait_for("the aborted task", aborted);
        assert!(ended.unwrap_err().is_cancelled());
        calls.expect(&runtime, 1, &["Dispatched", "Dispatched"]);
        calls.expect(&runtime, 3, &["Cancelled"]);
        calls.expect(&runtime, 5, &["Bypass"]);
        record.check();
    });
}

#[test]
fn a_task_aborted_after_a_bypass_took_it_has_its_dequeue_before_quiescent() {
    for bypass_lasts in [true, false] {
        check(1, move |runtime| {
            let (calls, record) = load_holding(&runtime);
            let tasks = [1, 2].map(|tag| held(&runtime, &record, tag));
            let blocked = Held::new(&runtime);
            let guard = runtime.bypass();
            for task in &tasks {
                task.abort();
            }
            let _guard = bypass_lasts.then_some(guard);
            blocked.end();
            for task in tasks {
                let ended = wait_for("an aborted task", task);
                assert!(ended.unwrap_err().is_cancelled());
            }
            let expected = ["runnable", "enqueue Spawn", "dequeue Bypass", "quiescent"];
            for tag in [1, 2] {
                calls.expect(&runtime, tag, &expected);
            }
            record.check();
        });
    }
}

/// Calls `meanwhile` while the policy looks at tasks tagged 1 and 2 in one batch; then it keeps both.
fn while_they_are_offered(
    runtime: &Runtime,
    meanwhile: impl FnOnce(),
) -> (Calls, Arc<Record>, [JoinHandle<()>; 2]) {
    let calls = Calls::default();
    let (offered, is_offered) = channel();
    let (go_on, goes_on) = channel::<()>();
    let goes_on = Mutex::new(goes_on);
    let policy = holding(&calls).select_worker(move |_, task| {
        if task.tag() == 2 {
            offered.send(()).unwrap();
            receive("what happens meanwhile", &lock(&goes_on));
        }
        task.last_worker()
    });
    let record = load(runtime, policy);
    let blocked = Held::new(runtime);
    let tasks = [1, 2].map(|tag| tagged(runtime, tag, async {}));
    blocked.end();
    receive("the offer", &is_offered);
    meanwhile();
    go_on.send(()).unwrap();
    (calls, record, tasks)
}

#[test]
fn a_task_that_the_policy_keeps_when_a_bypass_has_begun_is_taken_back() {
    check(1, |runtime| {
        let mut guard = None;
        let (calls, record, tasks) =
            while_they_are_offered(&runtime, || guard = Some(runtime.bypass()));
        for task in tasks {
            wait_for("a task that was kept in the bypass", task).unwrap();
        }
        for tag in [1, 2] {
            // Not always one: what is taken back in the middle of a pass may be offered once more before its end.
            assert!(calls.all_bypassed(tag), "{:?}", calls.of(tag));
        }
        drop(guard);
        record.check();
    });
}

#[test]
fn a_task_that_the_policy_keeps_when_a_bypass_is_over_stays_with_it() {
    check(1, |runtime| {
        let (calls, record, tasks) = while_they_are_offered(&runtime, || drop(runtime.bypass()));
        for tag in [1, 2] {
            calls.expect(&runtime, tag, &["runnable", "enqueue Spawn"]);
        }
        let _guard = bypass_between_passes(&runtime);
        for task in tasks {
            wait_for("a task that was held", task).unwrap();
        }
        for tag in [1, 2] {
            assert_eq!(calls.count(tag, "dequeue Bypass"), 1);
        }
        record.check();
    });
}

#[test]
fn an_id_that_a_bypass_took_back_is_refused_and_harms_nothing() {
    check(1, |runtime| {
        let list = Arc::new(Mutex::new(Vec::new()));
        let give = Arc::new(AtomicBool::new(false));
        let (keeps, gives) = (Arc::clone(&list), Arc::clone(&give));
        // Pays no attention to `dequeue`.
        let policy = Script::new("forgetful")
            .init(|host| {
                host.create_dsq(0)?;
                Ok(())
            })
            .enqueue(move |host, task| match task.tag() {
                0 => drop(host.insert(task.id(), DsqId::Global, Position::Tail)),
                1 => lock(&keeps).push(task.id()),
                _ => drop(host.insert(task.id(), DsqId::Custom(0), Position::Tail)),
            })
            .dispatch(move |host, _, _| {
                if gives.load(Ordering::SeqCst) {
                    for task in lock(&list).drain(..) {
                        host.insert(task, DsqId::Local, Position::Tail);
                    }
                    host.move_to_local(DsqId::Custom(0), 8);
                }
            });
        let record = load(&runtime, policy);
        let tasks: Vec<_> = (0..6).map(|n| held(&runtime, &record, 1 + n % 2)).collect();
        let blocked = Held::new(&runtime);
        drop(runtime.bypass());
        blocked.end();
        wait_until("all are enqueued again", || kept(&record) == 12);
        give.store(true, Ordering::SeqCst);
        pass_each_worker(&runtime);
        for task in tasks {
            wait_for("a task that was held twice", task).unwrap();
        }
        let refused = || runtime.metrics().stale_claims;
        wait_until("three claims are counted as stale", || refused() == 3);
        assert!(runtime.policy_status().is_some());
        record.check();
    });
}
