//! DSQs: in which order and on which worker tasks run that lie in them, how they are moved, created and destroyed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use polity::{Attributes, DsqError, DsqId, Position, WorkerId, WorkerMask, yield_now};
use polity_tests::{check, wait_for, wait_until, within};

use super::{W0, W1, create};
use crate::workload::{Held, Script, lock, tagged};

/// Which order tasks 1 to 6 run in, the even ones inserted at the head.
fn order_in(dsq: DsqId) -> Vec<u64> {
    within(move || {
        let runtime = polity_tests::runtime(1);
        let ran = Arc::new(Mutex::new(Vec::new()));
        let policy = Script::new("heads_and_tails")
            .init(|host| create(host, 3))
            .enqueue(move |host, task| {
                let at = match task.tag() % 2 {
                    0 => Position::Head,
                    _ => Position::Tail,
                };
                let dsq = if task.tag() == 0 { DsqId::Global } else { dsq };
                host.insert(task.id(), dsq, at);
            })
            .dispatch(|host, _, _| {
                host.move_to_local(DsqId::Custom(3), 2);
            });
        runtime.load(policy).unwrap();
        let held = Held::new(&runtime);
        let tasks: Vec<_> = (1..=6)
            .map(|tag| {
                let ran = Arc::clone(&ran);
                tagged(&runtime, tag, async move { lock(&ran).push(tag) })
            })
            .collect();
        held.end();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        lock(&ran).to_vec()
    })
}

#[test]
fn every_dsq_is_first_in_first_out_but_for_head_inserts_which_come_last_in_first_out() {
    for dsq in [
        DsqId::Local,
        DsqId::LocalOn(W0),
        DsqId::Global,
        DsqId::Custom(3),
    ] {
        assert_eq!(order_in(dsq), [6, 4, 2, 1, 3, 5], "{dsq}");
    }
}

#[test]
fn a_task_inserted_at_the_head_of_the_local_dsq_runs_next() {
    check(1, |runtime| {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let policy = Script::new("next").enqueue(|host, task| {
            let at = match task.tag() {
                9 => Position::Head,
                _ => Position::Tail,
            };
            host.insert(task.id(), DsqId::Local, at);
        });
        runtime.load(policy).unwrap();
        let held = Held::new(&runtime);
        let handle = runtime.handle().clone();
        let tasks: Vec<_> = (1..=3)
            .map(|tag| {
                let (ran, handle) = (Arc::clone(&ran), handle.clone());
                tagged(&runtime, tag, async move {
                    lock(&ran).push(tag);
                    if tag == 1 {
                        let ran = Arc::clone(&ran);
                        drop(tagged(&handle, 9, async move { lock(&ran).push(9) }));
                    }
                })
            })
            .collect();
        held.end();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert_eq!(*lock(&ran), [1, 9, 2, 3]);
    });
}

