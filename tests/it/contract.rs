//! What a policy may rely on: which calls come, in which order, and what its verdicts mean.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{
    Attributes, BoxPolicy, DequeueReason, DsqError, DsqId, EnqueueReason, ExitKind, Host,
    InitError, Policy, Position, Runtime, TaskId, TaskView, WorkerId, WorkerMask, yield_now,
};
use polity_policies::{Fifo, Priority};
use polity_tests::{check, now, receive, wait_for, wait_until, within};

use crate::workload::{
    GiveBack, Held, Keeper, Mixed, Random, Record, Recorder, Script, exit_of, lock, tagged,
};

const W0: WorkerId = WorkerId::new(0);
const W1: WorkerId = WorkerId::new(1);

/// For `init`.
fn create(host: &Host<'_>, number: u32) -> Result<(), InitError> {
    host.create_dsq(number)?;
    Ok(())
}

struct OnlyAName;

impl Policy for OnlyAName {
    fn name(&self) -> &str {
        "only_a_name"
    }
}

#[test]
fn a_policy_that_has_only_a_name_runs_everything() {
    check(2, |runtime| {
        let generation = runtime.load(OnlyAName).unwrap();
        assert_eq!(runtime.policy().unwrap().name, "only_a_name");
        Mixed::start(&runtime, 20).finish();
        assert!(runtime.metrics().offered > 0);
        let info = runtime.unload().unwrap();
        assert_eq!(
            (info.kind, info.generation),
            (ExitKind::Unload, generation),
            "{info}"
        );
    });
}

fn policies() -> Vec<BoxPolicy> {
    let mut policies = vec![
        BoxPolicy::new(OnlyAName),
        BoxPolicy::new(Fifo::new()),
        BoxPolicy::new(Fifo::per_worker()),
        BoxPolicy::new(Priority::new()),
    ];
    policies.extend(
        GiveBack::ALL
            .into_iter()
            .map(|how| BoxPolicy::new(Keeper::new(how))),
    );
    policies
}

#[test]
fn calls_pair_up_for_each_task_under_load() {
    for (nth, policy) in policies().into_iter().enumerate() {
        check(2, move |runtime| {
            let name = policy.name().to_owned();
            let (policy, record) = Recorder::new(policy, 2);
            let generation = runtime.load(policy).unwrap();
            Mixed::start(&runtime, 20).finish();
            wait_until("the last task is quiescent", || {
                record.known_runnable() == 0
            });
            let kept = record.kept.load(Ordering::Relaxed);
            let dequeued = record.dequeues.load(Ordering::Relaxed);
            assert_eq!(kept, dequeued, "{name}: custodies and their ends");
            assert_eq!(kept > 0, nth >= 3, "{name}: {kept} custodies");
            runtime.unload();
            exit_of(&runtime, generation);
            wait_until("exit", || record.exits() == 1);
            record.check();
        });
    }
}

#[test]
fn calls_pair_up_for_each_generation_through_swaps_unloads_and_ejections() {
    within(|| {
        let runtime = polity_tests::runtime(2);
        let mut random = Random::from_env("calls_pair_up_for_each_generation");
        let mut records: Vec<Arc<Record>> = Vec::new();
        for _ in 0..12 {
            let load = Mixed::start(&runtime, 8);
            for _ in 0..12 {
                let mut policies = policies();
                let policy = policies.swap_remove(random.below(policies.len() as u64) as usize);
                let (policy, record) = Recorder::new(policy, 2);
                runtime.load(policy).unwrap();
                records.push(record);
                let some_more = runtime.metrics().polls + random.below(200);
                let until = now() + Duration::from_millis(2);
                wait_until("some polls or some time have passed", || {
                    runtime.metrics().polls >= some_more || now() > until
                });
                match random.below(4) {
                    0 => drop(runtime.unload()),
                    1 => drop(runtime.eject("as ordered")),
                    _ => {} // the next load is a swap
                }
            }
            load.finish();
        }
        runtime.unload();
        wait_until("every policy has had its exit", || {
            records.iter().all(|record| record.exits() == 1)
        });
        for record in &records {
            record.check();
        }
        let sum = |count: fn(&Record) -> &AtomicUsize| {
            let counts = records.iter().map(|record| count(record));
            counts.map(|n| n.load(Ordering::Relaxed)).sum::<usize>()
        };
        assert!(sum(|record| &record.runs) > 0 && sum(|record| &record.dequeues) > 0);
    });
}

