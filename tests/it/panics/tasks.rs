//! Panics of a task: in a poll, in the drop of its future, in the drop of its output. They are that task's and nobody
//! else's; a policy that is loaded meanwhile is told of an end like any other.

use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll};

use polity::{BoxPolicy, JoinError, Runtime, yield_now};
use polity_policies::{Fifo, Priority};
use polity_tests::{check, receive, wait_for, wait_until, within};

use super::{
    Bomb, EndlessBomb, KeptBusy, check_every_worker_works, load_while_busy, throw_endless_bomb,
};
use crate::support::{Counted, Drops, Hoarder, waiting};
use crate::workload::{GiveBack, Keeper, Recorder, expect_ordered_panics};

/// Runs `body` under the built-in FIFO and under policies that have tasks in queues, in DSQs, and in their own hands. No
/// policy ends, each is told what it should be, and every worker still works.
#[track_caller]
fn under_policies(body: fn(&Runtime)) {
    expect_ordered_panics();
    check(2, move |runtime| {
        body(&runtime);
        check_every_worker_works(&runtime);
    });
    for policy in [
        BoxPolicy::new(Fifo::new()),
        BoxPolicy::new(Priority::new()),
        BoxPolicy::new(Keeper::new(GiveBack::Local)),
    ] {
        check(2, move |runtime| {
            let (policy, record) = Recorder::new(policy, 2);
            let generation = runtime.load(policy).unwrap();
            body(&runtime);
            check_every_worker_works(&runtime);
            wait_until("the last task is quiescent", || {
                record.known_runnable() == 0
            });
            let ended = runtime.exit_info(generation);
            assert!(ended.is_none(), "{ended:?}");
            runtime.unload();
            wait_until("exit", || record.exits() == 1);
            record.check();
            assert!(record.finished.load(Ordering::Relaxed) > 0);
        });
    }
}

#[track_caller]
fn check_panicked(ended: Result<impl Sized, JoinError>, text: &str) {
    let Err(error) = ended else {
        panic!("it has an output")
    };
    assert!(error.is_panic(), "{error}");
    let payload = error.into_panic().downcast::<String>().unwrap();
    assert_eq!(*payload, text);
}

/// Does what it is told at its n-th poll, and waits or yields before.
struct AtPoll<F> {
    left: usize,
    at_last: Option<F>,
}

impl<T, F: FnOnce() -> T + Unpin> Future for AtPoll<F> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.left -= 1;
        if self.left == 0 {
            let at_last = self.at_last.take().expect("not polled after its end");
            return Poll::Ready(at_last());
        }
        // In the middle of its poll, and some time after it.
        if self.left.is_multiple_of(2) {
            context.waker().wake_by_ref();
        } else {
            let waker = context.waker().clone();
            drop(polity::spawn(async move { waker.wake() }));
        }
        Poll::Pending
    }
}

fn at_poll<T, F: FnOnce() -> T + Unpin>(nth: usize, at_last: F) -> AtPoll<F> {
    AtPoll {
        left: nth,
        at_last: Some(at_last),
    }
}

#[test]
fn a_panic_at_the_kth_poll_ends_that_task_after_k_polls() {
    under_policies(|runtime| {
        let tasks: Vec<_> = (1..=40)
            .map(|nth| {
                let polls = Arc::new(AtomicUsize::new(0));
                let (drops, counted) = (Drops::default(), Arc::clone(&polls));
                let noted = drops.counted();
                let panics = at_poll(nth, move || -> u32 { panic!("poll {nth}, as ordered") });
                let mut panics = Box::pin(async move {
                    let _noted = noted;
                    panics.await
                });
                let counts_polls = std::future::poll_fn(move |context| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    panics.as_mut().poll(context)
                });
                (nth, runtime.spawn(counts_polls), polls, drops)
            })
            .collect();
        for (nth, task, polls, drops) in tasks {
            let ended = wait_for("a task", task);
            check_panicked(ended, &format!("poll {nth}, as ordered"));
            assert_eq!(polls.load(Ordering::SeqCst), nth);
            assert_eq!(drops.count(), 1);
        }
    });
}