#[test]
fn local_on_runs_a_task_on_that_worker_and_nowhere_else() {
    check(2, |runtime| {
        let ran_on = Arc::new(Mutex::new(HashMap::<u64, Vec<WorkerId>>::new()));
        let noted = Arc::clone(&ran_on);
        let policy = Script::new("by_tag")
            .enqueue(|host, task| {
                let worker = WorkerId::new((task.tag() % 2) as u16);
                host.insert(task.id(), DsqId::LocalOn(worker), Position::Tail);
            })
            .running(move |host, task| {
                lock(&noted)
                    .entry(task.tag())
                    .or_default()
                    .extend(host.worker());
            });
        runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..100)
            .map(|tag| {
                tagged(&runtime, tag, async {
                    for _ in 0..3 {
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        // Core steals from a worker that sits in one poll for long (or that the system does not run): not often here.
        let ran_on = lock(&ran_on);
        let all: usize = ran_on.values().map(Vec::len).sum();
        let there: usize = ran_on
            .iter()
            .map(|(tag, on)| on.iter().filter(|on| on.index() as u64 == tag % 2).count())
            .sum();
        assert_eq!(all, 400);
        assert!(
            there > all / 2,
            "{there} of {all} polls on the named worker"
        );
        assert_eq!(runtime.metrics().redirected, 0);
    });
}

#[test]
fn a_verdict_for_a_worker_that_the_affinity_forbids_is_redirected_and_counted() {
    check(2, |runtime| {
        let policy = Script::new("contrary").enqueue(|host, task| {
            let wrong = (0..2).map(WorkerId::new).find(|w| !task.allows(*w));
            let dsq = DsqId::LocalOn(wrong.unwrap_or(W0));
            host.insert(task.id(), dsq, Position::Tail);
        });
        runtime.load(policy).unwrap();
        let before = runtime.metrics().redirected;
        for worker in [W0, W1] {
            let only = Attributes::new().affinity(WorkerMask::from_iter([worker]));
            let task = runtime.spawn_with(only, async {}).unwrap();
            wait_for("a restricted task", task).unwrap();
        }
        wait_until("both are counted", || {
            runtime.metrics().redirected >= before + 2
        });
        assert!(runtime.policy_status().is_some(), "it is no error");
    });
}

#[test]
fn move_to_local_moves_as_many_as_it_is_asked_for_and_there_are() {
    check(1, |runtime| {
        let moved = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&moved);
        let policy = Script::new("by_three")
            .init(|host| create(host, 0))
            .enqueue(|host, task| {
                let dsq = match task.tag() {
                    1 => DsqId::Custom(0),
                    _ => DsqId::Global,
                };
                host.insert(task.id(), dsq, Position::Tail);
            })
            .dispatch(move |host, _, _| {
                let before = host.dsq_len(DsqId::Custom(0)).unwrap();
                assert_eq!(host.dsq_len(DsqId::Local), Some(0), "dispatch comes last");
                let moved = host.move_to_local(DsqId::Custom(0), 3);
                assert_eq!(host.dsq_len(DsqId::Custom(0)), Some(before - moved));
                assert_eq!(host.dsq_len(DsqId::Local), Some(moved));
                if before > 0 {
                    lock(&noted).push(moved);
                }
                assert_eq!(host.move_to_local(DsqId::Custom(0), 0), 0);
            });
        runtime.load(policy).unwrap();
        let held = Held::new(&runtime);
        let tasks: Vec<_> = (0..7).map(|_| tagged(&runtime, 1, async {})).collect();
        held.end();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert_eq!(*lock(&moved), [3, 3, 1]);
        assert!(runtime.policy_status().is_some());
    });
}

#[test]
fn move_to_local_passes_over_tasks_that_may_not_run_here() {
    check(2, |runtime| {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let (open, seen) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (opened, noted) = (Arc::clone(&open), Arc::clone(&seen));
        let policy = Script::new("picky")
            .init(|host| create(host, 0))
            .enqueue(|host, task| {
                host.insert(task.id(), DsqId::Custom(0), Position::Tail);
            })
            .dispatch(move |host, worker, _| {
                if !opened.load(Ordering::SeqCst) {
                    return;
                }
                // Alternately restricted to the other worker and to this one.
                while host.move_to_local(DsqId::Custom(0), 1) == 1 {
                    lock(&noted).push(worker);
                }
            });
        runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..20)
            .map(|n| {
                let only = Attributes::new()
                    .tag(n)
                    .affinity(WorkerMask::from_iter([WorkerId::new((n % 2) as u16)]));
                let ran = Arc::clone(&ran);
                let task = async move { lock(&ran).push(n) };
                runtime.spawn_with(only, task).unwrap()
            })
            .collect();
        wait_until("all are offered", || runtime.metrics().offered >= 20);
        open.store(true, Ordering::SeqCst);
        let kicks: Vec<_> = (0..2)
            .map(|n| {
                let only =
                    Attributes::new().affinity(WorkerMask::from_iter([WorkerId::new(n as u16)]));
                runtime.spawn_with(only, async {}).unwrap()
            })
            .collect();
        for task in tasks.into_iter().chain(kicks) {
            wait_for("a restricted task", task).unwrap();
        }
        let ran = lock(&ran);
        for worker in 0..2 {
            let here: Vec<u64> = ran.iter().copied().filter(|n| n % 2 == worker).collect();
            assert!(here.is_sorted(), "those for worker {worker}: {here:?}");
        }
        assert_eq!(runtime.metrics().redirected, 0, "none went astray");
        assert_eq!(lock(&seen).len(), 22);
    });
}

#[test]
fn a_thousand_dsqs_are_created_used_and_destroyed() {
    check(2, |runtime| {
        let policy = Script::new("many_queues")
            .init(|host| {
                for number in 0..1024 {
                    assert_eq!(host.create_dsq(number), Ok(DsqId::Custom(number)));
                }
                for number in (0..1024).step_by(2) {
                    host.destroy_dsq(DsqId::Custom(number))?;
                }
                for number in (0..1024).step_by(2) {
                    host.create_dsq(number)?;
                }
                Ok(())
            })
            .enqueue(|host, task| {
                let dsq = DsqId::Custom((task.tag() % 1024) as u32);
                host.insert(task.id(), dsq, Position::Tail);
            })
            .dispatch(|host, _, _| {
                let mut moved = 0;
                for number in 0..1024 {
                    moved += host.move_to_local(DsqId::Custom(number), 1);
                    if moved == 8 {
                        break;
                    }
                }
            });
        runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..2048)
            .map(|tag| tagged(&runtime, tag, async {}))
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert!(runtime.policy_status().is_some());
    });
}

#[test]
fn creating_and_destroying_dsqs_answers_what_is_wrong() {
    check(1, |runtime| {
        let policy = Script::new("queues")
            .init(|host| {
                let (none, dsq) = (DsqId::Custom(9), DsqId::Custom(0));
                assert_eq!(host.dsq_len(dsq), None);
                assert_eq!(host.create_dsq(0), Ok(dsq));
                assert_eq!(host.dsq_len(dsq), Some(0));
                assert_eq!(host.create_dsq(0), Err(DsqError::Exists(dsq)));
                let last = DsqId::MAX_CUSTOM;
                assert_eq!(host.create_dsq(last), Ok(DsqId::Custom(last)));
                let beyond = DsqId::Custom(last + 1);
                assert_eq!(host.create_dsq(last + 1), Err(DsqError::OutOfRange(beyond)));
                assert_eq!(
                    host.create_dsq(u32::MAX),
                    Err(DsqError::OutOfRange(DsqId::Custom(u32::MAX)))
                );
                assert_eq!(host.destroy_dsq(none), Err(DsqError::Unknown(none)));
                for built_in in [DsqId::Local, DsqId::LocalOn(W0), DsqId::Global] {
                    assert_eq!(
                        host.destroy_dsq(built_in),
                        Err(DsqError::OutOfRange(built_in))
                    );
                }
                assert_eq!(host.destroy_dsq(DsqId::Custom(last)), Ok(()));
                assert_eq!(
                    host.destroy_dsq(DsqId::Custom(last)),
                    Err(DsqError::Unknown(DsqId::Custom(last)))
                );
                assert_eq!(host.dsq_len(DsqId::Custom(last)), None);
                Ok(())
            })
            .enqueue(|host, task| {
                let dsq = DsqId::Custom(0);
                let len = host.dsq_len(dsq).unwrap();
                if len > 0 {
                    // An error for the caller, not for the policy.
                    assert_eq!(host.destroy_dsq(dsq), Err(DsqError::NotEmpty(dsq, len)));
                }
                host.insert(task.id(), dsq, Position::Tail);
            })
            .dispatch(|host, _, _| {
                // The last of three, so that each `enqueue` after the first finds one there.
                if host.dsq_len(DsqId::Custom(0)) >= Some(3) {
                    host.move_to_local(DsqId::Custom(0), 3);
                    assert_eq!(host.create_dsq(1), Ok(DsqId::Custom(1)));
                    assert_eq!(host.destroy_dsq(DsqId::Custom(0)), Ok(()));
                }
            });
        let generation = runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..3)
            .map(|n| {
                let task = runtime.spawn(async {});
                wait_until("it is offered", || runtime.metrics().offered > n);
                task
            })
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert!(
            runtime.exit_info(generation).is_none(),
            "{:?}",
            runtime.exit_info(generation)
        );
    });
}
