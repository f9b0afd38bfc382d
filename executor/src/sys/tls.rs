//! Which worker is this thread? A thread-local pointer to the worker's [`Local`].
//!
//! Read by every wake, so it is a plain pointer and not a counted one.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;
use std::rc::Rc;

use polity_core::Local;

thread_local! {
    static LOCAL: Cell<*const Local> = const { Cell::new(ptr::null()) };
}

/// While it lives, this thread is the worker whose `Local` was entered.
pub(crate) struct Seated {
    _local: Rc<Local>,
    // Must be dropped on the thread that made it, as the `Rc` ensures too.
    _not_send: PhantomData<*const ()>,
}

/// Makes this thread a worker. It must not be one already.
pub(crate) fn sit(local: &Rc<Local>) -> Seated {
    LOCAL.with(|current| {
        assert!(current.get().is_null(), "one thread is one worker");
        current.set(Rc::as_ptr(local));
    });
    Seated {
        _local: Rc::clone(local),
        _not_send: PhantomData,
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        LOCAL.with(|current| current.set(ptr::null()));
    }
}

/// Lends this thread's `Local`.
#[inline]
pub(crate) fn with_local<R>(look: impl FnOnce(Option<&Local>) -> R) -> R {
    let local = LOCAL.with(Cell::get);
    // SAFETY: `as_ref` requires null or a valid pointer for the lifetime of the reference: it was set by `sit`, whose
    // guard keeps the `Rc` and clears the pointer before letting it go. The reference lives only during this call, and
    // a guard cannot be dropped inside it: it is a local variable of the worker's main function, below us on this stack.
    look(unsafe { local.as_ref() })
}