type Log = Arc<Mutex<Vec<String>>>;

/// Notes every call for tasks with tag 1, and leaves the rest to the defaults.
fn logging() -> (Script, Log) {
    let log = Log::default();
    let note = |what: &'static str| {
        let log = Arc::clone(&log);
        move |_: &Host<'_>, task: &TaskView<'_>| {
            if task.tag() == 1 {
                lock(&log).push(what.to_owned());
            }
        }
    };
    let (selected, enqueued) = (note("select_worker"), Arc::clone(&log));
    let (dequeued, stopped) = (Arc::clone(&log), Arc::clone(&log));
    let script = Script::new("logging")
        .runnable(note("runnable"))
        .running(note("running"))
        .quiescent(note("quiescent"))
        .select_worker(move |host, task| {
            selected(host, task);
            task.last_worker()
        })
        .enqueue(move |host, task| {
            if task.tag() == 1 {
                lock(&enqueued).push(format!("enqueue {:?}", task.reason()));
            }
            host.insert(task.id(), DsqId::Global, Position::Tail);
        })
        .dequeue(move |_, task, reason| {
            if task.tag() == 1 {
                lock(&dequeued).push(format!("dequeue {reason:?}"));
            }
        })
        .stopping(move |_, task, how| {
            if task.tag() == 1 {
                lock(&stopped).push(format!("stopping {how:?}"));
            }
        });
    (script, log)
}

#[test]
fn a_task_that_yields_and_waits_is_told_in_full() {
    check(1, |runtime| {
        let (policy, log) = logging();
        runtime.load(policy).unwrap();
        let (wake, woken) = tokio::sync::oneshot::channel::<()>();
        let task = tagged(&runtime, 1, async move {
            yield_now().await;
            woken.await.unwrap();
        });
        wait_until("the task waits", || {
            lock(&log).last().is_some_and(|last| last == "quiescent")
        });
        wake.send(()).unwrap();
        wait_for("the task", task).unwrap();
        let spawned = ["runnable", "select_worker", "enqueue Spawn", "running"];
        // Alone, it is kept: `enqueue` is skipped as well.
        let yielded = [
            "stopping StillRunnable",
            "running",
            "stopping Waiting",
            "quiescent",
        ];
        let woken = ["runnable", "select_worker", "enqueue Wake", "running"];
        let done = ["stopping Finished", "quiescent"];
        let expected: Vec<&str> = [&spawned[..], &yielded, &woken, &done].concat();
        wait_until("the end is told", || {
            lock(&log).last().is_some_and(|last| last == "quiescent")
                && lock(&log).len() >= expected.len()
        });
        assert_eq!(*lock(&log), expected);
    });
}

#[test]
fn a_task_that_yields_among_others_is_enqueued_again_without_select_worker() {
    check(1, |runtime| {
        let (policy, log) = logging();
        runtime.load(policy).unwrap();
        let held = Held::new(&runtime);
        let task = tagged(&runtime, 1, yield_now());
        let other = tagged(&runtime, 2, async {});
        held.end();
        wait_for("the task", task).unwrap();
        wait_for("the other task", other).unwrap();
        wait_until("the end is told", || {
            lock(&log).last().is_some_and(|last| last == "quiescent")
        });
        let expected = [
            "runnable",
            "select_worker",
            "enqueue Spawn",
            "running",
            "stopping StillRunnable",
            "enqueue StillRunnable",
            "running",
            "stopping Finished",
            "quiescent",
        ];
        assert_eq!(*lock(&log), expected);
    });
}

#[test]
fn the_first_call_of_a_generation_is_runnable_also_for_a_task_in_the_middle_of_a_poll() {
    check(1, |runtime| {
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let task = tagged(&runtime, 1, async move {
            begun.send(()).unwrap();
            let _ = released.recv();
            yield_now().await;
        });
        receive("the poll to begin", &has_begun);
        let (policy, log) = logging();
        runtime.load(policy).unwrap();
        drop(release);
        wait_for("the task", task).unwrap();
        wait_until("the end is told", || {
            lock(&log).last().is_some_and(|last| last == "quiescent")
        });
        // Not `stopping`, for the poll in which the policy came: it never saw that one's `running`.
        let expected = [
            "runnable",
            "enqueue Inherited",
            "running",
            "stopping Finished",
            "quiescent",
        ];
        assert_eq!(*lock(&log), expected);
    });
}

