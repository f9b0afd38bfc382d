//! Loads, swaps and ends of policies during a bypass, and the end of the runtime.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;

use polity::{DsqId, ExitKind, Handle, Host, InitError, Position, yield_now};
use polity_policies::Fifo;
use polity_tests::{check, receive, wait_for, wait_until, within};

use super::{
    Calls, RUNS, bypass_between_passes, held, holding, kept, load, load_holding, pass_each_worker,
};
use crate::support::{Drops, waiting, yield_until};
use crate::workload::{Held, Mixed, Recorder, Script, exit_of, tagged};

#[test]
fn a_bypass_without_a_policy_changes_nothing() {
    check(2, |runtime| {
        let _guard = runtime.bypass();
        Mixed::start(&runtime, 5).finish();
        assert!(runtime.policy_status().is_none());
        assert_eq!(runtime.bypass_depth(), 1);
    });
}

#[test]
fn a_policy_loaded_in_a_bypass_gets_its_first_tasks_after_it() {
    check(2, |runtime| {
        let stop = Arc::new(AtomicBool::new(false));
        let old = tagged(&runtime, RUNS, yield_until(&stop));
        let guard = runtime.bypass();
        let (calls, record) = load_holding(&runtime);
        let task = tagged(&runtime, 1, async {});
        wait_for("a task past the new policy", task).unwrap();
        let expected = ["runnable", "running", "stopping Finished", "quiescent"];
        calls.expect(&runtime, 1, &expected);
        wait_until("it is told of a task older than itself", || {
            calls.count(RUNS, "running") > 3
        });
        assert_eq!(record.enqueues.load(Ordering::Relaxed), 0);
        drop(guard);
        wait_until("it gets the old task", || {
            calls.count(RUNS, "enqueue StillRunnable") > 0
        });
        let new = held(&runtime, &record, 1);
        assert!(!new.is_finished());
        stop.store(true, Ordering::Relaxed);
        wait_for("the yielding task", old).unwrap();
        record.check();
    });
}

#[test]
fn of_two_policies_swapped_in_a_bypass_the_new_one_is_told_and_the_old_one_is_not() {
    check(1, |runtime| {
        let (old_calls, old) = load_holding(&runtime);
        let replaced = runtime.policy_status().unwrap().generation;
        let tasks = [1, 2].map(|tag| held(&runtime, &old, tag));
        let blocked = Held::new(&runtime);
        let guard = runtime.bypass();
        let calls = Calls::default();
        let (policy, new) = Recorder::new(holding(&calls), 1);
        runtime.load(policy).unwrap();
        blocked.end();
        for task in tasks {
            wait_for("a task that was held", task).unwrap();
        }
        for tag in [1, 2] {
            let expected = ["runnable", "running", "stopping Finished", "quiescent"];
            calls.expect(&runtime, tag, &expected);
            // Its custody has ended with it.
            old_calls.expect(&runtime, tag, &["runnable", "enqueue Spawn"]);
        }
        assert_eq!(exit_of(&runtime, replaced).kind, ExitKind::Swap);
        wait_until("exit", || old.exits() == 1);
        assert_eq!(runtime.bypass_depth(), 1);
        drop(guard);
        held(&runtime, &new, 1);
        old.check();
        new.check();
    });
}

#[test]
fn a_policy_hears_nothing_of_what_a_bypass_took_from_the_one_before_it() {
    check(1, |runtime| {
        let (old_calls, old) = load_holding(&runtime);
        let tasks = [1, 2].map(|tag| held(&runtime, &old, tag));
        let blocked = Held::new(&runtime);
        let guard = runtime.bypass();
        let calls = Calls::default();
        let (policy, new) = Recorder::new(holding(&calls), 1);
        runtime.load(policy).unwrap();
        drop(guard);
        blocked.end();
        for tag in [1, 2] {
            calls.expect(&runtime, tag, &["runnable", "enqueue Inherited"]);
            old_calls.expect(&runtime, tag, &["runnable", "enqueue Spawn"]);
        }
        let _guard = bypass_between_passes(&runtime);
        for task in tasks {
            wait_for("a task that both have held", task).unwrap();
        }
        for tag in [1, 2] {
            assert_eq!(calls.count(tag, "dequeue Bypass"), 1);
        }
        old.check();
        new.check();
    });
}

#[test]
fn a_policy_unloaded_or_ejected_in_a_bypass_hears_no_more_and_the_bypass_lasts() {
    let unload: fn(&Handle) = |runtime| drop(runtime.unload());
    let eject: fn(&Handle) = |runtime| drop(runtime.eject("as ordered"));
    for (end, kind) in [(unload, ExitKind::Unload), (eject, ExitKind::Ejected)] {
        check(1, move |runtime| {
            let (calls, record) = load_holding(&runtime);
            let generation = runtime.policy_status().unwrap().generation;
            let tasks = [1, 2].map(|tag| held(&runtime, &record, tag));
            let blocked = Held::new(&runtime);
            let _guard = runtime.bypass();
            end(&runtime);
            blocked.end();
            for task in tasks {
                wait_for("a task that was held", task).unwrap();
            }
            for tag in [1, 2] {
                calls.expect(&runtime, tag, &["runnable", "enqueue Spawn"]);
            }
            assert_eq!(exit_of(&runtime, generation).kind, kind);
            assert!(runtime.policy_status().is_none());
            assert_eq!(runtime.bypass_depth(), 1);
            wait_until("exit", || record.exits() == 1);
            // For the next policy it still is a bypass.
            let (_, next) = load_holding(&runtime);
            let task = tagged(&runtime, 1, async {});
            wait_for("a task past the next policy", task).unwrap();
            assert_eq!(kept(&next), 0);
            record.check();
            next.check();
        });
    }
}

