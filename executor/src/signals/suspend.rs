//! SIGTSTP and SIGCONT: the policies are bypassed, the process stops, and when it goes on so do they.
//!
//! Not the bypass itself: that is what a runtime does in [`Sysrq::enter_bypass`]. Called on "polity-signal".
//! Invariant: a runtime leaves as often as it entered, whatever signals come and whichever runtimes were built or
//! dropped in between. The bypass is entered before the process stops, and left after it goes on.
//! Whether the process stops is the kernel's decision: it gets the SIGTSTP that its handler has held up. Not as
//! process 1, not in an orphaned process group, not if it was ignored: there the bypass lasts until SIGCONT. The only
//! way to tell is that the SIGCONT does not come which every stopped process has got when it goes on.
//! What remains: a SIGCONT that is sent after the kernel has handed a SIGTSTP to its handler, and before the handler's
//! system call, counts as sent before it, so that the process stops. Those are some microseconds, if the thread is
//! not preempted there.

use std::io;
use std::process;
use std::sync::Weak;

use signal_hook::consts::SIGTSTP;

use super::register::Inbox;
use super::serve::Clock;
use super::{Sysrq, call, runtimes};
use crate::report::{self, Report};
use crate::sys::signal::Disposition;
use crate::sys::signal::suspend;

/// | state    | a SIGTSTP                          | a SIGCONT               | a second passes |
/// |----------|------------------------------------|-------------------------|-----------------|
/// | No       | enters, stops: Stopping            | is told to the runtimes | -               |
/// | Stopping | stops: Stopping                    | leaves: No              | explains: InVain |
/// | InVain   | stops: InVain. It may, by now.     | leaves: No              | -               |
///
/// A process that has stopped is Stopping until it goes on, and finds the SIGCONT then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// We have not entered the bypass.
    #[default]
    No,
    /// We have, and the stop was left to the kernel.
    Stopping,
    /// There was no stop, and that has been said.
    InVain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A SIGTSTP that no SIGCONT has taken back.
    Tstp,
    /// A SIGCONT, whoever stopped the process, if it was stopped at all.
    Cont,
    /// A second without either.
    Second,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    EnterAndStop,
    Stop,
    Tell,
    TellAndLeave,
    Explain,
    Nothing,
}

impl State {
    pub(super) fn on(self, event: Event) -> (State, Action) {
        match (self, event) {
            (State::No, Event::Tstp) => (State::Stopping, Action::EnterAndStop),
            // Already in: one SIGCONT must end it.
            (state, Event::Tstp) => (state, Action::Stop),
            // It follows a SIGSTOP too, which nobody sees.
            (State::No, Event::Cont) => (State::No, Action::Tell),
            (_, Event::Cont) => (State::No, Action::TellAndLeave),
            (State::Stopping, Event::Second) => (State::InVain, Action::Explain),
            (state, Event::Second) => (state, Action::Nothing),
        }
    }
}

/// The bypass that SIGTSTP has entered, if it has.
#[derive(Default)]
pub(super) struct Suspend {
    state: State,
    /// Who has entered. Others may have been built since, and must not leave.
    entered: Vec<Weak<dyn Sysrq>>,
}

impl Suspend {
    /// Whether the event that a second passes is wanted.
    pub(super) fn clock(&self) -> Clock {
        match self.state {
            State::Stopping => Clock::Second,
            State::No | State::InVain => Clock::Off,
        }
    }

    pub(super) fn answer(&mut self, event: Event, inbox: &Inbox) -> io::Result<()> {
        let way = inbox.way_to_stop.get().copied();
        let way = way.unwrap_or(Disposition::Default);
        let action;
        (self.state, action) = self.state.on(event);
        match action {
            Action::EnterAndStop => {
                self.enter();
                suspend::let_in_as(way, SIGTSTP)?;
            }
            Action::Stop => suspend::let_in_as(way, SIGTSTP)?,
            Action::Tell => tell(),
            Action::TellAndLeave => {
                // First, so that the policies do not come back to a clock that has jumped.
                tell();
                self.leave();
            }
            Action::Explain => self.explain(way),
            Action::Nothing => {}
        }
        Ok(())
    }

    fn enter(&mut self) {
        let runtimes = runtimes().clone();
        let enter = |runtime: &Weak<dyn Sysrq>| {
            let entered = call(runtime, |it| it.enter_bypass());
            matches!(entered, Some(Ok(())))
        };
        self.entered = runtimes.into_iter().filter(enter).collect();
    }

    fn leave(&mut self) {
        for runtime in self.entered.drain(..) {
            call(&runtime, |it| it.leave_bypass());
        }
    }

    /// For a person who has pressed Ctrl-Z, or sent the signal, and got no prompt.
    fn explain(&self, way: Disposition) {
        if self.entered.iter().all(|gone| gone.strong_count() == 0) {
            return;
        }
        let why = why_not(way, process::id());
        report::send(Report::Stderr(format!(
            "polity: SIGTSTP: not stopped, {why}; policies are bypassed until SIGCONT"
        )));
    }
}

/// Why a SIGTSTP does not stop a process.
pub(super) fn why_not(way: Disposition, process: u32) -> &'static str {
    match (way, process) {
        (Disposition::Ignored, _) => "it was ignored when the runtime was built",
        (_, 1) => "this is process 1",
        _ => "no shell could continue this process (its group is orphaned)",
    }
}

/// Tells every runtime that the process goes on.
fn tell() {
    for runtime in runtimes().clone() {
        call(&runtime, |it| it.continued());
    }
}
