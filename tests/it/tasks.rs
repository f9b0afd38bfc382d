//! Tasks: aborted in every state, panicking, with wrong attributes, blocking.

use std::future::{pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use polity::{
    Attributes, DsqId, Handle, Host, InitError, Policy, Position, SpawnError, TaskView, WorkerId,
    WorkerMask,
};
use polity_tests::{
    DEADLINE, builder, check, check_without_spares, now, receive, wait_for, wait_until, within,
};

use crate::support::{Blocker, Drops, Hoarder, settle, waiting};

fn panic_text(body: impl FnOnce()) -> String {
    let payload = catch_unwind(AssertUnwindSafe(body)).expect_err("it should panic");
    match payload.downcast::<String>() {
        Ok(text) => *text,
        Err(payload) => (*payload.downcast::<&str>().unwrap()).to_owned(),
    }
}

/// Panics when it is dropped.
struct PanicsOnDrop(&'static str);

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        if !thread::panicking() {
            panic!("{}", self.0);
        }
    }
}

// --- abort ---

#[test]
fn a_waiting_task_is_aborted_at_once() {
    check(1, |runtime| {
        let drops = Drops::default();
        let (future, is_polled) = waiting(&drops);
        let task = runtime.spawn(future);
        receive("the first poll", &is_polled);
        settle(&runtime);
        task.abort();
        assert!(wait_for("the task", task).unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_runnable_task_that_is_aborted_is_never_polled() {
    check(1, |runtime| {
        let blocker = Blocker::new(&runtime);
        let (drops, polled) = (Drops::default(), Arc::new(AtomicBool::new(false)));
        let (counted, note) = (drops.counted(), Arc::clone(&polled));
        let task = runtime.spawn(async move {
            let _counted = counted;
            note.store(true, Ordering::SeqCst);
        });
        task.abort();
        task.abort();
        assert!(!task.is_finished(), "a worker drops it, at its next turn");
        blocker.end();
        assert!(wait_for("the task", task).unwrap_err().is_cancelled());
        assert!(!polled.load(Ordering::SeqCst));
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_running_task_that_is_aborted_ends_with_its_poll() {
    check(1, |runtime| {
        let drops = Drops::default();
        let counted = drops.counted();
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let task = runtime.spawn(async move {
            let _counted = counted;
            begun.send(()).unwrap();
            let _ = released.recv();
            pending::<()>().await;
        });
        receive("the poll to begin", &has_begun);
        task.abort();
        assert!(!task.is_finished());
        assert_eq!(drops.count(), 0);
        drop(release);
        assert!(wait_for("the task", task).unwrap_err().is_cancelled());
        assert_eq!(drops.count(), 1);
    });
}

#[test]
fn a_task_that_ends_in_the_poll_in_which_it_was_aborted_has_its_output() {
    check(1, |runtime| {
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let task = runtime.spawn(async move {
            begun.send(()).unwrap();
            let _ = released.recv();
            "output"
        });
        receive("the poll to begin", &has_begun);
        task.abort();
        drop(release);
        assert_eq!(wait_for("the task", task).unwrap(), "output");
    });
}

#[test]
fn aborting_a_finished_task_changes_nothing() {
    check(1, |runtime| {
        let task = runtime.spawn(async { "output" });
        wait_until("the task is finished", || task.is_finished());
        task.abort();
        settle(&runtime);
        assert_eq!(wait_for("the task", task).unwrap(), "output");
    });
}

#[test]
fn a_task_can_abort_itself() {
    check(1, |runtime| {
        let (give, mine) = futures::channel::oneshot::channel::<polity::AbortHandle>();
        let task = runtime.spawn(async move {
            mine.await.unwrap().abort();
            pending::<()>().await;
        });
        give.send(task.abort_handle()).unwrap();
        assert!(wait_for("the task", task).unwrap_err().is_cancelled());
    });
}

#[test]
fn aborts_that_race_with_wakes_and_polls_drop_each_future_once() {
    check(2, |runtime| {
        let drops = Drops::default();
        const TASKS: usize = 5000;
        for _ in 0..TASKS / 10 {
            let wakers = Arc::new(Mutex::new(Vec::new()));
            let tasks: Vec<_> = (0..10)
                .map(|_| {
                    let (counted, wakers) = (drops.counted(), Arc::clone(&wakers));
                    runtime.spawn(async move {
                        let _counted = counted;
                        poll_fn(|context| {
                            wakers.lock().unwrap().push(context.waker().clone());
                            Poll::<()>::Pending
                        })
                        .await;
                    })
                })
                .collect();
            let aborts: Vec<_> = tasks.iter().map(|task| task.abort_handle()).collect();
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| aborts.iter().for_each(|task| task.abort()));
                }
                let wakers = wakers.lock().unwrap().clone();
                scope.spawn(move || wakers.iter().for_each(|waker| waker.wake_by_ref()));
            });
            for task in tasks {
                assert!(wait_for("the task", task).unwrap_err().is_cancelled());
            }
        }
        assert_eq!(drops.count(), TASKS);
    });
}

/// Puts every task into a custom DSQ and never moves it from there.
struct Shelf;

impl Policy for Shelf {
    type Task = ();

    fn name(&self) -> &str {
        "shelf"
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        host.create_dsq(0)?;
        Ok(())
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        host.insert(task.id(), DsqId::Custom(0), Position::Tail);
    }
}

#[track_caller]
fn check_abort_under_starvation(policy: impl Policy) {
    check(2, |runtime| {
        let drops = Drops::default();
        let (future, is_polled) = waiting(&drops);
        let waits = runtime.spawn(future);
        receive("the first poll", &is_polled);
        runtime.load(policy).unwrap();
        let starves: Vec<_> = (0..100)
            .map(|_| {
                let counted = drops.counted();
                runtime.spawn(async move { drop(counted) })
            })
            .collect();
        let offered = runtime.metrics().offered;
        wait_until("the policy has them", || {
            runtime.metrics().offered >= offered.max(100)
        });
        for task in starves.iter().chain([&waits]) {
            assert!(!task.is_finished());
            task.abort();
        }
        for task in starves.into_iter().chain([waits]) {
            assert!(wait_for("the task", task).unwrap_err().is_cancelled());
        }
        assert_eq!(drops.count(), 101);
        assert!(
            runtime.policy_status().is_some(),
            "the policy is still there"
        );
    });
}

#[test]
fn a_task_that_its_policy_starves_can_be_aborted() {
    check_abort_under_starvation(Hoarder);
}

#[test]
fn a_task_in_a_queue_that_nobody_empties_can_be_aborted() {
    check_abort_under_starvation(Shelf);
}

// --- panics ---

/// Its waker is not the task's: a yield that told only the worker would never be polled again.
#[test]
fn a_yield_inside_a_combinator_with_wakers_of_its_own_goes_on() {
    check(1, |runtime| {
        let task = runtime.spawn(async {
            let yields = |times: usize| async move {
                for _ in 0..times {
                    polity::yield_now().await;
                }
                times
            };
            let all: FuturesUnordered<_> = (1..=5).map(yields).collect();
            all.collect::<Vec<_>>().await
        });
        let mut ended = wait_for("a task that waits for five", task).unwrap();
        ended.sort_unstable();
        assert_eq!(ended, [1, 2, 3, 4, 5]);
    });
}

#[test]
fn a_panicking_task_harms_nothing_but_itself() {
    check_without_spares(1, |runtime| {
        let worker = wait_for("a task", runtime.spawn(async { thread::current().id() })).unwrap();
        let bystander = runtime.spawn(async {
            for _ in 0..1000 {
                polity::yield_now().await;
            }
        });
        for _ in 0..100 {
            let task = runtime.spawn(async {
                polity::yield_now().await;
                panic!("on purpose")
            });
            let error = wait_for::<_>("the panic", task).unwrap_err();
            assert!(error.is_panic());
        }
        wait_for("the other task", bystander).unwrap();
        let again = wait_for("a task", runtime.spawn(async { thread::current().id() }));
        // On a machine that is too busy, the watchdog does the work of a worker that seems stuck.
        let has_survived = again.unwrap() == worker || runtime.metrics().stand_ins > 0;
        assert!(has_survived, "{}", runtime.dump());
    });
}

#[test]
fn a_panic_in_the_drop_of_a_future_is_the_tasks_panic() {
    check(1, |runtime| {
        let bomb = PanicsOnDrop("at the end");
        let finished = runtime.spawn(async move {
            let _bomb = &bomb;
            std::future::ready(()).await;
            drop(bomb);
        });
        let error = wait_for("the task", finished).unwrap_err();
        assert_eq!(
            *error.into_panic().downcast::<String>().unwrap(),
            "at the end"
        );

        struct Bomb(#[expect(dead_code, reason = "for its drop")] PanicsOnDrop);
        impl Future for Bomb {
            type Output = u32;
            fn poll(self: std::pin::Pin<&mut Self>, _: &mut std::task::Context<'_>) -> Poll<u32> {
                Poll::Ready(1)
            }
        }
        let task = runtime.spawn(Bomb(PanicsOnDrop("after the end")));
        assert!(wait_for("the task", task).unwrap_err().is_panic());

        let bomb = PanicsOnDrop("when aborted");
        let task = runtime.spawn(async move {
            let _bomb = bomb;
            pending::<()>().await;
        });
        settle(&runtime);
        task.abort();
        // As in tokio: a panic counts more than the abort that led to it.
        assert!(wait_for("the task", task).unwrap_err().is_panic());
        settle(&runtime);
    });
}

#[test]
fn a_panic_in_the_drop_of_an_output_that_nobody_takes_is_swallowed() {
    check(1, |runtime| {
        let blocker = Blocker::new(&runtime);
        drop(runtime.spawn(async { PanicsOnDrop("detached") }));
        blocker.end();
        settle(&runtime);

        let task = runtime.spawn(async { PanicsOnDrop("with its handle") });
        wait_until("the task is finished", || task.is_finished());
        drop(task);
        settle(&runtime);
    });
}

#[test]
fn panicking_drops_do_not_keep_a_runtime_from_ending() {
    within(|| {
        let runtime = polity_tests::runtime(2);
        let drops = Drops::default();
        let mut tasks = Vec::new();
        for n in 0..100 {
            let (counted, bomb) = (drops.counted(), (n % 3 == 0).then(|| PanicsOnDrop("x")));
            tasks.push(runtime.spawn(async move {
                let _bomb = bomb;
                let _counted = counted;
                pending::<()>().await;
            }));
        }
        drop(runtime);
        assert_eq!(drops.count(), 100);
        for task in tasks {
            wait_for("the task", task).unwrap_err();
        }
    });
}

// --- spawn ---

#[test]
fn outside_of_a_runtime_there_is_no_current_one() {
    let error = Handle::try_current().unwrap_err();
    assert!(error.to_string().contains("no polity runtime"), "{error}");
    let current = panic_text(|| drop(Handle::current()));
    assert!(current.contains("no polity runtime"), "{current}");
    let spawn = panic_text(|| drop(polity::spawn(async {})));
    assert!(spawn.contains("no polity runtime"), "{spawn}");
    let spawn_with = panic_text(|| drop(polity::spawn_with(Attributes::new(), async {})));
    assert!(spawn_with.contains("no polity runtime"), "{spawn_with}");
    let blocking = panic_text(|| drop(polity::spawn_blocking(|| ())));
    assert!(blocking.contains("no polity runtime"), "{blocking}");
}

#[test]
fn the_current_runtime_is_that_of_the_task_of_block_on_or_of_enter() {
    within(|| {
        let (one, two) = (polity_tests::runtime(1), polity_tests::runtime(2));
        let workers = || Handle::current().worker_count();
        assert_eq!(one.block_on(async { workers() }), 1);
        assert_eq!(
            wait_for("a task", two.spawn(async move { workers() })).unwrap(),
            2
        );
        assert!(Handle::try_current().is_err());
        {
            let _one = one.enter();
            assert_eq!(workers(), 1);
            {
                let _two = two.enter();
                assert_eq!(workers(), 2);
            }
            assert_eq!(workers(), 1);
            wait_for("a task", polity::spawn(async {})).unwrap();
        }
        assert!(Handle::try_current().is_err());
    });
}

#[test]
fn block_on_inside_a_task_panics_as_in_tokio() {
    check(2, |runtime| {
        let handle = runtime.handle().clone();
        let task = runtime.spawn(async move {
            handle.block_on(async {});
        });
        let error = wait_for("the task", task).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("Cannot start a runtime from within a runtime"),
            "{text}"
        );
        // Nor inside another `block_on`.
        let text = panic_text(|| runtime.block_on(async { runtime.block_on(async {}) }));
        assert!(
            text.contains("Cannot start a runtime from within a runtime"),
            "{text}"
        );
        assert_eq!(runtime.block_on(async { 1 }), 1, "and nothing is broken");
    });
}

#[test]
fn a_weight_out_of_range_is_refused_with_its_name_and_value() {
    check(1, |runtime| {
        for weight in [0, 10_001, u32::MAX] {
            let drops = Drops::default();
            let counted = drops.counted();
            let error = runtime
                .spawn_with(Attributes::new().weight(weight), async move {
                    drop(counted);
                })
                .unwrap_err();
            assert_eq!(error, SpawnError::Weight(weight));
            let text = error.to_string();
            assert!(
                text.contains("weight") && text.contains(&weight.to_string()),
                "{text}"
            );
            assert_eq!(drops.count(), 1, "the future is dropped");
        }
        for weight in [1, 10_000] {
            let task = runtime.spawn_with(Attributes::new().weight(weight), async {});
            wait_for("the task", task.unwrap()).unwrap();
        }
    });
}

#[test]
fn an_affinity_that_names_no_worker_is_refused() {
    check(2, |runtime| {
        for workers in [vec![], vec![2], vec![2, 64, u16::MAX]] {
            let mask: WorkerMask = workers.into_iter().map(WorkerId::new).collect();
            let error = runtime
                .spawn_with(Attributes::new().affinity(mask.clone()), async {})
                .unwrap_err();
            let text = error.to_string();
            assert!(text.contains("affinity") && text.contains('2'), "{text}");
            assert!(text.contains(&mask.to_string()), "{text}");
            assert_eq!(error, SpawnError::Affinity { mask, workers: 2 });
        }
        // One that exists is enough.
        let mask = WorkerMask::from_iter([WorkerId::new(1), WorkerId::new(500)]);
        let task = runtime.spawn_with(Attributes::new().affinity(mask), async {});
        wait_for("the task", task.unwrap()).unwrap();
    });
}

#[test]
fn a_policy_reads_the_attributes_of_a_task() {
    struct Reader(std::sync::mpsc::Sender<(Option<String>, u32, u64)>);
    impl Policy for Reader {
        type Task = ();

        fn name(&self) -> &str {
            "reader"
        }
        fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
            let name = task.name().map(str::to_owned);
            let _ = self.0.send((name, task.weight(), task.tag()));
            host.insert(task.id(), DsqId::Global, Position::Tail);
        }
    }
    check(2, |runtime| {
        let (sender, seen) = channel();
        runtime.load(Reader(sender)).unwrap();
        let attributes = Attributes::new().name("ping").weight(1000).tag(7);
        let task = runtime.spawn_with(attributes, async {}).unwrap();
        wait_for("the task", task).unwrap();
        let seen = receive("the policy", &seen);
        assert_eq!(seen, (Some("ping".to_owned()), 1000, 7));
    });
}

// --- blocking ---

#[test]
fn a_blocking_call_gives_its_result_or_its_panic() {
    check(1, |runtime| {
        let worker = wait_for("a task", runtime.spawn(async { thread::current().id() })).unwrap();
        let call = runtime.spawn_blocking(|| thread::current().id());
        assert_ne!(wait_for("the call", call).unwrap(), worker);
        let call = runtime.spawn_blocking(|| panic!("on purpose"));
        let error = wait_for::<_>("the call", call).unwrap_err();
        assert_eq!(
            *error.into_panic().downcast::<&str>().unwrap(),
            "on purpose"
        );
        let from_task = runtime.spawn(async { polity::spawn_blocking(|| 3).await.unwrap() });
        assert_eq!(wait_for("the task", from_task).unwrap(), 3);
    });
}

#[test]
fn blocking_calls_leave_the_only_worker_free() {
    check(1, |runtime| {
        let (go, may_go) = channel();
        let call = runtime.spawn_blocking(move || receive("the task", &may_go));
        let task = runtime.spawn(async move { go.send(5).unwrap() });
        wait_for("the task", task).unwrap();
        assert_eq!(wait_for("the call", call).unwrap(), 5);
    });
}

#[test]
fn a_blocking_call_that_is_aborted_before_it_starts_never_starts() {
    within(|| {
        let runtime = builder(1).max_blocking_threads(1).build().unwrap();
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let first = runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            let _ = released.recv();
        });
        receive("the first call", &has_begun);
        let started = Arc::new(AtomicUsize::new(0));
        let note = Arc::clone(&started);
        let second = runtime.spawn_blocking(move || note.fetch_add(1, Ordering::SeqCst));
        second.abort();
        assert!(wait_for("the second", second).unwrap_err().is_cancelled());
        drop(release);
        wait_for("the first call", first).unwrap();
        let third = runtime.spawn_blocking(|| ());
        wait_for("the third", third).unwrap();
        assert_eq!(started.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn a_blocking_call_that_has_begun_runs_on_when_it_is_aborted() {
    check(1, |runtime| {
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let (ended, has_ended) = channel();
        let call = runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            let _ = released.recv();
            ended.send(()).unwrap();
        });
        receive("the call", &has_begun);
        call.abort();
        assert!(wait_for("the handle", call).unwrap_err().is_cancelled());
        drop(release);
        receive("the end of the call", &has_ended);
    });
}

#[test]
fn a_blocking_call_can_spawn_tasks_and_wait_for_them() {
    check(1, |runtime| {
        let call = runtime.spawn_blocking(|| {
            let task = polity::spawn(async { 4 });
            Handle::current().block_on(task).unwrap()
        });
        assert_eq!(wait_for("the call", call).unwrap(), 4);
    });
}

#[test]
fn a_policy_that_starves_everything_does_not_keep_a_blocking_call_from_starting() {
    check(1, |runtime| {
        runtime.load(Hoarder).unwrap();
        let (begun, has_begun) = channel();
        let call = runtime.spawn_blocking(move || begun.send(()).unwrap());
        receive("the call", &has_begun);
        call.abort();
        let _ = wait_for("the call", call);
    });
}

#[test]
fn many_blocking_calls_go_through_a_small_pool() {
    within(|| {
        let runtime = builder(2).max_blocking_threads(2).build().unwrap();
        let begun = now();
        let calls: Vec<_> = (0..500)
            .map(|n| runtime.spawn_blocking(move || n))
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(wait_for("a call", call).unwrap(), n);
        }
        assert!(now() - begun < DEADLINE);
    });
}
