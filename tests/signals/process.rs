//! A child process that plays a part, and its parent's hold on it.
//!
//! The child is this program again: [`PART`] tells the test `the_child_of_the_other_tests`, of the module that starts it,
//! what to play. The two speak in lines.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use polity_tests::{DEADLINE, receive, wait_until};

/// What a child is told to play.
pub(crate) const PART: &str = "POLITY_TESTS_PART";

/// Tells the parent something, on a line of its own (libtest does not end its own).
pub(crate) fn say(line: &str) {
    let mut out = io::stdout().lock();
    write!(out, "\nchild: {line}\n").unwrap();
    out.flush().unwrap();
}

/// How a child is started.
pub(crate) struct Setup<'a> {
    /// The options of `env` for signals.
    pub(crate) signals: &'a str,
    pub(crate) variables: &'a [(&'a str, &'a str)],
    /// In place of a pipe that is read.
    pub(crate) stderr: Option<Stdio>,
}

impl Default for Setup<'_> {
    fn default() -> Self {
        Setup {
            signals: "--default-signal=QUIT,TSTP,CONT",
            variables: &[],
            stderr: None,
        }
    }
}

/// Held by tests that burn every processor: one after the other, so that a load is what it says.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Process {
    child: Child,
    commands: Option<ChildStdin>,
    said: Receiver<String>,
    stderr: Receiver<String>,
    /// The lines of stderr that are indented.
    dumped: Receiver<String>,
}

/// The lines of `from`: those that `is_apart` says this of, and the others.
fn lines(
    from: impl Read + Send + 'static,
    is_apart: fn(&str) -> bool,
) -> (Receiver<String>, Receiver<String>) {
    let ((line, lines), (apart, those_apart)) = (channel(), channel());
    thread::spawn(move || {
        for text in BufReader::new(from).lines().map_while(Result::ok) {
            let to = if is_apart(&text) { &apart } else { &line };
            // One of them may not be wanted.
            let _ = to.send(text);
        }
    });
    (those_apart, lines)
}

impl Process {
    /// Starts a child and waits until it is ready. It leaves no core file, and is a process group of its own, as the
    /// command of a shell with job control: so it can be stopped.
    #[track_caller]
    pub(crate) fn start(module: &str, part: &str) -> Process {
        Process::start_with(module, part, Setup::default())
    }

