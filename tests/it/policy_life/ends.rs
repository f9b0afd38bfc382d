//! The end of a policy: what is said of it, and `exit` and drop, once and on a thread of their own.

use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::thread;

use polity::{ExitKind, Handle};
use polity_policies::Fifo;
use polity_tests::{check, receive, wait_for, wait_until, within};

use crate::workload::{Mixed, Recorder, Script, exit_of, expect_ordered_panics};

#[test]
fn what_ended_a_policy_is_said_in_its_exit_info() {
    check(2, |runtime| {
        let end = |how: &dyn Fn(&Handle)| {
            let generation = runtime.load(Fifo::new()).unwrap();
            how(&runtime);
            let info = exit_of(&runtime, generation);
            assert_eq!((info.policy.as_str(), info.code), ("fifo", 0));
            assert_eq!((info.worker, info.task), (None, None));
            (info.kind, info.message.clone())
        };
        let unloaded = end(&|runtime| drop(runtime.unload()));
        assert_eq!(unloaded, (ExitKind::Unload, String::new()));
        let ejected = end(&|runtime| drop(runtime.eject("too slow for us")));
        assert_eq!(ejected, (ExitKind::Ejected, "too slow for us".to_owned()));
    });
}

#[test]
fn dropping_the_runtime_ends_the_policy_with_kind_shutdown() {
    within(|| {
        let (exited, exit) = channel();
        let runtime = polity_tests::runtime(2);
        let policy = Script::new("until_the_end").exit(move |info| exited.send(info.kind).unwrap());
        runtime.load(policy).unwrap();
        drop(runtime);
        assert_eq!(receive("exit", &exit), ExitKind::Shutdown);
    });
}

#[test]
fn exit_is_called_once_and_last_on_a_thread_of_its_own_and_so_is_drop() {
    for _ in 0..20 {
        check(2, |runtime| {
            let (dropped, drop_of) = channel();
            let inner = Script::new("ends").dropped(move || {
                let thread = thread::current().name().unwrap_or_default().to_owned();
                dropped.send(thread).unwrap();
            });
            let (policy, record) = Recorder::new(inner, 2);
            let generation = runtime.load(policy).unwrap();
            let load = Mixed::start(&runtime, 3);
            let polls = runtime.metrics().polls + 20;
            wait_until("it has run a little", || runtime.metrics().polls >= polls);
            let info = runtime.unload().unwrap();
            assert_eq!(exit_of(&runtime, generation).to_string(), info.to_string());
            assert_eq!(receive("the drop of the policy", &drop_of), "polity-exit");
            assert_eq!(record.exits(), 1, "exit comes before drop");
            assert_eq!(record.exit_thread(), "polity-exit");
            load.finish();
            record.check();
        });
    }
}

/// An ejection from inside a callback: the worker that finds the fault must not run the policy's drop either.
#[test]
fn a_policy_that_ends_itself_is_not_dropped_on_the_worker_that_it_ended_on() {
    check(1, |runtime| {
        let (dropped, drop_of) = channel();
        let policy = Script::new("ends_itself")
            .enqueue(|host, _| host.exit(7, "enough"))
            .dropped(move || {
                let thread = thread::current().name().unwrap_or_default().to_owned();
                dropped.send(thread).unwrap();
            });
        let generation = runtime.load(policy).unwrap();
        wait_for("the task", runtime.spawn(async {})).unwrap();
        assert_eq!(exit_of(&runtime, generation).kind, ExitKind::PolicyExit);
        assert_eq!(receive("the drop of the policy", &drop_of), "polity-exit");
    });
}

#[test]
fn a_panic_in_exit_or_drop_of_a_policy_is_contained() {
    expect_ordered_panics();
    check(2, |runtime| {
        for panics_in_exit in [true, false] {
            let (ended, end) = channel();
            let ended_in_drop = ended.clone();
            let policy = Script::new("bad_end")
                .exit(move |_| {
                    ended.send("exit").unwrap();
                    assert!(!panics_in_exit, "in exit, as ordered");
                })
                .dropped(move || {
                    ended_in_drop.send("drop").unwrap();
                    assert!(panics_in_exit, "in drop, as ordered");
                });
            runtime.load(policy).unwrap();
            runtime.unload();
            assert_eq!(receive("exit", &end), "exit");
            assert_eq!(receive("drop", &end), "drop", "also after a panic in exit");
            wait_for("a task", runtime.spawn(async {})).unwrap();
            runtime.load(Fifo::new()).unwrap();
            Mixed::start(&runtime, 2).finish();
        }
    });
}

#[test]
fn a_panic_payload_that_is_not_text_or_panics_when_dropped_is_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload, as ordered");
        }
    }
    expect_ordered_panics();
    check(2, |runtime| {
        let policy = Script::new("bomb").enqueue(|_, _| std::panic::resume_unwind(Box::new(Bomb)));
        let generation = runtime.load(policy).unwrap();
        Mixed::start(&runtime, 2).finish();
        assert_eq!(exit_of(&runtime, generation).kind, ExitKind::Panic);
    });
}

#[test]
fn the_first_end_of_a_policy_wins() {
    expect_ordered_panics();
    check(1, |runtime| {
        let policy = Script::new("talks_on").enqueue(|host, _| {
            host.error("first");
            host.exit(2, "second");
            panic!("third, as ordered");
        });
        let generation = runtime.load(policy).unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        let info = exit_of(&runtime, generation);
        assert_eq!(
            (info.kind, info.message.as_str()),
            (ExitKind::PolicyError, "enqueue: first")
        );
        assert!(runtime.eject("too late").is_none());
        assert_eq!(exit_of(&runtime, generation).message, "enqueue: first");
    });
}

#[test]
fn of_many_ejections_at_once_one_wins_and_exit_is_called_once() {
    check(2, |runtime| {
        for _ in 0..50 {
            let (policy, record) = Recorder::new(Fifo::new(), 2);
            let generation = runtime.load(policy).unwrap();
            let barrier = Barrier::new(4);
            let said: Vec<_> = thread::scope(|scope| {
                let ejectors: Vec<_> = (0..4)
                    .map(|n| {
                        let (runtime, barrier) = (&runtime, &barrier);
                        scope.spawn(move || {
                            barrier.wait();
                            runtime.eject(&n.to_string())
                        })
                    })
                    .collect();
                let ended = ejectors.into_iter().map(|ejector| ejector.join().unwrap());
                ended.collect()
            });
            let info = exit_of(&runtime, generation);
            for said in said.into_iter().flatten() {
                assert_eq!(said.message, info.message);
                assert_eq!(said.generation, generation);
            }
            wait_until("exit", || record.exits() > 0);
            record.check();
        }
    });
}

#[test]
fn the_last_64_exits_are_kept() {
    check(1, |runtime| {
        let generations: Vec<_> = (0..66)
            .map(|_| runtime.load(Fifo::new()).unwrap())
            .collect();
        runtime.unload();
        exit_of(&runtime, generations[65]);
        assert!(runtime.exit_info(generations[0]).is_none());
        assert!(runtime.exit_info(generations[1]).is_none());
        assert!(runtime.exit_info(generations[2]).is_some());
    });
}
