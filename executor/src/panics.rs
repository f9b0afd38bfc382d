//! Panics of policies: noted for the report, and not printed twice.
//!
//! The process's panic hook runs before a panic can be caught, on the thread that panics. The default one prints a backtrace
//! with symbols, which takes tens of milliseconds: long enough for the watchdog to take the callback for a stuck one. And
//! a hook of the application may end the process, which would let a policy do so. So while a thread is inside a policy, ours
//! notes where the panic was and does nothing else; every other panic goes to the hook that was there before.
//!
//! If the process is about to abort over a panic while unwinding, which is a rule of the language, what was noted is printed
//! first.
//!
//! Installed once per process, when the first runtime is built. A hook that the application sets later replaces ours: then
//! reports of panics have no backtrace.

use std::backtrace::Backtrace;
use std::cell::RefCell;
use std::io::{self, Write};
use std::panic::{self, PanicHookInfo};
use std::sync::Once;

use polity_core::PanicNote;

use crate::context;
use crate::sys::tls;

thread_local! {
    static NOTE: RefCell<Option<PanicNote>> = const { RefCell::new(None) };
    /// The panics of this thread that have not been caught by the door, as text: printed if the process aborts.
    static PENDING: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// A policy may catch panics of its own, for ever.
const MOST_PENDING: usize = 4;

/// How the standard library says that a panic cannot unwind: by another panic, after which it aborts.
const LAST_WORDS: [&str; 2] = [
    "panic in a destructor during cleanup",
    "panic in a function that cannot unwind",
];

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
            let text = text_of(info);
            if LAST_WORDS.contains(&text.as_str()) {
                print_pending();
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
            remember(format!(
                "{text} (at {})",
                info.location()
                    .map_or_else(String::new, ToString::to_string)
            ));
        }));
    });
}

fn text_of(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a payload that is not text").to_owned()
}

fn remember(text: String) {
    let _ = PENDING.try_with(|pending| {
        let mut pending = pending.borrow_mut();
        if pending.len() < MOST_PENDING {
            pending.push(text);
        }
    });
}

/// The process is about to abort: what has been kept from the default hook until now is said here, or never.
fn print_pending() {
    let pending = PENDING.try_with(RefCell::take).unwrap_or_default();
    for text in pending {
        // Nobody is left to tell that stderr is gone.
        let _ = writeln!(io::stderr(), "polity: a policy panicked: {text}");
    }
}

/// What was noted of the last panic on this thread, which has been caught.
pub(crate) fn take_note() -> Option<PanicNote> {
    let _ = PENDING.try_with(RefCell::take);
    NOTE.try_with(RefCell::take).ok().flatten()
}
