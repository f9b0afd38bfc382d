//! A panic in a callback that workers call: the policy is ejected at once, with what the panic said; nothing else ends.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use polity::{
    DequeueReason, DsqId, ExitInfo, ExitKind, Host, InitError, Policy, Position, Runtime, Stopped,
    TaskView, WorkerId,
};
use polity_policies::{Callback, Fault, Faulty, Fifo, Priority};
use polity_tests::{check, now, wait_for, wait_until};

use super::{Churn, check_every_worker_works, check_panic, load_while_busy, throw_endless_bomb};
use crate::support::ON_WORKERS;
use crate::workload::{Recorder, Script, exit_of, expect_ordered_panics, lock, tagged};

/// Loads `policy` under a churn; when it has ended, every task has, and each worker and another policy go on.
fn end_of(runtime: &Runtime, policy: impl Policy) -> Arc<ExitInfo> {
    let generation = runtime.load(policy).unwrap();
    let churn = Churn::start(runtime);
    let info = exit_of(runtime, generation);
    assert!(runtime.policy_status().is_none());
    churn.finish();
    check_every_worker_works(runtime);
    info
}

/// A policy can be loaded, is asked, and is told all that it should be.
pub(crate) fn check_another_can_be_loaded(runtime: &Runtime) {
    let (policy, record) = Recorder::new(Fifo::new(), runtime.worker_count());
    let generation = runtime.load(policy).unwrap();
    let churn = Churn::start(runtime);
    wait_until("the next policy has work", || {
        record.runs.load(Ordering::Relaxed) > 20
    });
    churn.finish();
    runtime.unload();
    assert_eq!(exit_of(runtime, generation).kind, ExitKind::Unload);
    wait_until("its exit", || record.exits() == 1);
    record.check();
    record.check_nothing_is_kept();
}

#[test]
fn a_panic_at_the_kth_call_of_any_callback_ejects_and_each_task_ends_once() {
    expect_ordered_panics();
    for callback in ON_WORKERS {
        check(2, move |runtime| {
            for call in [1, 2, 7, 100] {
                let info = end_of(&runtime, Faulty::new(Fault::Panic { callback, call }));
                let text = format!("faulty: panic in {callback}, call {call}, as ordered");
                check_panic(&info, &format!("{callback}: {text}"));
                check_another_can_be_loaded(&runtime);
            }
        });
    }
}

/// A [`Priority`] that panics at its n-th call on a worker, whichever callback that is.
struct PanicsAt {
    nth: usize,
    calls: AtomicUsize,
    told: Arc<Mutex<String>>,
    inner: Priority,
}

impl PanicsAt {
    fn count(&self, callback: Callback) {
        let nth = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        if nth == self.nth {
            let text = format!("call {nth} of all, as ordered");
            *lock(&self.told) = format!("{callback}: {text}");
            panic!("{text}");
        }
    }
}

impl Policy for PanicsAt {
    type Task = ();

    fn name(&self) -> &str {
        "panics_at"
    }
    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        self.inner.init(host)
    }
    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<(), InitError> {
        self.count(Callback::InitTask);
        self.inner.init_task(host, task)
    }
    fn exit_task(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.count(Callback::ExitTask);
        self.inner.exit_task(host, task);
    }
    fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_>) -> WorkerId {
        self.count(Callback::SelectWorker);
        self.inner.select_worker(host, task)
    }
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.count(Callback::Enqueue);
        self.inner.enqueue(host, task);
    }
    fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_>, reason: DequeueReason) {
        self.count(Callback::Dequeue);
        self.inner.dequeue(host, task, reason);
    }
    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&TaskView<'_>>) {
        self.count(Callback::Dispatch);
        self.inner.dispatch(host, worker, prev);
    }
    fn runnable(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.count(Callback::Runnable);
        self.inner.runnable(host, task);
    }
    fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.count(Callback::Running);
        self.inner.running(host, task);
    }
    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_>, stopped: Stopped) {
        self.count(Callback::Stopping);
        self.inner.stopping(host, task, stopped);
    }
    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.count(Callback::Quiescent);
        self.inner.quiescent(host, task);
    }
}

