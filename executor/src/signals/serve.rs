//! The thread "polity-signal": waits for the bell, looks which signals came, and answers them in order of weight.
//!
//! Not the answers to SIGTSTP and SIGCONT: see [`suspend`](super::suspend).
//! The thread runs from the first registration to the end of the process. It holds no lock while it calls a runtime.
//! Invariant: of the signals that came together, SIGQUIT is answered first, and a SIGCONT before a SIGTSTP that is
//! still due (the kernel takes a SIGTSTP back that a SIGCONT follows).
//! Rejected: one atomic word in which each handler overwrites the last one's word. Handlers run on different threads
//! and not in the order in which the kernel took the signals; the queue of pending signals keeps it.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use signal_hook::consts::{SIGQUIT, SIGTSTP};
use signal_hook::low_level;

use super::register::Inbox;
use super::suspend::{Event, Suspend};
use super::{Sysrq, call, runtimes};
use crate::report::{self, Report};
use crate::sys::signal;

/// What the next SIGQUIT does.
///
/// | state | a SIGQUIT                                             | a second passes, or the process was to stop |
/// |-------|-------------------------------------------------------|------|
/// | Asks  | ejects: Asks; there was nothing to eject: Quits (or Asks, where the default action is not to quit) | - |
/// | Quits | takes the default action, also if a policy was loaded in between: that is what was announced | Asks |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    Asks,
    Quits,
}

pub(super) fn serve(bell: &UnixStream, inbox: &Inbox) {
    let mut again = Again::Asks;
    let mut suspend = Suspend::default();
    let error = loop {
        let clock = match again {
            Again::Quits => Clock::Second,
            Again::Asks => suspend.clock(),
        };
        let answered = wait(bell, clock).and_then(|woken| match woken {
            Woken::Bell => answer_all(inbox, &mut again, &mut suspend),
            Woken::Second => {
                again = Again::Asks;
                suspend.answer(Event::Second, inbox)
            }
        });
        if let Err(error) = answered {
            break error;
        }
    };
    report::send(Report::Warn(format!(
        "signals do nothing from now on: {error}"
    )));
}

/// Answers what came since the last time.
fn answer_all(inbox: &Inbox, again: &mut Again, suspend: &mut Suspend) -> io::Result<()> {
    // First the stop: a SIGCONT that was handled before it is then seen too, and not taken for its end.
    let stop = take(&inbox.stop);
    let go_on = take(&inbox.go_on);
    // Again and again: one that comes while another is answered is not behind the others either.
    while take(&inbox.quit) {
        if *again == Again::Quits {
            quit();
        }
        // First eject everywhere, then print.
        let ejected = eject_all();
        let after_nothing = inbox.after_nothing.get().copied().unwrap_or(Again::Asks);
        let line;
        (*again, line) = answer(&ejected, after_nothing);
        report::send(Report::Stderr(line));
        if !ejected.is_empty() {
            print_dumps();
        }
    }
    if go_on {
        suspend.answer(Event::Cont, inbox)?;
    }
    // If it is not pending any more, a SIGCONT took it back. Or an earlier stop has served both.
    if stop && signal::is_pending_here(SIGTSTP)? {
        suspend.answer(Event::Tstp, inbox)?;
        *again = Again::Asks;
    }
    Ok(())
}

fn take(bit: &AtomicBool) -> bool {
    // Ordering: SeqCst, with the store in signal-hook's handler and the other bits: a SIGCONT handled before a
    // SIGTSTP must be seen if that is.
    bit.swap(false, Ordering::SeqCst)
}

/// Whether a wait has an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    Off,
    Second,
}

/// What ends a wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Some signals, once or several times: the kernel does not count them either. A bell without a bit is possible.
    Bell,
    /// A second without any.
    Second,
}

pub(super) fn wait(mut bell: &UnixStream, clock: Clock) -> io::Result<Woken> {
    bell.set_read_timeout(match clock {
        Clock::Off => None,
        Clock::Second => Some(Duration::from_secs(1)),
    })?;
    loop {
        match bell.read(&mut [0; 64]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(Woken::Bell),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => return Ok(Woken::Second),
                // By SIGQUIT itself, whose byte is there now; by a stop or a debugger, which makes the second longer.
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            },
        }
    }
}

/// What to print after a SIGQUIT, and what the next one does.
pub(super) fn answer(ejected: &[String], after_nothing: Again) -> (Again, String) {
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

/// Calls every living runtime, and returns what they did.
fn eject_all() -> Vec<String> {
    let eject = |runtime: Weak<dyn Sysrq>| {
        call(&runtime, |it| it.sysrq())?.unwrap_or_else(|_| {
            Some("a runtime panicked over it; its policy may still be loaded".to_owned())
        })
    };
    let runtimes = runtimes().clone();
    runtimes.into_iter().filter_map(eject).collect()
}

fn print_dumps() {
    let runtimes = runtimes().clone();
    for runtime in runtimes {
        let _ = call(&runtime, |it| it.print_dump());
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
