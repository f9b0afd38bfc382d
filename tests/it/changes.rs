//! Weight and affinity of tasks that exist: changed by their handles, heard of by policies.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread::{self, ThreadId};

use polity::{
    AbortHandle, Attributes, ChangeError, DequeueReason, DsqId, ExitKind, Host, JoinHandle,
    Position, Runtime, TaskId, TaskView, WorkerId, WorkerMask,
};
use polity_tests::{
    check as check_with_spares, check_without_spares as check, receive, wait_for, wait_until,
};
use tokio::sync::Notify;

use crate::affinity::{each_policy, load, workers_of};
use crate::support::{Blocker, Threads, Yielding, noted, settle, yield_until};
use crate::workload::{Random, Script, exit_of, expect_ordered_panics, lock, tagged};

fn only(workers: impl IntoIterator<Item = u16>) -> WorkerMask {
    workers.into_iter().map(WorkerId::new).collect()
}

/// The other one of two workers. A thread that stands in for a worker is neither of them, so tests ask where a task did *not*
/// run: the machine may keep a worker from running for so long that the watchdog does its work.
fn other(of: usize) -> usize {
    1 - of
}

/// One long poll on each worker.
fn block_all(runtime: &Runtime) -> Vec<Blocker> {
    let count = runtime.worker_count() as u16;
    let one = |worker| {
        Blocker::with(|body| {
            let here = Attributes::new().affinity(only([worker]));
            runtime.spawn_with(here, body).unwrap()
        })
    };
    (0..count).map(one).collect()
}

/// A task that waits for `notify`, has begun to, and notes its threads.
fn waiting(runtime: &Runtime, notify: &Arc<Notify>, threads: &Threads) -> JoinHandle<()> {
    let (begun, has_begun) = channel();
    let notify = Arc::clone(notify);
    let body = noted(threads, async move {
        begun.send(()).unwrap();
        notify.notified().await;
    });
    let task = runtime.spawn(body);
    receive("the first poll", &has_begun);
    task
}

// --- what is refused ---

#[test]
fn a_change_that_makes_no_sense_is_refused_with_field_and_value() {
    check(2, |runtime| {
        let notify = Arc::default();
        let task = waiting(&runtime, &notify, &Threads::default());
        for weight in [0, 10_001] {
            let error = task.set_weight(weight).unwrap_err();
            assert_eq!(error, ChangeError::Weight(weight));
            let said = format!("attribute weight is {weight}, but must be from 1 to 10000");
            assert_eq!(error.to_string(), said);
        }
        for mask in [only([]), only([2, 77])] {
            let error = task.set_affinity(mask.clone()).unwrap_err();
            let said = format!("attribute affinity is {mask}, but must name one of the 2 workers");
            assert!(error.to_string().starts_with(&said), "{error}");
            assert_eq!(error, ChangeError::Affinity { mask, workers: 2 });
        }
        notify.notify_one();
        wait_for("the task", task).unwrap();
    });
}

#[test]
fn a_task_that_has_ended_cannot_be_changed() {
    check_with_spares(1, |runtime| {
        let task = runtime.spawn(async {});
        let (id, handle) = (task.id(), task.abort_handle());
        wait_for("the task", task).unwrap();
        // Also when its slot has another tenant.
        let notify = Arc::default();
        let next = waiting(&runtime, &notify, &Threads::default());
        let gone = ChangeError::Finished(id);
        assert_eq!(handle.set_weight(5), Err(gone.clone()));
        assert_eq!(handle.set_affinity(only([0])), Err(gone.clone()));
        let text = gone.to_string();
        assert!(
            text.contains(&id.to_string()) && text.contains("has ended"),
            "{text}"
        );
        // And when its runtime is gone.
        let (next_id, next_handle) = (next.id(), next.abort_handle());
        drop(runtime);
        assert_eq!(
            next_handle.set_weight(5),
            Err(ChangeError::Finished(next_id))
        );
    });
}

// --- what policies hear ---

type Heard = Arc<Mutex<Vec<(TaskId, u32, ThreadId)>>>;

/// Notes weights: those of `set_weight`, and those at `running`.
fn listener(told: &Heard, ran: &Heard) -> Script {
    let note = |heard: &Heard| {
        let heard = Arc::clone(heard);
        move |_: &Host<'_>, task: &TaskView<'_>| {
            lock(&heard).push((task.id(), task.weight(), thread::current().id()));
        }
    };
    Script::new("listener")
        .set_weight(note(told))
        .running(note(ran))
}