#[test]
fn a_panic_at_each_of_the_first_200_calls_ejects_and_each_task_ends_once() {
    expect_ordered_panics();
    for workers in [1, 2] {
        check(workers, |runtime| {
            for nth in 1..=200 {
                let told = Arc::<Mutex<String>>::default();
                let info = end_of(
                    &runtime,
                    PanicsAt {
                        nth,
                        calls: AtomicUsize::new(0),
                        told: Arc::clone(&told),
                        inner: Priority::new(),
                    },
                );
                check_panic(&info, &lock(&told));
            }
            check_another_can_be_loaded(&runtime);
        });
    }
}

#[test]
fn tasks_in_the_hands_of_a_policy_that_panics_run_all_the_same() {
    expect_ordered_panics();
    check(2, |runtime| {
        for _ in 0..20 {
            let runs = Arc::new(AtomicUsize::new(0));
            // Has every task but the last one in its own hands, where only the sweep can find them.
            let policy = Script::new("keeps_all").enqueue(|_, task| {
                assert!(task.tag() == 0, "the last one, as ordered");
            });
            let (policy, record) = Recorder::new(policy, 2);
            let generation = load_while_busy(&runtime, policy);
            let spawn = |tag| {
                let runs = Arc::clone(&runs);
                tagged(
                    &runtime,
                    tag,
                    async move { runs.fetch_add(1, Ordering::SeqCst) },
                )
            };
            let mut tasks: Vec<_> = (0..50).map(|_| spawn(0)).collect();
            wait_until("the policy has them", || {
                record.kept.load(Ordering::Relaxed) == 50
            });
            tasks.push(spawn(1));
            assert_eq!(exit_of(&runtime, generation).kind, ExitKind::Panic);
            for task in tasks {
                wait_for("a task that was kept", task).unwrap();
            }
            assert_eq!(runs.load(Ordering::SeqCst), 51);
        }
    });
}

/// Tasks of a runtime that has gone, which ended in the order of their slots. The slot that was left last is given out first.
fn leave_slots() {
    let runtime = polity_tests::runtime(1);
    let tenants: Vec<_> = (0..64)
        .map(|_| {
            let (wake, woken) = tokio::sync::oneshot::channel::<()>();
            (wake, runtime.spawn(woken))
        })
        .collect();
    for (wake, tenant) in tenants {
        wake.send(()).unwrap();
        wait_for("a tenant", tenant).unwrap().unwrap();
    }
}

/// By the clock by which tasks are stamped, which ticks every few milliseconds.
#[test]
fn what_a_policy_held_when_it_panicked_runs_oldest_first_also_from_recycled_slots() {
    const LAST: u64 = 12;
    expect_ordered_panics();
    leave_slots();
    check(1, |runtime| {
        let policy = Script::new("keeps_all").enqueue(|_, task| {
            assert!(task.tag() != LAST, "the last one, as ordered");
        });
        let generation = load_while_busy(&runtime, policy);
        let (ran, in_order) = channel();
        let tasks: Vec<_> = (0..=LAST)
            .map(|tag| {
                let (ran, offered) = (ran.clone(), runtime.metrics().offered);
                let task = tagged(&runtime, tag, async move { ran.send(tag).unwrap() });
                let next_tick = now() + Duration::from_millis(10);
                wait_until("it is offered, and the clock has ticked", || {
                    runtime.metrics().offered > offered && now() > next_tick
                });
                task
            })
            .collect();
        assert_eq!(exit_of(&runtime, generation).kind, ExitKind::Panic);
        for task in tasks {
            wait_for("a task that was kept", task).unwrap();
        }
        let swept = in_order.try_iter().filter(|tag| *tag != LAST);
        assert_eq!(Vec::from_iter(swept), Vec::from_iter(0..LAST));
    });
}

