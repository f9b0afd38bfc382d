//! Tasks that wait for long, and policies that cannot help it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{
    Attributes, DsqId, ExitKind, Position, Runtime, TaskId, WorkerId, WorkerMask, yield_now,
};
use polity_policies::Fifo;
use polity_tests::{builder, burn, now, wait_for, wait_until, within};

use crate::support::Blocker;
use crate::watchdog::{FORGET, MS, forgetful};
use crate::workload::{Script, exit_of, lock, tagged};

const TIMEOUT: Duration = Duration::from_millis(50);

/// So that nobody comes to the rescue but the watchdog itself, and only when all workers are stuck.
fn without_spares(workers: usize) -> Runtime {
    let builder = builder(workers).watchdog(TIMEOUT).spares(0);
    builder.build().unwrap()
}

fn only(worker: u16) -> Attributes {
    let workers: WorkerMask = [WorkerId::new(worker)].into_iter().collect();
    Attributes::new().affinity(workers)
}

/// So long that whoever was to be ejected would be. The interval is the subject.
fn let_four_timeouts_pass() {
    let until = now() + 4 * TIMEOUT;
    wait_until("four timeouts have passed", || now() >= until);
}

/// First come, first served: one task for each worker that asks.
fn one_queue() -> Script {
    let queue = Arc::<Mutex<VecDeque<TaskId>>>::default();
    let fill = Arc::clone(&queue);
    Script::new("one_queue")
        .enqueue(move |_, task| lock(&fill).push_back(task.id()))
        .dispatch(move |host, _, _| {
            let first = lock(&queue).pop_front();
            if let Some(task) = first {
                host.insert(task, DsqId::Local, Position::Tail);
            }
        })
}

#[test]
fn a_fair_policy_with_a_backlog_longer_than_its_timeout_is_not_ejected() {
    within(|| {
        let runtime = without_spares(1);
        let generation = runtime.load(one_queue()).unwrap();
        let longest_wait = Arc::new(AtomicUsize::new(0));
        // 200 polls of a millisecond before it is a task's turn again.
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let longest_wait = Arc::clone(&longest_wait);
                runtime.spawn(async move {
                    let mut ran_at = now();
                    for _ in 0..5 {
                        yield_now().await;
                        let waited = (now() - ran_at).as_millis() as usize;
                        longest_wait.fetch_max(waited, Ordering::Relaxed);
                        burn(MS);
                        ran_at = now();
                    }
                })
            })
            .collect();
        for task in tasks {
            wait_for("a task of a long queue", task).unwrap();
        }
        let longest = longest_wait.load(Ordering::Relaxed) as u128;
        assert!(
            longest > 2 * TIMEOUT.as_millis(),
            "{longest} ms prove nothing"
        );
        let info = runtime.exit_info(generation);
        assert!(info.is_none(), "{info:?}");
    });
}

/// Every thread of the runtime in a long poll: the workers, and the watchdog, which does their work when no spare is left.
fn all_in_long_polls(runtime: &Runtime) -> Vec<Blocker> {
    let threads = 0..=runtime.worker_count();
    threads.map(|_| Blocker::new(runtime)).collect()
}

#[test]
fn a_policy_is_not_blamed_for_tasks_behind_long_polls_on_all_threads() {
    for workers in [1, 2] {
        within(move || {
            let runtime = without_spares(workers);
            let generation = runtime.load(Fifo::new()).unwrap();
            let hogs = all_in_long_polls(&runtime);
            let behind: Vec<_> = (0..100).map(|_| runtime.spawn(async {})).collect();
            let_four_timeouts_pass();
            assert!(behind.iter().all(|task| !task.is_finished()));
            for hog in hogs {
                hog.end();
            }
            for task in behind {
                wait_for("a task behind a long poll", task).unwrap();
            }
            let info = runtime.exit_info(generation);
            assert!(info.is_none(), "{info:?}");
        });
    }
}

/// The policy has forgotten it, but as long as nobody could have run it, that has made no difference.
#[test]
fn a_forgotten_task_is_blamed_on_the_policy_when_somebody_could_have_run_it_and_not_before() {
    within(|| {
        let runtime = without_spares(1);
        let generation = runtime.load(forgetful()).unwrap();
        let mut hogs = all_in_long_polls(&runtime);
        // Offered in one batch with another hog, when one of these ends.
        let forgotten = tagged(&runtime, FORGET, async {});
        let last = Blocker::with(|body| {
            let hog = runtime.spawn(body);
            hogs.pop().unwrap().end();
            hog
        });
        let_four_timeouts_pass();
        let info = runtime.exit_info(generation);
        assert!(info.is_none(), "{info:?}");
        assert!(runtime.policy_status().is_some() && !forgotten.is_finished());
        last.end();
        wait_for("the forgotten task", forgotten).unwrap();
        assert_eq!(exit_of(&runtime, generation).kind, ExitKind::Stall);
        for hog in hogs {
            hog.end();
        }
    });
}