/// Ready with an output at its first poll, or never; panics when dropped.
struct Ends<T> {
    output: Option<T>,
    _bomb: Bomb,
}

impl<T: Unpin> Future for Ends<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<T> {
        self.output.take().map_or(Poll::Pending, Poll::Ready)
    }
}

fn ends<T>(output: Option<T>, text: &'static str) -> Ends<T> {
    Ends {
        output,
        _bomb: Bomb(text),
    }
}

#[test]
fn a_panic_in_the_drop_of_a_future_takes_the_place_of_its_output() {
    under_policies(|runtime| {
        let outputs = Drops::default();
        for _ in 0..20 {
            let task = runtime.spawn(ends(Some(outputs.counted()), "at its end, as ordered"));
            check_panicked(wait_for("a task", task), "at its end, as ordered");
        }
        assert_eq!(outputs.count(), 20);
        // And the drop of that output may panic too: two panics of one task, one after the other.
        let task = runtime.spawn(ends(
            Some(Bomb("the output, as ordered")),
            "first, as ordered",
        ));
        check_panicked(wait_for("a task", task), "first, as ordered");
    });
}

#[test]
fn a_panic_in_the_drop_of_a_future_takes_the_place_of_its_cancellation() {
    under_policies(|runtime| {
        let text = "when aborted, as ordered";
        // Waiting.
        let (begun, has_begun) = channel();
        let bomb = Bomb(text);
        let task = runtime.spawn(async move {
            let _bomb = bomb;
            begun.send(()).unwrap();
            pending::<()>().await;
        });
        receive("its poll", &has_begun);
        check_every_worker_works(runtime); // which ends the poll
        task.abort();
        check_panicked(wait_for("the task that waited", task), text);

        // Runnable: nobody gets a turn while both workers are in a long poll.
        let busy = KeptBusy::start(runtime);
        let task = runtime.spawn(ends(Some(()), text));
        task.abort();
        busy.end();
        check_panicked(wait_for("the task that was runnable", task), text);

        // Running.
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let bomb = Bomb(text);
        let task = runtime.spawn(async move {
            let _bomb = bomb;
            begun.send(()).unwrap();
            let _ = released.recv();
            pending::<()>().await;
        });
        receive("the poll", &has_begun);
        task.abort();
        drop(release);
        check_panicked(wait_for("the task that was running", task), text);
    });
}

#[test]
fn a_panic_in_the_drop_of_a_future_that_a_policy_never_gave_back_does_not_eject_it() {
    expect_ordered_panics();
    check(2, |runtime| {
        let (policy, record) = Recorder::new(Hoarder, 2);
        let generation = load_while_busy(&runtime, policy);
        let tasks: Vec<_> = (0..20)
            .map(|_| runtime.spawn(ends(Some(()), "in custody, as ordered")))
            .collect();
        wait_until("the policy has them", || {
            record.kept.load(Ordering::Relaxed) == 20
        });
        for task in tasks {
            task.abort();
            check_panicked(wait_for("a task", task), "in custody, as ordered");
        }
        assert!(runtime.exit_info(generation).is_none());
        runtime.unload();
        check_every_worker_works(&runtime);
        wait_until("exit", || record.exits() == 1);
        record.check();
    });
}

