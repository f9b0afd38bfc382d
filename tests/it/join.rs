//! `JoinHandle`, `AbortHandle` and `JoinError`: as in tokio.

use std::any::Any;
use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Waker};

use polity::{AbortHandle, JoinError, JoinHandle};
use polity_tests::{check, receive, runtime, wait_for, wait_until, within};

use crate::support::{Blocker, Drops, settle, waiting};

fn text(payload: Box<dyn Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().unwrap()).to_owned(),
    }
}

#[test]
fn awaiting_a_handle_gives_the_output() {
    check(2, |runtime| {
        let task = runtime.spawn(async { String::from("output") });
        assert_eq!(wait_for("the output", task).unwrap(), "output");
        let inside = runtime.block_on(async {
            let task = polity::spawn(async { polity::spawn(async { 6 * 7 }).await.unwrap() });
            task.await.unwrap()
        });
        assert_eq!(inside, 42);
    });
}

#[test]
fn a_task_whose_handle_is_dropped_runs_on() {
    check(1, |runtime| {
        let (go, may_go) = futures::channel::oneshot::channel::<()>();
        let (done, is_done) = channel();
        drop(runtime.spawn(async move {
            may_go.await.unwrap();
            done.send(()).unwrap();
        }));
        settle(&runtime);
        go.send(()).unwrap();
        receive("the detached task", &is_done);
    });
}

#[test]
fn the_output_of_a_detached_task_is_dropped_once() {
    check(2, |runtime| {
        let drops = Drops::default();
        for _ in 0..1000 {
            let output = drops.counted();
            drop(runtime.spawn(async move { output }));
        }
        wait_until("all outputs are dropped", || drops.count() == 1000);
        drop(runtime);
        assert_eq!(drops.count(), 1000);
    });
}

