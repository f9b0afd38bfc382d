//! Who has which signal: takes those that nobody else has, once per process.
//!
//! Not what they mean. Called by [`subscribe`](super::subscribe), on the thread that builds a runtime, with one lock
//! held around all of it: two builders at once must not both take a signal. "polity-signal" does not need that lock.
//! Invariant: a signal is taken when everything is there that answers it, the thread and its descriptors, since
//! signal-hook cannot give it back. SIGQUIT and the pair of SIGTSTP and SIGCONT are independent of each other.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::thread;

use signal_hook::consts::{SIGCONT, SIGQUIT, SIGTSTP};
use signal_hook::{flag, low_level};

use super::serve::{self, Again};
use crate::report::{self, Report};
use crate::sys::signal::suspend::{self, ThreadId};
use crate::sys::signal::{self, Disposition};

/// Whose SIGQUIT is.
#[derive(Clone, Copy)]
pub(super) enum Taken {
    Ours,
    Theirs,
}

/// Takes what is not taken yet and can be, and says whose SIGQUIT is. The rest says itself what it has to say.
///
/// # Errors
///
/// There was no descriptor or no thread for SIGQUIT.
pub(super) fn register() -> io::Result<Taken> {
    static LINE: Mutex<Option<Line>> = Mutex::new(None);
    let mut line = LINE.lock().unwrap_or_else(PoisonError::into_inner);
    let sysrq = take_sysrq(&mut line);
    if let Err(error) = take_suspend(&mut line) {
        report::send(Report::Warn(format!(
            "SIGTSTP will stop the process without a bypass: {error}"
        )));
    }
    sysrq
}

/// What the handlers leave for "polity-signal". Each stores one bit, and rings then.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) quit: Arc<AtomicBool>,
    /// SIGTSTP. Whether the stop is still due is for the kernel to say: then the signal is pending.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) go_on: Arc<AtomicBool>,
    /// What comes after a SIGQUIT that had nothing to eject. Empty: SIGQUIT is not ours.
    pub(super) after_nothing: OnceLock<Again>,
    /// What SIGTSTP did without us. Empty: it is not ours.
    pub(super) way_to_stop: OnceLock<Disposition>,
}

/// The way from a handler to "polity-signal". It stays for as long as the process does, in use or not.
struct Line {
    inbox: Arc<Inbox>,
    bell: UnixStream,
    thread: ThreadId,
}

fn take_sysrq(line: &mut Option<Line>) -> io::Result<Taken> {
    static SAID: Once = Once::new();
    if line
        .as_ref()
        .is_some_and(|line| line.inbox.after_nothing.get().is_some())
    {
        return Ok(Taken::Ours);
    }
    // Between this question and the registration somebody else may register, and would be displaced. (Not if they
    // use signal-hook too, which calls both.) Nothing in POSIX closes that gap; registering early makes it small.
    let before = signal::disposition(SIGQUIT)?;
    // Nothing else blocks SIGQUIT: somebody is waiting for it, or is going to. Ignored is taken too: shells start
    // `server &` in a script like that, and nobody chose it.
    if let Some(theirs) = theirs(before, &[(SIGQUIT, "it")])? {
        SAID.call_once(|| leave_alone("SIGQUIT is left alone, sysrq is off", &theirs));
        return Ok(Taken::Theirs);
    }
    let line = Line::open(line)?;
    let bell = line.bell.try_clone()?;
    // Where SIGQUIT was ignored, and in process 1, it would do nothing without us: there two of them do not kill.
    let kills = before == Disposition::Default && process::id() != 1;
    let after_nothing = if kills { Again::Quits } else { Again::Asks };
    connect(SIGQUIT, &line.inbox.quit, bell)?;
    let _ = line.inbox.after_nothing.set(after_nothing);
    line.ring();
    Ok(Taken::Ours)
}

