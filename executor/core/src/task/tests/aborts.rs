//! Aborts, whatever the task is at.

use std::sync::{Arc, Mutex};
use std::task::Waker;

use super::{Bell, Drops, Runtime, TAG, Turn, joined, poll_join, waits_for_ever};
use crate::task::AbortHandle;
use crate::task::custody::State;
use crate::task::entry::Entry;
use crate::task::header::Owner;
use crate::task::token::claim;

#[test]
fn a_task_aborted_before_its_first_poll_is_dropped_unpolled() {
    let mut runtime = Runtime::new();
    let (drops, polls) = (Drops::default(), Drops::default());
    let (kept, polled) = (drops.one(), polls.one());
    let mut handle = runtime.spawn(async move {
        std::mem::forget(polled);
        waits_for_ever(kept).await;
    });
    handle.abort();
    handle.abort();
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert_eq!((drops.count(), polls.count()), (1, 1));
    assert!(joined(&mut handle).unwrap_err().is_cancelled());
}

#[test]
fn a_waiting_task_that_is_aborted_becomes_runnable_and_is_dropped() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let mut handle = runtime.spawn(waits_for_ever(drops.one()));
    let bell = Arc::new(Bell::default());
    assert!(poll_join(&mut handle, &Waker::from(Arc::clone(&bell))).is_pending());
    assert_eq!(runtime.turns(), [Turn::Waits]);
    handle.abort_handle().abort();
    assert_eq!(
        (drops.count(), bell.rings()),
        (0, 0),
        "a worker drops it, not the aborter"
    );
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert_eq!((drops.count(), bell.rings()), (1, 1));
    assert!(joined(&mut handle).unwrap_err().is_cancelled());
}

#[test]
fn a_task_aborted_during_its_poll_is_dropped_at_its_next_turn() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let kept = drops.one();
    let abort = Arc::new(Mutex::new(None::<AbortHandle>));
    let own = Arc::clone(&abort);
    let mut handle = runtime.spawn(async move {
        own.lock().unwrap().take().unwrap().abort();
        waits_for_ever(kept).await;
    });
    *abort.lock().unwrap() = Some(handle.abort_handle());
    assert_eq!(runtime.turns(), [Turn::RunsOn, Turn::Dropped]);
    assert_eq!(drops.count(), 1);
    assert!(joined(&mut handle).unwrap_err().is_cancelled());
}

#[test]
fn a_task_that_ends_in_the_poll_in_which_it_is_aborted_answers_normally() {
    let mut runtime = Runtime::new();
    let abort = Arc::new(Mutex::new(None::<AbortHandle>));
    let own = Arc::clone(&abort);
    let mut handle = runtime.spawn(async move {
        own.lock().unwrap().take().unwrap().abort();
        7
    });
    *abort.lock().unwrap() = Some(handle.abort_handle());
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(joined(&mut handle).unwrap(), 7);
}

#[test]
fn an_abort_after_the_end_changes_nothing() {
    let mut runtime = Runtime::new();
    let mut handle = runtime.spawn(async { 7 });
    runtime.turns();
    handle.abort();
    assert_eq!(runtime.turns(), []);
    assert_eq!(joined(&mut handle).unwrap(), 7);
}

#[test]
fn a_task_that_a_policy_holds_can_be_aborted_and_its_old_claims_fail() {
    let mut runtime = Runtime::new();
    let drops = Drops::default();
    let mut handle = runtime.spawn(waits_for_ever(drops.one()));
    let queued = runtime.next().unwrap().queue(TAG, 9);
    let seen = queued.header().custody.load();
    assert_eq!(seen.state(), State::Queued);
    handle.abort();
    assert_eq!(runtime.turns(), [Turn::Dropped]);
    assert_eq!(drops.count(), 1);
    let header = queued.header();
    assert!(queued.claim_in_hand(TAG, 0).is_none());
    assert!(claim(header, seen).is_none());
    assert!(joined(&mut handle).unwrap_err().is_cancelled());
}

#[test]
fn a_queued_task_is_claimed_by_its_own_generation_only() {
    let mut runtime = Runtime::new();
    let _handle = runtime.spawn(async {});
    let entry = runtime.next().unwrap().queue(TAG, 9);
    let copy = Entry::from_bits(entry.into_bits()).unwrap();
    let bits = copy.into_bits();
    assert!(
        Entry::from_bits(bits)
            .unwrap()
            .claim_in_hand(TAG + 1, 0)
            .is_none()
    );
    let token = Entry::from_bits(bits)
        .unwrap()
        .claim_in_hand(TAG, 0)
        .expect("held by it");
    assert!(
        Entry::from_bits(bits)
            .unwrap()
            .claim_in_hand(TAG, 0)
            .is_none(),
        "claimed twice"
    );
    runtime.fake.now_runnable(token);
    assert_eq!(runtime.turns(), [Turn::Ended]);
}
