//! Wakers are header addresses: no reference count, so clone and drop are free.
//!
//! A waker may outlive its task: the slot is never unmapped, and if it has a new tenant by then, that one is polled
//! once for nothing, which the contract of `Future::poll` allows. Two tenants of a slot have equal wakers
//! (`Waker::will_wake`); that is right, since either wakes the present tenant.
//!
//! **A task that wakes itself** in its own poll (a yield, a budget used up, a combinator that wants to be asked again) changes
//! nothing that other threads could see: the task is runnable until the poll ends, and after that because of the wake. So its
//! thread notes it for itself ([`poll_as`]), and saves two read-modify-writes: the one of the wake, and the one at the end of a
//! poll, which would take back what the wake has added. What others add meanwhile stays for the next poll. If the thread is
//! convicted before it says so, its heir polls the task again in any case (`token::inherit`).
//!
//! **Invariant.** A wake calls no policy, takes no lock that is held over foreign code, and does not block.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ptr::{self, from_ref};
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::header::Header;
use super::lifecycle::Woken;
use super::token::Token;

/// The poll that a thread is in.
struct OwnPoll {
    /// Whose; null for none. Compared, and never followed.
    header: Cell<*const Header>,
    woken: Cell<bool>,
}

thread_local! {
    static OWN_POLL: OwnPoll = const {
        OwnPoll {
            header: Cell::new(ptr::null()),
            woken: Cell::new(false),
        }
    };
}

/// Runs the poll of this task. Also says whether the task has woken itself, in the way that only this thread knows of.
#[inline]
pub(crate) fn poll_as<R>(header: &'static Header, poll: impl FnOnce() -> R) -> (R, bool) {
    OWN_POLL.with(|own| {
        // A poll inside a poll does not occur on real threads; on the scripted machine it does.
        let outer = (own.header.replace(header), own.woken.replace(false));
        let polled = poll();
        own.header.set(outer.0);
        (polled, own.woken.replace(outer.1))
    })
}

/// Whether this is the task's own poll; if so, it counts as woken.
#[inline]
fn wake_oneself(header: &'static Header) -> bool {
    OWN_POLL.with(|own| {
        let is_own = ptr::eq(own.header.get(), header);
        if is_own {
            own.woken.set(true);
        }
        is_own
    })
}

/// One address, so that `Waker::will_wake` finds equal wakers equal.
static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, |_| {});

fn clone(header: *const ()) -> RawWaker {
    RawWaker::new(header, &VTABLE)
}

fn wake(header: *const ()) {
    // SAFETY: the pointer must be a header for ever: `waker` made it from a `&'static Header`, and clones copy it.
    let header: &'static Header = unsafe { &*header.cast() };
    if !wake_oneself(header) && header.lifecycle.wake() == Woken::Won {
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
