//! Panics at the two ends of a policy's life: in `name`, `stall_timeout` and `init` they refuse the load, in `exit` and drop they come too
//! late to matter.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use polity::{
    Callback as CoreCallback, ExitKind, Generation, Handle, InitError, LoadError, LoadRefused,
    Policy, Runtime,
};
use polity_policies::{Callback, Fault, Faulty, Fifo};
use polity_tests::{check, receive, within};

use super::{
    Bomb, Churn, EndlessBomb, check_every_worker_works, check_panic, load_while_busy,
    throw_endless_bomb, without_place,
};
use crate::workload::{Script, exit_of, expect_ordered_panics};

/// Loads `bad`, of which no panic may reach the caller.
#[track_caller]
fn load(runtime: &Handle, bad: impl Policy) -> Result<Generation, LoadError> {
    catch_unwind(AssertUnwindSafe(|| runtime.load(bad))).unwrap_or_else(|payload| {
        std::mem::forget(payload); // its drop may panic
        panic!("the load panicked");
    })
}

/// Loads `bad` under a churn over a good policy, which must not notice.
#[track_caller]
fn refusal_of(bad: impl Policy) -> LoadError {
    within(|| {
        let runtime = polity_tests::runtime(2);
        let good = runtime.load(Fifo::new()).unwrap();
        let churn = Churn::start(&runtime);
        let error = load(&runtime, bad).unwrap_err();
        assert_eq!(runtime.policy_status().unwrap().generation, good);
        churn.finish();
        check_every_worker_works(&runtime);
        let next = runtime.load(Fifo::new()).unwrap();
        assert_eq!(runtime.policy_status().unwrap().generation, next);
        error
    })
}

fn panicked_in(callback: CoreCallback, message: &str) -> LoadError {
    LoadError::Refused(LoadRefused::Panicked {
        callback,
        message: message.to_owned(),
    })
}

const NOT_TEXT: &str = "(a panic payload that is not text)";

/// A policy that is refused for what it says before its `init`.
struct Bad {
    name: fn() -> &'static str,
    stall_timeout: fn() -> Option<Duration>,
    drop: fn(),
    drops: Arc<AtomicUsize>,
}

impl Bad {
    /// A policy with which nothing is wrong.
    fn new() -> (Bad, Arc<AtomicUsize>) {
        let drops = Arc::<AtomicUsize>::default();
        let bad = Bad {
            name: || "bad",
            stall_timeout: || None,
            drop: || (),
            drops: Arc::clone(&drops),
        };
        (bad, drops)
    }
}

impl Policy for Bad {
    type Task = ();

    fn name(&self) -> &str {
        (self.name)()
    }
    fn stall_timeout(&self) -> Option<Duration> {
        (self.stall_timeout)()
    }
}

impl Drop for Bad {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
        (self.drop)();
    }
}

/// What a drop does.
const DROPS: [fn(); 3] = [
    || (),
    || panic!("in drop, as ordered"),
    || throw_endless_bomb(),
];

#[test]
fn a_policy_that_panics_before_its_init_is_refused_and_may_panic_in_its_drop() {
    expect_ordered_panics();
    for drop in DROPS {
        for (name, says) in [
            ((|| panic!("as ordered")) as fn() -> _, "as ordered"),
            (|| throw_endless_bomb(), NOT_TEXT),
        ] {
            let (mut bad, drops) = Bad::new();
            bad.name = name;
            bad.drop = drop;
            let refusal = refusal_of(bad);
            assert_eq!(refusal, panicked_in(CoreCallback::Name, says));
            assert_eq!(drops.load(Ordering::SeqCst), 1);
        }
        for (stall_timeout, says) in [
            ((|| panic!("as ordered")) as fn() -> _, "as ordered"),
            (|| throw_endless_bomb(), NOT_TEXT),
        ] {
            let (mut bad, drops) = Bad::new();
            bad.stall_timeout = stall_timeout;
            bad.drop = drop;
            let refusal = refusal_of(bad);
            assert_eq!(refusal, panicked_in(CoreCallback::StallTimeout, says));
            assert_eq!(drops.load(Ordering::SeqCst), 1);
        }
    }
}

