//! Custody: where it begins, and the one `dequeue` with which it ends.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{
    DequeueReason, DsqId, ExitKind, Host, InitError, Policy, Position, TaskId, TaskView, WorkerId,
};
use polity_tests::{check, now, receive, wait_for, wait_until, within};

use super::{Log, W0, W1, create};
use crate::workload::{GiveBack, Keeper, Recorder, Script, exit_of, lock, tagged};

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
    type Task = ();

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
        assert!(runtime.policy_status().is_some());
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
