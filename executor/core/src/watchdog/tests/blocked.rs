//! Callbacks that are blocked: when they are convicted, and when they may wait for somebody who is kept from running.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use polity_policy::ExitKind;

use super::support::{BESIDE, FIRST, LONG, SECOND, blocked, in_enqueue, on_a_processor, stuck};
use crate::machine::ThreadState;
use crate::scripted::world::{MS, Script, TICK, Thread, World, exit_of};
use crate::worker::Pass;

/// The number of a thread that sits nowhere.
const BESIDE_ALL: usize = 1_000;

fn waits_for_a_page() -> Thread {
    Thread {
        processor_time: Some(0),
        state: Some(ThreadState::PageFault),
    }
}

/// Somebody else was faster to take the lock.
#[test]
fn a_thread_that_was_woken_and_is_blocked_again_has_not_been_blocked_all_the_time() {
    let world = World::new(1);
    let (policy, _) = in_enqueue(world, move || {
        for ran_ns in 0..20 {
            let woken = Thread {
                processor_time: Some(ran_ns),
                state: Some(ThreadState::Blocked),
            };
            world.set_thread(0, woken);
            assert_eq!(stuck(&world.tick_for(15 * MS)), []);
        }
    });
    assert!(policy.exit_info().is_none());
}

#[test]
fn a_thread_that_is_blocked_for_twenty_milliseconds_is_convicted() {
    let world = World::new(1);
    world.set_thread(0, blocked());
    let (policy, _) = in_enqueue(world, move || {
        // Seen; seen again and found blocked; 15 ms later not long enough.
        assert_eq!(stuck(&world.tick_for(2 * TICK)), []);
        assert_eq!(stuck(&world.tick_for(15 * MS)), []);
        assert_eq!(stuck(&world.tick_for(TICK)), [FIRST]);
    });
    assert_eq!(
        exit_of(&policy).message,
        "enqueue on worker 0 has not returned for 25 ms, blocked in a system call"
    );
}

#[test]
fn a_thread_that_was_seen_running_in_between_was_not_blocked_all_the_time() {
    let world = World::new(1);
    world.set_thread(0, blocked());
    let (policy, _) = in_enqueue(world, move || {
        for _ in 0..10 {
            world.set_thread(0, blocked());
            assert_eq!(stuck(&world.tick_for(15 * MS)), []);
            world.set_thread(0, on_a_processor(0));
            assert_eq!(stuck(&world.tick_for(TICK)), []);
        }
    });
    assert!(policy.exit_info().is_none());
}

/// It may hold the lock that the blocked one waits for, and not have got a processor.
#[test]
fn a_blocked_thread_is_not_convicted_while_another_runs_in_the_same_policy() {
    let world = World::new(2);
    let done = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&done);
    let policy = world.load(Script::new().enqueue(move |_, task| match task.tag() {
        LONG => {
            drop(world.spawn(BESIDE, async {}));
            world.pass(1);
        }
        BESIDE => {
            world.set_thread(0, blocked());
            world.set_thread(1, on_a_processor(0));
            assert_eq!(stuck(&world.tick_for(100 * TICK)), []);
            // Nobody is left whom they could wait for.
            world.set_thread(1, blocked());
            assert_eq!(stuck(&world.tick_for(4 * TICK)), []);
            assert_eq!(stuck(&world.tick_for(TICK)), [FIRST, SECOND]);
            counted.fetch_add(1, Ordering::Relaxed);
        }
        _ => {}
    }));
    drop(world.spawn(LONG, async {}));
    assert_eq!(world.pass(0), Pass::Revoked);
    assert_eq!(done.load(Ordering::Relaxed), 1);
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
    assert_eq!(world.core.metrics().convictions, 2);
}

/// It announces its park before it looks once more, and that asks the policy too.
#[test]
fn a_blocked_thread_is_not_convicted_while_another_one_is_inside_the_policy_before_it_parks() {
    let world = World::new(2);
    world.set_thread(0, blocked());
    world.set_thread(1, on_a_processor(MS));
    let rounds = Arc::new(AtomicUsize::new(0));
    let policy = Script::new()
        .enqueue(move |_, task| {
            if task.tag() == LONG {
                // It waits for a lock that worker 1 has.
                world.pass(1);
            }
        })
        .dispatch(move |_, worker| {
            // The second round comes after the announcement.
            if worker.index() == 1 && rounds.fetch_add(1, Ordering::Relaxed) == 1 {
                for ran_ns in 1..10 {
                    world.set_thread(1, on_a_processor(ran_ns * MS));
                    assert_eq!(stuck(&world.tick_for(TICK)), []);
                }
            }
        });
    let policy = world.load(policy);
    drop(world.spawn(LONG, async {}));
    world.pass(0);
    assert!(world.is_parked(1));
    assert!(policy.exit_info().is_none());
}