#[test]
fn a_task_that_ends_in_the_poll_in_which_a_policy_came_is_never_shown_to_it() {
    check(1, |runtime| {
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let task = tagged(&runtime, 1, async move {
            begun.send(()).unwrap();
            let _ = released.recv();
        });
        receive("the poll to begin", &has_begun);
        let (policy, log) = logging();
        runtime.load(policy).unwrap();
        drop(release);
        wait_for("the task", task).unwrap();
        wait_for("another task", runtime.spawn(async {})).unwrap();
        assert!(lock(&log).is_empty(), "{:?}", lock(&log));
    });
}

/// Loads a policy that inserts each task into `dsq` from the callback of that name, runs tasks, and returns how often
/// (`enqueue`, `dequeue`, tasks) came.
fn verdicts(from: &'static str, dsq: DsqId) -> (usize, usize, usize) {
    within(move || {
        let runtime = polity_tests::runtime(2);
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let [enqueues, dequeues] = counts.clone();
        let selects = Script::new("verdicts")
            .init(|host| create(host, 0))
            .select_worker(move |host, task| {
                if from == "select_worker" {
                    assert!(host.insert(task.id(), dsq, Position::Tail));
                }
                task.last_worker()
            })
            .enqueue(move |host, task| {
                enqueues.fetch_add(1, Ordering::Relaxed);
                host.insert(task.id(), dsq, Position::Tail);
            })
            .dequeue(move |_, _, reason| {
                assert_eq!(reason, DequeueReason::Dispatched);
                dequeues.fetch_add(1, Ordering::Relaxed);
            })
            .dispatch(|host, _, _| {
                host.move_to_local(DsqId::Custom(0), 1);
            });
        let generation = runtime.load(selects).unwrap();
        let tasks: Vec<_> = (0..100).map(|_| runtime.spawn(async {})).collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        // Its `dequeue`s are over when no worker is inside any more.
        runtime.unload();
        assert_eq!(exit_of(&runtime, generation).kind, ExitKind::Unload);
        drop(runtime);
        let [enqueues, dequeues] = counts.map(|count| count.load(Ordering::Relaxed));
        (enqueues, dequeues, 100)
    })
}

#[test]
fn an_insert_in_select_worker_skips_enqueue() {
    for dsq in [
        DsqId::Local,
        DsqId::LocalOn(W1),
        DsqId::Global,
        DsqId::Custom(0),
    ] {
        let (enqueues, ..) = verdicts("select_worker", dsq);
        assert_eq!(enqueues, 0, "{dsq}");
    }
}

#[test]
fn a_task_inserted_into_a_local_or_the_global_dsq_never_is_in_custody() {
    for from in ["select_worker", "enqueue"] {
        for dsq in [DsqId::Local, DsqId::LocalOn(W1), DsqId::Global] {
            let (_, dequeues, _) = verdicts(from, dsq);
            assert_eq!(dequeues, 0, "{from} {dsq}");
        }
    }
}

#[test]
fn a_task_inserted_into_a_custom_dsq_is_dequeued_once_when_it_is_moved() {
    for from in ["select_worker", "enqueue"] {
        let (_, dequeues, tasks) = verdicts(from, DsqId::Custom(0));
        assert_eq!(dequeues, tasks, "{from}");
    }
}

#[test]
fn a_task_that_goes_from_hand_to_a_custom_dsq_and_on_is_dequeued_once() {
    for how in [
        GiveBack::Local,
        GiveBack::Elsewhere,
        GiveBack::Global,
        GiveBack::HandsThenCustom,
    ] {
        check(2, move |runtime| {
            let (policy, record) = Recorder::new(Keeper::new(how), 2);
            runtime.load(policy).unwrap();
            let tasks: Vec<_> = (0..200).map(|_| runtime.spawn(async {})).collect();
            for task in tasks {
                wait_for("a task", task).unwrap();
            }
            wait_until("every custody has ended", || {
                record.dequeues.load(Ordering::Relaxed) == 200
            });
            drop(runtime);
            record.check();
            assert_eq!(record.kept.load(Ordering::Relaxed), 200, "{how:?}");
            assert_eq!(record.dequeues.load(Ordering::Relaxed), 200, "{how:?}");
            assert_eq!(record.cancelled.load(Ordering::Relaxed), 0, "{how:?}");
        });
    }
}

