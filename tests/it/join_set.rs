//! `JoinSet`: what ends is joined once, in the order of the ends, and what is dropped is aborted.

use std::collections::HashSet;
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::task::{Context, Poll, Wake, Waker};

use futures::FutureExt;
use polity::{Attributes, JoinSet};
use polity_policies::Priority;
use polity_tests::{check, receive, runtime, wait_for, wait_until, within};
use tokio::sync::oneshot;

use crate::support::{Drops, waiting};

/// Counts wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn every_task_is_joined_once() {
    check(2, |runtime| {
        for policy in [false, true] {
            if policy {
                runtime.load(Priority::new()).unwrap();
            }
            runtime.block_on(async {
                let mut set = JoinSet::new();
                for n in 0..5000u32 {
                    set.spawn(async move {
                        if n % 3 == 0 {
                            polity::yield_now().await;
                        }
                        n
                    });
                }
                assert_eq!(set.len(), 5000);
                let mut seen = HashSet::new();
                while let Some(joined) = set.join_next().await {
                    assert!(seen.insert(joined.unwrap()));
                    assert_eq!(set.len(), 5000 - seen.len());
                }
                assert_eq!(seen.len(), 5000);
                assert!(set.is_empty() && set.join_next().await.is_none());
            });
        }
    });
}

#[test]
fn tasks_are_joined_in_the_order_of_their_ends() {
    check(2, |runtime| {
        runtime.block_on(async {
            let mut set = JoinSet::new();
            let mut releases = Vec::new();
            for n in 0..50 {
                let (release, released) = oneshot::channel::<()>();
                releases.push(Some(release));
                set.spawn(async move {
                    released.await.unwrap();
                    n
                });
            }
            assert!(set.join_next().now_or_never().is_none());
            for n in (0..50).rev().step_by(2).chain((0..50).step_by(2)) {
                releases[n].take().unwrap().send(()).unwrap();
                assert_eq!(set.join_next().await.unwrap().unwrap(), n);
            }
        });
    });
}

#[test]
fn a_panic_is_the_error_of_its_task_alone() {
    check(2, |runtime| {
        runtime.block_on(async {
            let mut set = JoinSet::new();
            let bad = set.spawn(async { panic!("one of them") }).id();
            set.spawn(async {});
            let (mut good, mut panicked) = (0, 0);
            while let Some(joined) = set.join_next_with_id().await {
                match joined {
                    Ok((id, ())) => {
                        assert_ne!(id, bad);
                        good += 1;
                    }
                    Err(error) => {
                        assert!(error.is_panic());
                        assert_eq!(error.id(), bad);
                        panicked += 1;
                    }
                }
            }
            assert_eq!((good, panicked), (1, 1));
        });
    });
}

#[test]
fn a_dropped_set_aborts_its_tasks() {
    check(2, |runtime| {
        let drops = Drops::default();
        let mut set = JoinSet::new();
        for _ in 0..20 {
            let (future, is_polled) = waiting(&drops);
            set.spawn_on(future, runtime.handle());
            receive("a poll", &is_polled);
        }
        assert_eq!(drops.count(), 0);
        drop(set);
        wait_until("all are dropped", || drops.count() == 20);
    });
}

#[test]
fn a_shutdown_returns_when_every_task_is_gone() {
    check(2, |runtime| {
        let drops = Drops::default();
        runtime.block_on(async {
            let mut set = JoinSet::new();
            for _ in 0..20 {
                let (future, is_polled) = waiting(&drops);
                set.spawn(future);
                receive("a poll", &is_polled);
            }
            set.shutdown().await;
            assert_eq!(drops.count(), 20);
            assert!(set.is_empty());
            // It can be used again.
            let (future, _is_polled) = waiting(&drops);
            set.spawn(future.map(|()| ()));
            assert_eq!(set.len(), 1);
        });
    });
}

#[test]
fn aborted_tasks_stay_in_the_set_until_they_are_joined() {
    check(1, |runtime| {
        runtime.block_on(async {
            let mut set = JoinSet::new();
            let first = set.spawn(pending::<()>());
            set.spawn(pending());
            first.abort();
            let (joined, id) = match set.join_next_with_id().await.unwrap() {
                Ok(_) => panic!("a pending future has ended"),
                Err(error) => (error.is_cancelled(), error.id()),
            };
            assert!(joined && id == first.id());
            set.abort_all();
            assert_eq!(set.len(), 1);
            assert!(set.join_next().await.unwrap().unwrap_err().is_cancelled());
        });
    });
}

#[test]
fn detached_tasks_run_on() {
    check(1, |runtime| {
        let (ended, has_ended) = channel();
        let (release, released) = oneshot::channel::<()>();
        let mut set = JoinSet::new();
        set.spawn_on(
            async move {
                released.await.unwrap();
                ended.send(()).unwrap();
            },
            runtime.handle(),
        );
        set.detach_all();
        assert!(set.is_empty());
        drop(set);
        release.send(()).unwrap();
        receive("the end of a detached task", &has_ended);
    });
}

