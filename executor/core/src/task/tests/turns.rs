//! One task, turn by turn: what its joiner gets, what wakes do, and that everything is dropped once.

use std::panic::panic_any;
use std::sync::{Arc, Mutex};
use std::task::Waker;

use super::{
    Bell, Counted, Drops, Runtime, Turn, joined, panic_of, poll_join, second_poll, waits_for_ever,
};
use crate::task::join::JoinHandle;

#[test]
fn a_joiner_gets_the_output() {
    let mut runtime = Runtime::new();
    let mut handle = runtime.spawn(async { "hello".to_owned() });
    assert!(!handle.is_finished());
    assert!(poll_join(&mut handle, Waker::noop()).is_pending());
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert!(handle.is_finished());
    assert_eq!(joined(&mut handle).unwrap(), "hello");
}

#[test]
fn a_joiner_gets_the_panic() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let kept = drops.one();
    let mut handle = runtime.spawn(async move {
        let _kept = kept;
        panic_any("no luck");
    });
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(drops.count(), 1);
    let answer: Result<(), _> = joined(&mut handle);
    assert_eq!(panic_of(answer), "no luck");
}

#[test]
fn a_joiner_is_woken_once_and_through_the_waker_that_it_gave_last() {
    let mut runtime = Runtime::new();
    let mut handle = runtime.spawn(async {});
    let (first, last) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
    for bell in [&first, &first, &last] {
        assert!(poll_join(&mut handle, &Waker::from(Arc::clone(bell))).is_pending());
    }
    runtime.turns();
    assert_eq!((first.rings(), last.rings()), (0, 1));
    joined(&mut handle).unwrap();
}

#[test]
#[should_panic(expected = "not polled after it has answered")]
fn a_join_handle_answers_once() {
    let mut runtime = Runtime::new();
    let mut handle = runtime.spawn(async {});
    runtime.turns();
    joined(&mut handle).unwrap();
    let _ = joined(&mut handle);
}

#[test]
fn a_task_that_wakes_itself_is_polled_again_once() {
    let mut runtime = Runtime::new();
    let mut handle = runtime.spawn(second_poll(|waker| {
        waker.wake_by_ref();
        waker.wake_by_ref();
    }));
    assert_eq!(runtime.turns(), [Turn::RunsOn, Turn::Ended]);
    joined(&mut handle).unwrap();
}

#[test]
fn many_wakes_of_a_waiting_task_put_it_into_the_queue_once() {
    let mut runtime = Runtime::new();
    let waker = Arc::new(Mutex::new(None));
    let given = Arc::clone(&waker);
    let handle = runtime.spawn(second_poll(move |waker| {
        *given.lock().unwrap() = Some(waker.clone());
    }));
    assert_eq!(runtime.turns(), [Turn::Waits]);
    let waker = waker.lock().unwrap().take().unwrap();
    for _ in 0..3 {
        waker.wake_by_ref();
    }
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert!(handle.is_finished());
}

#[test]
fn future_and_output_are_dropped_once_whenever_the_handle_goes() {
    // (the handle's drop comes after so many turns, is the output taken before that?)
    for (turns, takes) in [(0, false), (1, false), (2, false), (2, true)] {
        let mut runtime = Runtime::new();
        let (future, output) = (Drops::default(), Drops::default());
        let (kept, result) = (future.one(), output.one());
        let mut handle = Some(runtime.spawn(async move {
            second_poll(Waker::wake_by_ref).await;
            drop(kept);
            result
        }));
        for turn in 0..=2 {
            if turn == turns {
                let mut handle = handle.take().unwrap();
                if takes {
                    drop(joined(&mut handle).unwrap_or_else(|_| panic!("it ended well")));
                }
            }
            runtime.turn();
        }
        assert_eq!((future.count(), output.count()), (1, 1), "{turns} {takes}");
    }
}

#[test]
fn a_detached_task_that_is_aborted_drops_its_future_once() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let handle = runtime.spawn(waits_for_ever(drops.one()));
    let abort = handle.abort_handle();
    drop(handle);
    assert_eq!(runtime.turns(), [Turn::Waits]);
    assert!(!abort.is_finished());
    abort.abort();
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert_eq!(drops.count(), 1);
    assert!(abort.is_finished());
}

#[test]
fn a_handle_that_leaves_with_its_waker_registered_is_not_woken_after_its_drop_is_over() {
    let mut runtime = Runtime::new();
    let bell = Arc::new(Bell::default());
    let mut handle = runtime.spawn(async {});
    assert!(poll_join(&mut handle, &Waker::from(Arc::clone(&bell))).is_pending());
    drop(handle);
    runtime.turns();
    assert_eq!(bell.rings(), 0);
    assert_eq!(
        Arc::strong_count(&bell),
        1,
        "the cell and its waker are freed"
    );
}

#[test]
fn a_task_may_drop_its_own_handle() {
    let mut runtime = Runtime::new();
    let handle = Arc::new(Mutex::new(None::<JoinHandle<Counted>>));
    let (own, drops) = (Arc::clone(&handle), Drops::default());
    let result = drops.one();
    let spawned = runtime.spawn(async move {
        drop(own.lock().unwrap().take());
        result
    });
    *handle.lock().unwrap() = Some(spawned);
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(drops.count(), 1);
}
