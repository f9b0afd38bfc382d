//! SIGQUIT is sysrq: the runtimes of this process throw out their policies, whatever the workers are doing.
//!
//! Not the ejection itself: that is what a runtime does in [`Sysrq::sysrq`]. Not a signal API for applications.
//! [`subscribe`] is called when a runtime is built. The handler, on whichever thread the signal hits, writes one
//! byte (the bit) to one descriptor and is signal-hook's. The thread "polity-signal" waits for that byte and calls
//! the runtimes with no lock held. It is started once per process and never joined: without runtimes it waits.
//! Invariant: every policy is ejected before anything is printed, and nothing on the way waits for a worker, a
//! policy, stderr or a subscriber of `tracing`. A handler that the application installed is never displaced.
//! Rejected: undoing the registration with the last runtime (signal-hook cannot bring the default action back, so a
//! byte that nobody reads would be all that is left); `signal_hook::iterator`, whose wait has no end, where ours must
//! also tell when a second has passed. That wait is the only clock here.
//!
//! The signal thread blocks all other signals: a handler of the application that hangs, perhaps on a lock that a
//! stuck worker holds, must not hang on this thread. SIGQUIT itself is open there, so that it is delivered even if
//! every other thread comes to block it. A child made by `fork` without `exec` shares the descriptor: its SIGQUITs
//! reach the parent. (`exec` sets the default action again.)