#[test]
fn a_policy_is_told_of_a_new_weight_by_a_worker_and_sees_it_from_then_on() {
    check(1, |runtime| {
        let (told, ran) = (Heard::default(), Heard::default());
        runtime.load(listener(&told, &ran)).unwrap();
        let worker = workers_of(&runtime)[0];
        let stop = Arc::new(AtomicBool::new(false));
        let task = runtime.spawn(yield_until(&stop));
        // Before, the first `runnable` would show it.
        let id = task.id();
        wait_until("it has run", || lock(&ran).iter().any(|it| it.0 == id));
        task.set_weight(700).unwrap();
        wait_until("it was told", || !lock(&told).is_empty());
        assert_eq!(*lock(&told), [(task.id(), 700, worker)]);
        let seen = lock(&ran).len();
        wait_until("it has run again", || lock(&ran).len() > seen + 1);
        assert_eq!(lock(&ran).last().map(|(_, weight, _)| *weight), Some(700));
        stop.store(true, Ordering::Relaxed);
        wait_for("the task", task).unwrap();
    });
}

#[test]
fn changes_of_a_runnable_task_merge_and_those_of_a_waiting_one_are_not_told() {
    check(1, |runtime| {
        let (told, ran) = (Heard::default(), Heard::default());
        runtime.load(listener(&told, &ran)).unwrap();
        let notify = Arc::default();
        let waits = waiting(&runtime, &notify, &Threads::default());
        let waits_id = waits.id();
        // Offered, and then passed over by a long poll.
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let runnable = runtime.spawn(async move {
            begun.send(()).unwrap();
            let _ = released.recv();
            polity::yield_now().await;
        });
        receive("the long poll", &has_begun);
        for weight in [300, 400, 500] {
            waits.set_weight(weight + 1).unwrap();
            runnable.set_weight(weight).unwrap();
        }
        assert!(lock(&told).is_empty(), "policy code on the caller's thread");
        drop(release);
        let id = runnable.id();
        wait_for("the runnable task", runnable).unwrap();
        let heard: Vec<_> = lock(&told).iter().map(|it| (it.0, it.1)).collect();
        assert_eq!(heard, [(id, 500)]);
        notify.notify_one();
        wait_for("the waiting task", waits).unwrap();
        let ran: Vec<_> = lock(&ran).iter().map(|it| (it.0, it.1)).collect();
        assert_eq!(ran.last(), Some(&(waits_id, 501)));
    });
}

/// More than one call tells of, and nothing else to do.
#[test]
fn a_policy_is_told_of_every_task_before_its_worker_parks() {
    check(1, |runtime| {
        const TASKS: usize = 200;
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let kept: Arc<Mutex<Vec<TaskId>>> = Arc::default();
        let keep = Arc::clone(&kept);
        let policy = Script::new("keeps")
            .enqueue(move |_, task| lock(&keep).push(task.id()))
            .set_weight(move |_, task| {
                assert_eq!(task.weight(), 9);
                count.fetch_add(1, Ordering::Relaxed);
            });
        runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..TASKS).map(|_| runtime.spawn(async {})).collect();
        wait_until("the policy has all", || lock(&kept).len() == TASKS);
        tasks.iter().for_each(|task| task.set_weight(9).unwrap());
        wait_until("all were told", || told.load(Ordering::Relaxed) >= TASKS);
        assert_eq!(told.load(Ordering::Relaxed), TASKS);
        runtime.unload();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
    });
}

