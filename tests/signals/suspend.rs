//! SIGTSTP bypasses the policy and stops the process; SIGCONT ends both, and a policy is not blamed for any stop.

use std::collections::VecDeque;
use std::env;
use std::io;
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{
    Attributes, Builder, DequeueReason, DsqId, Generation, Host, Pin, Policy, Position, Runtime,
    TaskId, TaskView, WorkerId, yield_now,
};
use polity_tests::{pass, wait_until};
use rand::RngExt;

use crate::process::{Killer, PART, Process, Setup, alone, say};

/// How many tasks of each kind.
const TASKS: usize = 5;

// ---- the child ----

/// Serves tasks in order, but for those named "kept", which stay with it for ever.
#[derive(Default)]
struct Ledger {
    waiting: Mutex<VecDeque<TaskId>>,
    notes: Arc<Notes>,
}

#[derive(Default)]
struct Notes {
    /// The tasks in custody that are never given out.
    kept: Mutex<Vec<TaskId>>,
    /// How often such a task was enqueued.
    entered: AtomicUsize,
    /// How often one was taken for a bypass.
    taken: AtomicUsize,
}

impl Policy for Ledger {
    type Task = ();

    fn name(&self) -> &str {
        "ledger"
    }

    fn enqueue(&self, _host: &Host<'_>, task: &TaskView<'_>) {
        if task.name() == Some("kept") {
            self.notes.entered.fetch_add(1, Ordering::Relaxed);
            self.notes.kept.lock().unwrap().push(task.id());
        } else {
            self.waiting.lock().unwrap().push_back(task.id());
        }
    }

    fn dequeue(&self, _host: &Host<'_>, task: &TaskView<'_>, reason: DequeueReason) {
        if task.name() == Some("kept") && reason == DequeueReason::Bypass {
            self.notes.taken.fetch_add(1, Ordering::Relaxed);
        }
        let is_other = |other: &TaskId| *other != task.id();
        self.notes.kept.lock().unwrap().retain(is_other);
        self.waiting.lock().unwrap().retain(is_other);
    }

    fn dispatch(&self, host: &Host<'_>, _worker: WorkerId, _prev: Option<&TaskView<'_>>) {
        let next = self.waiting.lock().unwrap().pop_front();
        if let Some(task) = next {
            host.insert(task, DsqId::Local, Position::Tail);
        }
    }
}

/// Tasks that yield for ever, and how often they were polled.
fn spin(runtime: &Runtime, name: &'static str) -> Arc<AtomicUsize> {
    let polls = Arc::new(AtomicUsize::new(0));
    for _ in 0..TASKS {
        let polls = Arc::clone(&polls);
        let forever = async move {
            loop {
                polls.fetch_add(1, Ordering::Relaxed);
                yield_now().await;
            }
        };
        drop(runtime.spawn_with(Attributes::new().name(name), forever));
    }
    polls
}

/// Runs tasks under a policy whose stall timeout, in milliseconds, is `PART`, and does what it is told. Not a test: without
/// `PART` it does nothing.
#[test]
fn the_child_of_the_other_tests() {
    let Ok(timeout) = env::var(PART) else { return };
    let timeout = Duration::from_millis(timeout.parse().unwrap());
    let builder = Builder::new().worker_threads(2).pin(Pin::Off);
    let runtime = builder.watchdog(timeout).build().unwrap();
    let notes = Arc::<Notes>::default();
    let policy = Ledger {
        notes: Arc::clone(&notes),
        ..Ledger::default()
    };
    let generation = runtime.load(policy).unwrap();
    let served = spin(&runtime, "served");
    wait_until("tasks run", || served.load(Ordering::Relaxed) > 100);
    let kept_are = |count| notes.kept.lock().unwrap().len() == count;
    let mut kept = Arc::default();
    let mut guards = Vec::new();
    say("ready");
    for line in io::stdin().lines() {
        let line = line.unwrap();
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("keep", _) => {
                kept = spin(&runtime, "kept");
                wait_until("they are kept", || kept_are(TASKS));
                say("kept");
            }
            ("depth", number) => {
                let number: usize = number.parse().unwrap();
                wait_until("the depth is so", || runtime.bypass_depth() == number);
                say("so it is");
            }
            ("kept", "run") => {
                let before = kept.load(Ordering::Relaxed);
                wait_until("kept tasks run", || {
                    kept.load(Ordering::Relaxed) > before + 100
                });
                say("they run");
            }
            ("kept", "wait") => {
                // Each was taken from the policy, and has come back as often: twice if a worker that had not heard of the
                // bypass yet offered it again.
                wait_until("they are kept again", || {
                    let taken = notes.taken.load(Ordering::Relaxed);
                    let entered = notes.entered.load(Ordering::Relaxed);
                    taken >= TASKS && entered == TASKS + taken && kept_are(TASKS)
                });
                let before = kept.load(Ordering::Relaxed);
                check_served(&served);
                assert_eq!(kept.load(Ordering::Relaxed), before);
                say("they wait");
            }
            ("guard", _) => {
                guards.push(runtime.bypass());
                say("entered");
            }
            ("unguard", _) => {
                drop(guards.pop());
                say("left");
            }
            ("policy", _) => {
                check_served(&served);
                say(&state(&runtime, generation));
            }
            other => panic!("{other:?}"),
        }
    }
    process::exit(0);
}

fn check_served(polls: &AtomicUsize) {
    let before = polls.load(Ordering::Relaxed);
    wait_until("tasks run", || {
        polls.load(Ordering::Relaxed) > before + 1000
    });
}

