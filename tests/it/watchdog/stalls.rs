//! Policies that let a runnable task wait: found, said what of, and in time.

use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use polity::{
    Attributes, DsqId, ExitKind, Handle, Host, LoadError, LoadRefused, Policy, Position, TaskView,
    yield_now,
};
use polity_policies::{Fault, Faulty};
use polity_tests::{DEADLINE, alone, builder, check, now, receive, runtime, wait_for, within};
use tokio::sync::Notify;

use crate::watchdog::{FORGET, Lateness, MS, forgetful, median, quartile};
use crate::workload::{Mixed, Script, exit_of, expect_ordered_panics, lock, tagged};

/// [`forgetful`], with a timeout of its own, and a note of when it got the task that it forgot.
struct Timed {
    timeout: Duration,
    got: Arc<Mutex<Option<Instant>>>,
}

impl Policy for Timed {
    type Task = ();

    fn name(&self) -> &str {
        "timed"
    }

    fn stall_timeout(&self) -> Option<Duration> {
        Some(self.timeout)
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if task.tag() == FORGET {
            *lock(&self.got) = Some(now());
        } else {
            host.insert(task.id(), DsqId::Global, Position::Tail);
        }
    }
}

/// What the workers do while a task waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Meanwhile {
    Idle,
    RunOthers,
    /// A task comes now and then.
    AskForWork,
}

/// Tasks that keep the workers at that until told to stop.
fn keep_at_it(runtime: &Handle, meanwhile: Meanwhile, stop: &Arc<AtomicBool>) {
    let tasks = match meanwhile {
        Meanwhile::Idle => 0,
        Meanwhile::RunOthers => 2 * runtime.worker_count(),
        Meanwhile::AskForWork => 1,
    };
    for _ in 0..tasks {
        let stop = Arc::clone(stop);
        drop(runtime.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                if meanwhile == Meanwhile::AskForWork {
                    // A timer of the driver is what wakes the workers here.
                    tokio::time::sleep(2 * MS).await;
                }
                yield_now().await;
            }
        }));
    }
}

/// One rescue of a forgotten task.
struct Rescue {
    /// From the policy's `enqueue` to the poll.
    after: Duration,
    /// How much of that the machine lost.
    lost: Duration,
    /// How long the task had waited by the watchdog's clock.
    age: Duration,
}

/// `None`: another task was late, too, because of the machine, and was named.
fn rescue(workers: usize, timeout: Duration, meanwhile: Meanwhile) -> Option<Rescue> {
    let runtime = runtime(workers);
    let got = Arc::<Mutex<Option<Instant>>>::default();
    let generation = runtime
        .load(Timed {
            timeout,
            got: Arc::clone(&got),
        })
        .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    keep_at_it(&runtime, meanwhile, &stop);
    let lateness = Lateness::begin();
    let (ran, runs) = channel();
    let attributes = Attributes::new().name("ledger").tag(FORGET);
    let site = Location::caller().file();
    let forgotten = runtime
        .spawn_with(attributes, async move { ran.send(now()).unwrap() })
        .unwrap();
    let line = line!() - 2;
    let id = forgotten.id();
    let Ok(ran_at) = runs.recv_timeout(DEADLINE / 2) else {
        panic!("the forgotten task {id} has not run:\n{}", runtime.dump());
    };
    let lost = lateness.end();
    stop.store(true, Ordering::Relaxed);
    wait_for("the forgotten task", forgotten).unwrap();
    let info = exit_of(&runtime, generation);
    assert_eq!(info.kind, ExitKind::Stall, "{info}");
    if info.task != Some(id) {
        assert_ne!(meanwhile, Meanwhile::Idle, "{info}");
        return None;
    }
    let who = format!("task {id} \"ledger\" (spawned at {site}:{line}:");
    assert!(info.message.starts_with(&who), "{info}");
    let (_, rest) = info.message.split_once(") has waited for ").unwrap();
    let (age, instead) = rest.split_once(" ms in its custody; worker ").unwrap();
    let age = Duration::from_millis(age.parse().unwrap());
    assert!(age >= timeout, "{info}");
    let (worker, what) = instead.split_once(' ').unwrap();
    assert!(worker.parse::<usize>().unwrap() < workers, "{info}");
    // On a busy machine, other workers may find nothing for a moment, and their last look before a park may come late.
    let possible = match meanwhile {
        Meanwhile::Idle => what == "sat idle" || what == "asked for work and got none",
        Meanwhile::RunOthers | Meanwhile::AskForWork => {
            let polled = what.starts_with("polled task ") && what.ends_with("which it got later");
            polled || what == "asked for work and got none" || what == "sat idle"
        }
    };
    assert!(possible, "{info}");
    let got = lock(&got).expect("it was offered");
    let after = ran_at - got;
    Some(Rescue { after, lost, age })
}