fn take_suspend(line: &mut Option<Line>) -> io::Result<()> {
    static SAID: Once = Once::new();
    if line
        .as_ref()
        .is_some_and(|line| line.inbox.way_to_stop.get().is_some())
    {
        return Ok(());
    }
    let before = signal::disposition(SIGTSTP)?;
    // A handler for SIGCONT does not matter, signal-hook calls it too. A SIGCONT that is blocked does: it would be
    // pending when the process goes on, and the bypass would last.
    if let Some(theirs) = theirs(before, &[(SIGTSTP, "it"), (SIGCONT, "SIGCONT")])? {
        SAID.call_once(|| {
            leave_alone(
                "SIGTSTP is left alone and does not bypass the policies",
                &theirs,
            );
        });
        return Ok(());
    }
    let line = Line::open(line)?;
    let bells = (line.bell.try_clone()?, line.bell.try_clone()?);
    // Before the first SIGTSTP: without a SIGCONT its bypass would have no end.
    connect(SIGCONT, &line.inbox.go_on, bells.0)?;
    // First of all actions of SIGTSTP: when the bit is found, the signal must be pending, or else it was taken back.
    suspend::forward(SIGTSTP, line.thread)?;
    let _ = line.inbox.way_to_stop.set(before);
    connect(SIGTSTP, &line.inbox.stop, bells.1)?;
    // For one that came between these lines. If none did, none is pending.
    // Ordering: SeqCst, as in signal-hook's handler.
    line.inbox.stop.store(true, Ordering::SeqCst);
    line.ring();
    Ok(())
}

/// Why a signal with this disposition, or one of those that the calling thread must let in, is not ours to take.
fn theirs(before: Disposition, open: &[(i32, &str)]) -> io::Result<Option<String>> {
    if before == Disposition::Handled {
        return Ok(Some("this process has a handler for it".to_owned()));
    }
    for &(signal, name) in open {
        if signal::is_blocked_here(signal)? {
            return Ok(Some(format!(
                "the thread that builds the runtime blocks {name}"
            )));
        }
    }
    Ok(None)
}

fn leave_alone(what: &str, why: &str) {
    report::send(Report::Warn(format!(
        "{what}: {why} (POLITY_SIGNALS=off silences this)"
    )));
}

/// From now on, `signal` stores the bit, and then rings.
fn connect(signal: i32, bit: &Arc<AtomicBool>, bell: UnixStream) -> io::Result<()> {
    flag::register(signal, Arc::clone(bit))?;
    low_level::pipe::register(signal, bell)?;
    Ok(())
}

impl Line {
    /// The line of this process, which the first caller opens.
    fn open(line: &mut Option<Line>) -> io::Result<&Line> {
        let opened = match line.take() {
            Some(line) => line,
            None => Line::start()?,
        };
        Ok(line.insert(opened))
    }

    fn start() -> io::Result<Line> {
        // Beforehand, so that no thread has to be created when there is something to say.
        report::start();
        let (reader, bell) = UnixStream::pair()?;
        let inbox = Arc::new(Inbox::default());
        let (started, start) = sync_channel(1);
        thread::Builder::new()
            .name("polity-signal".to_owned())
            .spawn({
                let inbox = Arc::clone(&inbox);
                move || {
                    // A SIGTSTP must be held back here before the first one is forwarded.
                    let blocked = signal::block_all_but(SIGQUIT);
                    let is_blocked = blocked.is_ok();
                    let _ = started.send(blocked.map(|()| ThreadId::current()));
                    if is_blocked {
                        serve::serve(&reader, &inbox);
                    }
                }
            })?;
        let thread = start
            .recv()
            .map_err(|_| io::Error::other("polity-signal did not start"))??;
        Ok(Line {
            inbox,
            bell,
            thread,
        })
    }

    /// For the bits that were stored before there was a bell. It cannot block, the stream is all but empty.
    fn ring(&self) {
        let _ = (&self.bell).write(b"X");
    }
}
