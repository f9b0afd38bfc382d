//! Wakers of somebody else that panic. The one that a join handle keeps is called and dropped by our workers; so is the one
//! that a timer keeps, by the worker that drives, inside tokio's event loop.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, RawWakerVTable, Wake, Waker};
use std::time::Duration;

use polity::{Handle, JoinHandle, yield_now};
use polity_tests::{check, now, receive, wait_for, wait_until, within};

use super::{Churn, KeptBusy, check_every_worker_works};
use crate::support::{Drops, waiting};
use crate::workload::expect_ordered_panics;

/// What a waker panics at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum At {
    Wake,
    Drop,
    /// The wake, and then the drop.
    Both,
}

struct BadWaker {
    at: At,
    armed: AtomicBool,
    wakes: Arc<AtomicUsize>,
    drops: Arc<AtomicUsize>,
}

impl Wake for BadWaker {
    fn wake(self: Arc<Self>) {
        // The core wakes by reference; this count falls with the unwinding.
        Wake::wake_by_ref(&self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        assert!(self.at == At::Drop, "in wake, as ordered");
    }
}

impl Drop for BadWaker {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
        assert!(
            self.at == At::Wake || !self.armed.load(Ordering::SeqCst) || std::thread::panicking(),
            "in the drop of a waker, as ordered"
        );
    }
}

/// Registers a waker that is owned by `future` alone afterwards.
fn register<F: Future + Unpin>(future: &mut F, at: At) -> [Arc<AtomicUsize>; 2] {
    let (wakes, drops) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let bad = Arc::new(BadWaker {
        at,
        armed: AtomicBool::new(true),
        wakes: Arc::clone(&wakes),
        drops: Arc::clone(&drops),
    });
    let waker = Waker::from(bad);
    let answer = Pin::new(future).poll(&mut Context::from_waker(&waker));
    assert!(answer.is_pending());
    [wakes, drops]
}

const ALL: [At; 3] = [At::Wake, At::Drop, At::Both];

#[test]
fn a_join_handles_waker_that_panics_harms_neither_the_worker_nor_the_output() {
    expect_ordered_panics();
    check(2, |runtime| {
        for at in ALL {
            for _ in 0..50 {
                let busy = KeptBusy::start(&runtime);
                let mut task = runtime.spawn(async { "output" });
                let [wakes, drops] = register(&mut task, at);
                busy.end();
                wait_until("it is woken", || wakes.load(Ordering::SeqCst) == 1);
                wait_until("the task is finished", || task.is_finished());
                let answer = Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop()));
                assert!(matches!(answer, Poll::Ready(Ok("output"))), "{answer:?}");
                assert_eq!(drops.load(Ordering::SeqCst), 0);
                drop(task);
                wait_until("the waker is dropped", || drops.load(Ordering::SeqCst) == 1);
            }
            check_every_worker_works(&runtime);
        }
    });
}

#[test]
fn a_waker_that_panics_may_be_left_behind_by_a_dropped_handle() {
    expect_ordered_panics();
    check(2, |runtime| {
        for at in ALL {
            for abort in [false, true] {
                let busy = KeptBusy::start(&runtime);
                let mut task = runtime.spawn(yield_now());
                let [_, drops] = register(&mut task, at);
                if abort {
                    task.abort();
                }
                drop(task);
                busy.end();
                wait_until("the waker is dropped", || drops.load(Ordering::SeqCst) == 1);
            }
            check_every_worker_works(&runtime);
        }
    });
}

#[test]
fn a_shutdown_wakes_the_wakers_that_panic_and_those_after_them() {
    expect_ordered_panics();
    within(|| {
        let runtime = polity_tests::runtime(2);
        let mut tasks: Vec<JoinHandle<()>> = (0..30)
            .map(|_| runtime.spawn(std::future::pending()))
            .collect();
        let wakes: Vec<_> = tasks
            .iter_mut()
            .enumerate()
            .map(|(nth, task)| register(task, ALL[nth % 3])[0].clone())
            .collect();
        drop(runtime);
        for (task, wakes) in tasks.into_iter().zip(wakes) {
            assert_eq!(wakes.load(Ordering::SeqCst), 1);
            assert!(wait_for("a task", task).unwrap_err().is_cancelled());
        }
    });
}

/// A waker that cannot be cloned is the poller's panic, not the task's.
#[test]
fn a_waker_that_panics_when_cloned_leaves_the_handle_as_it_was() {
    expect_ordered_panics();
    check(2, |runtime| {
        for registered_before in [false, true] {
            let busy = KeptBusy::start(&runtime);
            let mut task = runtime.spawn(async { "output" });
            if registered_before {
                register(&mut task, At::Both);
            }
            let bad = panics_when_cloned();
            let mut context = Context::from_waker(&bad);
            for _ in 0..3 {
                let polled =
                    catch_unwind(AssertUnwindSafe(|| Pin::new(&mut task).poll(&mut context)));
                assert!(polled.is_err(), "it has been cloned");
            }
            busy.end();
            // Before that, the next poll would replace the registered one, whose drop panics.
            wait_until("the task is finished", || task.is_finished());
            assert_eq!(wait_for("the output", task).unwrap(), "output");
        }
        check_every_worker_works(&runtime);
    });
}

