//! How tasks run in a bypass: in turn, where they may, and with the policy told of it.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use polity::{Attributes, BoxPolicy, Policy, Runtime, WorkerId, WorkerMask, yield_now};
use polity_policies::{Fifo, Priority, Vtime};
use polity_tests::{check, wait_for, wait_until, within};

use super::{Calls, RUNS, holding, load, load_holding, only_on, pass_each_worker};
use crate::support::{Blocker, yield_until};
use crate::workload::{GiveBack, Keeper, Mixed, Script, lock, tagged};

/// Counts the polls.
fn counted<F: Future>(
    polls: &Arc<AtomicUsize>,
    future: F,
) -> impl Future<Output = F::Output> + use<F> {
    let (polls, mut future) = (Arc::clone(polls), Box::pin(future));
    poll_fn(move |context| {
        polls.fetch_add(1, Ordering::SeqCst);
        future.as_mut().poll(context)
    })
}

#[test]
fn the_policy_stays_loaded_and_is_told_of_every_poll_in_a_bypass() {
    for workers in [1, 2] {
        check(workers, |runtime| {
            let (calls, record) = load_holding(&runtime);
            let loaded = runtime.policy_status().unwrap();
            let _guard = runtime.bypass();
            pass_each_worker(&runtime);
            let before = record.runs.load(Ordering::SeqCst);
            let polls = Arc::new(AtomicUsize::new(0));
            let mut tasks = Vec::new();
            for _ in 0..50 {
                let (wake, woken) = tokio::sync::oneshot::channel();
                let waits = async { woken.await.unwrap() };
                tasks.push(tagged(&runtime, 1, counted(&polls, waits)));
                let wakes = async {
                    for _ in 0..10 {
                        yield_now().await;
                    }
                    wake.send(()).unwrap();
                };
                tasks.push(tagged(&runtime, 2, counted(&polls, wakes)));
            }
            for task in tasks {
                wait_for("a task past the policy", task).unwrap();
            }
            let told = record.runs.load(Ordering::SeqCst) - before;
            assert_eq!(told, polls.load(Ordering::SeqCst));
            pass_each_worker(&runtime);
            assert_eq!(record.known_runnable(), 0);
            for tag in [1, 2] {
                assert_eq!(calls.count(tag, "enqueue"), 0);
                assert_eq!(calls.count(tag, "runnable"), calls.count(tag, "quiescent"));
                assert_eq!(calls.count(tag, "stopping Finished"), 50);
            }
            let now = runtime.policy_status().unwrap();
            assert_eq!((now.name, now.generation), (loaded.name, loaded.generation));
            assert_eq!(record.exits(), 0);
            record.check();
        });
    }
}

#[test]
fn a_task_that_waits_through_a_bypass_is_told_of_before_in_and_after_it() {
    check(1, |runtime| {
        let (calls, record) = load_holding(&runtime);
        let (wake, mut woken) = tokio::sync::mpsc::unbounded_channel::<()>();
        let task = tagged(&runtime, RUNS, async move {
            while woken.recv().await.is_some() {}
        });
        let waits = ["running", "stopping Waiting", "quiescent"];
        let by_policy = |reason| [&["runnable", reason][..], &waits].concat();
        let mut expected = by_policy("enqueue Spawn");
        calls.expect(&runtime, RUNS, &expected);
        let guard = runtime.bypass();
        wake.send(()).unwrap();
        expected.extend([&["runnable"][..], &waits].concat());
        calls.expect(&runtime, RUNS, &expected);
        drop(guard);
        pass_each_worker(&runtime);
        wake.send(()).unwrap();
        expected.extend(by_policy("enqueue Wake"));
        calls.expect(&runtime, RUNS, &expected);
        drop(wake);
        wait_for("the task", task).unwrap();
        record.check();
    });
}

fn policies() -> Vec<BoxPolicy> {
    let mut policies = vec![
        BoxPolicy::new(Script::new("only_a_name")),
        BoxPolicy::new(Fifo::new()),
        BoxPolicy::new(Fifo::per_worker()),
        BoxPolicy::new(Priority::new()),
        BoxPolicy::new(Vtime::new()),
    ];
    let keepers = GiveBack::ALL.into_iter().map(Keeper::new);
    policies.extend(keepers.map(BoxPolicy::new));
    policies
}

#[test]
fn calls_pair_up_for_tasks_spawned_before_in_and_after_bypasses() {
    for policy in policies() {
        check(2, move |runtime| {
            let name = policy.name().to_owned();
            let record = load(&runtime, policy);
            for _ in 0..4 {
                let before = Mixed::start(&runtime, 6);
                let outer = runtime.bypass();
                let meanwhile = Mixed::start(&runtime, 6);
                let polls = runtime.metrics().polls + 50;
                wait_until("some polls", || runtime.metrics().polls >= polls);
                drop(outer);
                let after = Mixed::start(&runtime, 6);
                drop(runtime.bypass());
                for load in [before, meanwhile, after] {
                    load.finish();
                }
            }
            wait_until("the last task is quiescent", || {
                record.known_runnable() == 0
            });
            let kept = record.kept.load(Ordering::Relaxed);
            let dequeued = record.dequeues.load(Ordering::Relaxed);
            assert_eq!(kept, dequeued, "{name}: custodies and their ends");
            assert_eq!(record.exits(), 0, "{name}");
            record.check();
        });
    }
}

