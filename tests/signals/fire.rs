//! SIGQUIT under fire: eight threads burn the processors, nobody reads a stderr that is full, and whatever can hang does.
//! Each time the policy is gone afterwards, and tasks run.

use std::env;
use std::io::{self, PipeReader, Write};
use std::panic;
use std::process;
use std::sync::MutexGuard;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use polity::{
    Builder, ExitKind, Generation, Handle, Host, InitError, LoadError, Pin, Policy, Runtime,
    Signals, TaskView, yield_now,
};
use polity_policies::{Callback, Fault, Faulty, Fifo};
use polity_tests::{DEADLINE, receive, wait_for, wait_until};
use rand::RngExt;

use crate::process::{PART, Process, Setup, alone, say};
use crate::trial;

// ---- the child ----

/// Says when its `init` has begun, which does not end.
struct Hanging(Sender<()>);

impl Policy for Hanging {
    type Task = ();

    fn name(&self) -> &str {
        "hanging"
    }
    fn init(&self, _host: &Host<'_>) -> Result<(), InitError> {
        self.0.send(()).unwrap();
        loop {
            thread::park();
        }
    }
}

/// Has every task in its custody for ever.
struct Hoarder;

impl Policy for Hoarder {
    type Task = ();

    fn name(&self) -> &str {
        "hoarder"
    }
    fn enqueue(&self, _host: &Host<'_>, _task: &TaskView<'_>) {}
}

fn build() -> Runtime {
    let builder = Builder::new().worker_threads(2).pin(Pin::Off);
    builder.signals(Signals::On).build().unwrap()
}

/// Plays a scene. Not a test: without `PART` it does nothing.
#[test]
fn the_child_of_the_other_tests() {
    let Ok(part) = env::var(PART) else { return };
    // Not to stderr, which is full.
    panic::set_hook(Box::new(|info| say(&info.to_string().replace('\n', " "))));
    trial::burn(8);
    say("ready");
    match part.as_str() {
        "blocking" => stuck(|callback, call| Fault::Block { callback, call }),
        "init" => with(load_that_hangs),
        "swaps" => with(swaps),
        "exit" => with(exit_that_hangs),
        "guard" => with(guard),
        "stop" => with(stop),
        "shutdown" => shutdown(),
        other => panic!("{other}"),
    }
    say("played");
    // Not by returning: a policy that hangs would keep the runtime from being dropped.
    process::exit(0);
}

/// Every worker is in a callback that does not return. The child itself raises the signal in the moment in which that is so:
/// 10 ms of processor time later the watchdog does the same, and sysrq would come too late.
fn stuck(fault: fn(Callback, u64) -> Fault) {
    let mut in_time = 0;
    for _ in 0..100 {
        let runtime = build();
        match trial::stuck(&runtime, fault(Callback::Enqueue, 1)).map(|trial| trial.kind) {
            Some(ExitKind::Sysrq) => in_time += 1,
            None | Some(ExitKind::StuckCallback) => {}
            other => panic!("{other:?}"),
        }
        check_built_in(&runtime);
        runtime.shutdown_background();
        if in_time == 3 {
            return;
        }
    }
    panic!("the watchdog was first a hundred times");
}

/// Plays the scene; afterwards the built-in FIFO runs.
fn with(scene: impl FnOnce(&Runtime)) {
    let runtime = build();
    scene(&runtime);
    check_built_in(&runtime);
}

fn check_built_in(runtime: &Runtime) {
    let some: Vec<_> = (0..20).map(|_| runtime.spawn(yield_now())).collect();
    for task in some {
        wait_for("a task", task).unwrap();
    }
    assert_eq!(runtime.policy_status(), None);
}

/// Asks for the signal, and waits for the end of the policy.
fn be_quit(runtime: &Handle) {
    say("now");
    wait_until("the policy is gone", || runtime.policy_status().is_none());
}

fn load_that_hangs(runtime: &Runtime) {
    let fifo = runtime.load(Fifo::new()).unwrap();
    let (begun, has_begun) = channel();
    let handle = runtime.handle().clone();
    let load = thread::spawn(move || handle.load(Hanging(begun)));
    receive("init to begin", &has_begun);
    be_quit(runtime);
    assert_eq!(load.join().unwrap(), Err(LoadError::Cancelled));
    check_exit(runtime, fifo, ExitKind::Sysrq);
}