#[test]
fn a_policy_with_a_bad_name_or_stall_timeout_may_panic_in_its_drop() {
    expect_ordered_panics();
    for drop in DROPS {
        let (mut bad, drops) = Bad::new();
        bad.name = || "";
        bad.drop = drop;
        let refusal = refusal_of(bad);
        assert!(
            matches!(refusal, LoadError::Refused(LoadRefused::Name { .. })),
            "{refusal}"
        );
        assert_eq!(drops.load(Ordering::SeqCst), 1);

        let (mut bad, drops) = Bad::new();
        bad.stall_timeout = || Some(Duration::ZERO);
        bad.drop = drop;
        let refusal = refusal_of(bad);
        assert_eq!(
            refusal,
            LoadError::Refused(LoadRefused::StallTimeout(Duration::ZERO))
        );
        assert_eq!(drops.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn a_policy_that_is_loaded_too_late_may_panic_in_its_drop() {
    expect_ordered_panics();
    for drop in DROPS {
        within(move || {
            let runtime = polity_tests::runtime(1);
            let handle = runtime.handle().clone();
            std::mem::drop(runtime);
            let (mut bad, drops) = Bad::new();
            bad.drop = drop;
            let refusal = load(&handle, bad).unwrap_err();
            assert_eq!(refusal, LoadError::Refused(LoadRefused::Closing));
            assert_eq!(drops.load(Ordering::SeqCst), 1);
        });
    }
}

#[test]
fn an_init_that_throws_a_payload_that_panics_when_dropped_is_refused() {
    let bad = Script::new("bomber").init(|_| throw_endless_bomb());
    assert_eq!(refusal_of(bad), panicked_in(CoreCallback::Init, NOT_TEXT));
}

/// An error of `init` that panics when it is printed, and when it is dropped.
#[derive(Debug)]
struct BadError {
    text: Option<&'static str>,
    _bomb: Option<Bomb>,
}

impl fmt::Display for BadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.expect("an error that prints, as ordered"))
    }
}

impl std::error::Error for BadError {}

#[test]
fn an_error_of_init_that_cannot_be_printed_or_dropped_is_refused_as_a_panic() {
    expect_ordered_panics();
    let unprintable = || -> InitError {
        let (text, _bomb) = (None, None);
        Box::new(BadError { text, _bomb })
    };
    let bad = Script::new("unprintable").init(move |_| Err(unprintable()));
    let text = "an error that prints, as ordered";
    assert_eq!(refusal_of(bad), panicked_in(CoreCallback::Init, text));

    let undroppable = || -> InitError {
        let (text, _bomb) = (Some("no"), Some(Bomb("the error, as ordered")));
        Box::new(BadError { text, _bomb })
    };
    let bad = Script::new("undroppable").init(move |_| Err(undroppable()));
    let text = "the error, as ordered";
    assert_eq!(refusal_of(bad), panicked_in(CoreCallback::Init, text));
}

#[test]
fn a_policy_that_init_refused_may_panic_in_its_drop() {
    expect_ordered_panics();
    let dropped = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&dropped);
    let bad = Script::new("bad_to_the_end")
        .init(|_| Err("no".into()))
        .dropped(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            panic!("in drop, as ordered");
        });
    let refused = LoadError::Refused(LoadRefused::Init("no".to_owned()));
    assert_eq!(refusal_of(bad), refused);
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

/// Where a policy panics that ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Exit,
    Drop,
    Both,
}

/// What it panics with.
#[derive(Clone, Copy)]
enum Payload {
    Text,
    EndlessBomb,
}

/// A policy that panics in `exit`, in its drop, or in both.
fn bad_end(at: At, payload: Payload, say: impl Fn(&str) + Send + Sync + 'static) -> Script {
    let say = Arc::new(say);
    let say_drop = Arc::clone(&say);
    let throw = move |text: &'static str| match payload {
        Payload::Text => panic!("{text}"),
        Payload::EndlessBomb => resume_unwind(Box::new(EndlessBomb)),
    };
    Script::new("bad_end")
        .exit(move |_| {
            say("exit");
            if at != At::Drop {
                throw("in exit, as ordered");
            }
        })
        .dropped(move || {
            say_drop("drop");
            if at != At::Exit {
                throw("in drop, as ordered");
            }
        })
}

