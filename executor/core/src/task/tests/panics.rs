//! Panics in the drops and the wakers of others.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Poll, Wake, Waker};

use super::{Bomb, Drops, Runtime, Turn, joined, panic_of, poll_join, text, waits_for_ever};

#[test]
fn a_panic_in_the_drop_of_an_ended_future_is_the_tasks_panic() {
    let mut runtime = Runtime::new();
    let (future, output) = (Drops::default(), Drops::default());
    let (bomb, result) = (Bomb(future.clone()), output.one());
    let mut result = Some(result);
    // Not an async block: that would drop its captures before it is ready.
    let mut handle = runtime.spawn(poll_fn(move |_| {
        let _keep = &bomb;
        Poll::Ready(result.take().unwrap())
    }));
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!((future.count(), output.count()), (1, 1));
    assert_eq!(panic_of(joined(&mut handle)), "bomb");
}

#[test]
fn a_panic_in_the_drop_of_an_aborted_future_is_the_tasks_panic() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let mut handle = runtime.spawn(waits_for_ever(Bomb(drops.clone())));
    assert_eq!(runtime.turns(), [Turn::Waits]);
    handle.abort();
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert_eq!(drops.count(), 1);
    assert_eq!(panic_of(joined(&mut handle)), "bomb");
}

#[test]
fn a_panic_in_the_drop_of_an_output_that_nobody_wants_ends_nowhere() {
    for detach_first in [true, false] {
        let mut runtime = Runtime::new();
        let drops = Drops::default();
        let bomb = Bomb(drops.clone());
        let mut handle = Some(runtime.spawn(async move { bomb }));
        if detach_first {
            handle = None;
        }
        assert_eq!(runtime.turns(), [Turn::Ended]);
        drop(handle);
        assert_eq!(drops.count(), 1);
    }
}

/// Panics when it is woken, and when it is dropped.
struct BadWaker(Drops);

impl Wake for BadWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        panic_any("woken");
    }
}

impl Drop for BadWaker {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
        panic_any("bomb");
    }
}

#[test]
fn a_joiner_whose_waker_panics_hurts_nobody() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let mut handle = runtime.spawn(async { 7 });
    let waker = Waker::from(Arc::new(BadWaker(drops.clone())));
    assert!(poll_join(&mut handle, &waker).is_pending());
    // The cell has the last clone.
    drop(waker);
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(joined(&mut handle).unwrap(), 7);
    drop(handle);
    assert_eq!(drops.count(), 1);
}

#[test]
fn a_waker_whose_drop_panics_when_it_is_replaced_panics_in_the_joiner_only() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let mut handle = runtime.spawn(async { 7 });
    let waker = Waker::from(Arc::new(BadWaker(drops.clone())));
    assert!(poll_join(&mut handle, &waker).is_pending());
    drop(waker);
    let replaced = catch_unwind(AssertUnwindSafe(|| {
        poll_join(&mut handle, Waker::noop()).is_pending()
    }));
    assert_eq!(text(&*replaced.unwrap_err()), "bomb");
    assert_eq!(drops.count(), 1);
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(joined(&mut handle).unwrap(), 7);
}