/// A policy that has tasks with tag 1 in its custody for ever, in its hands or in a custom DSQ.
struct Keeps {
    in_dsq: bool,
}

impl Policy for Keeps {
    fn name(&self) -> &str {
        "keeps"
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        host.create_dsq(0)?;
        Ok(())
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if task.tag() != 1 {
            host.insert(task.id(), DsqId::Global, Position::Tail);
        } else if self.in_dsq {
            host.insert(task.id(), DsqId::Custom(0), Position::Tail);
        }
    }
}

#[test]
fn an_aborted_task_leaves_the_custody_of_a_policy_that_would_never_give_it_back() {
    for in_dsq in [false, true] {
        check(1, move |runtime| {
            let (policy, record) = Recorder::new(Keeps { in_dsq }, 1);
            runtime.load(policy).unwrap();
            let task = tagged(&runtime, 1, async {});
            wait_until("the policy has the task", || {
                record.kept.load(Ordering::Relaxed) == 1
            });
            task.abort();
            assert!(wait_for("the end", task).unwrap_err().is_cancelled());
            wait_until("its end is told", || {
                record.quiescents.load(Ordering::Relaxed) >= 1
            });
            assert_eq!(record.dequeues.load(Ordering::Relaxed), 1);
            assert_eq!(record.cancelled.load(Ordering::Relaxed), 1);
            assert_eq!(
                record.runs.load(Ordering::Relaxed),
                0,
                "it is not polled again"
            );
            record.check();
        });
    }
}

/// An abort that comes while `enqueue` looks at the task finds it in nobody's custody; then the policy keeps it.
#[test]
fn a_task_aborted_while_it_is_being_enqueued_ends_although_the_policy_keeps_it() {
    check(1, |runtime| {
        let (offered, is_offered) = channel();
        let (aborted, is_aborted) = channel::<()>();
        let is_aborted = Mutex::new(is_aborted);
        let policy = Script::new("slow_to_keep").enqueue(move |host, task| {
            if task.tag() == 1 {
                offered.send(()).unwrap();
                receive("the abort", &lock(&is_aborted));
            } else {
                host.insert(task.id(), DsqId::Global, Position::Tail);
            }
        });
        runtime.load(policy).unwrap();
        let task = tagged(&runtime, 1, async {});
        receive("the offer", &is_offered);
        task.abort();
        aborted.send(()).unwrap();
        wait_for("a task after it", runtime.spawn(async {})).unwrap();
        assert!(wait_for("its end", task).unwrap_err().is_cancelled());
    });
}

/// An id is the policy's from the moment at which `enqueue` notes it. Another worker may ask for it before `enqueue` has
/// returned; a policy cannot know that, and forgets an id that it has claimed.
#[test]
fn an_id_that_another_worker_claims_before_enqueue_has_returned_is_not_lost() {
    check(2, |runtime| {
        let noted = Arc::new(Mutex::new(None::<(TaskId, Option<WorkerId>)>));
        let tried = Arc::new(AtomicBool::new(false));
        let (takes, tries) = (Arc::clone(&noted), Arc::clone(&tried));
        let policy = Script::new("shared_list")
            .enqueue(move |host, task| {
                if task.tag() != 1 {
                    host.insert(task.id(), DsqId::Global, Position::Tail);
                    return;
                }
                *lock(&noted) = Some((task.id(), host.worker()));
                for worker in [W0, W1] {
                    host.kick(worker);
                }
                wait_until("another worker claims it", || tried.load(Ordering::SeqCst));
                // Long enough for the claim itself, also if it should wait for us.
                let until = now() + Duration::from_millis(4);
                while now() < until {
                    std::hint::spin_loop();
                }
            })
            .dispatch(move |host, worker, _| {
                let task = lock(&takes).take_if(|(_, by)| *by != Some(worker));
                if let Some((task, _)) = task {
                    tries.store(true, Ordering::SeqCst);
                    host.insert(task, DsqId::Local, Position::Tail);
                }
            });
        runtime.load(policy).unwrap();
        let task = tagged(&runtime, 1, async {});
        wait_for("the task that was claimed early", task).unwrap();
        assert!(runtime.policy().is_some());
    });
}

