//! How long it takes from SIGQUIT to the built-in FIFO: measured in a child that raises the signal itself, and printed.
//!
//! Bounds are asserted on medians, since a shared machine may leave a thread waiting for as long as it likes. What the threads
//! had to wait for a processor is printed and taken off apart, and a plain thread that waits for a byte shows what a wake-up
//! costs at that moment. More trials: `POLITY_TRIALS=1000 cargo test -p polity-tests --test signals latency -- --nocapture`.

use std::env;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use polity::{Builder, ExitKind, Pin, Runtime};
use polity_policies::{Callback, Fault, Fifo};
use polity_tests::{now, wait_for, wait_until};

use crate::process::{PART, Process, Setup, alone, say};
use crate::trial::{self, Trial};

// ---- the child ----

fn build() -> Runtime {
    let builder = Builder::new().worker_threads(2).pin(Pin::Off);
    builder.build().unwrap()
}

/// Makes the trials. Not a test: without `PART` it does nothing.
#[test]
fn the_child_of_the_other_tests() {
    let Ok(part) = env::var(PART) else { return };
    let trials = env::var("POLITY_TRIALS").map_or(50, |trials| trials.parse().unwrap());
    let (callback, call) = (Callback::Enqueue, 1);
    let fault = match part.as_str() {
        "idle" => None,
        "blocking" => Some(Fault::Block { callback, call }),
        other => panic!("{other}"),
    };
    trial::burn(if fault.is_some() { 8 } else { 0 });
    say("ready");
    let mut measured: Vec<Measured> = Vec::new();
    let mut watchdog_first = 0;
    while measured.len() < trials {
        match fault.map_or_else(idle, stuck) {
            Some(trial) if trial.kind == ExitKind::Sysrq => measured.push(Measured {
                trial,
                plain_wake: plain_wake(),
            }),
            _ => watchdog_first += 1,
        }
        say("tried");
    }
    say("measured");
    say(&format!(
        "{trials} trials; {watchdog_first} more in which the watchdog was first"
    ));
    let times = |of: fn(&Measured) -> Duration| percentiles(measured.iter().map(of).collect());
    say(&times(|it| it.trial.gone));
    say(&times(|it| it.trial.gone.saturating_sub(it.trial.not_run)));
    say(&times(|it| it.plain_wake));
    say(&times(|it| it.trial.polled));
    process::exit(0);
}

struct Measured {
    trial: Trial,
    plain_wake: Duration,
}

/// A runtime of its own for each, since the threads of the one before may still be stuck.
fn stuck(fault: Fault) -> Option<Trial> {
    let runtime = build();
    let trial = trial::stuck(&runtime, fault);
    runtime.shutdown_background();
    trial
}

fn idle() -> Option<Trial> {
    let runtime = build();
    runtime.load(Fifo::new()).unwrap();
    trial::quit(&runtime, || {
        wait_for("a task", runtime.spawn(async { now() })).unwrap()
    })
}

/// What it takes that another thread reads a byte, and that this one sees it: as the trial does it, without a runtime.
fn plain_wake() -> Duration {
    let (mut reader, mut writer) = UnixStream::pair().unwrap();
    let awake = Arc::new(AtomicU64::new(0));
    let of_reader = Arc::clone(&awake);
    let thread = thread::spawn(move || {
        // Twice: once to be asleep in the second read.
        for _ in 0..2 {
            reader.read_exact(&mut [0]).unwrap();
            of_reader.fetch_add(1, Ordering::SeqCst);
        }
    });
    writer.write_all(&[0]).unwrap();
    wait_until("it has read", || awake.load(Ordering::SeqCst) == 1);
    // Time to fall asleep again, which tells nobody.
    thread::park_timeout(Duration::from_millis(1));
    let start = now();
    writer.write_all(&[0]).unwrap();
    while awake.load(Ordering::SeqCst) == 1 {
        // As the trial looks, so that both see it as late.
        thread::park_timeout(Duration::from_micros(20));
    }
    let took = now() - start;
    thread.join().unwrap();
    took
}

fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_micros();
    format!("{} {} {} {}", at(50), at(90), at(99), at(100))
}

// ---- the parent ----

/// Runs the trials, prints the times, and checks the median of those in which nobody waited for a processor.
#[track_caller]
fn check(part: &str, at_most: Duration) {
    let _alone = alone();
    let setup = Setup {
        // One that comes after the watchdog's ejection must not count as the first of two that quit.
        signals: "--ignore-signal=QUIT",
        ..Setup::default()
    };
    let process = Process::start_with(module_path!(), part, setup);
    process.said_until("measured");
    println!("{part}: {}, in microseconds", process.next_said());
    println!(
        "{:46} {:>8} {:>8} {:>8} {:>8}",
        "", "p50", "p90", "p99", "max"
    );
    let mut medians = Vec::new();
    for what in [
        "signal until no policy",
        "the same without waiting for a processor",
        "for comparison: a plain thread's wake-up",
        "signal until first poll",
    ] {
        let line = process.next_said();
        let numbers: Vec<u64> = line.split(' ').map(|it| it.parse().unwrap()).collect();
        print!("{what:46}");
        numbers.iter().for_each(|number| print!(" {number:>8}"));
        println!();
        medians.push(Duration::from_micros(numbers[0]));
    }
    process.finish();
    assert!(medians[1] <= at_most, "{medians:?}");
}

#[test]
fn sigquit_to_an_idle_runtime_takes_about_a_millisecond() {
    check("idle", Duration::from_millis(5));
}

#[test]
fn sigquit_while_every_worker_is_blocked_in_a_policy_among_eight_busy_threads_takes_milliseconds() {
    check("blocking", Duration::from_millis(10));
}
