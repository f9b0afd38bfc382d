//! The words of custody and life cycle, by themselves.

use std::sync::atomic::Ordering;

use super::TAG;
use crate::task::custody::{Custody, State};
use crate::task::lifecycle::{Lifecycle, Woken};

#[test]
fn custody_moves_count_on_and_name_their_owner() {
    let custody = Custody::new();
    assert_eq!(custody.load().state(), State::Free);
    let mut last = custody.load().sequence();
    for state in [State::Ingress, State::Offered, State::Held] {
        let sequence = custody.set(state, TAG, 9);
        assert_eq!(sequence, last + 1);
        let now = custody.load();
        assert_eq!(
            (now.state(), now.tag(), now.sequence()),
            (state, TAG, sequence)
        );
        assert_eq!(now.is_kept_by(TAG), state == State::Held);
        assert!(!now.is_kept_by(TAG + 1));
        last = sequence;
    }
}

#[test]
fn a_wake_during_a_poll_is_not_lost_when_there_were_two_thousand_million_before() {
    let lifecycle = Lifecycle::new();
    lifecycle.open();
    // SAFETY: the cast requires the same layout, which `repr(transparent)` gives; the lifetime is that of the borrow.
    let word = unsafe { &*std::ptr::from_ref(&lifecycle).cast::<std::sync::atomic::AtomicU64>() };
    word.fetch_add((1 << 31) - 1, Ordering::Relaxed);
    let seen = lifecycle.begin_poll();
    assert_eq!(lifecycle.wake(), Woken::Already);
    assert!(lifecycle.woken_since(seen));
    assert!(
        lifecycle.end_poll(seen),
        "the token is gone, and the wake with it"
    );
}