/// A busy machine may be late again and again, for a second or two; a watchdog that looks too seldom always is.
const ATTEMPTS: usize = 5;
const SHORT_ATTEMPTS: usize = 20;

fn is_in_time(workers: usize, timeout: Duration, meanwhile: Meanwhile) {
    let bound = timeout + 20 * MS;
    let (rounds, attempts) = match timeout < 100 * MS {
        true => (7, SHORT_ATTEMPTS),
        false => (3, ATTEMPTS),
    };
    let case = format!("{timeout:?}, {workers} workers, {meanwhile:?}");
    for attempt in 1..=attempts {
        let rescues: Vec<Rescue> = within(move || {
            let rounds = (0..rounds).map(|_| rescue(workers, timeout, meanwhile));
            rounds.flatten().collect()
        });
        if rescues.is_empty() {
            continue;
        }
        let of = |what: fn(&Rescue) -> Duration| rescues.iter().map(what).collect::<Vec<_>>();
        let after = of(|rescue| rescue.after);
        println!(
            "{case}: after {after:.1?}, {:.1?} of it lost",
            of(|rescue| rescue.lost)
        );
        assert!(
            after.iter().all(|after| *after >= timeout),
            "{case}: too early"
        );
        let age = median(of(|rescue| rescue.age));
        assert!(age <= bound, "{case}: {age:?} by the watchdog's clock");
        // That the watchdog looks at the right ticks is tested where no machine has a say; here is a machine, which is late more often
        // than early.
        let quartile = quartile(of(|rescue| rescue.after.saturating_sub(rescue.lost)));
        if quartile <= bound {
            return;
        }
        println!("{case}: attempt {attempt} of {attempts}: {quartile:?}");
    }
    panic!("{case}: never within {bound:?}");
}

#[test]
fn a_policy_that_holds_a_task_is_ejected_within_twenty_milliseconds_of_the_timeout() {
    alone(|| {
        for timeout in [10 * MS, 50 * MS, 500 * MS] {
            for meanwhile in [Meanwhile::Idle, Meanwhile::RunOthers, Meanwhile::AskForWork] {
                for workers in [1, 2] {
                    is_in_time(workers, timeout, meanwhile);
                }
            }
        }
    });
}

#[test]
fn the_timeout_of_the_policy_beats_that_of_the_runtime_in_both_directions() {
    within(|| {
        let policy = |timeout| Timed {
            timeout,
            got: Arc::default(),
        };
        let patient = builder(1).watchdog(30_000 * MS).build().unwrap();
        let generation = patient.load(policy(20 * MS)).unwrap();
        wait_for("a forgotten task", tagged(&patient, FORGET, async {})).unwrap();
        assert_eq!(exit_of(&patient, generation).kind, ExitKind::Stall);

        let hasty = builder(1).watchdog(10 * MS).build().unwrap();
        let generation = hasty.load(policy(30_000 * MS)).unwrap();
        let forgotten = tagged(&hasty, FORGET, async {});
        // Ten times the runtime's, and half a second for a watchdog that is late.
        assert!(hasty.wait_exit(generation, 600 * MS).is_none());
        hasty.unload();
        wait_for("a forgotten task", forgotten).unwrap();
    });
}