#[test]
fn an_output_that_nobody_takes_is_dropped_with_the_handle() {
    check(2, |runtime| {
        let drops = Drops::default();
        let output = drops.counted();
        let task = runtime.spawn(async move { output });
        wait_until("the task is finished", || task.is_finished());
        assert_eq!(drops.count(), 0);
        drop(task);
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn an_output_outlives_its_runtime() {
    within(|| {
        let runtime = runtime(2);
        let task = runtime.spawn(async { vec![1, 2, 3] });
        wait_until("the task is finished", || task.is_finished());
        drop(runtime);
        assert!(task.is_finished());
        assert_eq!(wait_for("the output", task).unwrap(), [1, 2, 3]);
    });
}

#[test]
fn a_task_is_finished_when_its_output_is_there_and_not_before() {
    check(1, |runtime| {
        let (go, may_go) = futures::channel::oneshot::channel::<()>();
        let task = runtime.spawn(async move { may_go.await.unwrap() });
        let abort = task.abort_handle();
        settle(&runtime);
        assert!(!task.is_finished());
        assert!(!abort.is_finished());
        go.send(()).unwrap();
        wait_until("the task is finished", || task.is_finished());
        wait_until("its abort handle agrees", || abort.is_finished());
        let mut task = task;
        let answer = Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(answer, Poll::Ready(Ok(()))), "{answer:?}");
    });
}

#[test]
fn the_future_is_dropped_before_the_handle_resolves() {
    check(2, |runtime| {
        for _ in 0..2000 {
            let drops = Drops::default();
            let counted = drops.counted();
            let task = runtime.spawn(async move {
                let _counted = counted;
                polity::yield_now().await;
            });
            wait_for("the task", task).unwrap();
            assert_eq!(drops.count(), 1);
        }
        for _ in 0..2000 {
            let drops = Drops::default();
            let (future, is_polled) = waiting(&drops);
            let task = runtime.spawn(future);
            receive("the first poll", &is_polled);
            task.abort();
            let error = wait_for("the aborted task", task).unwrap_err();
            assert!(error.is_cancelled());
            assert_eq!(drops.count(), 1);
        }
    });
}

#[test]
fn handle_and_error_have_the_id_of_the_task_and_ids_differ() {
    check(1, |runtime| {
        let first = runtime.spawn(pending::<()>());
        let second = runtime.spawn(pending::<()>());
        assert_ne!(first.id(), second.id());
        assert_eq!(first.id(), first.abort_handle().id());
        let id = first.id();
        first.abort();
        let error = wait_for("the first task", first).unwrap_err();
        assert_eq!(error.id(), id);
        assert!(error.to_string().contains(&id.to_string()), "{error}");
        // Its slot may be used again, its id may not.
        for _ in 0..1000 {
            let task = runtime.spawn(async {});
            assert_ne!(task.id(), id);
            wait_for("a task", task).unwrap();
        }
    });
}

#[test]
fn an_abort_handle_of_an_ended_task_leaves_the_next_tenant_of_its_slot_alone() {
    check(1, |runtime| {
        let mut stale: Vec<AbortHandle> = Vec::new();
        for round in 0..1000 {
            for abort in &stale {
                abort.abort();
            }
            let task = runtime.spawn(async {
                polity::yield_now().await;
                "ran"
            });
            for abort in &stale {
                assert!(abort.is_finished());
                abort.abort();
            }
            stale.push(task.abort_handle());
            if stale.len() > 8 {
                stale.remove(0);
            }
            assert_eq!(wait_for("the tenant", task).unwrap(), "ran", "{round}");
        }
    });
}

#[test]
fn a_panic_is_an_error_that_carries_its_payload() {
    check(1, |runtime| {
        let task = runtime.spawn(async { panic!("on {}", "purpose") });
        let error: JoinError = wait_for("the panic", task).unwrap_err();
        assert!(error.is_panic() && !error.is_cancelled());
        assert!(error.to_string().contains("on purpose"), "{error}");
        assert!(format!("{error:?}").contains("on purpose"), "{error:?}");
        assert_eq!(text(error.into_panic()), "on purpose");

        let task = runtime.spawn(async { panic_any(7u8) });
        let error: JoinError = wait_for("the panic", task).unwrap_err();
        assert_eq!(
            *error.try_into_panic().unwrap().downcast::<u8>().unwrap(),
            7
        );
    });
}

#[test]
fn a_cancelled_task_has_no_panic() {
    check(1, |runtime| {
        let task = runtime.spawn(pending::<()>());
        task.abort();
        let error = wait_for("the task", task).unwrap_err();
        assert!(error.is_cancelled() && !error.is_panic());
        let error = error.try_into_panic().unwrap_err();
        let into_panic = catch_unwind(AssertUnwindSafe(|| error.into_panic()));
        assert!(into_panic.is_err(), "`into_panic` of a cancelled task");
    });
}

#[test]
#[should_panic = "not polled after it has answered"]
fn a_handle_that_has_answered_panics_when_it_is_polled_again() {
    let runtime = runtime(1);
    let mut task = runtime.spawn(async {});
    wait_for("the task", &mut task).unwrap();
    let _ = wait_for("the task, again", &mut task);
}

#[test]
fn a_handle_wakes_whoever_polled_it_last() {
    check(1, |runtime| {
        struct Woken(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let blocker = Blocker::new(&runtime);
        let mut task = runtime.spawn(async { 1 });
        let wakers: Vec<Arc<Woken>> = (0..3).map(|_| Arc::new(Woken(0.into()))).collect();
        for woken in &wakers {
            let waker = Waker::from(Arc::clone(woken));
            for _ in 0..2 {
                let answer = Pin::new(&mut task).poll(&mut Context::from_waker(&waker));
                assert!(answer.is_pending());
            }
        }
        blocker.end();
        wait_until("the task is finished", || task.is_finished());
        settle(&runtime);
        let woken: Vec<usize> = wakers
            .iter()
            .map(|woken| woken.0.load(std::sync::atomic::Ordering::SeqCst))
            .collect();
        assert_eq!(woken, [0, 0, 1]);
        assert_eq!(wait_for("the output", task).unwrap(), 1);
    });
}

#[test]
fn a_handle_can_be_awaited_on_another_runtime() {
    within(|| {
        let (home, abroad) = (runtime(1), runtime(2));
        for round in 0..2000 {
            let task = home.spawn(async move {
                polity::yield_now().await;
                round
            });
            let waiter = abroad.spawn(task);
            let output = wait_for("the task abroad", waiter).unwrap();
            assert_eq!(output.unwrap(), round);
        }
    });
}

#[test]
fn handles_are_dropped_while_their_tasks_end_and_nothing_is_lost_or_dropped_twice() {
    check(2, |runtime| {
        const TASKS: usize = 20_000;
        let (futures, outputs) = (Drops::default(), Drops::default());
        let (sender, handles) = channel::<JoinHandle<_>>();
        let dropper = std::thread::spawn(move || {
            for (n, mut task) in handles.into_iter().enumerate() {
                if n % 3 == 0 {
                    let _ = Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop()));
                }
                if n % 5 == 0 {
                    task.abort();
                }
                drop(task);
            }
        });
        for _ in 0..TASKS {
            let (future, output) = (futures.counted(), outputs.counted());
            let task = runtime.spawn(async move {
                let _future = future;
                polity::yield_now().await;
                output
            });
            sender.send(task).unwrap();
        }
        drop(sender);
        dropper.join().unwrap();
        wait_until("all are dropped", || {
            (futures.count(), outputs.count()) == (TASKS, TASKS)
        });
    });
}

#[test]
fn a_task_may_own_its_own_handle() {
    check(2, |runtime| {
        let drops = Drops::default();
        let counted = drops.counted();
        let (give, mine) = futures::channel::oneshot::channel::<JoinHandle<()>>();
        let task = runtime.spawn(async move {
            let _counted = counted;
            let mut mine = mine.await.unwrap();
            // It will not answer before we end.
            poll_fn(|context| {
                assert!(Pin::new(&mut mine).poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        });
        let abort = task.abort_handle();
        give.send(task).unwrap();
        wait_until("the task has ended", || abort.is_finished());
        assert_eq!(drops.count(), 1);
    });
}
