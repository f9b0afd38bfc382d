//! Claims, of tasks and of idle workers: one claimer gets what several want; and kicks.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{Attributes, DsqId, Host, Position, TaskId, TaskView, WorkerId, WorkerMask};
use polity_tests::{check, now, receive, wait_for, wait_until};

use super::{W0, W1, create};
use crate::workload::{Mixed, Recorder, Script, exit_of, lock, tagged};

#[test]
fn claims_of_stale_double_and_forged_ids_are_refused_and_harm_nothing() {
    check(2, |runtime| {
        let (kept, foreign) = (
            Arc::new(Mutex::new(Vec::<TaskId>::new())),
            Arc::new(Mutex::new(Vec::<TaskId>::new())),
        );
        let answers = Arc::new(Mutex::new([0usize; 2]));
        // Tasks of another runtime, also held by a policy there: slots are shared by the process, so their ids exist.
        let elsewhere = polity_tests::runtime(1);
        let theirs = Arc::clone(&foreign);
        elsewhere
            .load(Script::new("elsewhere").enqueue(move |host, task| {
                if task.tag() == 1 {
                    lock(&theirs).push(task.id());
                } else {
                    host.insert(task.id(), DsqId::Global, Position::Tail);
                }
            }))
            .unwrap();
        let held_there: Vec<_> = (0..4).map(|_| tagged(&elsewhere, 1, async {})).collect();
        wait_until("the other policy has its tasks", || {
            lock(&foreign).len() == 4
        });

        let (mine, noted) = (Arc::clone(&kept), Arc::clone(&answers));
        let not_mine = Arc::clone(&foreign);
        let old = Mutex::new(Vec::<TaskId>::new());
        let policy = Script::new("claims_anything")
            .init(|host| create(host, 0))
            .enqueue(move |_, task| lock(&mine).push(task.id()))
            .dispatch(move |host, _, _| {
                let mut old = lock(&old);
                let claim = |task, dsq| {
                    let claimed = host.insert(task, dsq, Position::Tail);
                    lock(&noted)[usize::from(claimed)] += 1;
                    claimed
                };
                let now = std::mem::take(&mut *lock(&kept));
                if now.is_empty() {
                    return; // an idle worker parks
                }
                for task in now {
                    assert!(claim(task, DsqId::Local) || old.contains(&task));
                    assert!(!claim(task, DsqId::Global), "twice");
                    assert!(!claim(task, DsqId::Custom(0)), "three times");
                    let (slot, tenant) = (task.slot(), task.tenant());
                    for forged in [
                        TaskId::from_parts(slot, tenant + 1),
                        TaskId::from_parts(slot, tenant.wrapping_sub(1)),
                        TaskId::from_parts(slot, 0),
                        TaskId::from_parts(u32::MAX, 1),
                        TaskId::from_parts(u32::MAX, u32::MAX),
                        TaskId::from_parts(slot + 1, u32::MAX),
                    ] {
                        assert!(!claim(forged, DsqId::Local), "{forged}");
                    }
                    for theirs in lock(&not_mine).iter() {
                        assert!(!claim(*theirs, DsqId::Local), "of another runtime");
                    }
                    old.push(task);
                }
                for task in old.iter().rev().take(8) {
                    claim(*task, DsqId::Global);
                }
            });
        let generation = runtime.load(policy).unwrap();
        Mixed::start(&runtime, 10).finish();
        assert!(
            runtime.exit_info(generation).is_none(),
            "{:?}",
            runtime.exit_info(generation)
        );
        let [refused, claimed] = *lock(&answers);
        assert!(refused > claimed && claimed > 0, "{refused} {claimed}");
        assert!(runtime.metrics().stale_claims > 0);
        elsewhere.unload();
        for task in held_there {
            wait_for("a task of the other runtime", task).unwrap();
        }
    });
}

