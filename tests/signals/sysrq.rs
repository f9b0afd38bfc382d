//! SIGQUIT throws the policy out, whatever the process does.

use std::env;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use polity::{
    Builder, Generation, Handle, Host, InitError, Pin, Policy, Runtime, Signals, TaskView,
    yield_now,
};
use polity_policies::Fifo;
use polity_tests::{DEADLINE, receive, wait_for, wait_until};

use crate::process::{PART, Process, Setup, say};

// ---- the child ----

/// Has every task in its custody for ever.
struct Hoarder;

impl Policy for Hoarder {
    type Task = ();

    fn name(&self) -> &str {
        "hoarder"
    }
    fn enqueue(&self, _host: &Host<'_>, _task: &TaskView<'_>) {}
}

/// Starts only when it is told to: never.
struct Hanging;

impl Policy for Hanging {
    type Task = ();

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
    type Task = ();

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

/// Builds the runtimes that `PART` says, and does what it is told. Not a test: without `PART` it does nothing.
#[test]
fn the_child_of_the_other_tests() {
    let Ok(list) = env::var(PART) else { return };
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
            ("policy", _) => say(&format!(
                "{:?}",
                runtime.policy_status().map(|policy| policy.name)
            )),
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

/// A child with these runtimes.
fn start(runtimes: &str) -> Process {
    Process::start(module_path!(), runtimes)
}

pub(crate) const NOTHING: &str =
    "polity: SIGQUIT: no policy is loaded, nothing changed; again within a second quits";

/// The line of stderr about it.
pub(crate) fn ejected(policy: &str, generation: u32) -> String {
    format!(
        "polity: SIGQUIT: policy {policy:?} (generation {generation}) ejected: sysrq; 2 workers run the built-in FIFO"
    )
}

#[test]
fn sigquit_ejects_the_policy_and_says_whom() {
    let mut process = start("on");
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
    let mut process = start("on");
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
    let mut process = start("on");
    process.tell("run 0", "they ran");
    process.quit();
    process.expect_stderr(NOTHING);
    process.tell("policy 0", "None");
    process.tell("run 0", "they ran");
    assert!(process.finish().is_empty());
}

#[test]
fn a_second_sigquit_within_a_second_without_a_policy_quits() {
    let process = start("on");
    process.quit();
    process.expect_stderr(NOTHING);
    process.quit();
    let (status, stderr) = process.wait();
    assert_eq!(status.signal(), Some(libc::SIGQUIT), "{status}");
    assert_eq!(stderr, ["polity: SIGQUIT again: quitting"]);
}

#[test]
fn a_second_sigquit_after_an_ejection_does_not_quit() {
    let mut process = start("on");
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
    let mut process = start("on on");
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
    let mut process = start("on off");
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
    let mut by_builder = start("off");
    by_builder.tell("load 0 fifo", "loaded 1");
    by_builder.quit();
    let (status, stderr) = by_builder.wait();
    assert_eq!(status.signal(), Some(libc::SIGQUIT), "{status}");
    assert!(stderr.is_empty(), "{stderr:?}");

    let setup = Setup {
        variables: &[("POLITY_SIGNALS", "off")],
        ..Setup::default()
    };
    let by_environment = Process::start_with(module_path!(), "on", setup);
    by_environment.quit();
    let (status, _) = by_environment.wait();
    assert_eq!(status.signal(), Some(libc::SIGQUIT), "{status}");
}

#[test]
fn where_sigquit_was_ignored_it_ejects_and_never_quits() {
    let setup = Setup {
        signals: "--ignore-signal=QUIT",
        ..Setup::default()
    };
    let mut process = Process::start_with(module_path!(), "on", setup);
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
    let mut process = start("on");
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
    let mut process = start("on");
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
    let mut process = start("on");
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
    let mut process = start("on");
    process.tell("load 0 fifo", "loaded 1");
    process.kill_times("QUIT", 1000);
    // The first ejects. Of the others, which come without a policy, two that are handled apart quit the process, as for
    // anybody who leans on the key; the kernel and the pipe may also have merged them into one.
    process.expect_stderr(&ejected("fifo", 1));
    process.close();
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
    let mut process = start("on");
    for generation in 1..=100 {
        process.tell("load 0 fifo", &format!("loaded {generation}"));
        process.quit();
        process.expect_stderr(&ejected("fifo", generation));
    }
    process.tell("run 0", "they ran");
    assert!(process.finish().is_empty());
}
