//! Loads and swaps: what one policy leaves to the next, and what `init` and a builder's policy see.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use polity::{
    Attributes, DsqId, EnqueueReason, ExitKind, Handle, Host, InitError, LoadError, Position,
    WorkerId, WorkerMask,
};
use polity_policies::{Fifo, Priority};
use polity_tests::{DEADLINE, check, receive, wait_for, wait_until, within};

use super::Named;
use crate::support::Yielding;
use crate::workload::{Mixed, Recorder, Script, exit_of, lock, tagged};

/// Runs only tasks tagged 0. Has all others in its custody, every second one in a custom DSQ, and gives none back.
fn holds_back(name: &str, offered: Sender<(u64, EnqueueReason)>) -> Script {
    Script::new(name)
        .init(|host| {
            host.create_dsq(0)?;
            Ok(())
        })
        .enqueue(move |host, task| {
            if task.tag() == 0 {
                host.insert(task.id(), DsqId::Global, Position::Tail);
                return;
            }
            if task.tag().is_multiple_of(2) {
                host.insert(task.id(), DsqId::Custom(0), Position::Tail);
            }
            let _ = offered.send((task.tag(), task.reason()));
        })
}

#[test]
fn generations_count_up_and_status_names_the_loaded_one() {
    check(1, |runtime| {
        assert!(runtime.policy_status().is_none());
        assert!(runtime.unload().is_none());
        assert!(runtime.eject("nobody there").is_none());
        let first = runtime.load(Fifo::new()).unwrap();
        let status = runtime.policy_status().unwrap();
        assert_eq!((status.name.as_str(), status.generation), ("fifo", first));
        let second = runtime.load(Priority::new()).unwrap();
        assert!(second > first);
        assert_eq!(runtime.policy_status().unwrap().generation, second);
        assert!(runtime.exit_info(second).is_none());
        assert!(
            runtime
                .wait_exit(second, Duration::from_millis(1))
                .is_none()
        );
        let info = exit_of(&runtime, first);
        assert_eq!((info.kind, info.kind.number()), (ExitKind::Swap, 68));
        assert_eq!(
            info.message,
            format!("by policy \"priority\" (generation {second})")
        );
    });
}

#[test]
fn what_a_policy_held_is_offered_to_its_successor_as_inherited() {
    check(2, |runtime| {
        let (to_a, a) = channel();
        let (to_b, b) = channel();
        runtime.load(holds_back("a", to_a)).unwrap();
        let tasks: Vec<_> = (1..=20)
            .map(|tag| tagged(&runtime, tag, async {}))
            .collect();
        for _ in 0..20 {
            assert_eq!(receive("an offer to a", &a).1, EnqueueReason::Spawn);
        }
        // Each worker has been through a poll since: what `a` said has been carried out.
        for worker in [0, 1].map(WorkerId::new) {
            let here = Attributes::new().affinity(WorkerMask::from_iter([worker]));
            wait_for("a poll", runtime.spawn_with(here, async {}).unwrap()).unwrap();
        }
        let (policy, record) = Recorder::new(holds_back("b", to_b), 2);
        runtime.load(policy).unwrap();
        let mut inherited: Vec<u64> = (0..20)
            .map(|_| {
                let (tag, reason) = receive("an offer to b", &b);
                assert_eq!(reason, EnqueueReason::Inherited);
                tag
            })
            .collect();
        inherited.sort_unstable();
        assert!(inherited.into_iter().eq(1..=20));
        record.check();
        runtime.unload();
        for task in tasks {
            wait_for("a task that was held", task).unwrap();
        }
    });
}

#[test]
fn what_a_policy_held_runs_when_it_is_unloaded_or_ejected() {
    let unload: fn(&Handle) = |runtime| drop(runtime.unload());
    let eject: fn(&Handle) = |runtime| drop(runtime.eject("as ordered"));
    let by_itself: fn(&Handle) =
        |runtime| wait_for("the last task", tagged(runtime, 99, async {})).unwrap();
    for end in [unload, eject, by_itself] {
        check(2, move |runtime| {
            let (to_policy, offers) = channel();
            let policy = holds_back("hoarder", to_policy).runnable(|host, task| {
                if task.tag() == 99 {
                    host.exit(99, "at your service");
                }
            });
            runtime.load(policy).unwrap();
            let tasks: Vec<_> = (1..=20)
                .map(|tag| tagged(&runtime, tag, async {}))
                .collect();
            for _ in 0..20 {
                receive("an offer", &offers);
            }
            end(&runtime);
            for task in tasks {
                wait_for("a task that was held", task).unwrap();
            }
            assert!(runtime.policy_status().is_none());
        });
    }
}

