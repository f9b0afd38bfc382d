//! SIGQUIT throws the policy out, whatever the process does. Signals belong to the process, so each of these tests has
//! one: this program again, with `RUNTIMES` saying which runtimes it builds, and commands on its standard input.

use std::env;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{self, Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use polity::{
    Builder, Generation, Handle, Host, InitError, Pin, Policy, Runtime, Signals, TaskView,
    yield_now,
};
use polity_policies::Fifo;
use polity_tests::{DEADLINE, receive, wait_for, wait_until};

const RUNTIMES: &str = "POLITY_TESTS_RUNTIMES";

// ---- the child ----

/// Has every task in its custody for ever.
struct Hoarder;

impl Policy for Hoarder {
    fn name(&self) -> &str {
        "hoarder"
    }
    fn enqueue(&self, _host: &Host<'_>, _task: &TaskView<'_>) {}
}

/// Starts only when it is told to: never.
struct Hanging;

impl Policy for Hanging {
    fn name(&self) -> &str {
        "hanging"
    }
    fn init(&self, _host: &Host<'_>) -> Result<(), InitError> {
        say("init hangs");
        loop {
            thread::park();
        }
    }
}

/// Sits in `enqueue` for ever.
struct Stuck;

impl Policy for Stuck {
    fn name(&self) -> &str {
        "stuck"
    }
    fn enqueue(&self, _host: &Host<'_>, _task: &TaskView<'_>) {
        say("enqueue hangs");
        loop {
            thread::park();
        }
    }
}

/// Tells the parent something, on a line of its own (libtest does not end its own).
fn say(line: &str) {
    let mut out = io::stdout().lock();
    write!(out, "\nchild: {line}\n").unwrap();
    out.flush().unwrap();
}

/// Builds what `RUNTIMES` says, and does what it is told. Not a test: without `RUNTIMES` it does nothing.
#[test]
fn the_child_of_the_other_tests() {
    let Ok(list) = env::var(RUNTIMES) else { return };
    let build = |signals: &str| {
        let signals = match signals {
            "off" => Signals::Off,
            _ => Signals::On,
        };
        let builder = Builder::new().worker_threads(2).pin(Pin::Off);
        builder.signals(signals).build().unwrap()
    };
    let runtimes: Vec<Runtime> = list.split(' ').map(build).collect();
    let idle = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    say("ready");
    for line in io::stdin().lines() {
        let line = line.unwrap();
        let mut words = line.split(' ');
        let (command, index) = (words.next().unwrap(), words.next().unwrap());
        let runtime = &runtimes[index.parse::<usize>().unwrap()];
        let handle = runtime.handle().clone();
        match (command, words.next().unwrap_or_default()) {
            ("load", "fifo") => said_load(&handle, Fifo::new()),
            ("load", "hoarder") => said_load(&handle, Hoarder),
            ("load", "stuck") => said_load(&handle, Stuck),
            ("load", "hanging") => drop(thread::spawn(move || said_load(&handle, Hanging))),
            ("policy", _) => say(&format!("{:?}", runtime.policy().map(|policy| policy.name))),
            ("exit", number) => {
                let generation = Generation::new(number.parse().unwrap());
                let info = runtime.wait_exit(generation, DEADLINE);
                say(&format!("{:?}", info.map(|info| info.kind)));
            }
            ("run", _) => {
                let some: Vec<_> = (0..20).map(|_| runtime.spawn(yield_now())).collect();
                for task in some {
                    wait_for("a task", task).unwrap();
                }
                say("they ran");
            }
            ("spawn", _) => {
                let before = runtime.metrics().offered;
                tasks.push(runtime.spawn(yield_now()));
                wait_until("it is offered", || runtime.metrics().offered > before);
                say("spawned");
            }
            ("spawn_only", _) => tasks.push(runtime.spawn(yield_now())),
            ("join", _) => {
                for task in tasks.drain(..) {
                    wait_for("a task", task).unwrap();
                }
                say("they ended");
            }
            ("busy", _) => {
                let (begun, has_begun) = channel();
                for _ in 0..2 {
                    let (idle, begun) = (Arc::clone(&idle), begun.clone());
                    tasks.push(runtime.spawn(async move {
                        begun.send(()).unwrap();
                        while !idle.load(Ordering::Relaxed) {
                            std::hint::spin_loop();
                        }
                    }));
                }
                receive("the first long poll", &has_begun);
                receive("the second long poll", &has_begun);
                say("every worker is in a poll");
            }
            ("idle", _) => idle.store(true, Ordering::Relaxed),
            other => panic!("{other:?}"),
        }
    }
    // Not by returning: a policy that hangs would keep the runtime from being dropped.
    process::exit(0);
}

fn said_load(handle: &Handle, policy: impl Policy) {
    match handle.load(policy) {
        Ok(generation) => say(&format!("loaded {generation}")),
        Err(error) => say(&format!("not loaded: {error:?}")),
    }
}

// ---- the parent ----

struct Process {
    child: Child,
    commands: Option<ChildStdin>,
    said: Receiver<String>,
    stderr: Receiver<String>,
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    lines_that(from, |_| true)
}

/// The dump that follows an ejection is indented.
fn lines_but_dumps(from: impl Read + Send + 'static) -> Receiver<String> {
    lines_that(from, |line| !line.starts_with("  "))
}

fn lines_that(
    from: impl Read + Send + 'static,
    wanted: impl Fn(&str) -> bool + Send + 'static,
) -> Receiver<String> {
    let (line, lines) = channel();
    thread::spawn(move || {
        for text in BufReader::new(from).lines().map_while(Result::ok) {
            if wanted(&text) && line.send(text).is_err() {
                break;
            }
        }
    });
    lines
}

impl Process {
    /// Starts a child and waits until it is ready. SIGQUIT has its default action there, but leaves no core file.
    fn start(runtimes: &str) -> Process {
        Process::start_with(runtimes, "--default-signal=QUIT", &[])
    }

    fn start_with(runtimes: &str, sigquit: &str, variables: &[(&str, &str)]) -> Process {
        let mut child = Command::new("sh")
            .args(["-c", r#"ulimit -c 0; exec env "$@""#, "sh", sigquit])
            .arg(env::current_exe().unwrap())
            .args(["--exact", "the_child_of_the_other_tests", "--nocapture"])
            .env_remove("POLITY_SIGNALS")
            .env(RUNTIMES, runtimes)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let process = Process {
            commands: child.stdin.take(),
            said: lines(child.stdout.take().unwrap()),
            stderr: lines_but_dumps(child.stderr.take().unwrap()),
            child,
        };
        process.expect("ready");
        process
    }

    #[track_caller]
    fn next_said(&self) -> String {
        loop {
            let line = receive("the child to say something", &self.said);
            if let Some(said) = line.strip_prefix("child: ") {
                return said.to_owned();
            }
        }
    }

    #[track_caller]
    fn expect(&self, expected: &str) {
        assert_eq!(self.next_said(), expected);
    }

    fn send(&mut self, command: &str) {
        let commands = self.commands.as_mut().unwrap();
        writeln!(commands, "{command}").unwrap();
    }

    /// Sends a command and expects this answer.
    #[track_caller]
    fn tell(&mut self, command: &str, expected: &str) {
        self.send(command);
        assert_eq!(self.next_said(), expected, "{command}");
    }

    fn quit(&self) {
        self.quit_times(1);
    }

    /// By the `kill` of a shell, so that this file needs no `unsafe`. `exec` kept the process id.
    fn quit_times(&self, times: u32) {
        let script =
            r#"n=0; while [ $n -lt "$2" ]; do kill -QUIT "$1" || exit 1; n=$((n + 1)); done"#;
        let (id, times) = (self.child.id().to_string(), times.to_string());
        let status = Command::new("sh")
            .args(["-c", script, "sh", &id, &times])
            .status();
        assert!(status.unwrap().success());
    }

    /// The next line on stderr.
    #[track_caller]
    fn expect_stderr(&self, expected: &str) {
        let line = receive("a line on the child's stderr", &self.stderr);
        assert_eq!(line, expected);
    }

    /// Lets the child end by itself; returns what else it wrote to stderr.
    #[track_caller]
    fn finish(mut self) -> Vec<String> {
        drop(self.commands.take());
        let status = self.child.wait().unwrap();
        let rest: Vec<String> = self.stderr.iter().collect();
        assert!(status.success(), "{status}: {rest:#?}");
        rest
    }

    fn wait(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.child.wait().unwrap();
        (status, self.stderr.iter().collect())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A test that fails must not leave its child behind.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

const NOTHING: &str =
    "polity: SIGQUIT: no policy is loaded, nothing changed; again within a second quits";

fn ejected(policy: &str, generation: u32) -> String {
    format!(
        "polity: SIGQUIT: policy {policy:?} (generation {generation}) ejected: sysrq; 2 workers run the built-in FIFO"
    )
}

#[test]
fn sigquit_ejects_the_policy_and_says_whom() {
    let mut process = Process::start("on");
    process.tell("load 0 fifo", "loaded 1");
    process.quit();
    process.expect_stderr(&ejected("fifo", 1));
    process.tell("policy 0", "None");
    process.tell("exit 0 1", "Some(Sysrq)");
    process.tell("run 0", "they ran");
    // And the process can go on: another policy, another sysrq.
    process.tell("load 0 fifo", "loaded 2");
    process.quit();
    process.expect_stderr(&ejected("fifo", 2));
    assert!(process.finish().is_empty());
}

#[test]
fn tasks_that_the_policy_held_run_after_sigquit() {
    let mut process = Process::start("on");
    process.tell("load 0 hoarder", "loaded 1");
    for _ in 0..5 {
        process.tell("spawn 0", "spawned");
    }
    process.quit();
    process.expect_stderr(&ejected("hoarder", 1));
    process.tell("join 0", "they ended");
    process.finish();
}

#[test]
fn sigquit_without_a_policy_says_so_and_changes_nothing() {
    let mut process = Process::start("on");
    process.tell("run 0", "they ran");
    process.quit();
    process.expect_stderr(NOTHING);
    process.tell("policy 0", "None");
    process.tell("run 0", "they ran");
    assert!(process.finish().is_empty());
}

#[test]
fn a_second_sigquit_within_a_second_without_a_policy_quits() {
    let process = Process::start("on");
    process.quit();
    process.expect_stderr(NOTHING);
    process.quit();
    let (status, stderr) = process.wait();
    assert_eq!(status.signal(), Some(libc::SIGQUIT), "{status}");
    assert_eq!(stderr, ["polity: SIGQUIT again: quitting"]);
}

#[test]
fn a_second_sigquit_after_an_ejection_does_not_quit() {
    let mut process = Process::start("on");
    process.tell("load 0 fifo", "loaded 1");
    process.quit();
    process.expect_stderr(&ejected("fifo", 1));
    process.quit();
    process.expect_stderr(NOTHING);
    process.tell("run 0", "they ran");
    process.finish();
}

#[test]
fn one_sigquit_ejects_the_policies_of_all_runtimes() {
    let mut process = Process::start("on on");
    process.tell("load 0 fifo", "loaded 1");
    process.tell("load 1 hoarder", "loaded 1");
    process.quit();
    process.expect_stderr(&ejected("fifo", 1));
    process.expect_stderr(&ejected("hoarder", 1));
    for index in 0..2 {
        process.tell(&format!("policy {index}"), "None");
        process.tell(&format!("exit {index} 1"), "Some(Sysrq)");
        process.tell(&format!("run {index}"), "they ran");
    }
    process.finish();
}

#[test]
fn a_runtime_with_signals_off_is_not_reached() {
    let mut process = Process::start("on off");
    process.tell("load 0 fifo", "loaded 1");
    process.tell("load 1 fifo", "loaded 1");
    process.quit();
    process.expect_stderr(&ejected("fifo", 1));
    process.tell("policy 0", "None");
    process.tell("policy 1", "Some(\"fifo\")");
    assert!(process.finish().is_empty());
}

#[test]
fn with_signals_off_everywhere_sigquit_has_its_default_action() {
    let mut by_builder = Process::start("off");
    by_builder.tell("load 0 fifo", "loaded 1");
    by_builder.quit();
    let (status, stderr) = by_builder.wait();
    assert_eq!(status.signal(), Some(libc::SIGQUIT), "{status}");
    assert!(stderr.is_empty(), "{stderr:?}");

    let off = [("POLITY_SIGNALS", "off")];
    let by_environment = Process::start_with("on", "--default-signal=QUIT", &off);
    by_environment.quit();
    let (status, _) = by_environment.wait();
    assert_eq!(status.signal(), Some(libc::SIGQUIT), "{status}");
}

#[test]
fn where_sigquit_was_ignored_it_ejects_and_never_quits() {
    let mut process = Process::start_with("on", "--ignore-signal=QUIT", &[]);
    process.tell("load 0 fifo", "loaded 1");
    process.quit();
    process.expect_stderr(&ejected("fifo", 1));
    for _ in 0..3 {
        process.quit();
        process.expect_stderr("polity: SIGQUIT: no policy is loaded, nothing changed");
    }
    process.tell("run 0", "they ran");
    process.finish();
}

#[test]
fn sigquit_cancels_a_load_whose_init_hangs() {
    let mut process = Process::start("on");
    process.tell("load 0 fifo", "loaded 1");
    process.tell("load 0 hanging", "init hangs");
    process.quit();
    process.expect_stderr(&ejected("fifo", 1));
    process.expect("not loaded: Cancelled");
    process.tell("policy 0", "None");
    process.tell("load 0 fifo", "loaded 3");
    process.tell("run 0", "they ran");
    process.finish();
}

#[test]
fn sigquit_ejects_while_every_worker_is_in_a_poll() {
    let mut process = Process::start("on");
    process.tell("load 0 fifo", "loaded 1");
    process.tell("busy 0", "every worker is in a poll");
    process.quit();
    process.expect_stderr(&ejected("fifo", 1));
    process.tell("policy 0", "None");
    process.tell("exit 0 1", "Some(Sysrq)");
    process.send("idle 0");
    process.tell("join 0", "they ended");
    process.tell("run 0", "they ran");
    process.finish();
}

/// One worker is lost to the callback for ever; the other one serves everything from the sysrq on.
#[test]
fn sigquit_ejects_a_policy_that_hangs_in_a_callback() {
    let mut process = Process::start("on");
    process.tell("load 0 stuck", "loaded 1");
    process.send("spawn_only 0");
    process.expect("enqueue hangs");
    process.quit();
    process.expect_stderr(&ejected("stuck", 1));
    process.tell("policy 0", "None");
    process.tell("exit 0 1", "Some(Sysrq)");
    process.tell("run 0", "they ran");
    process.tell("load 0 fifo", "loaded 2");
    process.tell("run 0", "they ran");
    process.finish();
}

#[test]
fn a_storm_of_sigquits_ejects_once() {
    let mut process = Process::start("on");
    process.tell("load 0 fifo", "loaded 1");
    process.quit_times(1000);
    // The first ejects. Of the others, which come without a policy, two that are handled apart quit the process, as for
    // anybody who leans on the key; the kernel and the pipe may also have merged them into one.
    process.expect_stderr(&ejected("fifo", 1));
    drop(process.commands.take());
    let (status, rest) = process.wait();
    let quit = status.signal() == Some(libc::SIGQUIT);
    assert!(quit || status.success(), "{status}: {rest:#?}");
    assert!(
        !rest.iter().any(|line| line.contains("ejected")),
        "{rest:#?}"
    );
}

#[test]
fn a_hundred_policies_are_ejected_by_as_many_sigquits() {
    let mut process = Process::start("on");
    for generation in 1..=100 {
        process.tell("load 0 fifo", &format!("loaded {generation}"));
        process.quit();
        process.expect_stderr(&ejected("fifo", generation));
    }
    process.tell("run 0", "they ran");
    assert!(process.finish().is_empty());
}
