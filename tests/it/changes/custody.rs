//! Masks of tasks that a policy has in its custody, or is about to have.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use polity::{
    AbortHandle, Attributes, DequeueReason, DsqId, Position, TaskId, TaskView, WorkerId, WorkerMask,
};
use polity_tests::{check_without_spares as check, receive, wait_for, wait_until};

use super::{last_poll, only};
use crate::affinity::{each_policy, workers_of};
use crate::support::{Yielding, settle};
use crate::workload::{Script, lock, tagged};

/// What a policy keeps, in a DSQ or as an id, it would look for on the wrong worker.
#[test]
fn a_held_task_that_is_narrowed_leaves_custody_and_is_offered_again() {
    for by_dsq in [Some(DsqId::Custom(0)), None] {
        check(1, move |runtime| {
            let events: Arc<Mutex<Vec<&str>>> = Arc::default();
            let kept: Arc<Mutex<Vec<TaskId>>> = Arc::default();
            let open = Arc::new(AtomicBool::new(false));
            let note = |what: &'static str| {
                let events = Arc::clone(&events);
                move |task: &TaskView<'_>| {
                    if task.tag() == 1 {
                        lock(&events).push(what);
                    }
                }
            };
            let (enqueued, dequeued, ran) = (note("enqueue"), note("dequeue"), note("running"));
            let told = note("set_affinity");
            let (keep, give) = (Arc::clone(&kept), Arc::clone(&kept));
            let may_go = Arc::clone(&open);
            let policy = Script::new("holds")
                .init(|host| {
                    host.create_dsq(0)?;
                    Ok(())
                })
                .enqueue(move |host, task| {
                    enqueued(task);
                    match by_dsq {
                        _ if task.tag() != 1 => {
                            host.insert(task.id(), DsqId::Global, Position::Tail);
                        }
                        Some(dsq) => {
                            host.insert(task.id(), dsq, Position::Tail);
                        }
                        None => lock(&keep).push(task.id()),
                    }
                })
                .dequeue(move |_, task, reason| {
                    if reason == DequeueReason::Affinity {
                        dequeued(task);
                    }
                })
                .set_affinity(move |_, task| told(task))
                .running(move |_, task| ran(task))
                .dispatch(move |host, _, _| {
                    if !may_go.load(Ordering::SeqCst) {
                        return;
                    }
                    for task in lock(&give).drain(..) {
                        host.insert(task, DsqId::Local, Position::Tail);
                    }
                    host.move_to_local(DsqId::Custom(0), 1);
                });
            runtime.load(policy).unwrap();
            let task = tagged(&runtime, 1, async {});
            wait_until("it is held", || lock(&events).len() == 1);
            settle(&runtime);
            // With one worker every mask that is allowed names all: it is as good as another one.
            task.set_affinity(only([0])).unwrap();
            wait_until("it is back", || lock(&events).len() == 4);
            let mut seen = lock(&events).clone();
            // Told before or after it was offered again.
            seen[1..].sort_unstable();
            let expected = ["enqueue", "dequeue", "enqueue", "set_affinity"];
            assert_eq!(seen, expected);
            open.store(true, Ordering::SeqCst);
            runtime.spawn(async {});
            wait_for("the task", task).unwrap();
            assert_eq!(lock(&events).last(), Some(&"running"));
            assert!(runtime.unload().is_some(), "it was not ejected");
        });
    }
}

