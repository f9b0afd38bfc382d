//! Who may run beside whom: tests run side by side, but for those whose subject is time.
//!
//! A test that asserts how long something takes must not share the processors with another one, which would be what it measures.

use std::cell::Cell;
use std::panic::resume_unwind;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::thread;

static STAGE: RwLock<()> = RwLock::new(());

thread_local! {
    static IS_ON: Cell<bool> = const { Cell::new(false) };
}

/// Runs `body` while no other test does that is [`within`](crate::within) a deadline. Not inside such a deadline.
#[track_caller]
pub fn alone<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    assert!(!IS_ON.get(), "others are on the stage already");
    // A test that has failed says nothing of the next one.
    let _all_of_it = STAGE.write().unwrap_or_else(PoisonError::into_inner);
    on_stage(body)
}

/// A place beside others, unless the calling thread has one, or has all of them.
pub(crate) fn enter() -> Option<RwLockReadGuard<'static, ()>> {
    (!IS_ON.get()).then(|| STAGE.read().unwrap_or_else(PoisonError::into_inner))
}

/// Makes the calling thread one of those that are on the stage.
pub(crate) fn join() {
    IS_ON.set(true);
}

/// On a thread of its own, so that nothing has to be undone on this one.
fn on_stage<R: Send>(body: impl FnOnce() -> R + Send) -> R {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            join();
            body()
        });
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