use std::env;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::{Mutex, MutexGuard, Once, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use signal_hook::consts::SIGQUIT;
use signal_hook::low_level;

use crate::report::{self, Report};
use crate::sys::signal::{self, Disposition};

/// Whether the runtime listens to signals.
///
/// With `On`, `kill -QUIT <pid>` (or `Ctrl-\` at a terminal) ejects the policies of all such runtimes of the process
/// and says so on stderr; the tasks go on in built-in order. Without a policy nothing is changed, and a second SIGQUIT
/// within a second quits with a core dump, as one would without us (so not where SIGQUIT was ignored at the start, as
/// a script's shell does for `server &`, nor in process 1: there it only ejects).
///
/// When not to use it: in a process where SIGQUIT already means something. A handler that was there first, or a
/// SIGQUIT that is blocked to be waited for, is left alone and a warning says so. Once taken, SIGQUIT stays ours
/// until the process ends. `POLITY_SIGNALS=off` in the environment turns it off without a rebuild.
///
/// ```
/// use polity::Signals;
/// assert_eq!(Signals::default(), Signals::On);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signals {
    /// SIGQUIT ejects the policies. One registration serves all runtimes of the process.
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

/// A runtime, as SIGQUIT sees it.
pub(crate) trait Sysrq: Send + Sync {
    /// Claims and publishes the ejection of the policy, with kind `Sysrq`, and cancels a pending load. `Some` says
    /// who was ejected (`policy "vtime" ejected (generation 4)`); `None`: there was no policy.
    ///
    /// Called on "polity-signal". Must not block: the other runtimes of the process wait for it. The thread holds a
    /// strong reference meanwhile, so that the implementor may be dropped here: that must not block either.
    fn sysrq(&self) -> Option<String>;
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
    /// again, and then serves this runtime too.
    Failed(io::Error),
}

/// Lets SIGQUIT reach this runtime for as long as it lives. The first call of the process registers.
///
/// Called on the thread that builds the runtime, before its workers start; the thread should not be pinned, since
/// the signal thread and the reporter inherit its affinity mask.
pub(crate) fn subscribe(runtime: Weak<dyn Sysrq>) -> Subscribed {
    let mut runtimes = runtimes();
    runtimes.retain(|runtime| runtime.strong_count() > 0);
    runtimes.push(runtime);
    drop(runtimes);
    match register_once() {
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

/// Whose SIGQUIT is.
#[derive(Clone, Copy)]
enum Taken {
    Ours,
    Theirs,
}

/// Takes SIGQUIT unless that has happened. Two builders at once must not both do it, hence one lock around all of it;
/// the signal thread does not need it.
fn register_once() -> io::Result<Taken> {
    static REGISTERED: Mutex<bool> = Mutex::new(false);
    static SAID: Once = Once::new();
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    if *registered {
        return Ok(Taken::Ours);
    }
    // Between this question and the registration somebody else may register, and would be displaced. (Not if they
    // use signal-hook too, which calls both.) Nothing in POSIX closes that gap; registering early makes it small.
    let before = signal::disposition(SIGQUIT)?;
    let theirs = match before {
        Disposition::Handled => Some("this process has a handler for it"),
        // Nothing else blocks SIGQUIT: somebody is waiting for it, or is going to.
        _ if signal::is_blocked_here(SIGQUIT)? => {
            Some("the thread that builds the runtime blocks it")
        }
        // Ignored is taken too: shells start `server &` in a script like that, and nobody chose it.
        Disposition::Default | Disposition::Ignored => None,
    };
    if let Some(theirs) = theirs {
        SAID.call_once(|| {
            report::send(Report::Warn(format!(
                "SIGQUIT is left alone, sysrq is off: {theirs} (POLITY_SIGNALS=off silences this)"
            )));
        });
        return Ok(Taken::Theirs);
    }
    // Where SIGQUIT was ignored, and in process 1, it would do nothing without us: there two of them do not kill.
    let kills = before == Disposition::Default && process::id() != 1;
    register(if kills { Again::Quits } else { Again::Asks })?;
    *registered = true;
    Ok(Taken::Ours)
}

/// Starts the thread, then takes the signal: the other way round, a failure would leave a SIGQUIT that does nothing.
fn register(after_nothing: Again) -> io::Result<()> {
    // Beforehand, so that no thread has to be created when there is something to say.
    report::start();
    let (reader, writer) = UnixStream::pair()?;
    thread::Builder::new()
        .name("polity-signal".to_owned())
        .spawn(move || serve(reader, after_nothing))?;
    // If this fails, `writer` is dropped, and the thread reads the end of the stream and ends.
    low_level::pipe::register(SIGQUIT, writer)?;
    Ok(())
}

/// What the next SIGQUIT does.
///
/// | state | a SIGQUIT                                             | a second passes |
/// |-------|-------------------------------------------------------|-----------------|
/// | Asks  | ejects: Asks; there was nothing to eject: Quits (or Asks, where the default action is not to quit) | - |
/// | Quits | takes the default action, also if a policy was loaded in between: that is what was announced | Asks |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    Asks,
    Quits,
}

/// The thread "polity-signal".
fn serve(pipe: UnixStream, after_nothing: Again) {
    if let Err(error) = signal::block_all_but(SIGQUIT) {
        report::send(Report::Warn(format!(
            "other signals may run their handlers on polity-signal: {error}"
        )));
    }
    let mut again = Again::Asks;
    loop {
        match wait(&pipe, again) {
            Ok(Event::Quit) if again == Again::Quits => quit(),
            Ok(Event::Quit) => {
                // First eject everywhere, then print.
                let ejected = eject_all();
                let line;
                (again, line) = answer(&ejected, after_nothing);
                report::send(Report::Stderr(line));
            }
            Ok(Event::Second) => again = Again::Asks,
            Ok(Event::Unregistered) => return,
            Err(error) => {
                report::send(Report::Warn(format!("sysrq is off from now on: {error}")));
                return;
            }
        }
    }
}

/// What ends a wait.
enum Event {
    /// SIGQUIT, once or several times: the kernel does not count them either.
    Quit,
    /// A second without one, in [`Again::Quits`].
    Second,
    /// The registration failed after the thread had been started.
    Unregistered,
}

fn wait(mut pipe: &UnixStream, again: Again) -> io::Result<Event> {
    pipe.set_read_timeout(match again {
        Again::Asks => None,
        Again::Quits => Some(Duration::from_secs(1)),
    })?;
    loop {
        match pipe.read(&mut [0; 64]) {
            Ok(0) => return Ok(Event::Unregistered),
            Ok(_) => return Ok(Event::Quit),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Ok(Event::Second),
                // By SIGQUIT itself, whose byte is there now; by a debugger, which makes the second longer.
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

/// Calls every living runtime, and returns what they did.
fn eject_all() -> Vec<String> {
    let runtimes = runtimes().clone();
    let eject = |runtime: Weak<dyn Sysrq>| {
        // A panic must cost neither the other runtimes their turn nor the process its sysrq.
        catch_unwind(AssertUnwindSafe(|| runtime.upgrade()?.sysrq())).unwrap_or_else(|_| {
            Some("a runtime panicked over it; its policy may still be loaded".to_owned())
        })
    };
    runtimes.into_iter().filter_map(eject).collect()
}

/// What to print after a SIGQUIT, and what the next one does.
fn answer(ejected: &[String], after_nothing: Again) -> (Again, String) {
    if !ejected.is_empty() {
        let lines: Vec<String> = ejected
            .iter()
            .map(|line| format!("polity: SIGQUIT: {line}"))
            .collect();
        return (Again::Asks, lines.join("\n"));
    }
    let nothing = "polity: SIGQUIT: no policy is loaded, nothing changed";
    match after_nothing {
        Again::Asks => (Again::Asks, nothing.to_owned()),
        Again::Quits => (
            Again::Quits,
            format!("{nothing}; again within a second quits"),
        ),
    }
}

/// Ends the process as SIGQUIT would have without us.
fn quit() -> ! {
    report::send(Report::Stderr("polity: SIGQUIT again: quitting".to_owned()));
    // Bounded: a full stderr must not keep a process alive that was told twice to go.
    report::flush(Duration::from_millis(200));
    // Raises SIGQUIT with the default action restored; it only comes back if that is not possible.
    let _ = low_level::emulate_default_handler(SIGQUIT);
    process::abort()
}

#[cfg(test)]
mod tests;
