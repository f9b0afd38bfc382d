//! tokio's cooperative budget, given to tasks that tokio does not poll.
//!
//! tokio's sockets, timers and channels count what they do and return `Pending` after 128 successes, so that a loop
//! such as `while let Some(x) = rx.recv().await {}` yields. They count only where tokio polls: elsewhere the budget is
//! *unconstrained*, and that loop would keep a worker for as long as the channel has something.
//!
//! Not a slice and not a preemption: code that awaits nothing of tokio's is not counted.
//!
//! A worker has one, on its own thread, and calls [`Budget::refresh`] before each poll, outside of any `block_on`. What
//! runs inside tokio's `block_on` (a driver round, foreign tasks) has a budget of its own there and leaves ours alone.
//!
//! Invariant: at the start of a task's poll 127 units are left, or, if the self-test failed, the count is off.
//!
//! Rejected: polling each task inside a `block_on` (150 ns, and tasks could no longer call `block_in_place`, a nested
//! `block_on` or `blocking_recv`). There is no setter; but the public [`RestoreOnPending`] is a token that, when
//! dropped, puts back the budget that was there when it was made. One made inside `block_on` puts back 128. That it
//! also does so outside is not promised, therefore the self-test.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;
use tokio::task::coop::{self, RestoreOnPending};

/// Least number of units with which a budget is believed to work.
const LEAST_UNITS: usize = 100;
/// Most number of units with which a budget is believed to work.
const MOST_UNITS: usize = 128;

/// The budget of one worker thread. Not `Send`: the count is in the thread's local storage.
///
/// For threads that end with it. The count cannot be switched off again, and on a thread that goes on without
/// [`Budget::refresh`] it would be used up one day: from then on everything of tokio's that is polled there outside a
/// `block_on` returns `Pending` forever.
pub(crate) struct Budget {
    /// Puts back a full budget when dropped. `None`: tokio has changed, the budget stays unconstrained.
    token: Option<RestoreOnPending>,
}

impl Budget {
    /// Takes the token and tests that it works. `driver` may be driven by another thread meanwhile; this thread must
    /// not be inside a `block_on`.
    pub(crate) fn new(driver: &Handle) -> Budget {
        // `Handle::block_on` drives nothing, it only polls, with a budget.
        let token = driver.block_on(poll_fn(|cx| match coop::poll_proceed(cx) {
            Poll::Ready(token) => Poll::Ready(Some(token)),
            Poll::Pending => Poll::Ready(None),
        }));
        let mut budget = Budget { token };
        if !contained(|| budget.works())
            && let Some(token) = budget.token.take()
        {
            // Else its drop would leave a budget that nobody refreshes.
            token.made_progress();
        }
        budget
    }

    /// Whether tasks are counted. If not, only their own yields and the watchdog keep a task from going on forever.
    pub(crate) fn is_constrained(&self) -> bool {
        self.token.is_some()
    }

    /// A fresh budget for the poll that follows.
    #[inline]
    pub(crate) fn refresh(&mut self) {
        if let Some(token) = self.token.take() {
            drop(token);
            // Takes one unit, and gives a token that knows of all of them.
            if let Poll::Ready(token) = coop::poll_proceed(&mut Context::from_waker(Waker::noop()))
            {
                self.token = Some(token);
            }
        }
    }

    /// Whether a refreshed budget ends where it should, and is fresh after another refresh.
    fn works(&mut self) -> bool {
        (0..2).all(|_| {
            self.refresh();
            let fresh = coop::has_budget_remaining();
            let units = use_up();
            fresh && (LEAST_UNITS..=MOST_UNITS).contains(&units) && !coop::has_budget_remaining()
        })
    }
}

/// Uses the budget of this thread up and returns how much it was, counting up to one more than it may be.
fn use_up() -> usize {
    let mut cx = Context::from_waker(Waker::noop());
    for units in 0..=MOST_UNITS {
        match coop::poll_proceed(&mut cx) {
            Poll::Ready(unit) => unit.made_progress(),
            Poll::Pending => return units,
        }
    }
    MOST_UNITS + 1
}

