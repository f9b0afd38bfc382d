//! Loads that are refused: the old policy goes on, and the caller hears why.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use polity::{Callback as CoreCallback, DsqId, ExitKind, LoadError, LoadRefused, Policy, Position};
use polity_policies::{Callback, Fault, Faulty, Fifo, Priority};
use polity_tests::{check, now, receive, wait_for, within};

use super::Named;
use crate::workload::{Script, exit_of, expect_ordered_panics, lock};

/// Loads `bad` over a running policy, expects `Err`, and that the old one goes on.
fn check_refused(bad: impl Policy, expected: impl FnOnce(&LoadError) -> bool + Send + 'static) {
    expect_ordered_panics();
    check(2, |runtime| {
        let enqueues = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&enqueues);
        let old = Script::new("old").enqueue(move |host, task| {
            counted.fetch_add(1, Ordering::Relaxed);
            host.insert(task.id(), DsqId::Global, Position::Tail);
        });
        let generation = runtime.load(old).unwrap();
        let error = runtime.load(bad).unwrap_err();
        assert!(expected(&error), "{error:?}: {error}");
        assert_eq!(runtime.policy_status().unwrap().generation, generation);
        let before = enqueues.load(Ordering::Relaxed);
        wait_for("a task", runtime.spawn(async {})).unwrap();
        assert!(
            enqueues.load(Ordering::Relaxed) > before,
            "the old one ran on"
        );
        assert!(runtime.exit_info(generation).is_none());
    });
}

#[test]
fn an_init_that_fails_leaves_the_old_policy_running_and_tells_the_caller() {
    check_refused(Faulty::new(Fault::RefuseInit), |error| {
        *error
            == LoadError::Refused(LoadRefused::Init(
                "faulty: init refuses, as ordered".to_owned(),
            ))
    });
    let panics = Fault::Panic {
        callback: Callback::Init,
        call: 1,
    };
    check_refused(Faulty::new(panics), |error| {
        let message = "faulty: panic in init, call 1, as ordered".to_owned();
        *error
            == LoadError::Refused(LoadRefused::Panicked {
                callback: CoreCallback::Init,
                message,
            })
    });
}

#[test]
fn an_init_that_ends_the_policy_through_the_host_is_refused() {
    let exits = Script::new("exits").init(|host| {
        host.exit(3, "not today");
        Ok(())
    });
    check_refused(exits, |error| error.to_string().contains("not today"));
    let fails = Script::new("fails").init(|host| {
        host.error("no such class");
        Ok(())
    });
    check_refused(fails, |error| error.to_string().contains("no such class"));
    let inserts = Script::new("inserts").init(|host| {
        host.insert(
            polity::TaskId::from_parts(1, 1),
            DsqId::Global,
            Position::Tail,
        );
        Ok(())
    });
    check_refused(inserts, |error| {
        error
            .to_string()
            .contains("init: insert of task 1.1 into DSQ global")
    });
}