#[test]
fn the_builders_own_policy_is_watched_too() {
    within(|| {
        let policy = Faulty::new(Fault::Starve { weight: 1 });
        let builder = builder(1).watchdog(20 * MS).policy(policy);
        let runtime = builder.build().unwrap();
        let generation = runtime.policy_status().unwrap().generation;
        wait_for("a starved task", runtime.spawn(async {})).unwrap();
        assert_eq!(exit_of(&runtime, generation).kind, ExitKind::Stall);
    });
}

#[test]
fn a_stall_timeout_out_of_range_refuses_the_load_and_says_the_range() {
    check(1, |runtime| {
        let kept = runtime.load(forgetful()).unwrap();
        let refused = [
            Duration::ZERO,
            9 * MS,
            10 * MS - Duration::from_nanos(1),
            30_000 * MS + Duration::from_nanos(1),
            31_000 * MS,
            Duration::MAX,
        ];
        for timeout in refused {
            let policy = Faulty::new(Fault::RefuseInit).with_stall_timeout(timeout);
            let error = runtime.load(policy).unwrap_err();
            assert_eq!(
                error,
                LoadError::Refused(LoadRefused::StallTimeout(timeout))
            );
            let text = error.to_string();
            let expected = format!(
                "policy asks for a stall timeout of {timeout:?}, but it must be from 10 ms to 30 s"
            );
            assert_eq!(text, expected);
        }
        assert_eq!(runtime.policy_status().unwrap().generation, kept);
        for timeout in [10 * MS, 30_000 * MS] {
            let fault = Fault::ErrorAfterEnqueues(0);
            let policy = Faulty::new(fault).with_stall_timeout(timeout);
            runtime.load(policy).unwrap();
        }
    });
}

#[test]
fn a_panic_in_stall_timeout_is_a_refused_load() {
    struct Panics;
    impl Policy for Panics {
        type Task = ();

        fn name(&self) -> &str {
            "panics"
        }
        fn stall_timeout(&self) -> Option<Duration> {
            panic!("no idea, as ordered");
        }
    }
    expect_ordered_panics();
    check(1, |runtime| {
        let kept = runtime.load(forgetful()).unwrap();
        let error = runtime.load(Panics).unwrap_err();
        assert_eq!(
            error.to_string(),
            "policy panicked in stall_timeout: no idea, as ordered"
        );
        assert_eq!(runtime.policy_status().unwrap().generation, kept);
    });
}

/// Loads `policy`, lets it lose some of a mixed load, and expects all of that to end well.
fn loses_some_of_a_mixed_load(workers: usize, policy: impl Policy) {
    within(move || {
        let runtime = builder(workers).watchdog(30 * MS).build().unwrap();
        let generation = runtime.load(policy).unwrap();
        let load = Mixed::start(&runtime, 10);
        let info = exit_of(&runtime, generation);
        assert_eq!(info.kind, ExitKind::Stall, "{info}");
        assert!(info.task.is_some());
        assert!(runtime.policy_status().is_none());
        load.finish();
    });
}

#[test]
fn a_policy_that_forgets_tasks_of_a_mixed_load_is_ejected_and_all_of_them_run() {
    for workers in [1, 2] {
        loses_some_of_a_mixed_load(workers, Faulty::new(Fault::ForgetEveryNth(20)));
    }
}

#[test]
fn a_policy_that_starves_the_heavy_ones_is_ejected_and_all_of_them_run() {
    for workers in [1, 2] {
        loses_some_of_a_mixed_load(workers, Faulty::new(Fault::Starve { weight: 1_000 }));
    }
}

