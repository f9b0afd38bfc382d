use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{self, Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use signal_hook::consts::{SIGCONT, SIGQUIT, SIGTSTP};
use signal_hook::low_level::pipe;

use super::serve::{Again, Clock, Woken, answer, wait};
use super::*;
use crate::report;

mod suspend;

// What a process does on a signal is tried on processes of its own: this binary again, with `PART` saying which
// part to play in `the_child_of_the_other_tests`. Parent and child wait for each other's lines.

const PART: &str = "POLITY_SIGNALS_TEST_PART";

/// Longer than any test takes. A child that says nothing for so long is killed, and its test fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// A runtime with policies to throw out, one per SIGQUIT, from the back.
struct Fake {
    name: &'static str,
    policies: Mutex<Vec<&'static str>>,
    /// The call that waits until the parent says "go".
    held: Option<&'static str>,
}

static GO: Barrier = Barrier::new(2);

impl Fake {
    fn hold_in(&self, call: &'static str) {
        if self.held == Some(call) {
            GO.wait();
        }
    }
}

impl Sysrq for Fake {
    fn sysrq(&self) -> Option<String> {
        let policy = self.policies.lock().unwrap().pop();
        say(&format!("asked for {policy:?}"));
        assert_ne!(policy, Some("panics"));
        if policy.is_some() {
            self.hold_in("sysrq");
        }
        policy.map(|policy| format!("policy {policy:?} ejected (generation 1)"))
    }

    // Who calls it is seen in the tests of whole runtimes.
    fn print_dump(&self) {}

    fn enter_bypass(&self) {
        say(&format!("{} enters", self.name));
        self.hold_in("enter_bypass");
    }

    fn leave_bypass(&self) {
        say(&format!("{} leaves", self.name));
    }

    fn continued(&self) {
        say(&format!("{} goes on", self.name));
    }
}

/// Subscribes a runtime with one policy, says what came of it, and returns it to be kept alive.
fn runtime(policy: &'static str) -> Arc<dyn Sysrq> {
    held_runtime(policy, None)
}

fn held_runtime(name: &'static str, held: Option<&'static str>) -> Arc<dyn Sysrq> {
    let policies = Mutex::new(vec![name]);
    let runtime: Arc<dyn Sysrq> = Arc::new(Fake {
        name,
        policies,
        held,
    });
    say(&format!("{:?}", subscribe(Arc::downgrade(&runtime))));
    runtime
}

/// Tells the parent something, on a line of its own (libtest does not end its own).
fn say(line: &str) {
    let mut out = io::stdout().lock();
    write!(out, "\nchild: {line}\n").unwrap();
    out.flush().unwrap();
}

/// Says so whenever the signal has been handled, by a handler of the application: if it was registered after ours,
/// then ours has run before it.
fn tell_of(signal: i32, line: &'static str) {
    let (mut reader, writer) = UnixStream::pair().unwrap();
    pipe::register(signal, writer).unwrap();
    thread::spawn(move || {
        while reader.read_exact(&mut [0]).is_ok() {
            say(line);
        }
    });
}

#[test]
fn the_child_of_the_other_tests() {
    let Ok(part) = env::var(PART) else { return };
    let lines = report::tests::Lines::default();
    tracing::subscriber::set_global_default(lines.clone()).unwrap();
    match part.as_str() {
        "handles SIGQUIT" => tell_of(SIGQUIT, "saw SIGQUIT"),
        "handles SIGTSTP" => tell_of(SIGTSTP, "saw SIGTSTP"),
        "handles SIGCONT" => tell_of(SIGCONT, "saw SIGCONT"),
        _ => {}
    }
    let mut alive = match part.as_str() {
        "three" => vec![runtime("a"), runtime("panics"), runtime("b")],
        "late" => {
            drop(runtime("a"));
            vec![runtime("b")]
        }
        "held in sysrq" => vec![held_runtime("a", Some("sysrq"))],
        "held in enter_bypass" => vec![held_runtime("a", Some("enter_bypass"))],
        _ => vec![runtime("a")],
    };
    if part.starts_with("handles") || part == "blocks" {
        alive.push(runtime("b"));
        report::flush(DEADLINE);
        lines.take().iter().for_each(|line| say(line));
    }
    if part == "tells" || part == "held in sysrq" {
        tell_of(SIGTSTP, "saw SIGTSTP");
        tell_of(SIGQUIT, "saw SIGQUIT");
    }
    say("ready");
    // The parent closes stdin when it has seen enough, or is gone.
    for line in io::stdin().lines() {
        match line.unwrap().as_str() {
            "go" => drop(GO.wait()),
            "build" => alive.push(runtime("b")),
            other => panic!("{other}"),
        }
    }
    report::flush(DEADLINE);
    process::exit(0);
}

/// Where the child stands among the processes of this terminal.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Group {
    /// Wherever this process is.
    Ours,
    /// As a shell with job control does for each command: it can be stopped.
    Own,
    /// In a session of its own: nobody there could continue it.
    Orphaned,
}

