//! Signals to the process reach its runtimes: SIGQUIT is sysrq and throws their policies out, whatever the workers are
//! doing. SIGTSTP bypasses them while the process is stopped, SIGCONT ends that.
//!
//! Not the ejection, nor the bypass: those are what a runtime does in [`Sysrq`]. Not a signal API for applications.
//! [`subscribe`] is called when a runtime is built; [`register`] takes the signals, once per process. A handler, on
//! whichever thread the signal hits, stores one bit and writes one byte to one descriptor, and is signal-hook's. The
//! thread "polity-signal" ([`serve`]) waits for that byte and calls the runtimes with no lock held. It is never
//! joined: without runtimes it waits.
//! Invariant: every policy is ejected before anything is printed, and nothing on the way waits for a worker, a
//! policy, stderr or a subscriber of `tracing`. A handler that the application installed is never displaced.
//! Rejected: undoing the registration with the last runtime (signal-hook cannot bring the default action back, so a
//! byte that nobody reads would be all that is left); `signal_hook::iterator`, whose wait has no end, where ours must
//! also tell when a second has passed. That wait is the only clock here.
//!
//! The signal thread blocks all other signals: a handler of the application that hangs, perhaps on a lock that a
//! stuck worker holds, must not hang on this thread; SIGCONT may have one, which is called as before. SIGQUIT itself
//! is open there, so that it is delivered even if every other thread comes to block it. A child made by `fork`
//! without `exec` has the handlers and no thread: SIGQUIT and SIGTSTP do nothing there. (`exec` sets the default
//! actions again.)

use std::env;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

mod register;
mod serve;
mod suspend;

use register::Taken;

/// Whether the runtime listens to signals.
///
/// With `On`, `kill -QUIT <pid>` (or `Ctrl-\` at a terminal) ejects the policies of all such runtimes of the process
/// and says so on stderr; the tasks go on in built-in order. Without a policy nothing is changed, and a second SIGQUIT
/// within a second quits with a core dump, as one would without us (so not where SIGQUIT was ignored at the start, as
/// a script's shell does for `server &`, nor in process 1: there it only ejects).
///
/// `Ctrl-Z` (SIGTSTP) stops the process, as it would without us, and `fg`, `bg` or `kill -CONT <pid>` (SIGCONT)
/// continues it. The policies are bypassed from just before to just after: they stay loaded, and tasks run in
/// built-in order. Where SIGTSTP stops nothing (in process 1, in a process group that no shell looks after, if it was
/// ignored at the start) the bypass alone is left: it lasts until SIGCONT, and stderr says so. A SIGCONT that follows
/// no SIGTSTP, but a SIGSTOP or nothing, leaves any bypass as it is; a stop of any kind is not held against a policy.
///
/// When not to use it: in a process where these signals already mean something. A handler for SIGQUIT or for SIGTSTP
/// that was there first is left alone, and so is a signal that is blocked to be waited for; a warning says so, and
/// the other one is taken all the same. (A handler for SIGCONT is no obstacle; both are called.) A program that will
/// handle SIGTSTP itself, to restore the terminal for example, should do so before it builds a runtime. Once taken,
/// a signal stays ours until the process ends. `POLITY_SIGNALS=off` in the environment turns it off without a
/// rebuild.
///
/// ```
/// use polity::Signals;
/// assert_eq!(Signals::default(), Signals::On);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signals {
    /// SIGQUIT ejects the policies, SIGTSTP bypasses them. One registration serves all runtimes of the process.
    #[default]
    On,
    /// This runtime is not reached by signals, and registers nothing.
    Off,
}

impl Signals {
    /// What counts after a look at the environment: `POLITY_SIGNALS=off` (or 0) beats the program, on (or 1, or
    /// nothing) leaves it its choice.
    ///
    /// # Errors
    ///
    /// Any other value, in a sentence.
    pub(crate) fn resolve(self) -> Result<Signals, String> {
        let value = env::var_os("POLITY_SIGNALS").unwrap_or_default();
        self.resolve_with(value.to_string_lossy().trim())
    }

