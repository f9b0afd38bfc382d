//! Local tasks while every worker's work is done by its own thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use polity::{
    Attributes, DsqId, Host, LocalJoinHandle, Policy, Position, SpawnError, TaskId, TaskView,
    WorkerId, WorkerMask, spawn_local, spawn_local_with, yield_now,
};
use polity_tests::{check, check_without_spares, receive, wait_for, wait_until};
use tokio::sync::mpsc;

use super::{Bounds, policies};

#[test]
fn a_local_task_is_polled_and_dropped_on_the_thread_on_which_it_was_spawned() {
    for policy in policies() {
        check_without_spares(2, |runtime| {
            if let Some(policy) = policy {
                runtime.load(policy).unwrap();
            }
            let bounds = Bounds::default();
            let outer = (0..8).map(|_| {
                let bounds = bounds.clone();
                runtime.spawn(async move {
                    let here = thread::current().id();
                    let bounds = bounds.clone();
                    let inner = spawn_local(async move {
                        let bound = bounds.bind();
                        assert_eq!(thread::current().id(), here);
                        for _ in 0..20 {
                            yield_now().await;
                            bound.touch();
                            // Woken by the driver, on whichever thread that is.
                            tokio::time::sleep(Duration::from_micros(50)).await;
                            bound.touch();
                            // Woken by a task that may be on another thread.
                            polity::spawn(async {}).await.unwrap();
                            bound.touch();
                        }
                        bound.touched.get()
                    });
                    inner.await.unwrap()
                })
            });
            for outer in outer.collect::<Vec<_>>() {
                assert_eq!(wait_for("a task", outer).unwrap(), 60);
            }
            drop(runtime);
            bounds.check();
        });
    }
}

#[test]
fn local_tasks_share_what_is_not_send_and_hand_it_to_each_other() {
    check(1, |runtime| {
        let task = runtime.spawn_pinned(WorkerId::new(0), || async {
            let log = Rc::new(RefCell::new(Vec::new()));
            let writers = (0..4).map(|n| {
                let log = Rc::clone(&log);
                spawn_local(async move {
                    yield_now().await;
                    log.borrow_mut().push(n);
                    log
                })
            });
            for writer in writers.collect::<Vec<LocalJoinHandle<_>>>() {
                assert!(Rc::ptr_eq(&writer.await.unwrap(), &log));
            }
            log.borrow().clone()
        });
        let mut log = wait_for("the task", task.unwrap()).unwrap();
        log.sort_unstable();
        assert_eq!(log, [0, 1, 2, 3]);
    });
}

#[test]
fn each_worker_makes_and_runs_what_is_pinned_to_it() {
    for policy in policies() {
        check_without_spares(2, |runtime| {
            if let Some(policy) = policy {
                runtime.load(policy).unwrap();
            }
            let bounds = Bounds::default();
            let mut threads = Vec::new();
            for worker in 0..2 {
                let mut ran_on = Vec::new();
                for _ in 0..4 {
                    let bounds = bounds.clone();
                    let task = runtime.spawn_pinned(WorkerId::new(worker), move || {
                        let bound = bounds.bind();
                        async move {
                            for _ in 0..10 {
                                bound.touch();
                                yield_now().await;
                            }
                            thread::current().id()
                        }
                    });
                    ran_on.push(wait_for("a pinned task", task.unwrap()).unwrap());
                }
                ran_on.dedup();
                assert_eq!(ran_on.len(), 1);
                threads.extend(ran_on);
            }
            assert_ne!(threads[0], threads[1]);
            drop(runtime);
            bounds.check();
        });
    }
}

#[test]
fn a_worker_that_does_not_exist_is_an_error_that_says_so() {
    check(1, |runtime| {
        let refused = runtime.spawn_pinned(WorkerId::new(1), || async {});
        let error = refused.unwrap_err();
        assert!(matches!(error, SpawnError::Affinity { workers: 1, .. }));
        assert!(error.to_string().contains("1 workers"), "{error}");
    });
}

#[test]
fn a_weight_out_of_range_is_refused_and_the_future_dropped_at_once() {
    check(1, |runtime| {
        let bounds = Bounds::default();
        let inner = bounds.clone();
        let task = runtime.spawn(async move {
            let bound = inner.bind();
            let wrong = Attributes::new().weight(0);
            let refused = spawn_local_with(wrong, async move { bound.touch() });
            assert_eq!(refused.unwrap_err(), SpawnError::Weight(0));
            inner.check();
        });
        wait_for("a task", task).unwrap();
    });
}

#[test]
fn outside_of_tasks_and_sets_spawn_local_panics_and_says_what_to_do() {
    check(1, |runtime| {
        let text = |body: &dyn Fn()| {
            let payload = catch_unwind(AssertUnwindSafe(body)).unwrap_err();
            payload.downcast_ref::<&str>().copied().unwrap_or_default()
        };
        let spawn = || drop(spawn_local(async {}));
        assert!(text(&spawn).contains("LocalSet"));
        let in_root = || runtime.block_on(async { drop(spawn_local(async {})) });
        assert!(text(&in_root).contains("spawn_pinned"));
        let _entered = runtime.enter();
        assert!(text(&spawn).contains("LocalSet"));
    });
}

