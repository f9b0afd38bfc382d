//! Panics of policies: noted for the report, and not printed twice.
//!
//! The process's panic hook runs before a panic can be caught, on the thread that panics. The default one prints a backtrace
//! with symbols, which takes tens of milliseconds: long enough for the watchdog to take the callback for a stuck one. And
//! a hook of the application may end the process, which would let a policy do so. So while a thread is inside a policy, ours
//! notes where the panic was and does nothing else; every other panic goes to the hook that was there before.
//!
//! Installed once per process, when the first runtime is built. A hook that the application sets later replaces ours: then
//! reports of panics have no backtrace.

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::panic;
use std::sync::Once;

use polity_core::PanicNote;

use crate::context;
use crate::sys::tls;

thread_local! {
    static NOTE: RefCell<Option<PanicNote>> = const { RefCell::new(None) };
}

/// See the [module](self).
pub(crate) fn install_hook() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // `take_hook` panics on a thread that is panicking itself: a runtime built in somebody's drop.
        if std::thread::panicking() {
            return;
        }
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !context::is_in_policy() {
                return before(info);
            }
            tls::with_local(|local| {
                if let Some(local) = local {
                    local.note_panic();
                }
            });
            let note = PanicNote {
                location: info.location().map(ToString::to_string),
                backtrace: Backtrace::force_capture(),
            };
            // A thread that is ending has no place for it any more.
            let _ = NOTE.try_with(|place| place.replace(Some(note)));
        }));
    });
}

/// What was noted of the last panic on this thread.
pub(crate) fn take_note() -> Option<PanicNote> {
    NOTE.try_with(RefCell::take).ok().flatten()
}