struct Process {
    child: Child,
    said: BufReader<ChildStdout>,
    /// Dropped when the test is over.
    _deadline: Sender<()>,
}

impl Process {
    /// Starts the child in `part`, with signals as this option of `env` sets them up, and waits until it is ready.
    /// Returns what it said before.
    fn start(part: &str, signals: &str, stderr: Stdio) -> (Process, Vec<String>) {
        Process::start_in(Group::Ours, part, signals, stderr)
    }

    fn start_in(group: Group, part: &str, signals: &str, stderr: Stdio) -> (Process, Vec<String>) {
        let (_, module) = module_path!().split_once("::").unwrap();
        let setsid = match group {
            Group::Orphaned => "setsid",
            Group::Own | Group::Ours => "",
        };
        let script =
            format!(r#"ulimit -c 0; exec {setsid} env --default-signal=QUIT,TSTP,CONT env "$@""#);
        let mut command = Command::new("sh");
        if group == Group::Own {
            command.process_group(0);
        }
        let mut child = command
            .args(["-c", &script, "sh", signals])
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
        let mut process = Process {
            _deadline: kill_after_the_deadline(child.id()),
            child,
            said,
        };
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
    fn signal(&self, name: &str) {
        kill(name, self.child.id());
    }

    fn sigquit(&self) {
        self.signal("QUIT");
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

/// A stopped child would stay for ever.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn kill(signal: &str, process: u32) {
    let id = process.to_string();
    let status = Command::new("sh")
        .args(["-c", r#"kill -"$1" "$2""#, "sh", signal, &id])
        .status();
    assert!(status.unwrap().success());
}

/// Unless what it returns is dropped before.
fn kill_after_the_deadline(process: u32) -> Sender<()> {
    let (sender, over) = channel();
    thread::spawn(move || {
        if over.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout) {
            kill("KILL", process);
        }
    });
    sender
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

/// Checks that a signal is left to the application, and that this is said once. Returns the child.
fn check_left_alone(part: &str, signals: &str, subscribed: &str, warning: &str) -> Process {
    let (process, said) = Process::start_in(Group::Own, part, signals, Stdio::null());
    let warning = format!("WARN polity: message={warning} (POLITY_SIGNALS=off silences this)");
    assert_eq!(said, [subscribed, subscribed, &warning]);
    process
}

#[test]
fn a_sigquit_that_the_application_handles_is_left_alone_and_that_is_said_once() {
    check_left_alone(
        "handles SIGQUIT",
        DEFAULT,
        "AlreadyHandledByProcess",
        "SIGQUIT is left alone, sysrq is off: this process has a handler for it",
    );
}

#[test]
fn a_sigquit_that_the_application_blocks_to_wait_for_it_is_left_alone_and_that_is_said_once() {
    check_left_alone(
        "blocks",
        "--block-signal=QUIT",
        "AlreadyHandledByProcess",
        "SIGQUIT is left alone, sysrq is off: the thread that builds the runtime blocks it",
    );
}

#[test]
fn where_the_default_action_was_not_to_quit_the_answer_does_not_promise_it() {
    assert_eq!(answer(&[], Again::Asks), (Again::Asks, NOTHING.to_owned()));
    assert_eq!(answer(&[], Again::Quits).0, Again::Quits);
    assert_eq!(answer(&["x".to_owned()], Again::Quits).0, Again::Asks);
}

#[test]
fn a_wait_ends_with_the_bell_after_a_second_or_without_anybody_to_ring() {
    let (reader, mut writer) = UnixStream::pair().unwrap();
    assert_eq!(wait(&reader, Clock::Second).unwrap(), Woken::Second);
    writer.write_all(b"XX").unwrap();
    assert_eq!(wait(&reader, Clock::Off).unwrap(), Woken::Bell);
    drop(writer);
    wait(&reader, Clock::Off).unwrap_err();
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