/// Were there a moment under the built-in FIFO between two policies, tasks that both hold back would run in it.
#[test]
fn between_two_policies_there_is_no_moment_under_the_fifo() {
    check(2, |runtime| {
        let polled = Arc::new(AtomicUsize::new(0));
        let busy = Yielding::start(&runtime, 4);
        let (to_policy, offers) = channel();
        runtime.load(holds_back("a", to_policy.clone())).unwrap();
        let mut held = Vec::new();
        let mut offered = 0;
        for swap in 0..300 {
            // Old ones, and one that is on its way to the policy during the swap.
            let counted = Arc::clone(&polled);
            held.push(tagged(&runtime, swap + 1, async move {
                counted.fetch_add(1, Ordering::SeqCst);
            }));
            let name = if swap % 2 == 0 { "b" } else { "a" };
            runtime.load(holds_back(name, to_policy.clone())).unwrap();
            offered += offers.try_iter().count();
            let polled = polled.load(Ordering::SeqCst);
            assert_eq!(polled, 0, "ran after {swap} swaps, {offered} offers");
        }
        assert!(offered > 300, "they are offered again: {offered}");
        runtime.unload();
        for task in held {
            wait_for("a task that was held back", task).unwrap();
        }
        busy.end();
    });
}

#[test]
fn loads_from_many_threads_at_once_are_made_one_after_the_other() {
    check(2, |runtime| {
        let load = Mixed::start(&runtime, 10);
        let records = Mutex::new(Vec::new());
        let generations = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let (policy, record) = Recorder::new(Priority::new(), 2);
                        lock(&records).push(record);
                        let generation = runtime.load(policy).unwrap();
                        lock(&generations).push(generation);
                    }
                });
            }
        });
        load.finish();
        runtime.unload();
        let mut generations = lock(&generations).clone();
        generations.sort_unstable();
        generations.dedup();
        assert_eq!(generations.len(), 100);
        for record in lock(&records).iter() {
            wait_until("exit", || record.exits() > 0);
            record.check();
        }
    });
}

/// A policy whose every callback is at least looked at, and that does what the contract does by itself.
#[test]
fn a_policy_given_to_the_builder_runs_from_the_first_task_on() {
    within(|| {
        let enqueues = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&enqueues);
        let policy = Script::new("from_the_start").enqueue(move |host, task| {
            counted.fetch_add(1, Ordering::SeqCst);
            host.insert(task.id(), DsqId::Global, Position::Tail);
        });
        let runtime = polity_tests::builder(1).policy(policy).build().unwrap();
        wait_for("the first task", runtime.spawn(async {})).unwrap();
        assert_eq!(enqueues.load(Ordering::SeqCst), 1);

        let refused = polity_tests::builder(1).policy(Named(String::new()));
        let error = refused.build().unwrap_err();
        assert!(
            matches!(error, polity::BuildError::Load(LoadError::Refused(_))),
            "{error:?}"
        );
    });
}

/// `init` gets no worker, so nothing there that needs one may work or harm.
#[test]
fn init_sees_the_runtime_but_is_on_no_worker() {
    check(3, |runtime| {
        let init = |host: &Host<'_>| -> Result<(), InitError> {
            assert_eq!((host.worker(), host.worker_count()), (None, 3));
            assert!(!host.claim_idle(WorkerId::new(0)));
            host.kick(WorkerId::new(2));
            assert_eq!(thread::current().name(), Some("polity-init"));
            assert!(host.now() < DEADLINE * 10);
            Ok(())
        };
        runtime
            .load(Script::new("looks_around").init(init))
            .unwrap();
    });
}