#[test]
fn a_policy_that_changes_weights_while_it_is_told_holds_up_no_task() {
    check(1, |runtime| {
        let handle: Arc<Mutex<Option<AbortHandle>>> = Arc::default();
        let changed = Arc::clone(&handle);
        let policy = Script::new("restless").set_weight(move |_, task| {
            if let Some(handle) = &*lock(&changed) {
                let _ = handle.set_weight(task.weight() % 100 + 1);
            }
        });
        runtime.load(policy).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let task = runtime.spawn(yield_until(&stop));
        *lock(&handle) = Some(task.abort_handle());
        task.set_weight(1).unwrap();
        for _ in 0..100 {
            wait_for("another task", runtime.spawn(async {})).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        wait_for("the task", task).unwrap();
        assert!(runtime.unload().is_some(), "it was not ejected");
    });
}

#[test]
fn a_policy_that_is_wrong_when_it_is_told_is_ejected_by_the_name_of_the_callback() {
    type Callback = fn(&Host<'_>, &TaskView<'_>);
    let inserts: Callback = |host, task| {
        host.insert(task.id(), DsqId::Global, Position::Tail);
    };
    let panics: Callback = |_, _| panic!("as ordered");
    expect_ordered_panics();
    for (body, kind, said) in [
        (inserts, ExitKind::Error, "insert of task"),
        (panics, ExitKind::Panic, "as ordered"),
    ] {
        check(1, move |runtime| {
            for told_by in ["set_weight", "set_affinity"] {
                let met = Arc::new(AtomicBool::new(false));
                let meets = Arc::clone(&met);
                let policy = Script::new("wrong")
                    .running(move |_, task| {
                        meets.fetch_or(task.tag() == 1, Ordering::SeqCst);
                    })
                    .set_weight(body)
                    .set_affinity(body);
                let stop = Arc::new(AtomicBool::new(false));
                let task = tagged(&runtime, 1, yield_until(&stop));
                let generation = runtime.load(policy).unwrap();
                wait_until("it knows the task", || met.load(Ordering::SeqCst));
                match told_by {
                    "set_weight" => task.set_weight(3).unwrap(),
                    _ => task.set_affinity(only([0])).unwrap(),
                }
                let info = exit_of(&runtime, generation);
                let text = &info.message;
                assert_eq!((info.kind, info.task), (kind, Some(task.id())), "{info}");
                assert!(text.starts_with(told_by) && text.contains(said), "{text}");
                stop.store(true, Ordering::Relaxed);
                wait_for("the task", task).unwrap();
            }
        });
    }
}

#[test]
fn children_inherit_what_has_been_changed_and_the_next_tenant_of_a_slot_does_not() {
    check(1, |runtime| {
        let weights: Arc<Mutex<HashMap<TaskId, u32>>> = Arc::default();
        let note = Arc::clone(&weights);
        let policy = Script::new("weights").running(move |_, task| {
            lock(&note).insert(task.id(), task.weight());
        });
        runtime.load(policy).unwrap();
        let notify: Arc<Notify> = Arc::default();
        let may_spawn = Arc::clone(&notify);
        let spawn = || polity::spawn(async {});
        let parent = runtime.spawn(async move {
            let before = spawn();
            may_spawn.notified().await;
            [before, spawn()]
        });
        settle(&runtime);
        parent.set_weight(30).unwrap();
        notify.notify_one();
        let children = wait_for("the parent", parent).unwrap().map(|child| {
            let id = child.id();
            wait_for("a child", child).unwrap();
            lock(&weights)[&id]
        });
        assert_eq!(children, [100, 30]);
        for _ in 0..300 {
            let next = runtime.spawn(async {});
            let id = next.id();
            wait_for("the next tenant", next).unwrap();
            assert_eq!(lock(&weights)[&id], 100);
        }
    });
}

// --- where a task runs from its next poll on ---

#[test]
fn a_task_that_is_narrowed_while_it_is_queued_runs_on_allowed_workers_only() {
    each_policy(|policy| {
        check(2, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let blockers = block_all(&runtime);
            let tasks: Vec<_> = (0..60u16)
                .map(|n| {
                    let threads = Threads::default();
                    let body = noted(&threads, async {
                        for _ in 0..10 {
                            polity::yield_now().await;
                        }
                    });
                    let task = runtime.spawn(body);
                    // A stand-in of a blocked worker may have run it by now.
                    let _ = task.set_affinity(only([n % 2]));
                    (workers[other(usize::from(n % 2))], threads, task)
                })
                .collect();
            blockers.into_iter().for_each(Blocker::end);
            for (not, threads, task) in tasks {
                wait_for("a task", task).unwrap();
                assert!(!threads.all().contains(&not));
            }
        });
    });
}

/// From one worker to the other, and to both: what a queue noted of the old mask must not hold the task up.
#[test]
fn a_restricted_task_that_is_moved_while_it_is_queued_runs_where_it_may_now() {
    each_policy(|policy| {
        check(2, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let mut blockers = block_all(&runtime);
            let (second, first) = (blockers.pop().unwrap(), blockers.pop().unwrap());
            let spawn = |to: WorkerMask| {
                let threads = Threads::default();
                let from = Attributes::new().affinity(only([0]));
                let task = runtime.spawn_with(from, noted(&threads, async {})).unwrap();
                // A stand-in of the blocked worker may have run it by now.
                let _ = task.set_affinity(to);
                (threads, task)
            };
            let moved: Vec<_> = (0..20).map(|_| spawn(only([1]))).collect();
            let freed: Vec<_> = (0..20).map(|_| spawn(WorkerMask::all())).collect();
            // Worker 0 never comes back to them.
            second.end();
            for (threads, task) in moved.into_iter().chain(freed) {
                wait_for("a task", task).unwrap();
                assert!(!threads.all().contains(&workers[0]));
            }
            first.end();
        });
    });
}

