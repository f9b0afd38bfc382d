//! Wakers are header addresses: no reference count, so clone and drop are free.
//!
//! A waker may outlive its task: the slot is never unmapped, and if it has a new tenant by then, that one is polled
//! once for nothing, which the contract of `Future::poll` allows. Two tenants of a slot have equal wakers
//! (`Waker::will_wake`); that is right, since either wakes the present tenant.
//!
//! **Invariant.** A wake calls no policy, takes no lock that is held over foreign code, and does not block.

use std::mem::ManuallyDrop;
use std::ptr::from_ref;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::header::Header;
use super::lifecycle::Woken;
use super::token::Token;

/// One address, so that `Waker::will_wake` finds equal wakers equal.
static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, |_| {});

fn clone(header: *const ()) -> RawWaker {
    RawWaker::new(header, &VTABLE)
}

fn wake(header: *const ()) {
    // SAFETY: the pointer must be a header for ever: `waker` made it from a `&'static Header`, and clones copy it.
    let header: &'static Header = unsafe { &*header.cast() };
    if header.lifecycle.wake() == Woken::Won {
        // A token can be won only of a tenant, and `prepare` set its owner before `open`.
        if let Some(owner) = header.owner() {
            owner.now_runnable(Token::won(header));
        }
    }
}

/// The waker of whoever lives in the header's slot. Not dropped: its drop does nothing.
#[inline]
pub(crate) fn waker(header: &'static Header) -> ManuallyDrop<Waker> {
    // SAFETY: `from_raw` requires a vtable that keeps the contract of `RawWakerVTable`: all functions are
    // thread-safe (they use atomics of the header only), and the data lives for ever.
    ManuallyDrop::new(unsafe { Waker::from_raw(RawWaker::new(from_ref(header).cast(), &VTABLE)) })
}