/// A policy that keeps a set of its tasks must not hear of the end of a custody after the next one has begun.
#[test]
fn dequeue_comes_before_the_task_runs_also_on_another_worker() {
    check(2, |runtime| {
        let (log, has_run) = (Log::default(), Arc::new(AtomicBool::new(false)));
        let (dequeued, ran, runs) = (Arc::clone(&log), Arc::clone(&log), Arc::clone(&has_run));
        let kept = Arc::new(Mutex::new(None));
        let keeps = Arc::clone(&kept);
        let policy = Script::new("hands_over")
            .enqueue(move |_, task| *lock(&keeps) = Some(task.id()))
            .dispatch(move |host, _, _| {
                let Some(task) = lock(&kept).take() else {
                    return;
                };
                assert!(host.insert(task, DsqId::Global, Position::Tail));
                for worker in [W0, W1] {
                    host.kick(worker);
                }
                // Time enough for the other worker, should the task be there already.
                let until = now() + Duration::from_millis(4);
                while now() < until && !has_run.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
            })
            .dequeue(move |_, _, _| lock(&dequeued).push("dequeue".to_owned()))
            .running(move |_, _| {
                lock(&ran).push("running".to_owned());
                runs.store(true, Ordering::SeqCst);
            });
        runtime.load(policy).unwrap();
        wait_for("the task", runtime.spawn(async {})).unwrap();
        assert_eq!(*lock(&log), ["dequeue", "running"]);
    });
}

/// Which order tasks 1 to 6 run in, the even ones inserted at the head.
fn order_in(dsq: DsqId) -> Vec<u64> {
    within(move || {
        let runtime = polity_tests::runtime(1);
        let ran = Arc::new(Mutex::new(Vec::new()));
        let policy = Script::new("heads_and_tails")
            .init(|host| create(host, 3))
            .enqueue(move |host, task| {
                let at = match task.tag() % 2 {
                    0 => Position::Head,
                    _ => Position::Tail,
                };
                let dsq = if task.tag() == 0 { DsqId::Global } else { dsq };
                host.insert(task.id(), dsq, at);
            })
            .dispatch(|host, _, _| {
                host.move_to_local(DsqId::Custom(3), 2);
            });
        runtime.load(policy).unwrap();
        let held = Held::new(&runtime);
        let tasks: Vec<_> = (1..=6)
            .map(|tag| {
                let ran = Arc::clone(&ran);
                tagged(&runtime, tag, async move { lock(&ran).push(tag) })
            })
            .collect();
        held.end();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        lock(&ran).to_vec()
    })
}

#[test]
fn every_dsq_is_first_in_first_out_but_for_head_inserts_which_come_last_in_first_out() {
    for dsq in [
        DsqId::Local,
        DsqId::LocalOn(W0),
        DsqId::Global,
        DsqId::Custom(3),
    ] {
        assert_eq!(order_in(dsq), [6, 4, 2, 1, 3, 5], "{dsq}");
    }
}

#[test]
fn a_task_inserted_at_the_head_of_the_local_dsq_runs_next() {
    check(1, |runtime| {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let policy = Script::new("next").enqueue(|host, task| {
            let at = match task.tag() {
                9 => Position::Head,
                _ => Position::Tail,
            };
            host.insert(task.id(), DsqId::Local, at);
        });
        runtime.load(policy).unwrap();
        let held = Held::new(&runtime);
        let handle = runtime.handle().clone();
        let tasks: Vec<_> = (1..=3)
            .map(|tag| {
                let (ran, handle) = (Arc::clone(&ran), handle.clone());
                tagged(&runtime, tag, async move {
                    lock(&ran).push(tag);
                    if tag == 1 {
                        let ran = Arc::clone(&ran);
                        drop(tagged(&handle, 9, async move { lock(&ran).push(9) }));
                    }
                })
            })
            .collect();
        held.end();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert_eq!(*lock(&ran), [1, 9, 2, 3]);
    });
}