/// Holds tasks tagged 1, and reports an error in the callback of this name once `armed`.
fn fails_in(callback: &'static str, armed: &Arc<AtomicBool>) -> Script {
    let fail = |name: &'static str| {
        let armed = Arc::clone(armed);
        move |host: &Host<'_>| {
            if callback == name && armed.load(Ordering::SeqCst) {
                host.error("as ordered");
            }
        }
    };
    let (runnable, running, stopping) = (fail("runnable"), fail("running"), fail("stopping"));
    let (quiescent, dequeue) = (fail("quiescent"), fail("dequeue"));
    Script::new("fails")
        .init(|host| -> Result<(), InitError> {
            host.create_dsq(0)?;
            Ok(())
        })
        .enqueue(|host, task| {
            if task.tag() != 1 {
                host.insert(task.id(), DsqId::Global, Position::Tail);
            }
        })
        .runnable(move |host, _| runnable(host))
        .running(move |host, _| running(host))
        .stopping(move |host, _, _| stopping(host))
        .quiescent(move |host, _| quiescent(host))
        .dequeue(move |host, _, _| dequeue(host))
}

#[test]
fn an_error_that_a_policy_reports_in_a_bypass_ejects_it_and_every_task_completes() {
    for callback in ["runnable", "running", "stopping", "quiescent", "dequeue"] {
        check(2, move |runtime| {
            let armed = Arc::new(AtomicBool::new(false));
            let record = load(&runtime, fails_in(callback, &armed));
            let generation = runtime.policy_status().unwrap().generation;
            let mut tasks: Vec<_> = (0..10).map(|_| held(&runtime, &record, 1)).collect();
            armed.store(true, Ordering::SeqCst);
            let _guard = runtime.bypass();
            tasks.extend((0..10).map(|_| tagged(&runtime, 1, yield_now())));
            let info = exit_of(&runtime, generation);
            assert_eq!(info.kind, ExitKind::PolicyError, "{callback}: {info}");
            assert_eq!(info.message, format!("{callback}: as ordered"));
            for task in tasks {
                wait_for("a task of the ejected policy", task).unwrap();
            }
            assert!(runtime.policy_status().is_none());
            assert_eq!(runtime.bypass_depth(), 1);
            runtime.load(Fifo::new()).unwrap();
            Mixed::start(&runtime, 2).finish();
            record.check();
        });
    }
}

#[test]
fn a_runtime_dropped_in_a_bypass_ends_its_policy_and_drops_its_tasks() {
    within(|| {
        let runtime = polity_tests::runtime(2);
        let (exited, exit) = channel();
        let policy = Script::new("until_the_end").exit(move |info| exited.send(info.kind).unwrap());
        runtime.load(policy).unwrap();
        let handle = runtime.handle().clone();
        let drops = Drops::default();
        let outer = runtime.bypass();
        let _left = runtime.bypass();
        let tasks: Vec<_> = (0..10)
            .map(|_| {
                let (future, polled) = waiting(&drops);
                let task = runtime.spawn(future);
                receive("its first poll", &polled);
                task
            })
            .collect();
        drop(runtime);
        assert_eq!(receive("exit", &exit), ExitKind::Shutdown);
        assert_eq!(drops.count(), 10);
        for task in tasks {
            let ended = wait_for("the end of a task", task);
            assert!(ended.unwrap_err().is_cancelled());
        }
        drop(outer);
        assert_eq!(handle.bypass_depth(), 1);
        drop(handle.bypass());
    });
}

#[test]
fn a_runtime_dropped_while_a_bypass_has_just_taken_tasks_drops_each_once() {
    check(1, |runtime| {
        let (_, record) = load_holding(&runtime);
        let drops = Drops::default();
        let tasks: Vec<_> = (0..10)
            .map(|n| {
                let counted = drops.counted();
                let forever = async move {
                    let _counted = counted;
                    std::future::pending::<()>().await
                };
                let task = tagged(&runtime, 1 + n % 2, forever);
                wait_until("the policy has it", || kept(&record) as u64 > n);
                task
            })
            .collect();
        pass_each_worker(&runtime);
        let _guard = runtime.bypass();
        drop(runtime);
        assert_eq!(drops.count(), 10);
        for task in tasks {
            let ended = wait_for("the end of a task", task);
            assert!(ended.unwrap_err().is_cancelled());
        }
        record.check();
    });
}