#[test]
fn a_local_task_that_panics_says_so_to_whoever_joins_it() {
    struct PanicsInDrop;
    impl Drop for PanicsInDrop {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    check(1, |runtime| {
        let bounds = Bounds::default();
        let inner = bounds.clone();
        let task = runtime.spawn_pinned(WorkerId::new(0), move || async move {
            let bound = inner.bind();
            let in_poll = spawn_local(async move {
                yield_now().await;
                bound.touch();
                panic!("in poll");
            });
            let bound = inner.bind();
            let future = PanicsInDrop;
            let in_drop = spawn_local(async move {
                let _future = &future;
                bound.touch();
            });
            let both = spawn_local(async move {
                let _future = PanicsInDrop;
                std::future::pending::<()>().await;
            });
            yield_now().await;
            both.abort();
            let in_poll: polity::JoinError = in_poll.await.unwrap_err();
            assert_eq!(
                in_poll.into_panic().downcast_ref::<&str>(),
                Some(&"in poll")
            );
            assert!(in_drop.await.unwrap_err().is_panic());
            // Nobody can be told of a panic in the drop of an aborted one, which another thread may have aborted.
            assert!(both.await.is_err());
            spawn_local(async { 7 }).await.unwrap()
        });
        assert_eq!(wait_for("the task", task.unwrap()).unwrap(), 7);
        bounds.check();
        let make = runtime.spawn_pinned(WorkerId::new(0), || -> std::future::Ready<()> {
            panic!("in make")
        });
        let error = wait_for("a task that is never made", make.unwrap()).unwrap_err();
        assert!(error.is_panic());
    });
}

#[test]
fn an_aborted_local_task_is_dropped_on_its_thread() {
    for policy in policies() {
        check_without_spares(2, |runtime| {
            if let Some(policy) = policy {
                runtime.load(policy).unwrap();
            }
            let bounds = Bounds::default();
            for worker in [0, 1] {
                let (polled, is_polled) = channel();
                let inner = bounds.clone();
                let task = runtime
                    .spawn_pinned(WorkerId::new(worker), move || async move {
                        let bound = inner.bind();
                        polled.send(()).unwrap();
                        std::future::pending::<()>().await;
                        bound.touch();
                    })
                    .unwrap();
                receive("its poll", &is_polled);
                task.abort();
                let error = wait_for("an aborted task", task).unwrap_err();
                assert!(error.is_cancelled());
                // One thread for each worker: nobody else is there to drop it.
                bounds.wait();
            }
        });
    }
}

#[test]
fn a_detached_local_task_runs_on_and_its_output_is_dropped_on_its_thread() {
    check_without_spares(2, |runtime| {
        let bounds = Bounds::default();
        let inner = bounds.clone();
        let (go, mut gone) = mpsc::unbounded_channel::<()>();
        let task = runtime.spawn(async move {
            drop(spawn_local(async move {
                let bound = inner.bind();
                gone.recv().await;
                bound.touch();
                bound
            }));
        });
        wait_for("a task", task).unwrap();
        go.send(()).unwrap();
        wait_until("its output is dropped", || bounds.dropped() == 1);
        bounds.check();
    });
}

#[test]
fn local_tasks_that_are_left_at_the_end_are_dropped_on_their_threads() {
    /// Whose drop spawns and wakes.
    struct Restless(super::Bound, Bounds, mpsc::UnboundedSender<()>);
    impl Drop for Restless {
        fn drop(&mut self) {
            self.0.touch();
            let _ = self.2.send(());
            let bound = self.1.bind();
            drop(spawn_local(async move { bound.touch() }));
            drop(polity::spawn(async {}));
        }
    }
    for policy in policies() {
        check(2, |runtime| {
            if let Some(policy) = policy {
                runtime.load(policy).unwrap();
            }
            let bounds = Bounds::default();
            let mut tasks = Vec::new();
            for n in 0..20 {
                let (polled, is_polled) = channel();
                let inner = bounds.clone();
                let task = runtime.spawn_pinned(WorkerId::new(n % 2), move || async move {
                    let (wake, mut woken) = mpsc::unbounded_channel();
                    let restless = Restless(inner.bind(), inner.clone(), wake.clone());
                    let nested = spawn_local(async move { woken.recv().await });
                    polled.send(()).unwrap();
                    std::future::pending::<()>().await;
                    drop((restless, nested, wake));
                });
                tasks.push(task.unwrap());
                receive("its poll", &is_polled);
            }
            drop(runtime);
            bounds.check();
            for task in tasks {
                assert!(wait_for("a task", task).unwrap_err().is_cancelled());
            }
        });
    }
}

/// A policy that puts every task on worker 1, and notes where it may run.
struct Misplacer(Arc<Mutex<Vec<Vec<WorkerId>>>>);

impl Policy for Misplacer {
    type Task = ();

    fn name(&self) -> &str {
        "misplacer"
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if task.tag() == 7 {
            let workers = 0..host.worker_count();
            let workers = workers.map(|index| WorkerId::new(index as u16));
            let allowed = workers.filter(|worker| task.attributes().allows(*worker));
            self.0.lock().unwrap().push(allowed.collect());
        }
        let there = DsqId::LocalOn(WorkerId::new(1));
        host.insert(task.id(), there, Position::Tail);
    }
}

#[test]
fn a_policy_sees_a_local_task_as_one_with_an_affinity_of_one() {
    check_without_spares(2, |runtime| {
        let seen = Arc::default();
        runtime.load(Misplacer(Arc::clone(&seen))).unwrap();
        let bounds = Bounds::default();
        let inner = bounds.clone();
        let task = runtime.spawn_pinned(WorkerId::new(0), move || async move {
            let attributes = Attributes::new().tag(7);
            let local = spawn_local_with(attributes, async move {
                let bound = inner.bind();
                for _ in 0..10 {
                    yield_now().await;
                    bound.touch();
                }
            });
            local.unwrap().await.unwrap();
        });
        wait_for("the task", task.unwrap()).unwrap();
        let seen = seen.lock().unwrap().clone();
        // Each yield of a restricted task goes by way of `enqueue`.
        assert!(seen.len() > 10, "{seen:?}");
        assert!(seen.iter().all(|allowed| *allowed == [WorkerId::new(0)]));
        assert!(runtime.metrics().redirected > 0);
        assert!(runtime.policy_status().is_some());
        bounds.check();
    });
}

/// Weight and affinity of each task that was polled.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<HashMap<TaskId, Seen>>>);

type Seen = (u32, Option<WorkerMask>);

impl Policy for Notes {
    type Task = ();
    fn name(&self) -> &str {
        "notes"
    }

    fn running(&self, _host: &Host<'_>, task: &TaskView<'_>) {
        let mask = task.attributes().get_affinity().cloned();
        let mut notes = self.0.lock().unwrap();
        notes.insert(task.id(), (task.weight(), mask));
    }
}

#[test]
fn a_local_task_inherits_attributes_and_what_it_spawns_is_not_bound() {
    async fn ids() -> [TaskId; 2] {
        let child = polity::spawn(async { polity::task::id() });
        [polity::task::id(), child.await.unwrap()]
    }
    check(2, |runtime| {
        let notes = Notes::default();
        runtime.load(notes.clone()).unwrap();
        let seen = |id| notes.0.lock().unwrap()[&id].clone();
        let bound = |[local, child]: [TaskId; 2], weight: u32| {
            let mask = seen(local).1.expect("a local task is restricted");
            assert_eq!((seen(local).0, mask.iter().count()), (weight, 1));
            assert_eq!(seen(child), (weight, None));
        };
        let parent = Attributes::new().weight(300);
        let task = runtime.spawn_with(parent, async {
            let own = Attributes::new().weight(5);
            let own = spawn_local_with(own, ids()).unwrap();
            let (plain, own) = (spawn_local(ids()), own);
            let handle = polity::Handle::current();
            let pinned = handle.spawn_pinned(WorkerId::new(1), || {
                let child = polity::spawn(async { polity::task::id() });
                async { [polity::task::id(), child.await.unwrap()] }
            });
            let pinned = pinned.unwrap();
            (
                plain.await.unwrap(),
                own.await.unwrap(),
                pinned.await.unwrap(),
            )
        });
        let (plain, own, pinned) = wait_for("the parent", task.unwrap()).unwrap();
        bound(plain, 300);
        bound(own, 5);
        bound(pinned, 300);
        assert!(seen(pinned[0]).1.unwrap().contains(WorkerId::new(1)));
    });
}

/// Only its turns are given elsewhere.
#[test]
fn a_local_task_whose_affinity_is_changed_stays_on_its_thread() {
    for policy in policies() {
        check_without_spares(2, |runtime| {
            if let Some(policy) = policy {
                runtime.load(policy).unwrap();
            }
            let bounds = Bounds::default();
            let inner = bounds.clone();
            let task = runtime.spawn_pinned(WorkerId::new(0), move || async move {
                let bound = inner.bind();
                let local = spawn_local(async move {
                    for _ in 0..20 {
                        yield_now().await;
                        bound.touch();
                        // Woken by the driver, on whichever thread that is.
                        tokio::time::sleep(Duration::from_micros(50)).await;
                        bound.touch();
                    }
                    bound.touched.get()
                });
                let handle = local.abort_handle().expect("it is a task");
                handle.set_weight(7).unwrap();
                let other = WorkerMask::from_iter([WorkerId::new(1)]);
                handle.set_affinity(other).unwrap();
                local.await.unwrap()
            });
            assert_eq!(wait_for("the task", task.unwrap()).unwrap(), 40);
            bounds.check();
        });
    }
}