    fn resolve_with(self, variable: &str) -> Result<Signals, String> {
        match variable {
            "" | "1" | "on" => Ok(self),
            "0" | "off" => Ok(Signals::Off),
            other => Err(format!(
                "POLITY_SIGNALS={other}: known are off (or 0) and on (or 1, as the program asks)"
            )),
        }
    }
}

/// A runtime, as signals see it.
///
/// All calls are made on "polity-signal", one after the other. They must not block: the other runtimes of the process
/// wait for them, and so does the next signal. The thread holds a strong reference meanwhile, so that the implementor
/// may be dropped there: that must not block either.
pub(crate) trait Sysrq: Send + Sync {
    /// SIGQUIT. Claims and publishes the ejection of the policy, with kind `Sysrq`, and cancels a pending load. `Some`
    /// says who was ejected (`policy "vtime" ejected (generation 4)`); `None`: there was no policy.
    fn sysrq(&self) -> Option<String>;

    /// The line about the ejection is on its way: what the runtime looked like should follow it. Must not block either.
    fn print_dump(&self);

    /// SIGTSTP: the depth of the bypass grows by one. When this returns, the process may stop at once.
    fn enter_bypass(&self);

    /// The SIGCONT that ends it: the depth shrinks by one. Called once for each `enter_bypass` that returned.
    fn leave_bypass(&self);

    /// Any SIGCONT, before the `leave_bypass` that may belong to it: the process may have been stopped for long, and
    /// the watchdog counts from now on.
    fn continued(&self);
}

/// What became of a subscription.
#[derive(Debug)]
pub(crate) enum Subscribed {
    /// SIGQUIT reaches this runtime.
    Registered,
    /// SIGQUIT is the application's: it has a handler, or the calling thread blocks it, for `sigwait` or a signalfd.
    /// Reported already, once per process. A later subscription looks again, and then serves this runtime too.
    AlreadyHandledByProcess,
    /// No descriptor or no thread could be had, so sysrq is off: for the caller to report. A later subscription tries
    /// again, and then serves this runtime too. (What became of SIGTSTP has been reported, if it is not ours.)
    Failed(io::Error),
}

/// Lets signals reach this runtime for as long as it lives. The first call of the process registers.
///
/// Called on the thread that builds the runtime, before its workers start; the thread should not be pinned, since
/// the signal thread and the reporter inherit its affinity mask.
pub(crate) fn subscribe(runtime: Weak<dyn Sysrq>) -> Subscribed {
    let mut runtimes = runtimes();
    runtimes.retain(|runtime| runtime.strong_count() > 0);
    runtimes.push(runtime);
    drop(runtimes);
    match register::register() {
        Ok(Taken::Ours) => Subscribed::Registered,
        Ok(Taken::Theirs) => Subscribed::AlreadyHandledByProcess,
        Err(error) => Subscribed::Failed(error),
    }
}

/// Every runtime that subscribed and may still live. Held to add and to copy, never while a runtime is called.
fn runtimes() -> MutexGuard<'static, Vec<Weak<dyn Sysrq>>> {
    static RUNTIMES: Mutex<Vec<Weak<dyn Sysrq>>> = Mutex::new(Vec::new());
    RUNTIMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls a runtime, if it still lives. A panic must cost neither the other runtimes their turn nor the process its
/// sysrq.
fn call<R>(
    runtime: &Weak<dyn Sysrq>,
    f: impl FnOnce(&dyn Sysrq) -> R,
) -> Option<thread::Result<R>> {
    let called = catch_unwind(AssertUnwindSafe(|| {
        runtime.upgrade().map(|runtime| f(&*runtime))
    }));
    called.transpose()
}

#[cfg(test)]
mod tests;
