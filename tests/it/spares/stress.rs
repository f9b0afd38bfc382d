//! Everything at once, at random: callbacks that get stuck and come back, long polls, loads, ejections, bypasses, wakes
//! and aborts. Every task ends once.
//!
//! `POLITY_STRESS` sets the number of rounds, 60 without it; `POLITY_SEED` repeats the choices of a run, though not its
//! interleaving.

use std::collections::VecDeque;
use std::time::Duration;

use polity::{Bypass, WorkerId, WorkerMask, yield_now};
use polity_policies::Priority;
use polity_tests::{builder, now, wait_until, within};
use tokio::sync::watch;

use crate::spares::ledger::Ledger;
use crate::spares::trap::{How, Kind, Trap, Trigger};
use crate::support::ON_WORKERS;
use crate::workload::{Mixed, Random, Recorder};

/// Calls that may be stuck at a time: as many as there are spares, so that somebody always gets ahead.
const MOST_STUCK: usize = 4;

fn rounds() -> usize {
    match std::env::var("POLITY_STRESS") {
        Ok(rounds) => rounds.parse().expect("POLITY_STRESS is a number of rounds"),
        Err(_) => 60,
    }
}

async fn any_life(what: u64, micros: u64, mut go: watch::Receiver<bool>) {
    match what {
        0 => {}
        1 => drop(go.wait_for(|go| *go).await),
        2 => {
            for _ in 0..5 {
                yield_now().await;
            }
        }
        // A wake by the driver.
        3 => tokio::time::sleep(Duration::from_micros(micros)).await,
        4 => {
            let child = polity::spawn(async { yield_now().await });
            child.await.unwrap();
        }
        // A long poll now and then.
        _ => std::thread::park_timeout(Duration::from_micros(micros)),
    }
}

#[test]
fn whatever_gets_stuck_and_comes_back_every_task_ends_once() {
    let mut random = Random::from_env("stress");
    let runtime = builder(2)
        .spares(MOST_STUCK)
        .watchdog(Duration::from_secs(30))
        .build()
        .unwrap();
    let mut books = Ledger::default();
    let (mut go, mut gone) = watch::channel(false);
    // With how many calls each may hold.
    let mut stuck: VecDeque<(Trigger, usize)> = VecDeque::new();
    let mut bypass: Option<Bypass> = None;
    let rounds = rounds();
    for _ in 0..rounds {
        let jaws = 1 + random.below(2) as usize;
        let in_use: usize = stuck.iter().map(|(_, jaws)| jaws).sum();
        match random.below(10) {
            0..5 if in_use + jaws <= MOST_STUCK => {
                let callback = ON_WORKERS[random.below(10) as usize];
                let how = [How::Spinning, How::Blocked][random.below(2) as usize];
                let (trap, trigger) = Trap::new(callback, how, jaws);
                runtime.load(trap).unwrap();
                trigger.arm();
                stuck.push_back((trigger, jaws));
            }
            0..6 => drop(stuck.pop_front()),
            6 => drop(runtime.load(Priority::new()).unwrap()),
            7 => drop(runtime.eject("as ordered")),
            8 if bypass.is_none() => bypass = Some(runtime.bypass()),
            8 => bypass = None,
            _ => {
                go.send_replace(true);
                (go, gone) = watch::channel(false);
            }
        }
        for _ in 0..random.below(24) {
            let kind = Kind::ALL[random.below(6) as usize];
            let mut attributes = kind.attributes();
            if random.below(4) == 0 {
                let worker = WorkerId::new(random.below(2) as u16);
                attributes = attributes.affinity(WorkerMask::from_iter([worker]));
            }
            if random.below(8) == 0 {
                books.spawn_endless(&runtime, attributes);
                continue;
            }
            let (what, micros) = (random.below(32), random.below(25_000));
            let what = if what == 31 { 5 } else { what % 5 };
            books.spawn(&runtime, attributes, any_life(what, micros, gone.clone()));
        }
        if random.below(4) == 0 {
            books.abort();
        }
        // Let it run for a while, or until it has stopped everything.
        let polls = runtime.metrics().polls + random.below(200);
        let until = now() + Duration::from_micros(random.below(30_000));
        wait_until("it has run a little", || {
            runtime.metrics().polls >= polls || now() >= until
        });
    }
    let metrics = runtime.metrics();
    println!(
        "{rounds} rounds: {} convictions, {} stand-ins, {} times no spare",
        metrics.convictions, metrics.stand_ins, metrics.spares_exhausted
    );
    // Half of the time, before they come back.
    let early = random.below(2) == 0;
    if !early {
        stuck.clear();
    }
    drop(bypass);
    runtime.unload();
    go.send_replace(true);
    drop(go);
    books.abort();
    books.settle();
    stuck.clear();
    wait_until("all threads are back", || runtime.abandoned_threads() == 0);
    let (policy, record) = Recorder::new(Priority::new(), 2);
    runtime.load(policy).unwrap();
    Mixed::start(&runtime, 3).finish();
    record.check();
    books.check();
    within(move || drop(runtime));
}