#[test]
fn a_blocked_thread_is_convicted_as_soon_beside_one_that_runs_all_the_time() {
    let world = World::new(2);
    world.set_thread(0, blocked());
    world.set_thread(1, on_a_processor(MS));
    let (policy, _) = in_enqueue(world, move || {
        assert!(!world.is_parked(1));
        assert_eq!(stuck(&world.tick_while_running(1, 25 * MS)), []);
        assert_eq!(stuck(&world.tick_while_running(1, TICK)), [FIRST]);
    });
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

/// It may hold the lock that the blocked one waits for: of a queue, of the allocator, or one that policy and application share.
fn not_convicted_while_another_wants_a_processor(another: usize) {
    let world = World::new(2);
    world.set_thread(0, blocked());
    world.set_thread(another, on_a_processor(MS));
    let (policy, _) = in_enqueue(world, move || {
        assert_eq!(stuck(&world.tick_for(100 * TICK)), []);
        // Perhaps not for long enough to let go of it, or not at all: a hypervisor had the processor.
        world.set_thread(another, on_a_processor(8 * MS));
        assert_eq!(stuck(&world.tick_for(100 * TICK)), []);
        world.set_thread(another, on_a_processor(8 * MS + 1));
        assert_eq!(stuck(&world.tick_for(TICK)), [FIRST]);
    });
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

#[test]
fn a_blocked_thread_is_not_convicted_while_another_worker_wants_a_processor_and_gets_none() {
    not_convicted_while_another_wants_a_processor(1);
}

#[test]
fn a_blocked_thread_is_not_convicted_while_a_thread_of_the_application_wants_a_processor() {
    not_convicted_while_another_wants_a_processor(BESIDE_ALL);
}

/// It may be of the idle class, or in the hands of a debugger.
#[test]
fn a_blocked_thread_is_convicted_after_two_seconds_whoever_gets_no_processor() {
    let world = World::new(1);
    world.set_thread(0, blocked());
    world.set_thread(BESIDE_ALL, on_a_processor(0));
    let (policy, _) = in_enqueue(world, move || {
        assert_eq!(stuck(&world.tick_for(200 * TICK)), []);
        // Once is not enough, and does not begin it anew either.
        world.set_thread(BESIDE_ALL, on_a_processor(1));
        assert_eq!(stuck(&world.tick_for(201 * TICK)), []);
        assert_eq!(stuck(&world.tick_for(TICK)), [FIRST]);
    });
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

/// The holder of its lock has come to wait for a lock that somebody took after its alibi, and then lost its processor.
#[test]
fn a_blocked_thread_is_not_convicted_while_a_holder_waits_for_somebody_with_an_older_alibi() {
    const HOLDER: usize = BESIDE_ALL;
    const BUSY: usize = BESIDE_ALL + 1;
    let world = World::new(1);
    world.set_thread(0, blocked());
    world.set_thread(HOLDER, on_a_processor(0));
    world.set_thread(BUSY, on_a_processor(0));
    let (policy, _) = in_enqueue(world, move || {
        world.tick_while_running(BUSY, 20 * TICK);
        world.set_thread(HOLDER, blocked());
        assert_eq!(stuck(&world.tick_for(100 * TICK)), []);
    });
    assert!(policy.exit_info().is_none());
}

/// The kernel makes it wait, not the policy.
#[test]
fn a_thread_that_waits_for_a_page_is_not_blocked() {
    let world = World::new(1);
    world.set_thread(0, waits_for_a_page());
    let (policy, _) = in_enqueue(world, move || {
        assert_eq!(stuck(&world.tick_for(199 * TICK)), []);
    });
    assert!(policy.exit_info().is_none());
}

/// It would never be replaced.
#[test]
fn a_thread_that_waits_for_a_page_for_more_than_a_second_is_convicted() {
    let world = World::new(1);
    world.set_thread(0, waits_for_a_page());
    let (policy, _) = in_enqueue(world, move || {
        assert_eq!(stuck(&world.tick_for(204 * TICK)), []);
        assert_eq!(stuck(&world.tick_for(TICK)), [FIRST]);
    });
    assert_eq!(
        exit_of(&policy).message,
        "enqueue on worker 0 has not returned for 1020 ms, waiting for a page that is not in memory"
    );
}

#[test]
fn whoever_waits_for_a_page_has_no_alibi() {
    let world = World::new(1);
    world.set_thread(0, blocked());
    world.set_thread(BESIDE_ALL, waits_for_a_page());
    let (policy, _) = in_enqueue(world, move || {
        assert_eq!(stuck(&world.tick_for(100 * TICK)), []);
        world.set_thread(BESIDE_ALL, blocked());
        assert_eq!(stuck(&world.tick_for(4 * TICK)), [FIRST]);
    });
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

/// The last one that might hold its lock has just let go.
#[test]
fn a_thread_that_is_woken_while_the_others_are_asked_is_not_convicted() {
    let world = World::new(1);
    world.set_thread(0, blocked());
    world.set_thread(BESIDE_ALL, blocked());
    let asked = Arc::new(AtomicUsize::new(0));
    let (policy, _) = in_enqueue(world, move || {
        let asked = Arc::clone(&asked);
        world.on_asked(move |thread| {
            // At the end of each window.
            let is_last = || asked.fetch_add(1, Ordering::Relaxed) == 1;
            if thread.0 as usize == BESIDE_ALL && is_last() {
                let again = Thread {
                    processor_time: Some(1),
                    ..blocked()
                };
                world.set_thread(0, again);
            }
        });
        assert_eq!(stuck(&world.tick_for(10 * TICK)), []);
        // Another wait.
        assert_eq!(stuck(&world.tick_for(TICK)), [FIRST]);
    });
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

/// It does not come back, so whatever it holds is lost.
#[test]
fn nobody_waits_for_a_convicted_thread() {
    let world = World::new(2);
    world.set_thread(0, blocked());
    world.set_thread(1, on_a_processor(0));
    let rounds = Arc::new(AtomicUsize::new(0));
    let policy = Script::new()
        .enqueue(move |_, task| {
            if task.tag() == LONG {
                world.pass(1);
            }
        })
        .dispatch(move |_, worker| {
            if worker.index() == 1 && rounds.fetch_add(1, Ordering::Relaxed) == 0 {
                let first = stuck(&world.tick_while_running(1, 4 * TICK));
                assert_eq!(first, [SECOND]);
                assert_eq!(stuck(&world.tick_for(6 * TICK)), [FIRST]);
            }
        });
    let policy = world.load(policy);
    drop(world.spawn(LONG, async {}));
    assert_eq!(world.pass(0), Pass::Revoked);
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
    assert_eq!(world.core.metrics().convictions, 2);
}