/// For a policy whose `init` was called, that nothing else is.
#[test]
fn a_policy_that_was_refused_gets_neither_exit_nor_tasks_and_is_dropped() {
    check(2, |runtime| {
        let (dropped, drop_of) = channel();
        let called = Arc::new(AtomicUsize::new(0));
        let (enqueued, exited) = (Arc::clone(&called), Arc::clone(&called));
        let policy = Script::new("refused")
            .init(|_| Err("no".into()))
            .enqueue(move |_, _| {
                enqueued.fetch_add(1, Ordering::SeqCst);
            })
            .exit(move |_| {
                exited.fetch_add(1, Ordering::SeqCst);
            })
            .dropped(move || {
                dropped
                    .send(thread::current().name().map(str::to_owned))
                    .unwrap()
            });
        runtime.load(policy).unwrap_err();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        let thread = receive("the drop of the policy", &drop_of);
        assert_ne!(thread.as_deref(), Some("polity-worker"));
        assert_ne!(thread.as_deref(), Some("polity-control"));
        assert_eq!(called.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn an_init_that_hangs_is_given_up_after_its_deadline_and_another_load_works() {
    check(1, |runtime| {
        let (release, released) = channel::<()>();
        let (dropped, drop_of) = channel();
        let released = Mutex::new(released);
        let hangs = Script::new("hangs")
            .init(move |_| {
                let _ = lock(&released).recv();
                Ok(())
            })
            .dropped(move || dropped.send(()).unwrap());
        let old = runtime.load(Fifo::new()).unwrap();
        let begun = now();
        let error = runtime.load(hangs).unwrap_err();
        let took = now() - begun;
        let after = Duration::from_secs(5);
        assert_eq!(error, LoadError::InitTimedOut { after });
        assert!(took >= after, "{took:?}");
        assert_eq!(runtime.policy_status().unwrap().generation, old);
        // It still hangs.
        let next = runtime.load(Priority::new()).unwrap();
        assert_eq!(exit_of(&runtime, old).kind, ExitKind::Swap);
        wait_for("a task", runtime.spawn(async {})).unwrap();
        // Its late answer is dropped, and so is the policy.
        drop(release);
        receive("the drop of the late policy", &drop_of);
        assert_eq!(runtime.policy_status().unwrap().generation, next);
    });
}

#[test]
fn a_load_from_inside_a_callback_is_refused() {
    check(1, |runtime| {
        let (said, says) = channel();
        let in_init = said.clone();
        let (handle, handle_in_init) = (runtime.handle().clone(), runtime.handle().clone());
        let policy = Script::new("recursive")
            .init(move |_| {
                in_init.send(handle_in_init.load(Fifo::new())).unwrap();
                Ok(())
            })
            .enqueue(move |host, task| {
                said.send(handle.load(Fifo::new())).unwrap();
                host.insert(task.id(), DsqId::Global, Position::Tail);
            });
        let generation = runtime.load(policy).unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        for place in ["init", "enqueue"] {
            assert_eq!(
                receive("what load says", &says),
                Err(LoadError::InCallback),
                "{place}"
            );
        }
        assert_eq!(runtime.policy_status().unwrap().generation, generation);
    });
}

#[test]
fn a_name_that_cannot_be_printed_is_refused_with_the_reason() {
    for (name, why) in [
        (String::new(), "is empty"),
        ("x".repeat(129), "is longer than 128 bytes"),
        ("ä".repeat(65), "is longer than 128 bytes"),
        (
            "two\nlines".to_owned(),
            "has characters that are not printable",
        ),
        (
            "\u{1b}[31mred".to_owned(),
            "has characters that are not printable",
        ),
        ("nul\0".to_owned(), "has characters that are not printable"),
    ] {
        check_refused(Named(name), move |error| {
            let LoadError::Refused(LoadRefused::Name { name, why: said }) = error else {
                return false;
            };
            *said == why && !name.chars().any(char::is_control) && name.len() < 1000
        });
    }
}

#[test]
fn a_name_of_128_bytes_is_accepted() {
    check(1, |runtime| {
        for name in ["x".repeat(128), "ä".repeat(64), "a b.c-d/é".to_owned()] {
            runtime.load(Named(name.clone())).unwrap();
            assert_eq!(runtime.policy_status().unwrap().name, name);
        }
    });
}

#[test]
fn a_policy_that_panics_when_asked_its_name_is_refused() {
    check_refused(Named("panics".to_owned()), |error| {
        matches!(
            error,
            LoadError::Refused(LoadRefused::Panicked {
                callback: CoreCallback::Name,
                message,
            }) if message.contains("as ordered")
        )
    });
}

#[test]
fn a_load_after_the_runtime_has_gone_is_refused() {
    within(|| {
        let runtime = polity_tests::runtime(1);
        let handle = runtime.handle().clone();
        drop(runtime);
        let error = handle.load(Fifo::new()).unwrap_err();
        assert_eq!(error, LoadError::Refused(LoadRefused::Closing));
        assert!(handle.policy_status().is_none());
    });
}
