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