/// A sysrq at any moment of a swap ends the old policy or the new one, and a load that was cancelled leaves none.
fn swaps(runtime: &Runtime) {
    let seed =
        env::var("POLITY_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    say(&format!("seed {seed}"));
    let mut rng: rand::rngs::StdRng = rand::SeedableRng::seed_from_u64(seed);
    let mut cancelled = 0;
    for _ in 0..50 {
        let mut last = trial::load(runtime, Fifo::new);
        let loader = runtime.handle().clone();
        // It loads one policy after the other, until one was thrown out or a load cancelled.
        let loads = thread::spawn(move || {
            loop {
                let next = loader.load(Fifo::new());
                if next == Err(LoadError::Cancelled) {
                    return Err(loader.policy_status());
                }
                let end = loader.wait_exit(last, DEADLINE).unwrap();
                match end.kind {
                    ExitKind::Swap => last = next.unwrap(),
                    ExitKind::Sysrq => return Ok(()),
                    other => panic!("{other}"),
                }
            }
        });
        for _ in 0..rng.random_range(0..20_000) {
            std::hint::spin_loop();
        }
        signal_hook::low_level::raise(libc::SIGQUIT).unwrap();
        if let Err(policy) = loads.join().unwrap() {
            assert_eq!(policy, None, "a load was cancelled");
            cancelled += 1;
        }
        runtime.unload();
    }
    say(&format!("50 times; {cancelled} loads cancelled"));
}

fn exit_that_hangs(runtime: &Runtime) {
    let (callback, call) = (Callback::Exit, 1);
    let policy = Faulty::new(Fault::Block { callback, call });
    let release = policy.release_handle();
    runtime.load(policy).unwrap();
    let fifo = runtime.load(Fifo::new()).unwrap();
    wait_until("the old policy's exit hangs", || release.stuck() == 1);
    be_quit(runtime);
    check_exit(runtime, fifo, ExitKind::Sysrq);
}

fn guard(runtime: &Runtime) {
    let hoarder = runtime.load(Hoarder).unwrap();
    let task = runtime.spawn(async {});
    let guard = runtime.bypass();
    wait_for("a task that was held until the bypass", task).unwrap();
    be_quit(runtime);
    assert_eq!(runtime.bypass_depth(), 1);
    check_built_in(runtime);
    drop(guard);
    assert_eq!(runtime.bypass_depth(), 0);
    check_exit(runtime, hoarder, ExitKind::Sysrq);
}

/// The parent sends SIGTSTP, then SIGQUIT to a process that is stopped, then SIGCONT.
fn stop(runtime: &Runtime) {
    let hoarder = runtime.load(Hoarder).unwrap();
    be_quit(runtime);
    check_exit(runtime, hoarder, ExitKind::Sysrq);
    wait_until("the bypass is over", || runtime.bypass_depth() == 0);
}

/// A task that does not return holds the shutdown up. There is no policy any more that could be thrown out.
fn shutdown() {
    let runtime = build();
    runtime.load(Fifo::new()).unwrap();
    let (begun, has_begun) = channel();
    let (release, released) = channel::<()>();
    let task = runtime.spawn(async move {
        begun.send(()).unwrap();
        let _ = released.recv();
    });
    receive("the long poll to begin", &has_begun);
    let handle = runtime.handle().clone();
    let drop = thread::spawn(move || drop(runtime));
    be_quit(&handle);
    say("again");
    assert!(!drop.is_finished());
    release.send(()).unwrap();
    wait_for("the long poll", task).unwrap();
    drop.join().unwrap();
    assert_eq!(handle.policy_status(), None);
}

#[track_caller]
fn check_exit(runtime: &Runtime, generation: Generation, kind: ExitKind) {
    let info = runtime.wait_exit(generation, DEADLINE);
    assert_eq!(info.map(|info| info.kind), Some(kind));
}

// ---- the parent ----

/// A child whose stderr is a pipe that is full. Two SIGQUITs that find nothing do not quit it.
fn start(part: &str) -> (Process, PipeReader, MutexGuard<'static, ()>) {
    let alone = alone();
    let (never_read, mut stderr) = io::pipe().unwrap();
    // The capacity of a pipe on Linux, unless somebody changes it: one more byte would block.
    stderr.write_all(&[b'x'; 65536]).unwrap();
    let setup = Setup {
        signals: "--ignore-signal=QUIT",
        stderr: Some(stderr.into()),
        ..Setup::default()
    };
    let process = Process::start_with(module_path!(), part, setup);
    (process, never_read, alone)
}

/// Plays a scene in which the child asks for one SIGQUIT.
#[track_caller]
fn check(part: &str) {
    let (process, _never_read, _alone) = start(part);
    process.expect("now");
    process.quit();
    process.expect("played");
    process.finish();
}

#[test]
fn sigquit_throws_out_a_policy_that_blocks_every_worker() {
    let (process, _never_read, _alone) = start("blocking");
    process.expect("played");
    process.finish();
}

#[test]
fn sigquit_ends_a_load_whose_init_hangs() {
    check("init");
}

#[test]
fn sigquit_at_any_moment_of_a_swap_leaves_no_policy_that_was_asked_for_before() {
    let (process, _never_read, _alone) = start("swaps");
    for line in process.said_until("played") {
        println!("{line}");
        assert!(
            line.starts_with("seed ") || line.starts_with("50 times"),
            "{line}"
        );
    }
    process.finish();
}

#[test]
fn sigquit_throws_out_a_policy_while_the_exit_of_the_one_before_hangs() {
    check("exit");
}

#[test]
fn sigquit_throws_out_a_policy_that_is_bypassed() {
    check("guard");
}

#[test]
fn sigquit_to_a_stopped_process_throws_the_policy_out_when_it_goes_on() {
    let (process, _never_read, _alone) = start("stop");
    process.expect("now");
    process.kill("TSTP");
    process.wait_until_stopped();
    process.quit();
    process.kill("CONT");
    process.expect("played");
    process.finish();
}

#[test]
fn sigquit_in_the_middle_of_a_shutdown_harms_nobody() {
    let (process, _never_read, _alone) = start("shutdown");
    process.expect("now");
    process.quit();
    process.expect("again");
    process.quit();
    process.expect("played");
    process.finish();
}