/// Runs `f` and puts the budget of this thread back as it was, in particular to unconstrained.
fn contained<R>(f: impl FnOnce() -> R) -> R {
    let mut f = Some(f);
    let run = pin!(coop::unconstrained(poll_fn(|_| {
        let f = f.take().expect("the future is polled once");
        Poll::Ready(f())
    })));
    match run.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(out) => out,
        Poll::Pending => unreachable!("`unconstrained` adds no waiting"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::task::Wake;
    use std::thread;
    use std::time::Duration;

    use super::super::{Driver, Parked};
    use super::*;

    /// Runs `f` on a thread that ends with its budget.
    fn check(f: impl FnOnce(&Driver, Budget) + Send) {
        let driver = Driver::new(None, "blocking").unwrap();
        thread::scope(|s| {
            s.spawn(|| {
                let handle = driver.handle().unwrap();
                let _entered = handle.enter();
                let budget = Budget::new(&driver.handle().unwrap());
                assert!(budget.is_constrained());
                f(&driver, budget);
            });
        });
    }

    #[test]
    fn a_refreshed_budget_has_127_units_each_time() {
        check(|_, mut budget| {
            for _ in 0..3 {
                budget.refresh();
                assert_eq!(use_up(), MOST_UNITS - 1);
                assert!(!coop::has_budget_remaining());
            }
            // Also when little of it was used.
            budget.refresh();
            budget.refresh();
            assert_eq!(use_up(), MOST_UNITS - 1);
        });
    }

    #[test]
    fn making_a_budget_leaves_the_thread_as_it_was() {
        check(|_, _budget| assert_eq!(use_up(), MOST_UNITS + 1));
    }

    #[test]
    fn a_budget_can_be_made_while_another_thread_drives() {
        let driver = Driver::new(None, "blocking").unwrap();
        let mut seat = driver.try_seat().unwrap();
        thread::scope(|s| {
            s.spawn(|| {
                let handle = driver.handle().unwrap();
                let _entered = handle.enter();
                let mut budget = Budget::new(&driver.handle().unwrap());
                assert!(budget.is_constrained());
                budget.refresh();
                assert_eq!(use_up(), MOST_UNITS - 1);
                driver.interrupt();
            });
            assert_eq!(seat.park(None), Parked::Interrupted);
        });
    }

    #[test]
    fn driving_and_parking_between_polls_does_not_touch_the_budget() {
        check(|driver, mut budget| {
            let mut seat = driver.try_seat().unwrap();
            // A foreign task that uses its own budget up, several times.
            driver.handle().unwrap().spawn(async {
                for _ in 0..1000 {
                    coop::consume_budget().await;
                }
            });
            budget.refresh();
            seat.drive();
            let timeout = Some(Duration::from_millis(2));
            assert_eq!(seat.park(timeout), Parked::TimedOut);
            assert_eq!(driver.foreign_tasks(), 0);
            assert_eq!(use_up(), MOST_UNITS - 1);
            seat.drive();
            assert_eq!(seat.park(timeout), Parked::TimedOut);
            assert!(!coop::has_budget_remaining());
            budget.refresh();
            assert_eq!(use_up(), MOST_UNITS - 1);
        });
    }

    #[test]
    fn a_loop_over_something_always_ready_yields_and_is_woken_at_once() {
        struct Woken(AtomicBool);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, SeqCst);
            }
        }
        check(|_, mut budget| {
            let mut rounds = 0;
            let mut task = pin!(async {
                for _ in 0..1000 {
                    coop::cooperative(std::future::ready(())).await;
                    rounds += 1;
                }
            });
            let woken = Arc::new(Woken(AtomicBool::new(false)));
            let waker = Waker::from(woken.clone());
            let mut polls = 1;
            budget.refresh();
            while task
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
            {
                // As outside of any runtime: the waker is called in the poll, so the task is queued again.
                assert!(woken.0.swap(false, SeqCst));
                polls += 1;
                budget.refresh();
            }
            assert_eq!(polls, 1000usize.div_ceil(MOST_UNITS - 1));
            assert_eq!(rounds, 1000);
        });
    }

    #[test]
    fn a_budget_that_does_not_work_is_not_used() {
        check(|_, mut budget| {
            if let Some(token) = budget.token.take() {
                token.made_progress();
            }
            // What a tokio without budgets would give: a token that restores nothing.
            let Poll::Ready(token) = coop::poll_proceed(&mut Context::from_waker(Waker::noop()))
            else {
                unreachable!("unconstrained");
            };
            budget.token = Some(token);
            assert!(!contained(|| budget.works()));
            budget.token = None;
            budget.refresh();
            assert!(!budget.is_constrained());
            assert_eq!(use_up(), MOST_UNITS + 1);
        });
    }

    #[test]
    fn a_budget_may_outlive_tokios_thread_local() {
        thread_local! {
            static LATE: RefCell<Option<LastRefresh>> = const { RefCell::new(None) };
        }
        struct LastRefresh(Budget);
        impl Drop for LastRefresh {
            fn drop(&mut self) {
                self.0.refresh();
            }
        }
        // Destructors run in the order of first use, or in the reverse one, by platform; so try both.
        for first in [true, false] {
            let driver = Driver::new(None, "blocking").unwrap();
            thread::scope(|s| {
                s.spawn(|| {
                    if first {
                        LATE.with_borrow_mut(|late| *late = None);
                    }
                    let mut budget = Budget::new(&driver.handle().unwrap());
                    budget.refresh();
                    LATE.set(Some(LastRefresh(budget)));
                });
            });
        }
    }
}