#[test]
fn of_several_workers_that_claim_one_task_one_gets_it() {
    check(4, |runtime| {
        let all = Arc::new(Mutex::new(Vec::<TaskId>::new()));
        let claimed = Arc::new(AtomicUsize::new(0));
        let polls = Arc::new(AtomicUsize::new(0));
        let (seen, noted) = (Arc::clone(&all), Arc::clone(&claimed));
        // Never forgets an id: all workers claim all tasks, all the time.
        let policy = Script::new("greedy")
            .enqueue(move |_, task| lock(&all).push(task.id()))
            .dispatch(move |host, _, _| {
                let tasks = lock(&seen).clone();
                for task in tasks {
                    if host.insert(task, DsqId::Local, Position::Tail) {
                        noted.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        let (policy, record) = Recorder::new(policy, 4);
        let generation = runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..200)
            .map(|_| {
                let polls = Arc::clone(&polls);
                runtime.spawn(async move { polls.fetch_add(1, Ordering::SeqCst) })
            })
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        runtime.unload();
        exit_of(&runtime, generation);
        wait_until("exit", || record.exits() == 1);
        record.check();
        assert_eq!(claimed.load(Ordering::SeqCst), 200);
        assert_eq!(polls.load(Ordering::SeqCst), 200);
    });
}

/// Three workers in `enqueue` try to claim the fourth one at the same time.
#[test]
fn an_idle_worker_is_claimed_by_one() {
    #[derive(Default)]
    struct Round {
        claiming: AtomicBool,
        ready: AtomicUsize,
        tried: AtomicUsize,
        won: AtomicUsize,
        idle: AtomicBool,
    }
    const IDLE: WorkerId = WorkerId::new(3);
    check(4, |runtime| {
        let round = Arc::new(Mutex::new(Arc::new(Round::default())));
        let claimers = || {
            let (current, in_dispatch) = (Arc::clone(&round), Arc::clone(&round));
            let enqueue = move |host: &Host<'_>, task: &TaskView<'_>| {
                host.insert(task.id(), DsqId::Local, Position::Tail);
                if task.tag() != 1 {
                    return;
                }
                let round = Arc::clone(&lock(&current));
                // From now on the fourth worker does not get past its `dispatch`, and so becomes idle once at most.
                round.claiming.store(true, Ordering::SeqCst);
                round.ready.fetch_add(1, Ordering::SeqCst);
                // Its timed rounds as the sentinel may keep it from being idle: then nobody wins, and we try again.
                let until = now() + Duration::from_millis(4);
                while now() < until {
                    if round.ready.load(Ordering::SeqCst) == 3 && host.is_idle(IDLE) {
                        round.idle.store(true, Ordering::SeqCst);
                    }
                    if round.idle.load(Ordering::SeqCst) {
                        break;
                    }
                    std::hint::spin_loop();
                }
                if round.idle.load(Ordering::SeqCst) && host.claim_idle(IDLE) {
                    round.won.fetch_add(1, Ordering::SeqCst);
                }
                round.tried.fetch_add(1, Ordering::SeqCst);
            };
            let dispatch = move |_: &Host<'_>, worker, _: Option<&TaskView<'_>>| {
                let round = Arc::clone(&lock(&in_dispatch));
                while worker == IDLE
                    && round.claiming.load(Ordering::SeqCst)
                    && round.tried.load(Ordering::SeqCst) < 3
                {
                    std::thread::yield_now();
                }
            };
            Script::new("claimers").enqueue(enqueue).dispatch(dispatch)
        };
        runtime.load(claimers()).unwrap();
        let mut won = 0;
        wait_until("somebody has won five times", || {
            let round = {
                let mut current = lock(&round);
                *current = Arc::default();
                Arc::clone(&current)
            };
            let tasks: Vec<_> = (0..3)
                .map(|n| {
                    let only = WorkerMask::from_iter([WorkerId::new(n)]);
                    let attributes = Attributes::new().tag(1).affinity(only);
                    runtime.spawn_with(attributes, async {}).unwrap()
                })
                .collect();
            for task in tasks {
                wait_for("a claimer", task).unwrap();
            }
            // One that the machine has kept in its `dispatch` all the time may go on.
            round.claiming.store(false, Ordering::SeqCst);
            if runtime.policy_status().is_none() {
                // For so long that it counts as stuck: then a spare is the fourth worker, and becomes idle once more.
                wait_until("its threads are back", || runtime.abandoned_threads() == 0);
                runtime.load(claimers()).unwrap();
                return false;
            }
            let winners = round.won.load(Ordering::SeqCst);
            assert!(winners <= 1, "{winners} have claimed one idle worker");
            won += winners;
            won >= 5
        });
    });
}

#[test]
fn a_worker_that_was_claimed_and_forgotten_is_not_lost() {
    check(2, |runtime| {
        let policy = Script::new("forgetful_claimer").enqueue(|host, task| {
            for worker in [W0, W1] {
                host.claim_idle(worker);
            }
            host.insert(task.id(), DsqId::Global, Position::Tail);
        });
        runtime.load(policy).unwrap();
        for _ in 0..200 {
            // Two tasks that wait for each other inside one poll need both workers.
            let (to, from) = sync_channel::<()>(0);
            let first = runtime.spawn(async move { to.send(()).unwrap() });
            let second = runtime.spawn(async move { receive("the other worker", &from) });
            wait_for("the first", first).unwrap();
            wait_for("the second", second).unwrap();
        }
    });
}

#[test]
fn a_kick_makes_a_worker_ask_dispatch_again_before_it_parks() {
    check(1, |runtime| {
        let left = Arc::new(AtomicUsize::new(1000));
        let counted = Arc::clone(&left);
        // One worker has no sentinel: without the kicks it would ask once or twice and then park for ever.
        let policy = Script::new("self_kick").dispatch(move |host, worker, _| {
            if counted.load(Ordering::SeqCst) > 0 {
                counted.fetch_sub(1, Ordering::SeqCst);
                host.kick(worker);
            }
        });
        runtime.load(policy).unwrap();
        wait_until("a thousand kicks have had their effect", || {
            left.load(Ordering::SeqCst) == 0
        });
    });
}