/// The waker that another one replaces is dropped by the poller, whose panic it is then.
#[test]
fn a_waker_that_panics_when_it_is_replaced_leaves_the_handle_usable() {
    expect_ordered_panics();
    check(2, |runtime| {
        for _ in 0..20 {
            let busy = KeptBusy::start(&runtime);
            let mut task = runtime.spawn(async { "output" });
            let [_, drops] = register(&mut task, At::Drop);
            let polled = catch_unwind(AssertUnwindSafe(|| {
                Pin::new(&mut task).poll(&mut Context::from_waker(Waker::noop()))
            }));
            assert!(polled.is_err(), "the old one has panicked");
            assert_eq!(drops.load(Ordering::SeqCst), 1);
            busy.end();
            assert_eq!(wait_for("the output", task).unwrap(), "output");
        }
        check_every_worker_works(&runtime);
    });
}

/// A timer that somebody polls by hand has woken its waker, which panicked at that.
fn panic_in_the_driver(runtime: &Handle, at: At) {
    let _entered = runtime.enter();
    // The driver has to fire it: that is the subject.
    let mut timer = Box::pin(tokio::time::sleep(Duration::from_millis(2)));
    let [wakes, drops] = register(&mut timer, at);
    // `wake` owns the waker, so the drop comes with it.
    wait_until("the waker is dropped", || drops.load(Ordering::SeqCst) == 1);
    assert_eq!(wakes.load(Ordering::SeqCst), 1);
}

/// Idle workers park in the driver; busy ones look into it between two polls.
#[test]
fn a_foreign_waker_that_panics_in_the_driver_costs_no_worker() {
    expect_ordered_panics();
    for at in ALL {
        for (workers, busy) in [(1, false), (2, false), (3, false), (1, true), (2, true)] {
            check(workers, move |runtime| {
                let churn = busy.then(|| Churn::start(&runtime));
                panic_in_the_driver(&runtime, at);
                for _ in 0..20 {
                    check_every_worker_works(&runtime);
                }
                churn.unwrap_or_else(|| Churn::start(&runtime)).finish();
                assert_eq!(runtime.block_on(async { 7 }), 7);
            });
        }
    }
}

#[test]
fn a_runtime_whose_driver_a_foreign_waker_has_broken_drops_its_tasks_when_it_ends() {
    expect_ordered_panics();
    for at in ALL {
        for workers in 1..=3 {
            check(workers, move |runtime| {
                let drops = Drops::default();
                let (future, is_polled) = waiting(&drops);
                let before = runtime.spawn(future);
                receive("its first poll", &is_polled);
                panic_in_the_driver(&runtime, at);
                let after = runtime.spawn(std::future::pending::<()>());
                drop(runtime);
                assert_eq!(drops.count(), 1);
                for task in [before, after] {
                    assert!(task.is_finished(), "the drop of a runtime waits for it");
                    assert!(wait_for("a task", task).unwrap_err().is_cancelled());
                }
            });
        }
    }
}

/// A limit, not a wish: the panic takes tokio's driver along, and there is no way to start another for the same handles.
/// What waits for a timer is not told.
#[test]
fn timers_stand_still_after_a_foreign_waker_has_panicked_in_the_driver() {
    expect_ordered_panics();
    check(2, |runtime| {
        panic_in_the_driver(&runtime, At::Wake);
        let due = now() + Duration::from_millis(1);
        // That it does not fire is the subject.
        let task = runtime.spawn(async { tokio::time::sleep(Duration::from_millis(1)).await });
        wait_until("it is due for long", || {
            check_every_worker_works(&runtime);
            now() > due + Duration::from_millis(50)
        });
        assert!(!task.is_finished());
        drop(runtime);
        assert!(wait_for("the task", task).unwrap_err().is_cancelled());
    });
}

/// An `Arc`'s clone cannot panic, so this one is made by hand.
fn panics_when_cloned() -> Waker {
    static VTABLE: RawWakerVTable = RawWakerVTable::new(
        |_| panic!("in the clone of a waker, as ordered"),
        |_| (),
        |_| (),
        |_| (),
    );
    // SAFETY: `Waker::new` requires that the functions of the table keep the contract of `RawWaker`: they use no data,
    // so any thread may call them, any number of times. That the first one panics is no breach: it returns nothing.
    unsafe { Waker::new(std::ptr::null(), &VTABLE) }
}