#[test]
fn a_payload_that_panics_whenever_it_is_dropped_may_be_thrown_from_any_callback() {
    for callback in ON_WORKERS {
        check(2, move |runtime| {
            // Through a DSQ of its own, so that every callback comes: what lies in a local one needs no `dispatch`.
            let script = Script::new("bomber")
                .init(|host| {
                    host.create_dsq(0)?;
                    Ok(())
                })
                .enqueue(|host, task| {
                    host.insert(task.id(), DsqId::Custom(0), Position::Tail);
                })
                .dispatch(|host, _, _| {
                    host.move_to_local(DsqId::Custom(0), 1);
                });
            let policy = match callback {
                Callback::InitTask => script.init_task(|_, _| throw_endless_bomb()),
                Callback::ExitTask => script.exit_task(|_, _| throw_endless_bomb()),
                Callback::SelectWorker => script.select_worker(|_, _| throw_endless_bomb()),
                Callback::Enqueue => script.enqueue(|_, _| throw_endless_bomb()),
                Callback::Dispatch => script.dispatch(|_, _, _| throw_endless_bomb()),
                Callback::Runnable => script.runnable(|_, _| throw_endless_bomb()),
                Callback::Running => script.running(|_, _| throw_endless_bomb()),
                Callback::Stopping => script.stopping(|_, _, _| throw_endless_bomb()),
                Callback::Quiescent => script.quiescent(|_, _| throw_endless_bomb()),
                Callback::Dequeue => script.dequeue(|_, _, _| throw_endless_bomb()),
                other => unreachable!("{other}"),
            };
            let info = end_of(&runtime, policy);
            check_panic(
                &info,
                &format!("{callback}: (a panic payload that is not text)"),
            );
            check_another_can_be_loaded(&runtime);
        });
    }
}

#[test]
fn a_panic_in_one_runtime_leaves_the_policy_of_another_alone() {
    expect_ordered_panics();
    check(2, |bad| {
        let good = polity_tests::runtime(2);
        let (policy, record) = Recorder::new(Priority::new(), 2);
        let generation = good.load(policy).unwrap();
        let churn = Churn::start(&good);
        for call in 1..=20 {
            let callback = Callback::Running;
            end_of(&bad, Faulty::new(Fault::Panic { callback, call }));
        }
        assert!(good.exit_info(generation).is_none());
        churn.finish();
        check_every_worker_works(&good);
        drop(good);
        record.check();
    });
}

/// Measured from the panicking call to the first poll of the task at hand, on the one worker there is: so it has the panic,
/// the ejection and the way back to the built-in FIFO in it. The median, and not the slowest: when the machine gives our
/// thread's processor to somebody else in the middle, the policy is not served any slower for that.
#[test]
fn a_panic_ejects_within_a_millisecond() {
    const TRIALS: usize = 400;
    expect_ordered_panics();
    check(1, |runtime| {
        let mut took = Vec::new();
        while took.len() < TRIALS {
            let begun = Arc::new(Mutex::new(None::<Instant>));
            let noted = Arc::clone(&begun);
            let policy = Script::new("panics").enqueue(move |_, _| {
                *lock(&noted) = Some(now());
                panic!("as ordered");
            });
            let generation = runtime.load(policy).unwrap();
            let handle = runtime.handle().clone();
            let task = runtime.spawn(async move { (now(), handle.policy_status().is_none()) });
            let (polled, is_ejected) = wait_for("the task", task).unwrap();
            let Some(begun) = *lock(&begun) else {
                // The worker was between its look at the policy and its look for work when the load came.
                runtime.unload();
                continue;
            };
            assert!(is_ejected, "before anything runs");
            took.push(polled - begun);
            assert_eq!(exit_of(&runtime, generation).kind, ExitKind::Panic);
        }
        took.sort_unstable();
        let percent = |part: usize| took[(TRIALS - 1) * part / 100];
        println!(
            "from the panic to a poll under the built-in FIFO: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}",
            percent(50),
            percent(90),
            percent(99),
            percent(100)
        );
        assert!(percent(50) < Duration::from_millis(1), "{:?}", percent(50));
    });
}

/// What a policy says when it has caught its own panic is its own business; what it throws again is the core's.
#[test]
fn a_policy_may_catch_its_own_panic() {
    check(2, |runtime| {
        let caught = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&caught);
        let policy = Script::new("catches").runnable(move |_, _| {
            let result = std::panic::catch_unwind(|| resume_unwind(Box::new("as ordered")));
            noted.store(result.is_err(), Ordering::SeqCst);
        });
        let generation = runtime.load(policy).unwrap();
        let churn = Churn::start(&runtime);
        wait_until("it has caught one", || caught.load(Ordering::SeqCst));
        churn.finish();
        assert!(runtime.exit_info(generation).is_none());
        assert!(runtime.policy_status().is_some());
    });
}
