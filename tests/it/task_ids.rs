//! `polity::task::id`, and task-locals of tokio and of one's own.

use std::cell::Cell;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use polity::task;
use polity::{Host, Policy, TaskId, TaskView};
use polity_policies::{Fifo, Priority};
use polity_tests::{check, receive, wait_for, within};

#[test]
fn a_task_has_the_id_of_its_handle_across_awaits_and_workers() {
    check(2, |runtime| {
        for policy in [false, true] {
            if policy {
                runtime.load(Priority::new()).unwrap();
            }
            let tasks: Vec<_> = (0..200)
                .map(|_| {
                    runtime.spawn(async {
                        let id = task::id();
                        for _ in 0..20 {
                            polity::yield_now().await;
                            assert_eq!(task::id(), id);
                            assert_ne!(polity::spawn(async { task::id() }).await.unwrap(), id);
                            assert_eq!(task::try_id(), Some(id));
                        }
                        id
                    })
                })
                .collect();
            for task in tasks {
                let id = task.id();
                assert_eq!(wait_for("a task", task).unwrap(), id);
            }
        }
    });
}

#[test]
fn where_no_task_runs_there_is_no_id() {
    check(1, |runtime| {
        assert_eq!(task::try_id(), None);
        assert_eq!(runtime.block_on(async { task::try_id() }), None);
        let blocking = runtime.spawn_blocking(task::try_id);
        assert_eq!(wait_for("a blocking call", blocking).unwrap(), None);
        let asked = runtime.spawn(async { thread::spawn(task::try_id).join().unwrap() });
        assert_eq!(wait_for("a thread", asked).unwrap(), None);
    });
}

#[test]
fn asking_for_the_id_without_a_task_says_where_there_is_none() {
    let panic = std::panic::catch_unwind(task::id).unwrap_err();
    let text = panic.downcast_ref::<&str>().unwrap();
    assert!(
        text.contains("no task runs on this thread: the root future of `block_on`"),
        "{text}"
    );
}

/// Says which task it was dropped in.
struct AsksInDrop(Sender<Option<TaskId>>);

impl Drop for AsksInDrop {
    fn drop(&mut self) {
        let _ = self.0.send(task::try_id());
    }
}

#[test]
fn a_future_that_is_dropped_is_dropped_in_its_task() {
    within(|| {
        let runtime = polity_tests::runtime(1);
        let (said, says) = channel();
        let pending = |said: &Sender<_>| {
            let asks = AsksInDrop(said.clone());
            runtime.spawn(async move {
                let _asks = asks;
                std::future::pending::<()>().await;
            })
        };
        let aborted = pending(&said);
        aborted.abort();
        assert_eq!(receive("an abort", &says), Some(aborted.id()));
        let asks = AsksInDrop(said.clone());
        let unwanted = runtime.spawn(async move { asks });
        let id = unwanted.id();
        drop(unwanted);
        let dropped_in = receive("the drop of an output", &says);
        assert!(
            dropped_in == Some(id) || dropped_in.is_none(),
            "{dropped_in:?}"
        );
        let left = pending(&said).id();
        drop(runtime);
        assert_eq!(receive("the end of the runtime", &says), Some(left));
    });
}

/// Asks in every callback.
struct Asks(Arc<Mutex<Vec<Option<TaskId>>>>);

impl Asks {
    fn ask(&self) {
        self.0.lock().unwrap().push(task::try_id());
    }
}

impl Policy for Asks {
    type Task = ();

    fn name(&self) -> &str {
        "asks"
    }
    fn runnable(&self, _host: &Host<'_>, _task: &TaskView<'_>) {
        self.ask();
    }
    fn running(&self, _host: &Host<'_>, _task: &TaskView<'_>) {
        self.ask();
    }
    fn stopping(&self, _host: &Host<'_>, _task: &TaskView<'_>, _stopped: polity::Stopped) {
        self.ask();
    }
}

#[test]
fn a_callback_of_a_policy_is_not_inside_a_task() {
    check(1, |runtime| {
        let asked = Arc::new(Mutex::new(Vec::new()));
        runtime.load(Asks(Arc::clone(&asked))).unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        runtime.unload();
        let asked = asked.lock().unwrap();
        assert!(
            asked.len() >= 2 && asked.iter().all(Option::is_none),
            "{asked:?}"
        );
    });
}

// --- task-locals ---

tokio::task_local! {
    static TENANT: u32;
}

#[test]
fn a_task_local_holds_across_awaits_and_moves_between_workers() {
    check(2, |runtime| {
        runtime.load(Fifo::new()).unwrap();
        let tasks: Vec<_> = (0..100u32)
            .map(|n| {
                runtime.spawn(TENANT.scope(n, async move {
                    for _ in 0..50 {
                        assert_eq!(TENANT.get(), n);
                        polity::yield_now().await;
                    }
                    // As in tokio, a child has its own, or none.
                    let child = polity::spawn(async { TENANT.try_with(|_| ()).is_err() });
                    assert!(child.await.unwrap());
                    let told = polity::spawn(TENANT.scope(n + 1, async { TENANT.get() }));
                    assert_eq!(told.await.unwrap(), n + 1);
                    let in_part = TENANT.scope(n + 2, async {
                        polity::yield_now().await;
                        TENANT.get()
                    });
                    assert_eq!(in_part.await, n + 2);
                    TENANT.get()
                }))
            })
            .collect();
        for (n, task) in tasks.into_iter().enumerate() {
            assert_eq!(wait_for("a task", task).unwrap(), n as u32);
        }
    });
}

#[test]
fn a_task_local_is_there_when_its_future_is_dropped() {
    struct Looks(Sender<Option<u32>>);
    impl Drop for Looks {
        fn drop(&mut self) {
            self.0.send(TENANT.try_with(|tenant| *tenant).ok()).unwrap();
        }
    }
    check(1, |runtime| {
        let (saw, sees) = channel();
        let looks = Looks(saw);
        let task = runtime.spawn(TENANT.scope(7, async move {
            let _looks = looks;
            std::future::pending::<()>().await;
        }));
        task.abort();
        assert!(
            wait_for("the aborted task", task)
                .unwrap_err()
                .is_cancelled()
        );
        assert_eq!(receive("its drop", &sees), Some(7));
    });
}

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
}

/// What `futures` offers for the same purpose: a wrapper that sets something around each poll.
#[test]
fn a_value_that_a_wrapper_sets_around_each_poll_is_the_tasks_own() {
    async fn with_depth<F: Future>(depth: u32, future: F) -> F::Output {
        let mut future = std::pin::pin!(future);
        futures::future::poll_fn(|context| {
            let before = DEPTH.replace(depth);
            let polled = future.as_mut().poll(context);
            DEPTH.set(before);
            polled
        })
        .await
    }
    check(2, |runtime| {
        let tasks: Vec<_> = (1..100u32)
            .map(|depth| {
                runtime.spawn(with_depth(depth, async move {
                    for _ in 0..50 {
                        assert_eq!(DEPTH.get(), depth);
                        polity::yield_now().await;
                    }
                }))
            })
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
    });
}
