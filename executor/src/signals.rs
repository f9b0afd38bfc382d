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
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
    use std::sync::Arc;

    use super::*;

    // What a process does on SIGQUIT is tried on processes of its own: this binary again, with `PART` saying which
    // part to play in `the_child_of_the_other_tests`. Parent and child wait for each other's lines.

    const PART: &str = "POLITY_SIGNALS_TEST_PART";

    /// A runtime with policies to throw out, one per SIGQUIT, from the back.
    struct Fake(Mutex<Vec<&'static str>>);

    impl Sysrq for Fake {
        fn sysrq(&self) -> Option<String> {
            let policy = self.0.lock().unwrap().pop();
            say(&format!("asked for {policy:?}"));
            assert_ne!(policy, Some("panics"));
            policy.map(|policy| format!("policy {policy:?} ejected (generation 1)"))
        }
    }

    /// Subscribes a runtime with one policy, says what came of it, and returns it to be kept alive.
    fn runtime(policy: &'static str) -> Arc<dyn Sysrq> {
        let runtime: Arc<dyn Sysrq> = Arc::new(Fake(Mutex::new(vec![policy])));
        say(&format!("{:?}", subscribe(Arc::downgrade(&runtime))));
        runtime
    }

    /// Tells the parent something, on a line of its own (libtest does not end its own).
    fn say(line: &str) {
        let mut out = io::stdout().lock();
        write!(out, "\nchild: {line}\n").unwrap();
        out.flush().unwrap();
    }

    #[test]
    fn the_child_of_the_other_tests() {
        let Ok(part) = env::var(PART) else { return };
        let lines = report::tests::Lines::default();
        tracing::subscriber::set_global_default(lines.clone()).unwrap();
        if part == "handles" {
            signal_hook::flag::register(SIGQUIT, Arc::default()).unwrap();
        }
        let _alive = match part.as_str() {
            "three" => vec![runtime("a"), runtime("panics"), runtime("b")],
            "late" => {
                drop(runtime("a"));
                vec![runtime("b")]
            }
            _ => vec![runtime("a")],
        };
        if ["handles", "blocks"].contains(&part.as_str()) {
            runtime("b");
            report::flush(Duration::from_secs(60));
            lines.take().iter().for_each(|line| say(line));
        }
        say("ready");
        // The parent closes stdin when it has seen enough, or is gone.
        io::stdin().read_line(&mut String::new()).unwrap();
        report::flush(Duration::from_secs(60));
        process::exit(0);
    }

    struct Process {
        child: Child,
        said: BufReader<ChildStdout>,
    }

    impl Process {
        /// Starts the child in `part`, with SIGQUIT as `env` sets it up, and waits until it is ready. Returns what it
        /// said before.
        fn start(part: &str, sigquit: &str, stderr: Stdio) -> (Process, Vec<String>) {
            let (_, module) = module_path!().split_once("::").unwrap();
            let mut child = Command::new("sh")
                .args([
                    "-c",
                    r#"ulimit -c 0; exec env --default-signal=QUIT env "$@""#,
                    "sh",
                    sigquit,
                ])
                .arg(env::current_exe().unwrap())
                .arg(format!("{module}::the_child_of_the_other_tests"))
                .args(["--exact", "--nocapture"])
                .env(PART, part)
                .env_remove("POLITY_SIGNALS")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(stderr)
                .spawn()
                .unwrap();
            let said = BufReader::new(child.stdout.take().unwrap());
            let mut process = Process { child, said };
            let mut before = Vec::new();
            loop {
                match process
                    .next_said()
                    .expect("the child is ready before it ends")
                {
                    line if line == "ready" => return (process, before),
                    line => before.push(line),
                }
            }
        }

        /// To the process, not to a thread: the kernel chooses who takes it.
        fn sigquit(&self) {
            let id = self.child.id().to_string();
            let status = Command::new("sh")
                .args(["-c", r#"kill -QUIT "$1""#, "sh", &id])
                .status();
            assert!(status.unwrap().success());
        }

        fn next_said(&mut self) -> Option<String> {
            let mut lines = (&mut self.said).lines().map(Result::unwrap);
            lines.find_map(|line| line.strip_prefix("child: ").map(str::to_owned))
        }

        /// One SIGQUIT, which must reach a runtime that has this policy.
        fn asks_for(&mut self, policy: Option<&str>) {
            self.sigquit();
            assert_eq!(self.next_said(), Some(format!("asked for {policy:?}")));
        }

        /// Sends SIGQUITs, one for each time that the child says it was asked, until it ends.
        fn quits(mut self) -> ExitStatus {
            self.sigquit();
            while self.next_said().is_some() {
                self.sigquit();
            }
            self.child.wait().unwrap()
        }

        /// Lets the child end, and returns what it printed for people.
        fn printed(mut self) -> Vec<String> {
            drop(self.child.stdin.take());
            let lines = BufReader::new(self.child.stderr.take().unwrap()).lines();
            let lines = lines
                .map(Result::unwrap)
                .filter(|line| line.starts_with("polity: "));
            lines.collect()
        }
    }

    const DEFAULT: &str = "--default-signal=QUIT";
    const NOTHING: &str = "polity: SIGQUIT: no policy is loaded, nothing changed";

    /// One registration serves them all, and the panic of one is not the others' loss.
    #[test]
    fn sigquit_ejects_the_policies_of_all_runtimes_and_prints_which() {
        let (mut process, before) = Process::start("three", DEFAULT, Stdio::piped());
        assert_eq!(before, ["Registered"; 3]);
        process.sigquit();
        let asked = [(); 3].map(|()| process.next_said().unwrap());
        assert_eq!(
            asked,
            [
                r#"asked for Some("a")"#,
                r#"asked for Some("panics")"#,
                r#"asked for Some("b")"#
            ]
        );
        let lines = BufReader::new(process.child.stderr.as_mut().unwrap())
            .lines()
            .map(Result::unwrap);
        let printed: Vec<String> = lines
            .filter(|line| line.starts_with("polity: "))
            .take(3)
            .collect();
        assert_eq!(
            printed,
            [
                r#"polity: SIGQUIT: policy "a" ejected (generation 1)"#,
                "polity: SIGQUIT: a runtime panicked over it; its policy may still be loaded",
                r#"polity: SIGQUIT: policy "b" ejected (generation 1)"#,
            ]
        );
    }

    #[test]
    fn a_second_sigquit_quits_only_if_there_was_no_policy_at_the_first() {
        let (mut process, _) = Process::start("one", DEFAULT, Stdio::piped());
        process.asks_for(Some("a"));
        // At once after the ejection. It asks again, and does not quit.
        process.asks_for(None);
        let stderr = process.child.stderr.take().unwrap();
        assert_eq!(process.quits().signal(), Some(SIGQUIT));
        let printed: Vec<String> = BufReader::new(stderr).lines().map(Result::unwrap).collect();
        assert!(
            printed.contains(&format!("{NOTHING}; again within a second quits")),
            "{printed:?}"
        );
        assert_eq!(printed.last().unwrap(), "polity: SIGQUIT again: quitting");
    }

    #[test]
    fn sigquit_ejects_and_quits_while_nobody_reads_a_full_stderr() {
        let (_never_read, mut stderr) = io::pipe().unwrap();
        // The capacity of a pipe on Linux, unless somebody changes it: one more byte would block.
        stderr.write_all(&[b'x'; 65536]).unwrap();
        let (mut process, _) = Process::start("one", DEFAULT, stderr.into());
        process.asks_for(Some("a"));
        process.asks_for(None);
        assert_eq!(process.quits().signal(), Some(SIGQUIT));
    }

    /// As a script's shell starts `server &`.
    #[test]
    fn a_sigquit_that_was_ignored_is_taken_but_never_quits() {
        let (mut process, before) = Process::start("one", "--ignore-signal=QUIT", Stdio::piped());
        assert_eq!(before, ["Registered"]);
        process.asks_for(Some("a"));
        process.asks_for(None);
        process.asks_for(None);
        process.asks_for(None);
        assert_eq!(process.printed().get(1).map(String::as_str), Some(NOTHING));
    }

    #[test]
    fn a_runtime_that_is_gone_is_not_asked() {
        let (mut process, before) = Process::start("late", DEFAULT, Stdio::piped());
        assert_eq!(before, ["Registered"; 2]);
        process.asks_for(Some("b"));
    }

    /// Checks that SIGQUIT is left to the application, and that this is said once.
    fn check_left_alone(part: &str, sigquit: &str, why: &str) {
        let (_process, said) = Process::start(part, sigquit, Stdio::null());
        let warning = format!(
            "WARN polity: message=SIGQUIT is left alone, sysrq is off: {why} (POLITY_SIGNALS=off silences this)"
        );
        assert_eq!(
            said,
            [
                "AlreadyHandledByProcess",
                "AlreadyHandledByProcess",
                &warning
            ]
        );
    }

    #[test]
    fn a_sigquit_that_the_application_handles_is_left_alone_and_that_is_said_once() {
        check_left_alone("handles", DEFAULT, "this process has a handler for it");
    }

    #[test]
    fn a_sigquit_that_the_application_blocks_to_wait_for_it_is_left_alone_and_that_is_said_once() {
        check_left_alone(
            "blocks",
            "--block-signal=QUIT",
            "the thread that builds the runtime blocks it",
        );
    }

    #[test]
    fn where_the_default_action_was_not_to_quit_the_answer_does_not_promise_it() {
        assert_eq!(answer(&[], Again::Asks), (Again::Asks, NOTHING.to_owned()));
        assert_eq!(answer(&[], Again::Quits).0, Again::Quits);
        assert_eq!(answer(&["x".to_owned()], Again::Quits).0, Again::Asks);
    }

    #[test]
    fn the_offer_to_quit_ends_after_a_second() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        assert!(matches!(wait(&reader, Again::Quits), Ok(Event::Second)));
        writer.write_all(b"XX").unwrap();
        assert!(matches!(wait(&reader, Again::Asks), Ok(Event::Quit)));
        drop(writer);
        assert!(matches!(
            wait(&reader, Again::Asks),
            Ok(Event::Unregistered)
        ));
    }

    #[test]
    fn the_environment_can_turn_signals_off_but_not_on() {
        for off in ["0", "off"] {
            assert_eq!(Signals::On.resolve_with(off), Ok(Signals::Off));
        }
        for as_asked in ["", "1", "on"] {
            assert_eq!(Signals::On.resolve_with(as_asked), Ok(Signals::On));
            assert_eq!(Signals::Off.resolve_with(as_asked), Ok(Signals::Off));
        }
        let error = Signals::On.resolve_with("never").unwrap_err();
        assert!(error.starts_with("POLITY_SIGNALS=never: "), "{error}");
    }
}