#[test]
fn local_on_runs_a_task_on_that_worker_and_nowhere_else() {
    check(2, |runtime| {
        let ran_on = Arc::new(Mutex::new(HashMap::<u64, Vec<WorkerId>>::new()));
        let noted = Arc::clone(&ran_on);
        let policy = Script::new("by_tag")
            .enqueue(|host, task| {
                let worker = WorkerId::new((task.tag() % 2) as u16);
                host.insert(task.id(), DsqId::LocalOn(worker), Position::Tail);
            })
            .running(move |host, task| {
                lock(&noted)
                    .entry(task.tag())
                    .or_default()
                    .extend(host.worker());
            });
        runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..100)
            .map(|tag| {
                tagged(&runtime, tag, async {
                    for _ in 0..3 {
                        yield_now().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        // Core steals from a worker that sits in one poll for long (or that the system does not run): not often here.
        let ran_on = lock(&ran_on);
        let all: usize = ran_on.values().map(Vec::len).sum();
        let there: usize = ran_on
            .iter()
            .map(|(tag, on)| on.iter().filter(|on| on.index() as u64 == tag % 2).count())
            .sum();
        assert_eq!(all, 400);
        assert!(
            there > all / 2,
            "{there} of {all} polls on the named worker"
        );
        assert_eq!(runtime.metrics().redirected, 0);
    });
}

#[test]
fn a_verdict_for_a_worker_that_the_affinity_forbids_is_redirected_and_counted() {
    check(2, |runtime| {
        let policy = Script::new("contrary").enqueue(|host, task| {
            let wrong = (0..2).map(WorkerId::new).find(|w| !task.allows(*w));
            let dsq = DsqId::LocalOn(wrong.unwrap_or(W0));
            host.insert(task.id(), dsq, Position::Tail);
        });
        runtime.load(policy).unwrap();
        let before = runtime.metrics().redirected;
        for worker in [W0, W1] {
            let only = Attributes::new().affinity(WorkerMask::from_iter([worker]));
            let task = runtime.spawn_with(only, async {}).unwrap();
            wait_for("a restricted task", task).unwrap();
        }
        wait_until("both are counted", || {
            runtime.metrics().redirected >= before + 2
        });
        assert!(runtime.policy().is_some(), "it is no error");
    });
}

#[test]
fn move_to_local_moves_as_many_as_it_is_asked_for_and_there_are() {
    check(1, |runtime| {
        let moved = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&moved);
        let policy = Script::new("by_three")
            .init(|host| create(host, 0))
            .enqueue(|host, task| {
                let dsq = match task.tag() {
                    1 => DsqId::Custom(0),
                    _ => DsqId::Global,
                };
                host.insert(task.id(), dsq, Position::Tail);
            })
            .dispatch(move |host, _, _| {
                let before = host.dsq_len(DsqId::Custom(0)).unwrap();
                assert_eq!(host.dsq_len(DsqId::Local), Some(0), "dispatch comes last");
                let moved = host.move_to_local(DsqId::Custom(0), 3);
                assert_eq!(host.dsq_len(DsqId::Custom(0)), Some(before - moved));
                assert_eq!(host.dsq_len(DsqId::Local), Some(moved));
                if before > 0 {
                    lock(&noted).push(moved);
                }
                assert_eq!(host.move_to_local(DsqId::Custom(0), 0), 0);
            });
        runtime.load(policy).unwrap();
        let held = Held::new(&runtime);
        let tasks: Vec<_> = (0..7).map(|_| tagged(&runtime, 1, async {})).collect();
        held.end();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert_eq!(*lock(&moved), [3, 3, 1]);
        assert!(runtime.policy().is_some());
    });
}

#[test]
fn move_to_local_passes_over_tasks_that_may_not_run_here() {
    check(2, |runtime| {
        let ran = Arc::new(Mutex::new(Vec::new()));
        let (open, seen) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (opened, noted) = (Arc::clone(&open), Arc::clone(&seen));
        let policy = Script::new("picky")
            .init(|host| create(host, 0))
            .enqueue(|host, task| {
                host.insert(task.id(), DsqId::Custom(0), Position::Tail);
            })
            .dispatch(move |host, worker, _| {
                if !opened.load(Ordering::SeqCst) {
                    return;
                }
                // Alternately restricted to the other worker and to this one.
                while host.move_to_local(DsqId::Custom(0), 1) == 1 {
                    lock(&noted).push(worker);
                }
            });
        runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..20)
            .map(|n| {
                let only = Attributes::new()
                    .tag(n)
                    .affinity(WorkerMask::from_iter([WorkerId::new((n % 2) as u16)]));
                let ran = Arc::clone(&ran);
                let task = async move { lock(&ran).push(n) };
                runtime.spawn_with(only, task).unwrap()
            })
            .collect();
        wait_until("all are offered", || runtime.metrics().offered >= 20);
        open.store(true, Ordering::SeqCst);
        let kicks: Vec<_> = (0..2)
            .map(|n| {
                let only =
                    Attributes::new().affinity(WorkerMask::from_iter([WorkerId::new(n as u16)]));
                runtime.spawn_with(only, async {}).unwrap()
            })
            .collect();
        for task in tasks.into_iter().chain(kicks) {
            wait_for("a restricted task", task).unwrap();
        }
        let ran = lock(&ran);
        for worker in 0..2 {
            let here: Vec<u64> = ran.iter().copied().filter(|n| n % 2 == worker).collect();
            assert!(here.is_sorted(), "those for worker {worker}: {here:?}");
        }
        assert_eq!(runtime.metrics().redirected, 0, "none went astray");
        assert_eq!(lock(&seen).len(), 22);
    });
}

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

#[test]
fn a_task_that_yields_alone_runs_on_and_dispatch_is_asked_with_it_as_prev() {
    check(1, |runtime| {
        let prevs = Arc::new(AtomicUsize::new(0));
        let noted = Arc::clone(&prevs);
        let policy = Script::new("nothing_else").dispatch(move |_, _, prev| {
            if let Some(prev) = prev {
                assert_eq!(
                    (prev.tag(), prev.reason()),
                    (1, EnqueueReason::StillRunnable)
                );
                noted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (policy, record) = Recorder::new(policy, 1);
        let generation = runtime.load(policy).unwrap();
        let before = runtime.metrics();
        let task = tagged(&runtime, 1, async {
            for _ in 0..100 {
                yield_now().await;
            }
        });
        wait_for("the task", task).unwrap();
        wait_until("the counts are published", || {
            runtime.metrics().kept_last >= before.kept_last + 100
        });
        assert_eq!(prevs.load(Ordering::Relaxed), 100);
        assert_eq!(
            record.enqueues.load(Ordering::Relaxed),
            1,
            "kept, not enqueued again"
        );
        assert!(runtime.exit_info(generation).is_none());
        record.check();
    });
}

#[test]
fn prev_is_enqueued_again_when_dispatch_finds_another_task() {
    check(1, |runtime| {
        let (policy, record) = Recorder::new(Keeper::new(GiveBack::Local), 1);
        runtime.load(policy).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let polls: [Arc<AtomicUsize>; 2] = Default::default();
        let tasks: Vec<_> = polls
            .iter()
            .map(|polls| {
                let (polls, stop) = (Arc::clone(polls), Arc::clone(&stop));
                runtime.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        polls.fetch_add(1, Ordering::Relaxed);
                        yield_now().await;
                    }
                })
            })
            .collect();
        wait_until("both have run often", || {
            polls.iter().all(|n| n.load(Ordering::Relaxed) > 100)
        });
        stop.store(true, Ordering::Relaxed);
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert!(record.enqueues.load(Ordering::Relaxed) > 100);
        record.check();
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
        let (current, in_dispatch) = (Arc::clone(&round), Arc::clone(&round));
        let policy = Script::new("claimers")
            .enqueue(move |host, task| {
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
            })
            .dispatch(move |_, worker, _| {
                let round = Arc::clone(&lock(&in_dispatch));
                while worker == IDLE
                    && round.claiming.load(Ordering::SeqCst)
                    && round.tried.load(Ordering::SeqCst) < 3
                {
                    std::thread::yield_now();
                }
            });
        runtime.load(policy).unwrap();
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

#[test]
fn a_thousand_dsqs_are_created_used_and_destroyed() {
    check(2, |runtime| {
        let policy = Script::new("many_queues")
            .init(|host| {
                for number in 0..1024 {
                    assert_eq!(host.create_dsq(number), Ok(DsqId::Custom(number)));
                }
                for number in (0..1024).step_by(2) {
                    host.destroy_dsq(DsqId::Custom(number))?;
                }
                for number in (0..1024).step_by(2) {
                    host.create_dsq(number)?;
                }
                Ok(())
            })
            .enqueue(|host, task| {
                let dsq = DsqId::Custom((task.tag() % 1024) as u32);
                host.insert(task.id(), dsq, Position::Tail);
            })
            .dispatch(|host, _, _| {
                let mut moved = 0;
                for number in 0..1024 {
                    moved += host.move_to_local(DsqId::Custom(number), 1);
                    if moved == 8 {
                        break;
                    }
                }
            });
        runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..2048)
            .map(|tag| tagged(&runtime, tag, async {}))
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert!(runtime.policy().is_some());
    });
}

#[test]
fn creating_and_destroying_dsqs_answers_what_is_wrong() {
    check(1, |runtime| {
        let policy = Script::new("queues")
            .init(|host| {
                let (none, dsq) = (DsqId::Custom(9), DsqId::Custom(0));
                assert_eq!(host.dsq_len(dsq), None);
                assert_eq!(host.create_dsq(0), Ok(dsq));
                assert_eq!(host.dsq_len(dsq), Some(0));
                assert_eq!(host.create_dsq(0), Err(DsqError::Exists(dsq)));
                let last = DsqId::MAX_CUSTOM;
                assert_eq!(host.create_dsq(last), Ok(DsqId::Custom(last)));
                let beyond = DsqId::Custom(last + 1);
                assert_eq!(host.create_dsq(last + 1), Err(DsqError::OutOfRange(beyond)));
                assert_eq!(
                    host.create_dsq(u32::MAX),
                    Err(DsqError::OutOfRange(DsqId::Custom(u32::MAX)))
                );
                assert_eq!(host.destroy_dsq(none), Err(DsqError::Unknown(none)));
                for built_in in [DsqId::Local, DsqId::LocalOn(W0), DsqId::Global] {
                    assert_eq!(
                        host.destroy_dsq(built_in),
                        Err(DsqError::OutOfRange(built_in))
                    );
                }
                assert_eq!(host.destroy_dsq(DsqId::Custom(last)), Ok(()));
                assert_eq!(
                    host.destroy_dsq(DsqId::Custom(last)),
                    Err(DsqError::Unknown(DsqId::Custom(last)))
                );
                assert_eq!(host.dsq_len(DsqId::Custom(last)), None);
                Ok(())
            })
            .enqueue(|host, task| {
                let dsq = DsqId::Custom(0);
                let len = host.dsq_len(dsq).unwrap();
                if len > 0 {
                    // An error for the caller, not for the policy.
                    assert_eq!(host.destroy_dsq(dsq), Err(DsqError::NotEmpty(dsq, len)));
                }
                host.insert(task.id(), dsq, Position::Tail);
            })
            .dispatch(|host, _, _| {
                // The last of three, so that each `enqueue` after the first finds one there.
                if host.dsq_len(DsqId::Custom(0)) >= Some(3) {
                    host.move_to_local(DsqId::Custom(0), 3);
                    assert_eq!(host.create_dsq(1), Ok(DsqId::Custom(1)));
                    assert_eq!(host.destroy_dsq(DsqId::Custom(0)), Ok(()));
                }
            });
        let generation = runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..3)
            .map(|n| {
                let task = runtime.spawn(async {});
                wait_until("it is offered", || runtime.metrics().offered > n);
                task
            })
            .collect();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        assert!(
            runtime.exit_info(generation).is_none(),
            "{:?}",
            runtime.exit_info(generation)
        );
    });
}

#[test]
fn a_policy_sees_what_was_said_about_a_task() {
    check(2, |runtime: Runtime| {
        let (seen, sees) = channel();
        let policy = Script::new("reads").enqueue(move |host, task| {
            seen.send((
                task.name().map(str::to_owned),
                task.weight(),
                task.tag(),
                task.allows(W0),
                task.allows(W1),
            ))
            .unwrap();
            host.insert(task.id(), DsqId::Global, Position::Tail);
        });
        runtime.load(policy).unwrap();
        let attributes = Attributes::new()
            .name("compaction")
            .weight(7)
            .tag(42)
            .affinity(WorkerMask::from_iter([W1]));
        let task = runtime.spawn_with(attributes, async {}).unwrap();
        let expected = (Some("compaction".to_owned()), 7, 42, false, true);
        assert_eq!(receive("the offer", &sees), expected);
        wait_for("the task", task).unwrap();
        wait_for("a plain task", runtime.spawn(async {})).unwrap();
        assert_eq!(receive("the offer", &sees), (None, 100, 0, true, true));
    });
}