/// Of such tasks that the policy was given one after the other, the first is named, and all run.
fn the_oldest_of(workers: usize, policy: Script, place: &'static str) {
    within(move || {
        let runtime = builder(workers).watchdog(50 * MS).build().unwrap();
        let offered = runtime.metrics().offered;
        let generation = runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..5)
            .map(|nth| {
                let task = tagged(&runtime, FORGET, async {});
                let all = offered + nth + 1;
                polity_tests::wait_until("it was offered", || runtime.metrics().offered >= all);
                task
            })
            .collect();
        let info = exit_of(&runtime, generation);
        assert_eq!(info.kind, ExitKind::Stall, "{info}");
        assert_eq!(info.task, Some(tasks[0].id()), "{info}");
        assert!(info.message.contains(place), "{info}");
        for task in tasks {
            wait_for("a task that waited", task).unwrap();
        }
    });
}

#[test]
fn tasks_in_a_custom_dsq_that_nobody_empties_are_found() {
    for workers in [1, 2] {
        let policy = Script::new("fills_a_queue")
            .init(|host| {
                host.create_dsq(7)?;
                Ok(())
            })
            .enqueue(|host, task| {
                host.insert(task.id(), DsqId::Custom(7), Position::Tail);
            });
        the_oldest_of(workers, policy, " in DSQ custom 7; ");
    }
}

#[test]
fn of_forgotten_tasks_the_oldest_is_named() {
    for workers in [1, 2] {
        the_oldest_of(workers, forgetful(), " in its custody; ");
    }
}

/// Two tasks that wake each other: one of them always is inserted before the worker looks.
fn ping_pong(runtime: &Handle, stop: &Arc<AtomicBool>) {
    let (begun, has_begun) = channel();
    let pair = [Arc::<Notify>::default(), Arc::<Notify>::default()];
    for (mine, other) in [(&pair[0], &pair[1]), (&pair[1], &pair[0])] {
        let (mine, other, stop) = (Arc::clone(mine), Arc::clone(other), Arc::clone(stop));
        let begun = begun.clone();
        drop(runtime.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                mine.notified().await;
                let _ = begun.send(());
                other.notify_one();
            }
            other.notify_one();
        }));
    }
    pair[0].notify_one();
    receive("the pair", &has_begun);
}

#[test]
fn a_task_in_a_local_dsq_behind_endless_inserts_at_the_head_is_found() {
    within(|| {
        let runtime = builder(1).watchdog(50 * MS).build().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let policy = Script::new("last_in_first_out").enqueue(|host, task| {
            let at = match task.tag() {
                FORGET => Position::Tail,
                _ => Position::Head,
            };
            host.insert(task.id(), DsqId::Local, at);
        });
        let generation = runtime.load(policy).unwrap();
        ping_pong(&runtime, &stop);
        // Where the pair gets no processor for a while, a spare runs it: then the next one starves.
        let info = loop {
            let starved = tagged(&runtime, FORGET, async {});
            wait_for("the starved task", starved).unwrap();
            if let Some(info) = runtime.wait_exit(generation, 50 * MS) {
                break info;
            }
        };
        stop.store(true, Ordering::Relaxed);
        assert_eq!(info.kind, ExitKind::Stall, "{info}");
        let expected = " in the local DSQ of worker 0; worker 0 polled task ";
        assert!(info.message.contains(expected), "{info}");
    });
}

#[test]
fn a_policy_that_was_loaded_over_a_stalled_one_has_its_own_time() {
    within(|| {
        let runtime = builder(1).watchdog(100 * MS).build().unwrap();
        runtime.load(forgetful()).unwrap();
        let forgotten = tagged(&runtime, FORGET, async {});
        let begun = now();
        let mut loaded_at = begun;
        // Each gets the task anew, and for less than its timeout.
        while now() - begun < 300 * MS {
            loaded_at = now();
            runtime.load(forgetful()).unwrap();
            // The interval between two loads is the subject.
            std::thread::park_timeout(20 * MS);
        }
        let last = runtime.policy_status();
        let in_time = now() - loaded_at < 100 * MS;
        assert!(last.is_some() || !in_time);
        wait_for("the task, after the last one's stall", forgotten).unwrap();
        assert!(now() - loaded_at >= 100 * MS);
    });
}