fn state(runtime: &Runtime, generation: Generation) -> String {
    match (runtime.policy_status(), runtime.exit_info(generation)) {
        (Some(status), None) if status.generation == generation => "loaded".to_owned(),
        (policy, info) => format!("{policy:?} {info:?}"),
    }
}

// ---- the parent ----

const LENIENT: &str = "5000";
const TIGHT: &str = "100";
/// A multiple of the tight timeout.
const LONG: Duration = Duration::from_millis(500);

fn start(timeout_ms: &str) -> Process {
    Process::start(module_path!(), timeout_ms)
}

/// A child that SIGTSTP does not stop, so that it can be asked.
fn start_unstoppable() -> Process {
    let setup = Setup {
        signals: "--ignore-signal=TSTP",
        ..Setup::default()
    };
    Process::start_with(module_path!(), LENIENT, setup)
}

/// Stops it for longer than its policy may let a task wait, and lets it go on.
#[track_caller]
fn check_not_blamed(signal: &str) {
    let _alone = alone();
    let mut process = start(TIGHT);
    process.kill(signal);
    process.wait_until_stopped();
    pass(LONG);
    assert!(process.is_stopped());
    process.kill("CONT");
    process.tell("depth 0", "so it is");
    // What was held against the policy would be by now.
    pass(LONG);
    process.tell("policy", "loaded");
    assert_eq!(process.finish(), [""; 0]);
}

#[test]
fn ctrl_z_stops_the_process_and_fg_gives_the_policy_its_tasks_back() {
    let mut process = start(LENIENT);
    process.tell("keep", "kept");
    process.kill("TSTP");
    process.wait_until_stopped();
    process.kill("CONT");
    process.tell("depth 0", "so it is");
    process.tell("kept wait", "they wait");
    process.tell("policy", "loaded");
    assert_eq!(process.finish(), [""; 0]);
}

#[test]
fn ctrl_z_again_and_again_is_ctrl_z_each_time() {
    let mut process = start(LENIENT);
    for _ in 0..10 {
        process.kill("TSTP");
        process.wait_until_stopped();
        process.kill("CONT");
        process.tell("depth 0", "so it is");
        process.tell("policy", "loaded");
    }
    assert_eq!(process.finish(), [""; 0]);
}

#[test]
fn between_sigtstp_and_sigcont_tasks_run_past_the_policy() {
    let mut process = start_unstoppable();
    process.tell("keep", "kept");
    process.kill("TSTP");
    process.tell("depth 1", "so it is");
    process.tell("kept run", "they run");
    process.tell("policy", "loaded");
    process.kill("CONT");
    process.tell("depth 0", "so it is");
    process.tell("kept wait", "they wait");
    process.tell("policy", "loaded");
    process.finish();
}

#[test]
fn two_sigtstps_are_ended_by_one_sigcont() {
    let mut process = start_unstoppable();
    process.kill("TSTP");
    process.tell("depth 1", "so it is");
    process.kill("TSTP");
    process.expect_stderr(
        "polity: SIGTSTP: not stopped, it was ignored when the runtime was built; policies are bypassed until SIGCONT",
    );
    process.tell("depth 1", "so it is");
    process.kill("CONT");
    process.tell("depth 0", "so it is");
    process.finish();
}

#[test]
fn a_policy_is_not_blamed_for_ctrl_z() {
    check_not_blamed("TSTP");
}

#[test]
fn a_policy_is_not_blamed_for_sigstop() {
    check_not_blamed("STOP");
}

#[test]
fn a_policy_is_not_blamed_for_many_stops_of_any_length() {
    let seed = env::var("POLITY_SEED").map_or_else(|_| rand::random(), |it| it.parse().unwrap());
    println!("seed {seed}");
    let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(seed);
    let _alone = alone();
    // More lenient than above: stops that hit threads in the midst of something come on top of a machine that is busy.
    let mut process = start("250");
    let mut killer = Killer::of(&process);
    for _ in 0..30 {
        killer.send("STOP");
        pass(Duration::from_micros(rng.random_range(0..350_000)));
        killer.send("CONT");
        pass(Duration::from_micros(rng.random_range(0..20_000)));
    }
    pass(LONG);
    process.tell("policy", "loaded");
    assert_eq!(process.finish(), [""; 0]);
}

#[test]
fn a_sigcont_that_nobody_stopped_for_changes_nothing() {
    let mut process = start(LENIENT);
    for _ in 0..10 {
        process.kill("CONT");
        process.tell("depth 0", "so it is");
    }
    process.tell("guard", "entered");
    process.kill("CONT");
    process.tell("policy", "loaded");
    process.tell("depth 1", "so it is");
    assert_eq!(process.finish(), [""; 0]);
}

#[test]
fn a_guard_and_ctrl_z_nest() {
    let mut process = start(LENIENT);
    process.tell("keep", "kept");
    process.tell("guard", "entered");
    process.kill("TSTP");
    process.wait_until_stopped();
    process.kill("CONT");
    process.tell("depth 1", "so it is");
    process.tell("kept run", "they run");
    process.tell("unguard", "left");
    process.tell("depth 0", "so it is");
    process.tell("kept wait", "they wait");
    process.tell("policy", "loaded");
    assert_eq!(process.finish(), [""; 0]);

    let mut process = start_unstoppable();
    process.tell("guard", "entered");
    process.kill("TSTP");
    process.tell("depth 2", "so it is");
    process.tell("unguard", "left");
    process.tell("depth 1", "so it is");
    process.kill("CONT");
    process.tell("depth 0", "so it is");
    process.tell("policy", "loaded");
    process.finish();
}