#[test]
fn with_spares_a_forgotten_task_is_found_during_the_long_polls() {
    for workers in [1, 2] {
        within(move || {
            let runtime = builder(workers).watchdog(TIMEOUT).build().unwrap();
            let generation = runtime.load(forgetful()).unwrap();
            let hogs: Vec<_> = (0..workers).map(|_| Blocker::new(&runtime)).collect();
            let forgotten = tagged(&runtime, FORGET, async {});
            wait_for("the forgotten task", forgotten).unwrap();
            assert_eq!(exit_of(&runtime, generation).kind, ExitKind::Stall);
            for hog in hogs {
                hog.end();
            }
        });
    }
}

#[test]
fn with_spares_tasks_behind_long_polls_run_and_the_policy_stays() {
    for workers in [1, 2] {
        within(move || {
            let runtime = builder(workers).watchdog(TIMEOUT).build().unwrap();
            let generation = runtime.load(Fifo::new()).unwrap();
            let hogs: Vec<_> = (0..workers).map(|_| Blocker::new(&runtime)).collect();
            let behind: Vec<_> = (0..100).map(|_| runtime.spawn(async {})).collect();
            for task in behind {
                wait_for("a task behind a long poll", task).unwrap();
            }
            let_four_timeouts_pass();
            let info = runtime.exit_info(generation);
            assert!(info.is_none(), "{info:?}");
            for hog in hogs {
                hog.end();
            }
        });
    }
}

#[test]
fn a_task_whose_only_worker_is_in_a_long_poll_is_not_blamed_on_the_policy() {
    within(|| {
        let runtime = without_spares(2);
        let generation = runtime.load(Fifo::new()).unwrap();
        let hog = Blocker::with(|body| runtime.spawn_with(only(0), body).unwrap());
        let bound = runtime.spawn_with(only(0), async {}).unwrap();
        let until = now() + 4 * TIMEOUT;
        // The other worker polls what came later, asks for work, and sits idle.
        while now() < until {
            wait_for("the other worker", runtime.spawn(async {})).unwrap();
        }
        let_four_timeouts_pass();
        let info = runtime.exit_info(generation);
        assert!(info.is_none(), "{info:?}");
        hog.end();
        wait_for("the bound task", bound).unwrap();
    });
}

#[test]
fn with_spares_a_task_whose_only_worker_is_in_a_long_poll_runs_and_the_policy_stays() {
    within(|| {
        let runtime = builder(2).watchdog(TIMEOUT).build().unwrap();
        let generation = runtime.load(Fifo::new()).unwrap();
        let hog = Blocker::with(|body| runtime.spawn_with(only(0), body).unwrap());
        let bound = runtime.spawn_with(only(0), async {}).unwrap();
        wait_for("the bound task", bound).unwrap();
        let_four_timeouts_pass();
        let info = runtime.exit_info(generation);
        assert!(info.is_none(), "{info:?}");
        hog.end();
    });
}

#[test]
fn in_a_bypass_nothing_is_judged_and_after_it_ages_start_anew() {
    for workers in [1, 2] {
        within(move || {
            let runtime = builder(workers).watchdog(TIMEOUT).build().unwrap();
            let generation = runtime.load(forgetful()).unwrap();
            let guard = runtime.bypass();
            let until = now() + 4 * TIMEOUT;
            while now() < until {
                let forgotten = tagged(&runtime, FORGET, async {});
                wait_for("a task that core runs", forgotten).unwrap();
            }
            let info = runtime.exit_info(generation);
            assert!(info.is_none(), "{info:?}");
            // It waits through the end of the bypass, behind a poll that core began.
            let hogs: Vec<_> = (0..workers).map(|_| Blocker::new(&runtime)).collect();
            let behind = tagged(&runtime, FORGET, async {});
            drop(guard);
            let left_at = now();
            for hog in hogs {
                hog.end();
            }
            wait_for("a task behind it", behind).unwrap();
            // Core ran it, or the policy had it for as long as it may.
            let had_it = now() - left_at;
            let ended = runtime.wait_exit(generation, MS);
            assert!(ended.is_none() || had_it >= TIMEOUT, "{ended:?}");
            drop(runtime);
        });
    }
}
