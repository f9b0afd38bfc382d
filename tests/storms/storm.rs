//! A child that runs tasks, and a parent that stops it all the time.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Display;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use polity::{Builder, ExitKind, Generation, Metrics, Pin, Runtime};
use polity_policies::{Callback, Fault, Faulty, Fifo, Priority};
use polity_tests::{now, pass, wait_until};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use crate::process::{Killer, PART, Process, Setup, say};
use crate::workload;

const SEED: &str = "POLITY_SEED";
/// A fault that has not been found for so long is shown.
const SLOW: Duration = Duration::from_secs(5);
/// SIGTSTP is among the stops every other time of this length. It is a bypass, in which core runs everything, also what a
/// policy starves: under nothing but SIGTSTP nobody would wait for long enough.
const BYPASSES: Duration = Duration::from_secs(5);
const SECONDS: &str = "POLITY_STORM_SECONDS";

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok()?;
    Some(value.parse().expect("a number"))
}

// ---- the child ----

/// Lives through a storm. Not a test: without `PART` it does nothing.
#[test]
fn the_child_of_the_other_tests() {
    if env::var_os(PART).is_none() {
        return;
    }
    let mut rng = StdRng::seed_from_u64(number(SEED).unwrap());
    let end = now() + Duration::from_secs(number(SECONDS).unwrap());
    let timeout = Duration::from_millis(rng.random_range(1..=2) * 500);
    let builder = Builder::new().worker_threads(2).spares(6).pin(Pin::Off);
    let runtime = builder.watchdog(timeout).build().unwrap();
    for _ in 0..16 {
        thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    workload::start(&runtime, &mut rng);
    say("ready");
    while now() < end {
        live(&runtime, &mut rng);
        go_wrong(&runtime, &mut rng);
    }
    say(&numbers(&runtime.metrics()));
    say("over");
    process::exit(0);
}

/// A policy that is right lives through some of the storm.
fn live(runtime: &Runtime, rng: &mut StdRng) {
    let (name, loaded) = match rng.random_range(0..2) {
        0 => ("fifo", runtime.load(Fifo::new())),
        _ => ("priority", runtime.load(Priority::new())),
    };
    let generation = loaded.unwrap();
    pass(Duration::from_millis(rng.random_range(500..2000)));
    let is_loaded = |generation: Generation| {
        let policy = runtime.policy_status();
        policy.is_some_and(|policy| policy.generation == generation)
    };
    if is_loaded(generation) {
        say(&format!("lived {name}"));
    } else {
        let info = runtime.exit_info(generation);
        let why = info.map_or_else(|| "unknown".to_owned(), |info| info.to_string());
        say(&format!("false {why}"));
    }
}

/// One that is wrong is found.
fn go_wrong(runtime: &Runtime, rng: &mut StdRng) {
    let callbacks = [
        Callback::Enqueue,
        Callback::Dispatch,
        Callback::Running,
        Callback::Stopping,
        Callback::SelectWorker,
    ];
    let (callback, call) = (*callbacks.choose(rng).unwrap(), rng.random_range(1..100));
    let (name, fault, kinds): (_, _, &[ExitKind]) = match rng.random_range(0..5) {
        0 => (
            "starves",
            Fault::Starve {
                weight: workload::VICTIM,
            },
            &[ExitKind::Stall],
        ),
        1 => (
            "forgets",
            Fault::ForgetEveryNth(rng.random_range(10..100)),
            &[ExitKind::Stall],
        ),
        2 => (
            "spins",
            Fault::NeverReturn { callback, call },
            &[ExitKind::StuckCallback],
        ),
        3 => (
            "blocks",
            Fault::Block { callback, call },
            &[ExitKind::StuckCallback],
        ),
        // Whichever comes first: nothing is dispatched either.
        _ => (
            "dispatches nothing",
            Fault::DispatchEndlesslyAfter(call),
            &[ExitKind::Stall, ExitKind::DispatchLoop],
        ),
    };
    say(&format!("begins {name}: {fault:?}"));
    let policy = Faulty::new(fault);
    let release = policy.release_handle();
    let generation = runtime.load(policy).unwrap();
    let start = now();
    let mut dumped = false;
    wait_until(name, || {
        if !dumped && now() - start > SLOW {
            dumped = true;
            say(&format!(
                "slow {name}: {}",
                runtime.dump().to_string().replace('\n', " | ")
            ));
        }
        runtime.policy_status().is_none()
    });
    let took = now() - start;
    let info = runtime
        .wait_exit(generation, polity_tests::DEADLINE)
        .unwrap();
    if kinds.contains(&info.kind) {
        say(&format!("found {} {name}", took.as_millis()));
    } else {
        say(&format!("wrongly {name}: {info}"));
    }
    release.release();
    wait_until("calls that were stuck have returned", || {
        release.stuck() == 0
    });
}

fn numbers(metrics: &Metrics) -> String {
    let Metrics {
        polls,
        hogs,
        stand_ins,
        convictions,
        spares_exhausted,
        ..
    } = metrics;
    format!(
        "polls {polls}, hogs {hogs}, stand-ins {stand_ins}, convictions {convictions}, spares exhausted {spares_exhausted}"
    )
}

// ---- the parent ----

#[test]
fn a_storm_ejects_no_policy_that_is_right_and_each_that_is_wrong() {
    let seed = number(SEED).unwrap_or_else(rand::random);
    let seconds = number(SECONDS).unwrap_or(10);
    println!("seed {seed}, {seconds} s");
    let (seed_text, seconds_text) = (seed.to_string(), seconds.to_string());
    let setup = Setup {
        variables: &[(SEED, &seed_text), (SECONDS, &seconds_text)],
        ..Setup::default()
    };
    let process = Process::start_with(module_path!(), "storm", setup);
    let over = Arc::new(AtomicBool::new(false));
    let mut killer = Killer::of(&process);
    let stops = thread::spawn({
        let over = Arc::clone(&over);
        move || {
            let mut rng = StdRng::seed_from_u64(seed ^ 1);
            let (mut stops, start) = (0, now());
            while !over.load(Ordering::Relaxed) {
                let times = (now() - start).as_millis() / BYPASSES.as_millis();
                let kinds = if times.is_multiple_of(2) {
                    &["STOP"][..]
                } else {
                    &["STOP", "TSTP"]
                };
                killer.send(kinds.choose(&mut rng).unwrap());
                pass(Duration::from_micros(rng.random_range(0..200_000)));
                killer.send("CONT");
                pass(Duration::from_micros(rng.random_range(0..200_000)));
                stops += 1;
            }
            stops
        }
    });
    let said = process.said_until("over");
    over.store(true, Ordering::Relaxed);
    let stops = stops.join().unwrap();
    let (mut lived, mut found, mut wrong) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for line in &said {
        match line.split_once(' ').unwrap() {
            ("lived", name) => *lived.entry(name).or_insert(0) += 1,
            ("found", rest) => {
                let (took, name) = rest.split_once(' ').unwrap();
                let took: u64 = took.parse().unwrap();
                found.entry(name).or_insert_with(Vec::new).push(took);
            }
            ("polls", _) => println!("{line}"),
            ("begins", _) => {}
            ("slow", _) => println!("{line}"),
            _ => wrong.push(line),
        }
    }
    println!("{stops} stops; lived through them: {lived:?}");
    println!("found, and the milliseconds it took, stops included:");
    for (name, mut took) in found {
        took.sort_unstable();
        let (count, median) = (took.len(), took[took.len() / 2]);
        print_row(name, &[count as u64, took[0], median, took[count - 1]]);
    }
    assert!(wrong.is_empty(), "seed {seed}: {wrong:#?}");
    drop(process);
}

fn print_row(name: impl Display, numbers: &[u64]) {
    let [count, least, median, most] = numbers else {
        unreachable!("four of them");
    };
    println!("  {name:18} {count:4} times: {least:5} {median:5} {most:5} (least, median, most)");
}