/// The policy looks at the old mask while it changes. Here its `enqueue` changes it itself, which is the same.
#[test]
fn a_task_that_is_narrowed_while_it_is_offered_is_offered_again() {
    for by_dsq in [Some(DsqId::Custom(0)), None] {
        check(2, move |runtime| {
            let workers = workers_of(&runtime);
            let handle: Arc<Mutex<Option<AbortHandle>>> = Arc::default();
            let change = Arc::clone(&handle);
            let kept: Arc<Mutex<Vec<TaskId>>> = Arc::default();
            let give = Arc::clone(&kept);
            let policy = Script::new("late")
                .init(|host| {
                    host.create_dsq(0)?;
                    Ok(())
                })
                .enqueue(move |host, task| {
                    let first = lock(&change).take();
                    match (first, by_dsq) {
                        (None, _) => {
                            host.insert(task.id(), DsqId::Global, Position::Tail);
                        }
                        (Some(handle), dsq) => {
                            handle.set_affinity(only([1])).unwrap();
                            match dsq {
                                Some(dsq) => drop(host.insert(task.id(), dsq, Position::Tail)),
                                None => lock(&kept).push(task.id()),
                            }
                        }
                    }
                })
                .dispatch(move |host, worker, _| {
                    if worker == WorkerId::new(0) {
                        host.move_to_local(DsqId::Custom(0), 1);
                        for task in lock(&give).drain(..) {
                            host.insert(task, DsqId::Local, Position::Tail);
                        }
                    }
                });
            runtime.load(policy).unwrap();
            let (future, wakers, end) = last_poll();
            let here = Attributes::new().affinity(only([0]));
            let task = runtime.spawn_with(here, future).unwrap();
            let waker = receive("the first poll", &wakers);
            *lock(&handle) = Some(task.abort_handle());
            end.store(true, Ordering::SeqCst);
            waker.wake();
            assert_ne!(wait_for("the task", task).unwrap(), workers[0]);
            assert!(runtime.unload().is_some(), "it was not ejected");
        });
    }
}

/// The policy files each task under a worker by the mask that it is shown; the mask changes all the while.
#[test]
fn a_policy_with_a_queue_for_each_worker_loses_no_task_whose_mask_changes() {
    check(2, |runtime| {
        let policy = Script::new("filed")
            .init(|host| {
                host.create_dsq(0)?;
                host.create_dsq(1)?;
                Ok(())
            })
            .enqueue(|host, task| {
                let on_0 = task.allows(WorkerId::new(0));
                let dsq = DsqId::Custom(if on_0 { 0 } else { 1 });
                host.insert(task.id(), dsq, Position::Tail);
                host.kick(WorkerId::new(if on_0 { 0 } else { 1 }));
            })
            .dispatch(|host, worker, _| {
                host.move_to_local(DsqId::Custom(worker.index() as u32), 4);
            });
        runtime.load(policy).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let polls: Arc<Vec<AtomicUsize>> = Arc::new((0..16).map(|_| AtomicUsize::new(0)).collect());
        let tasks: Vec<_> = (0..polls.len())
            .map(|n| {
                let (stop, polls) = (Arc::clone(&stop), Arc::clone(&polls));
                let from = Attributes::new().affinity(only([0]));
                let body = async move {
                    while !stop.load(Ordering::Relaxed) {
                        polls[n].fetch_add(1, Ordering::Relaxed);
                        polity::yield_now().await;
                    }
                };
                runtime.spawn_with(from, body).unwrap()
            })
            .collect();
        for round in 0..300u16 {
            for (n, task) in tasks.iter().enumerate() {
                task.set_affinity(only([(round + n as u16) % 2])).unwrap();
            }
        }
        let count = |n: usize| polls[n].load(Ordering::Relaxed);
        let before: Vec<_> = (0..polls.len()).map(count).collect();
        wait_until("each has been polled again", || {
            (0..polls.len()).all(|n| count(n) > before[n] + 1)
        });
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert!(runtime.unload().is_some(), "it was not ejected");
    });
}

#[test]
fn a_mask_may_change_while_policies_come_and_go() {
    check(2, |runtime| {
        let yielding = Yielding::start(&runtime, 16);
        let mut round = 0u16;
        for _ in 0..10 {
            each_policy(|policy| match policy {
                Some(policy) => drop(runtime.load(policy).unwrap()),
                None => drop(runtime.unload()),
            });
            for task in &yielding.tasks {
                round += 1;
                let mask = [only([0]), only([1]), WorkerMask::all()];
                task.set_affinity(mask[usize::from(round % 3)].clone())
                    .unwrap();
                task.set_weight(u32::from(round) + 1).unwrap();
            }
        }
        yielding.end();
    });
}
