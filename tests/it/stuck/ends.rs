//! The end of a runtime whose threads are stuck.

use polity::Runtime;
use polity_tests::{DEADLINE, now, wait_until, within};

use super::{Bait, Scene, runtime};
use crate::spares::trap::How;
use crate::support::ON_WORKERS;
use crate::workload::lock;

/// Drops the runtime while its threads are stuck, and never come back as long as it lasts.
fn check_end(end: fn(Runtime)) {
    for convicted_before in [true, false] {
        for callback in ON_WORKERS {
            for calls in [1, 2] {
                println!("{callback}, {calls} stuck, convicted before: {convicted_before}");
                within(move || {
                    let runtime = runtime();
                    let scene = Scene::new(&runtime, callback, How::Spinning, calls, Bait::Waits);
                    if convicted_before {
                        wait_until("all are convicted", || runtime.abandoned_threads() == calls);
                    }
                    end(runtime);
                    assert_eq!(scene.trigger.stuck(), calls);
                    lock(&scene.books).check_dropped();
                });
            }
        }
    }
}

#[test]
fn a_runtime_can_be_dropped_while_its_threads_are_stuck_in_a_policy() {
    check_end(drop);
}

#[test]
fn a_runtime_shuts_down_well_before_its_timeout_while_its_threads_are_stuck_in_a_policy() {
    check_end(|runtime| {
        let begun = now();
        runtime.shutdown_timeout(DEADLINE);
        let took = now() - begun;
        assert!(took < DEADLINE / 2, "{took:?}");
    });
}