/// The other worker has no time to look for what it could steal.
#[test]
fn what_lies_in_the_inbox_of_a_worker_that_may_not_run_it_any_more_is_sent_on() {
    each_policy(|policy| {
        check(2, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let stop = Arc::new(AtomicBool::new(false));
            let there = Attributes::new().affinity(only([1]));
            let busy = runtime.spawn_with(there, yield_until(&stop));
            let blocker = Blocker::with(|body| {
                let here = Attributes::new().affinity(only([0]));
                runtime.spawn_with(here, body).unwrap()
            });
            let tasks: Vec<_> = (0..500)
                .map(|_| {
                    let here = Attributes::new().affinity(only([0]));
                    let body = async { thread::current().id() };
                    runtime.spawn_with(here, body).unwrap()
                })
                .collect();
            let mut changed = Vec::new();
            for task in tasks {
                // A stand-in of the blocked worker may have run it by now.
                if task.set_affinity(only([1])).is_ok() {
                    changed.push(task);
                }
            }
            blocker.end();
            for task in changed {
                assert_ne!(wait_for("a task", task).unwrap(), workers[0]);
            }
            stop.store(true, Ordering::Relaxed);
            wait_for("the busy task", busy.unwrap()).unwrap();
        });
    });
}

/// Waits until it may end, having handed out its waker in its first poll, and says where its last poll was. A poll in between,
/// which a stale waker of the slot may cause, does not count.
fn last_poll() -> (
    impl Future<Output = ThreadId> + Send,
    Receiver<Waker>,
    Arc<AtomicBool>,
) {
    let (waker, wakers) = channel();
    let mut waker = Some(waker);
    let end = Arc::new(AtomicBool::new(false));
    let may_end = Arc::clone(&end);
    let future = poll_fn(move |context| {
        if let Some(waker) = waker.take() {
            waker.send(context.waker().clone()).unwrap();
            // Not this poll, whatever comes meanwhile: it has begun before.
            return Poll::Pending;
        }
        match may_end.load(Ordering::SeqCst) {
            true => Poll::Ready(thread::current().id()),
            false => Poll::Pending,
        }
    });
    (future, wakers, end)
}

#[test]
fn a_waiting_task_that_is_narrowed_wakes_up_where_it_may_run() {
    each_policy(|policy| {
        check(2, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            for n in 0..80u16 {
                let (future, wakers, end) = last_poll();
                let task = runtime.spawn(future);
                let waker = receive("the first poll", &wakers);
                let handle = task.abort_handle();
                let change_and_wake = move || {
                    handle.set_affinity(only([n % 2])).unwrap();
                    end.store(true, Ordering::SeqCst);
                    waker.wake();
                };
                match n / 2 % 2 {
                    0 => change_and_wake(),
                    _ => drop(runtime.spawn(async move { change_and_wake() })),
                }
                let thread = wait_for("the task", task).unwrap();
                assert_ne!(thread, workers[other(usize::from(n % 2))]);
            }
        });
    });
}

/// Each task moves itself: then it is certain which poll is the next one.
#[test]
fn a_running_task_goes_on_elsewhere_from_its_next_poll_on() {
    each_policy(|policy| {
        check(3, |runtime| {
            let workers = workers_of(&runtime);
            load(&runtime, policy);
            let seed = Random::from_env("a_running_task_goes_on_elsewhere").next();
            let tasks: Vec<_> = (0..12)
                .map(|n| {
                    let mut random = Random::new(seed + n);
                    let workers = workers.clone();
                    let (own, is_own) = tokio::sync::oneshot::channel::<AbortHandle>();
                    let task = runtime.spawn(async move {
                        let own = is_own.await.unwrap();
                        for _ in 0..60 {
                            let bits = 1 + random.below(7);
                            let mask = only((0..3).filter(|worker| bits >> worker & 1 == 1));
                            own.set_affinity(mask.clone()).unwrap();
                            polity::yield_now().await;
                            let here = thread::current().id();
                            let here = workers.iter().position(|it| *it == here);
                            let here = here.map(|index| WorkerId::new(index as u16));
                            assert!(
                                here.is_none_or(|here| mask.contains(here)),
                                "{mask}, {here:?}"
                            );
                        }
                    });
                    own.send(task.abort_handle()).unwrap();
                    task
                })
                .collect();
            for task in tasks {
                wait_for("a task", task).unwrap();
            }
        });
    });
}

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