/// Eight tasks that always yield. Returns the fewest and the most polls of one since all have begun, when each has had
/// `enough`.
fn polls_of_yielding_tasks(
    runtime: &Runtime,
    start: impl FnOnce(&dyn Fn()),
    enough: usize,
) -> (usize, usize) {
    let stop = Arc::new(AtomicBool::new(false));
    let polls: [Arc<AtomicUsize>; 8] = Default::default();
    let tasks = Mutex::new(Vec::new());
    start(&|| {
        for polls in &polls {
            lock(&tasks).push(runtime.spawn(counted(polls, yield_until(&stop))));
        }
    });
    let now = || polls.each_ref().map(|polls| polls.load(Ordering::SeqCst));
    let begun = now();
    wait_until("all have got into the round", || {
        now().iter().zip(begun).all(|(now, begun)| *now > begun)
    });
    let begun = now();
    let mut since = [0; 8];
    wait_until("the first has had enough", || {
        since = now();
        since
            .iter_mut()
            .zip(begun)
            .for_each(|(n, begun)| *n -= begun);
        since.iter().any(|n| *n >= enough)
    });
    stop.store(true, Ordering::Relaxed);
    for task in tasks.into_inner().unwrap() {
        wait_for("a yielding task", task).unwrap();
    }
    let (fewest, most) = (since.iter().min(), since.iter().max());
    (*fewest.unwrap(), *most.unwrap())
}

#[test]
fn tasks_that_always_yield_take_turns_in_a_bypass() {
    for before in [true, false] {
        check(1, move |runtime| {
            let record = load(&runtime, Keeper::new(GiveBack::Local));
            let mut guard = None;
            let start = |spawn: &dyn Fn()| {
                if before {
                    spawn();
                }
                guard = Some(runtime.bypass());
                if !before {
                    spawn();
                }
                pass_each_worker(&runtime);
            };
            let (fewest, most) = polls_of_yielding_tasks(&runtime, start, 2000);
            // On a busy machine a stand-in may take a share of them for a while.
            assert!(most - fewest <= most / 2, "{fewest} to {most} polls");
            drop(guard);
            record.check();
        });
    }
}

/// Two workers share them as it comes, seven and one at the worst, and the system may run the two unequally.
#[test]
fn no_task_that_always_yields_is_left_out_in_a_bypass_on_two_workers() {
    check(2, |runtime| {
        let record = load(&runtime, Keeper::new(GiveBack::Local));
        let _guard = runtime.bypass();
        polls_of_yielding_tasks(&runtime, |spawn| spawn(), 2000);
        record.check();
    });
}

#[test]
fn a_task_with_a_mask_stays_where_it_may_run_in_a_bypass() {
    check(3, |runtime| {
        let (calls, noted) = (Calls::default(), Calls::default());
        let allowed = noted.clone();
        let policy = holding(&calls).running(move |host, task| {
            let here = host.worker().is_some_and(|worker| task.allows(worker));
            allowed.note(task, here);
        });
        let record = load(&runtime, policy);
        let masks = [&[0][..], &[1], &[2], &[0, 1], &[1, 2], &[0, 2]];
        let spawn = |tag: u64| {
            let workers = masks[tag as usize % masks.len()].iter();
            let mask = WorkerMask::from_iter(workers.map(|worker| WorkerId::new(*worker)));
            let yields = async {
                for _ in 0..20 {
                    yield_now().await;
                }
            };
            let attributes = Attributes::new().tag(tag).affinity(mask);
            runtime.spawn_with(attributes, yields).unwrap()
        };
        let mut tasks: Vec<_> = (1..=24).map(spawn).collect();
        wait_until("the policy has them", || super::kept(&record) == 24);
        pass_each_worker(&runtime);
        let _guard = runtime.bypass();
        tasks.extend((25..=48).map(spawn));
        for task in tasks {
            wait_for("a restricted task", task).unwrap();
        }
        for tag in 1..=48 {
            let polls = noted.of(tag);
            assert_eq!(polls, ["true"; 21], "{tag}: {:?}", calls.of(tag));
        }
        record.check();
    });
}

#[test]
fn what_lies_behind_a_long_poll_is_run_by_the_other_worker_in_a_bypass() {
    within(|| {
        let runtime = polity_tests::runtime(2);
        let (_, record) = load_holding(&runtime);
        let tasks: Vec<_> = (0..40)
            .map(|n| super::held(&runtime, &record, 1 + n % 2))
            .collect();
        let blocked = Blocker::with(|body| runtime.spawn_with(only_on(1), body).unwrap());
        let _guard = runtime.bypass();
        for task in tasks {
            wait_for("a task that was held", task).unwrap();
        }
        blocked.end();
        record.check();
    });
}