/// How a policy can end.
const ENDS: [fn(&Runtime) -> ExitKind; 3] = [
    |runtime| {
        runtime.unload();
        ExitKind::Unload
    },
    |runtime| {
        runtime.load(Fifo::new()).unwrap();
        ExitKind::Swap
    },
    |runtime| {
        runtime.eject("as ordered");
        ExitKind::Ejected
    },
];

#[test]
fn panics_in_exit_and_drop_change_nothing_for_the_policy_that_came_next() {
    expect_ordered_panics();
    check(2, |runtime| {
        for end in ENDS {
            for (at, payload) in [
                (At::Exit, Payload::Text),
                (At::Exit, Payload::EndlessBomb),
                (At::Drop, Payload::Text),
                (At::Drop, Payload::EndlessBomb),
                (At::Both, Payload::Text),
                (At::Both, Payload::EndlessBomb),
            ] {
                let (said, says) = channel();
                let policy = bad_end(at, payload, move |what| {
                    said.send(what.to_owned()).unwrap();
                });
                let generation = runtime.load(policy).unwrap();
                let churn = Churn::start(&runtime);
                let kind = end(&runtime);
                assert_eq!(exit_of(&runtime, generation).kind, kind);
                assert_eq!(receive("exit", &says), "exit");
                assert_eq!(receive("drop", &says), "drop");
                assert_eq!(runtime.policy_status().is_some(), kind == ExitKind::Swap);
                churn.finish();
                check_every_worker_works(&runtime);
                runtime.unload();
            }
        }
    });
}

/// It panicked in a callback, and it goes on panicking.
#[test]
fn a_policy_that_was_ejected_for_a_panic_may_panic_in_exit_and_drop_too() {
    expect_ordered_panics();
    check(2, |runtime| {
        let (said, says) = channel();
        let said_in_drop = said.clone();
        let policy = Script::new("hopeless")
            .enqueue(|_, _| panic!("in enqueue, as ordered"))
            .exit(move |info| {
                said.send(info.message.clone()).unwrap();
                panic!("in exit, as ordered");
            })
            .dropped(move || {
                said_in_drop.send("drop".to_owned()).unwrap();
                panic!("in drop, as ordered");
            });
        let generation = load_while_busy(&runtime, policy);
        Churn::start(&runtime).finish();
        let text = "enqueue: in enqueue, as ordered";
        check_panic(&exit_of(&runtime, generation), text);
        assert!(without_place(&receive("exit", &says)) == text);
        assert_eq!(receive("drop", &says), "drop");
        check_every_worker_works(&runtime);
    });
}

#[test]
fn a_runtime_ends_although_its_policy_panics_in_exit_or_drop() {
    expect_ordered_panics();
    for (at, payload) in [
        (At::Exit, Payload::Text),
        (At::Drop, Payload::Text),
        (At::Both, Payload::Text),
        (At::Both, Payload::EndlessBomb),
    ] {
        within(move || {
            let (said, says) = channel();
            let runtime = polity_tests::runtime(2);
            let policy = bad_end(at, payload, move |what| {
                said.send(what.to_owned()).unwrap();
            });
            runtime.load(policy).unwrap();
            drop(runtime);
            assert_eq!(receive("exit", &says), "exit");
            assert_eq!(receive("drop", &says), "drop");
        });
    }
}

/// The panic and the end of the runtime at the same time, each of them first in some of the rounds.
#[test]
fn a_runtime_may_end_while_its_policy_panics() {
    expect_ordered_panics();
    for call in 1..=60 {
        within(move || {
            let runtime = polity_tests::runtime(2);
            let callback = Callback::Enqueue;
            let policy = Faulty::new(Fault::Panic { callback, call });
            runtime.load(policy).unwrap();
            let churn = Churn::start(&runtime);
            drop(runtime);
            churn.check_all_gone();
        });
    }
}