    #[track_caller]
    pub(crate) fn start_with(module: &str, part: &str, setup: Setup<'_>) -> Process {
        let (_, module) = module.split_once("::").unwrap();
        let mut child = Command::new("sh")
            .args(["-c", r#"ulimit -c 0; exec env "$@""#, "sh", setup.signals])
            .arg(env::current_exe().unwrap())
            .arg(format!("{module}::the_child_of_the_other_tests"))
            .args(["--exact", "--nocapture"])
            .env_remove("POLITY_SIGNALS")
            .env(PART, part)
            .envs(setup.variables.iter().copied())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(setup.stderr.unwrap_or_else(Stdio::piped))
            .spawn()
            .unwrap();
        let (said, _) = lines(child.stdout.take().unwrap(), |line| {
            line.starts_with("child: ")
        });
        let (dumped, stderr) = match child.stderr.take() {
            Some(stderr) => lines(stderr, |line| line.starts_with("  ")),
            None => lines(io::empty(), |_| false),
        };
        let process = Process {
            commands: child.stdin.take(),
            said,
            stderr,
            dumped,
            child,
        };
        process.expect("ready");
        process
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the child says next.
    #[track_caller]
    pub(crate) fn next_said(&self) -> String {
        self.next_said_after(&[])
    }

    #[track_caller]
    fn next_said_after(&self, before: &[String]) -> String {
        let line = match self.said.recv_timeout(DEADLINE) {
            Ok(line) => line,
            Err(error) => {
                let stderr: Vec<String> = self.stderr.try_iter().collect();
                panic!(
                    "waiting for the child: {error}; it said {before:#?}, and on stderr {stderr:#?}"
                );
            }
        };
        line["child: ".len()..].to_owned()
    }

    /// What the child says until it says `last`.
    #[track_caller]
    pub(crate) fn said_until(&self, last: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            match self.next_said_after(&all) {
                line if line == last => return all,
                line => all.push(line),
            }
        }
    }

    #[track_caller]
    pub(crate) fn expect(&self, expected: &str) {
        assert_eq!(self.next_said(), expected);
    }

    pub(crate) fn send(&mut self, command: &str) {
        let commands = self.commands.as_mut().unwrap();
        writeln!(commands, "{command}").unwrap();
    }

    /// Sends a command and expects this answer.
    #[track_caller]
    pub(crate) fn tell(&mut self, command: &str, expected: &str) {
        self.send(command);
        assert_eq!(self.next_said(), expected, "{command}");
    }

    pub(crate) fn quit(&self) {
        self.kill("QUIT");
    }

    pub(crate) fn kill(&self, signal: &str) {
        self.kill_times(signal, 1);
    }

    /// By the `kill` of a shell, so that these tests need no `unsafe`. `exec` kept the process id.
    pub(crate) fn kill_times(&self, signal: &str, times: u32) {
        let script =
            r#"n=0; while [ $n -lt "$3" ]; do kill -"$1" "$2" || exit 1; n=$((n + 1)); done"#;
        let (id, times) = (self.child.id().to_string(), times.to_string());
        let status = Command::new("sh")
            .args(["-c", script, "sh", signal, &id, &times])
            .status();
        assert!(status.unwrap().success());
    }

    /// Returns when the kernel has stopped every thread of the child.
    #[track_caller]
    pub(crate) fn wait_until_stopped(&self) {
        wait_until("the child is stopped", || self.is_stopped());
    }

    pub(crate) fn is_stopped(&self) -> bool {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let mut states = threads.filter_map(|thread| {
            let stat = fs::read_to_string(thread.unwrap().path().join("stat")).ok()?;
            // The name, in brackets, may contain anything; the state is the first letter after it.
            stat.rsplit_once(')')?.1.trim_start().chars().next()
        });
        states.all(|state| state == 'T')
    }

    /// The next line on stderr that is not indented.
    #[track_caller]
    pub(crate) fn expect_stderr(&self, expected: &str) {
        let line = receive("a line on the child's stderr", &self.stderr);
        assert_eq!(line, expected);
    }

    /// The indented lines on stderr up to the first that begins so.
    #[track_caller]
    pub(crate) fn dumped_until(&self, last: &str) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            let line = receive("a line of a dump on the child's stderr", &self.dumped);
            let is_last = line.starts_with(last);
            all.push(line);
            if is_last {
                return all;
            }
        }
    }

    /// Lets the child end by itself; returns what else it wrote to stderr, but for dumps.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Vec<String> {
        self.close();
        let status = self.child.wait().unwrap();
        let rest: Vec<String> = self.stderr.iter().collect();
        assert!(status.success(), "{status}: {rest:#?}");
        rest
    }

    /// No more commands: the child ends by itself.
    pub(crate) fn close(&mut self) {
        drop(self.commands.take());
    }

    pub(crate) fn wait(mut self) -> (ExitStatus, Vec<String>) {
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

/// A shell that sends signals, without a new process for each.
pub(crate) struct Killer {
    shell: Child,
    done: BufReader<ChildStdout>,
    target: u32,
}

impl Killer {
    pub(crate) fn of(process: &Process) -> Killer {
        let mut shell = Command::new("sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Killer {
            done: BufReader::new(shell.stdout.take().unwrap()),
            target: process.id(),
            shell,
        }
    }

    /// Returns when the signal has been sent.
    pub(crate) fn send(&mut self, signal: &str) {
        let shell = self.shell.stdin.as_mut().unwrap();
        writeln!(shell, "kill -{signal} {} && echo sent", self.target).unwrap();
        let mut answer = String::new();
        self.done.read_line(&mut answer).unwrap();
        assert_eq!(answer, "sent\n", "{signal}");
    }
}

impl Drop for Killer {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}