#[test]
fn panics_in_the_drops_of_futures_do_not_end_the_shutdown_that_drops_them() {
    expect_ordered_panics();
    for hoards in [false, true] {
        within(move || {
            let runtime = polity_tests::runtime(2);
            let drops = Drops::default();
            let waits = |nth: usize| {
                let bomb = nth
                    .is_multiple_of(2)
                    .then(|| Bomb("at shutdown, as ordered"));
                let (future, polled) = waiting(&drops);
                let future = async move {
                    let _bomb = bomb;
                    future.await
                };
                (runtime.spawn(future), polled)
            };
            let mut tasks = Vec::new();
            for nth in 0..40 {
                let (task, polled) = waits(nth);
                receive("its poll", &polled);
                tasks.push(task);
            }
            if hoards {
                load_while_busy(&runtime, Hoarder);
                let offered = runtime.metrics().offered;
                tasks.extend((0..40).map(|nth| waits(nth).0));
                wait_until("the policy has them", || {
                    runtime.metrics().offered >= offered + 40
                });
            }
            drop(runtime);
            assert_eq!(drops.count(), tasks.len());
            for (nth, task) in tasks.into_iter().enumerate() {
                let error = wait_for("a task", task).unwrap_err();
                assert_eq!(error.is_panic(), nth % 2 == 0, "{error}");
            }
        });
    }
}

/// Panics when dropped, and counts that.
struct CountedBomb {
    _counted: Counted,
    _bomb: Bomb,
}

#[test]
fn outputs_that_panic_when_dropped_are_dropped_once_whenever_their_handles_go() {
    under_policies(|runtime| {
        const TASKS: usize = 600;
        let drops = Drops::default();
        let output = || CountedBomb {
            _counted: drops.counted(),
            _bomb: Bomb("the output, as ordered"),
        };
        for nth in 0..TASKS {
            let output = output();
            let task = runtime.spawn(at_poll(1 + nth % 3, move || output));
            match nth % 4 {
                // Before the end.
                0 => drop(task),
                // After it.
                1 => {
                    wait_until("the task is finished", || task.is_finished());
                    drop(task);
                }
                // While it ends.
                2 => {
                    yield_a_little(nth);
                    drop(task);
                }
                // Taken: then the panic is the taker's.
                _ => {
                    let output = wait_for("the output", task).unwrap();
                    let dropped = catch_unwind(AssertUnwindSafe(|| drop(output)));
                    assert!(dropped.is_err());
                }
            }
        }
        wait_until("all outputs are dropped", || drops.count() == TASKS);
    });
}

fn yield_a_little(times: usize) {
    for _ in 0..times % 64 {
        std::hint::spin_loop();
    }
}

#[test]
fn a_payload_that_panics_whenever_it_is_dropped_may_be_thrown_by_a_task() {
    under_policies(|runtime| {
        let throws = || at_poll(2, || -> u32 { throw_endless_bomb() });
        for _ in 0..20 {
            // Nobody takes it: it is leaked in the end.
            drop(runtime.spawn(throws()));
            let task = runtime.spawn(throws());
            wait_until("the task is finished", || task.is_finished());
            drop(task);
            // Somebody does.
            let error = wait_for("the panic", runtime.spawn(throws())).unwrap_err();
            let text = error.to_string();
            assert!(text.contains("payload that is not text"), "{text}");
            let payload = error.into_panic().downcast::<EndlessBomb>().unwrap();
            std::mem::forget(payload);
            // On a thread for blocking calls.
            let call = runtime.spawn_blocking(|| -> u32 { throw_endless_bomb() });
            let error = wait_for("the call", call).unwrap_err();
            let payload = error.into_panic().downcast::<EndlessBomb>().unwrap();
            std::mem::forget(payload);
        }
    });
}

#[test]
fn a_panic_of_the_root_future_is_the_callers_and_the_runtime_goes_on() {
    under_policies(|runtime| {
        for _ in 0..10 {
            let root = async {
                polity::spawn(yield_now()).await.unwrap();
                panic!("in block_on, as ordered");
            };
            let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on::<_>(root)));
            assert!(result.is_err());
            assert!(
                polity::Handle::try_current().is_err(),
                "the context has gone"
            );
            let sum = runtime.block_on(async { polity::spawn(async { 1 + 1 }).await.unwrap() });
            assert_eq!(sum, 2);
        }
    });
}
