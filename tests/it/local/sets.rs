//! `LocalSet`: `!Send` futures on a thread that is no worker, or inside one task.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::Duration;

use polity::{LocalSet, WorkerId, spawn_local, yield_now};
use polity_tests::{check, receive, wait_for};

use super::Bounds;

#[test]
fn members_run_on_the_callers_thread_among_themselves_and_beside_tasks() {
    check(2, |runtime| {
        let bounds = Bounds::default();
        let set = LocalSet::new();
        let log = Rc::new(RefCell::new(Vec::new()));
        let members = (0..4).map(|n| {
            let (bound, log) = (bounds.bind(), Rc::clone(&log));
            set.spawn_local(async move {
                for _ in 0..10 {
                    yield_now().await;
                    bound.touch();
                    // Woken by the driver, on whichever thread that is.
                    tokio::time::sleep(Duration::from_micros(10)).await;
                    polity::spawn(async {}).await.unwrap();
                    bound.touch();
                }
                log.borrow_mut().push(n);
                bound
            })
        });
        let members: Vec<_> = members.collect();
        let outputs = set.block_on(&runtime, async {
            let mut outputs = Vec::new();
            for member in members {
                outputs.push(member.await.unwrap());
            }
            outputs
        });
        assert!(outputs.iter().all(|bound| bound.touched.get() == 20));
        log.borrow_mut().sort_unstable();
        assert_eq!(*log.borrow(), [0, 1, 2, 3]);
        drop(outputs);
        bounds.check();
    });
}

#[test]
fn members_spawn_members_and_the_set_runs_until_none_is_left() {
    fn tree(depth: u32, count: Rc<RefCell<u32>>) {
        *count.borrow_mut() += 1;
        if depth > 0 {
            for _ in 0..2 {
                let count = Rc::clone(&count);
                drop(spawn_local(async move {
                    yield_now().await;
                    tree(depth - 1, count);
                }));
            }
        }
    }
    check(1, |runtime| {
        let set = LocalSet::new();
        let count = Rc::default();
        let root = Rc::clone(&count);
        drop(set.spawn_local(async move { tree(6, root) }));
        runtime.block_on(set);
        assert_eq!(*count.borrow(), 127);
    });
}

#[test]
fn a_member_that_is_woken_or_spawned_from_elsewhere_runs() {
    check(1, |runtime| {
        let set = LocalSet::new();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let member = set.spawn_local(async move { told.recv().await });
        let (ready, is_ready) = channel();
        let waker = std::thread::spawn(move || {
            receive("the set to run", &is_ready);
            tell.send(7).unwrap();
        });
        let got = set.block_on(&runtime, async move {
            ready.send(()).unwrap();
            member.await
        });
        assert_eq!(got.unwrap(), Some(7));
        waker.join().unwrap();
    });
}

#[test]
fn what_is_not_done_waits_until_the_set_runs_again() {
    check(1, |runtime| {
        let bounds = Bounds::default();
        let set = LocalSet::new();
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let bound = bounds.bind();
        let member = set.spawn_local(async move {
            let got = told.recv().await;
            bound.touch();
            got
        });
        set.block_on(&runtime, yield_now());
        tell.send(1).unwrap();
        assert!(!member.is_finished());
        assert_eq!(set.block_on(&runtime, member).unwrap(), Some(1));
        bounds.check();
    });
}

#[test]
fn members_end_like_tasks() {
    check(1, |runtime| {
        let bounds = Bounds::default();
        let set = LocalSet::new();
        let [one, two] = [bounds.bind(), bounds.bind()];
        let panics = set.spawn_local(async move {
            one.touch();
            panic!("in poll");
        });
        let aborted = set.spawn_local(async move {
            std::future::pending::<()>().await;
            two.touch();
        });
        let goes_on = set.spawn_local(async { 7 });
        set.block_on(&runtime, async {
            aborted.abort();
            let panics: polity::JoinError = panics.await.unwrap_err();
            assert!(panics.to_string().contains("in poll"), "{panics}");
            assert!(aborted.await.unwrap_err().is_cancelled());
            assert!(goes_on.is_finished());
            assert_eq!(goes_on.await.unwrap(), 7);
        });
        bounds.check();
        let bound = bounds.bind();
        let left = set.spawn_local(async move { bound.touch() });
        drop(set);
        assert!(left.is_finished());
        assert!(wait_for("what is left", left).unwrap_err().is_cancelled());
        bounds.check();
    });
}

#[test]
fn inside_a_task_a_set_takes_what_would_be_local_tasks_else() {
    check(1, |runtime| {
        let task = runtime.spawn_pinned(WorkerId::new(0), || async {
            let set = LocalSet::new();
            let polled = Rc::new(RefCell::new(false));
            let theirs = Rc::clone(&polled);
            set.run_until(async {
                // A member, which runs only while the set does.
                drop(spawn_local(async move {
                    yield_now().await;
                    *theirs.borrow_mut() = true;
                }));
            })
            .await;
            for _ in 0..10 {
                yield_now().await;
            }
            let before = *polled.borrow();
            set.await;
            let after = *polled.borrow();
            // A task of the runtime again.
            (before, after, spawn_local(async { 7 }).await.unwrap())
        });
        let ended = wait_for("the task", task.unwrap()).unwrap();
        assert_eq!(ended, (false, true, 7));
    });
}

#[test]
fn sets_nest() {
    check(1, |runtime| {
        let (outer, inner) = (LocalSet::new(), Rc::new(LocalSet::new()));
        let sum = outer.block_on(&runtime, async {
            let theirs = Rc::clone(&inner);
            let one = spawn_local(async move {
                theirs
                    .run_until(async { spawn_local(async { 1 }).await.unwrap() })
                    .await
            });
            let two = spawn_local(async { 2 });
            one.await.unwrap() + two.await.unwrap()
        });
        assert_eq!(sum, 3);
    });
}