#[test]
fn try_join_next_gives_what_has_ended_and_nothing_else() {
    check(2, |runtime| {
        runtime.block_on(async {
            let mut set = JoinSet::new();
            assert!(set.try_join_next().is_none());
            let (release, released) = oneshot::channel::<()>();
            set.spawn(async move { released.await.is_ok() });
            assert!(set.try_join_next().is_none());
            assert_eq!(set.len(), 1);
            release.send(()).unwrap();
            let mut joined = None;
            wait_until("the task is joined", || {
                joined = set.try_join_next();
                joined.is_some()
            });
            assert!(joined.unwrap().unwrap());
            assert!(set.try_join_next().is_none() && set.is_empty());
        });
    });
}

/// A look without waiting must not swallow the wake of somebody who waits afterwards.
#[test]
fn who_waits_after_a_look_is_woken() {
    check(2, |runtime| {
        for _ in 0..200 {
            runtime.block_on(async {
                let mut set = JoinSet::new();
                let (release, released) = oneshot::channel::<()>();
                set.spawn(async move { released.await.unwrap() });
                assert!(set.try_join_next().is_none());
                drop(polity::spawn(async move { release.send(()).unwrap() }));
                set.join_next().await.unwrap().unwrap();
            });
        }
    });
}

/// Each handle is looked at once before anybody has to wake it.
#[test]
fn a_look_finds_the_only_one_of_many_that_has_ended() {
    check(2, |runtime| {
        runtime.block_on(async {
            let mut set = JoinSet::new();
            for _ in 0..500 {
                set.spawn(pending::<u32>());
            }
            let ended = set.spawn(async { 7 });
            wait_until("it has ended", || ended.is_finished());
            // Its first poll sees the output, told of the end or not.
            assert_eq!(set.try_join_next().unwrap().unwrap(), 7);
            assert!(set.try_join_next().is_none());
        });
    });
}

#[test]
fn a_wait_that_is_dropped_takes_nothing_out() {
    check(2, |runtime| {
        runtime.block_on(async {
            let mut set = JoinSet::new();
            for n in 0..100 {
                set.spawn(async move { n });
            }
            let mut sum = 0;
            while !set.is_empty() {
                tokio::select! {
                    biased;
                    () = polity::yield_now() => {}
                    joined = set.join_next() => sum += joined.unwrap().unwrap(),
                }
            }
            assert_eq!(sum, 99 * 100 / 2);
        });
    });
}

#[test]
fn one_end_wakes_the_waiter_and_costs_one_look() {
    within(|| {
        let runtime = runtime(1);
        let mut set = JoinSet::new();
        let mut releases = Vec::new();
        for _ in 0..1000 {
            let (release, released) = oneshot::channel::<()>();
            releases.push(release);
            set.spawn_on(async move { released.await.unwrap() }, runtime.handle());
        }
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut context = Context::from_waker(&waker);
        // The set may take several looks to meet all of them.
        for _ in 0..10 {
            assert!(set.poll_join_next(&mut context).is_pending());
        }
        let before = wakes.0.load(Ordering::SeqCst);
        releases.pop().unwrap().send(()).unwrap();
        wait_until("the waiter is woken", || {
            wakes.0.load(Ordering::SeqCst) > before
        });
        assert!(matches!(
            set.poll_join_next(&mut context),
            Poll::Ready(Some(Ok(())))
        ));
        assert!(set.poll_join_next(&mut context).is_pending());
        assert_eq!(wakes.0.load(Ordering::SeqCst), before + 1);
    });
}

#[test]
fn join_all_gives_every_output_or_the_first_panic() {
    check(2, |runtime| {
        let all: JoinSet<u32> =
            runtime.block_on(async { (0..10).map(|n| async move { n }).collect() });
        let mut outputs = runtime.block_on(all.join_all());
        outputs.sort_unstable();
        assert_eq!(outputs, (0..10).collect::<Vec<_>>());

        let drops = Drops::default();
        let mut set = JoinSet::new();
        let (future, is_polled) = waiting(&drops);
        set.spawn_on(future, runtime.handle());
        receive("a poll", &is_polled);
        set.spawn_on(async { panic!("from a task") }, runtime.handle());
        let joining = AssertUnwindSafe(|| runtime.block_on(set.join_all()));
        let panic = catch_unwind(joining).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"from a task"));
        wait_until("the other one is aborted", || drops.count() == 1);
    });
}

#[test]
fn a_set_has_tasks_with_attributes_blocking_calls_and_tasks_of_other_runtimes() {
    check(1, |runtime| {
        let other = polity_tests::runtime(1);
        runtime.block_on(async {
            let mut set = JoinSet::new();
            let heavy = Attributes::new().name("heavy").weight(1);
            set.spawn_with(heavy, async { 1 }).unwrap();
            set.spawn_blocking(|| 2);
            set.spawn_on(async { 4 }, other.handle());
            set.spawn_blocking_on(|| 8, other.handle());
            set.extend((0..2).map(|_| async { 16 }));
            let wrong = Attributes::new().weight(0);
            assert!(set.spawn_with(wrong, async { 64 }).is_err());
            assert_eq!(set.len(), 6);
            assert_eq!(set.join_all().await.iter().sum::<i32>(), 47);
        });
    });
}

#[test]
fn the_tasks_of_a_runtime_that_is_gone_are_joined_as_cancelled() {
    within(|| {
        let runtime = runtime(1);
        let mut set = JoinSet::new();
        set.spawn_on(pending::<()>(), runtime.handle());
        drop(runtime);
        let joined = wait_for("a task that was dropped", pin!(set.join_next()));
        assert!(joined.unwrap().unwrap_err().is_cancelled());
    });
}
