//! Shutdowns that do not wait for ever.

use std::future::pending;
use std::sync::mpsc::channel;
use std::time::Duration;

use polity_tests::{now, receive, runtime, wait_for, within};

use crate::support::Blocker;

#[test]
fn a_shutdown_with_a_timeout_does_not_wait_longer_for_a_stuck_poll() {
    within(|| {
        let runtime = runtime(2);
        let blocker = Blocker::new(&runtime);
        let waits = runtime.spawn(pending::<()>());
        let timeout = Duration::from_millis(50);
        let begun = now();
        runtime.shutdown_timeout(timeout);
        let took = now() - begun;
        assert!(took >= timeout, "{took:?}: it waits as long as it may");
        assert!(took < Duration::from_secs(10), "{took:?}");
        // What was left behind ends when it can.
        blocker.end();
        assert!(wait_for("the task", waits).unwrap_err().is_cancelled());
    });
}

#[test]
fn a_shutdown_with_a_timeout_does_not_wait_longer_for_a_stuck_blocking_call() {
    within(|| {
        let runtime = runtime(1);
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        drop(runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            let _ = released.recv();
        }));
        receive("the call", &has_begun);
        let before = now();
        runtime.shutdown_timeout(Duration::from_millis(50));
        assert!(now() - before < Duration::from_secs(10));
        drop(release);
    });
}

#[test]
fn a_shutdown_with_a_timeout_ends_early_if_nothing_is_stuck() {
    within(|| {
        let runtime = runtime(2);
        let waits = runtime.spawn(pending::<()>());
        let begun = now();
        runtime.shutdown_timeout(Duration::from_secs(3600));
        assert!(now() - begun < Duration::from_secs(10));
        assert!(waits.is_finished());
    });
}

#[test]
fn a_shutdown_in_the_background_waits_for_nothing() {
    within(|| {
        let runtime = runtime(1);
        let blocker = Blocker::new(&runtime);
        let waits = runtime.spawn(pending::<()>());
        runtime.shutdown_background();
        assert!(!waits.is_finished());
        blocker.end();
        assert!(wait_for("the task", waits).unwrap_err().is_cancelled());
    });
}
