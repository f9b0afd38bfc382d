//! Who waits too long, and whether that is the policy's fault.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity_policy::{Attributes, DsqId, ExitKind, Position, TaskId};

use crate::core::Cause;
use crate::hosting::LoadedPolicy;
use crate::machine::ThreadState;
use crate::scripted::world::{
    LATE_AFTER, MS, STALL_AFTER, Script, TICK, Thread, World, exit_of, lock, only,
};
use crate::watchdog::{Finding, Others};
use crate::worker::Pass;

// What the tag of a task asks the policy of these tests for.
const RUN: u64 = 0;
const FORGET: u64 = 1;
const QUEUE: u64 = 2;
const LOCAL: u64 = 3;
const LOCAL_HEAD: u64 = 4;

fn obedient() -> Script {
    Script::new().enqueue(|host, task| {
        let (dsq, at) = match task.tag() {
            RUN => (DsqId::Global, Position::Tail),
            QUEUE => (DsqId::Custom(0), Position::Tail),
            LOCAL => (DsqId::Local, Position::Tail),
            LOCAL_HEAD => (DsqId::Local, Position::Head),
            _ => return,
        };
        host.insert(task.id(), dsq, at);
    })
}

fn attributes(tag: u64) -> Attributes {
    Attributes::new().tag(tag)
}

/// A future whose only poll is all this.
async fn poll_of(body: impl FnOnce() + Send + 'static) {
    body();
}

/// Ejected for a stall over this task; returns the message.
#[track_caller]
fn stall_of(policy: &LoadedPolicy, task: TaskId) -> String {
    let info = exit_of(policy);
    assert_eq!(info.kind, ExitKind::Stall, "{info}");
    assert_eq!(info.task, Some(task), "{info}");
    info.message.clone()
}

/// What control and the workers do next: everything runs.
fn run_what_was_held(world: World) {
    world.sweep();
    world.run_all();
}

#[test]
fn a_task_is_late_a_period_and_a_bit_after_the_timeout_and_not_a_nanosecond_earlier() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let site = Location::caller().file();
    let held = world.spawn_with(attributes(FORGET).name("ledger"), async {});
    let line = line!() - 1;
    world.run(0);
    world.tick_for(LATE_AFTER - TICK);
    world.advance(MS - 1);
    world.tick();
    assert!(policy.exit_info().is_none());
    world.advance(1);
    world.tick();
    let message = stall_of(&policy, held.id());
    let expected = format!("task {} \"ledger\" (spawned at {site}:{line}:", held.id());
    assert!(message.starts_with(&expected), "{message}");
    let expected = ") has waited for 106 ms in its custody; worker 0 sat idle";
    assert!(message.ends_with(expected), "{message}");
    run_what_was_held(world);
    assert!(held.is_finished());
}

/// It may have been given the time of the tick before as its stamp.
#[test]
fn after_a_late_tick_a_task_is_late_two_periods_after_the_timeout() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(FORGET, async {});
    world.run(0);
    world.advance(2 * TICK);
    world.tick();
    world.tick_for(STALL_AFTER - TICK);
    assert!(policy.exit_info().is_none());
    world.advance(TICK - 1);
    world.tick();
    assert!(policy.exit_info().is_none());
    world.advance(1);
    world.tick();
    stall_of(&policy, held.id());
}

#[test]
fn the_timeout_of_the_policy_counts_and_not_that_of_the_runtime() {
    for timeout_ms in [10, 300] {
        let world = World::new(1);
        let policy = world.load(obedient().stall_timeout(Duration::from_millis(timeout_ms)));
        let held = world.spawn(FORGET, async {});
        world.run(0);
        world.tick_for(timeout_ms * MS + TICK);
        assert!(policy.exit_info().is_none());
        world.tick_for(TICK);
        stall_of(&policy, held.id());
    }
}

#[test]
fn a_task_in_a_custom_dsq_that_nobody_empties_is_found() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(QUEUE, async {});
    world.run(0);
    world.tick_for(LATE_AFTER);
    let message = stall_of(&policy, held.id());
    assert!(message.contains(" in DSQ custom 0; "), "{message}");
    run_what_was_held(world);
    assert!(held.is_finished());
}

#[test]
fn the_oldest_of_the_late_tasks_is_named() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let mut tasks = Vec::new();
    for tag in [QUEUE, FORGET, QUEUE, FORGET] {
        // All in one period, so that all are late at the same tick.
        world.advance(MS);
        tasks.push(world.spawn(tag, async {}));
        world.run(0);
    }
    world.advance(MS);
    world.tick();
    world.tick_for(STALL_AFTER);
    assert!(policy.exit_info().is_none());
    world.tick_for(TICK);
    stall_of(&policy, tasks[0].id());
    run_what_was_held(world);
    assert!(tasks.iter().all(|task| task.is_finished()));
}

/// A task that starts the next one of its kind with each poll, for so long.
fn chain(
    world: World,
    tag: u64,
    left: usize,
    each: fn(World),
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        each(world);
        if left > 0 {
            drop(world.spawn(tag, chain(world, tag, left - 1, each)));
        }
    })
}

/// One poll of a period, with the tick at its end.
fn a_period(world: World) {
    world.tick_for(TICK);
}

#[test]
fn a_task_in_a_local_dsq_behind_endless_inserts_at_the_head_is_found() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(LOCAL, async {});
    drop(world.spawn(LOCAL_HEAD, chain(world, LOCAL_HEAD, 30, a_period)));
    while policy.exit_info().is_none() {
        assert!(!held.is_finished());
        world.pass(0);
    }
    let message = stall_of(&policy, held.id());
    let expected = " in the local DSQ of worker 0; worker 0 polled task ";
    assert!(message.contains(expected), "{message}");
    assert!(
        message.ends_with(" instead, which it got later"),
        "{message}"
    );
    run_what_was_held(world);
    assert!(held.is_finished());
}

#[test]
fn whoever_overtook_is_named() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(FORGET, async {});
    world.run(0);
    world.tick_for(STALL_AFTER - 3 * TICK);
    let overtaker = world.spawn(RUN, async {});
    let by = overtaker.id();
    world.run(0);
    world.tick_for(5 * TICK);
    let message = stall_of(&policy, held.id());
    let expected = format!("; worker 0 polled task {by} instead, which it got later");
    assert!(message.ends_with(&expected), "{message}");
}

/// Stamps are as coarse as ticks.
#[test]
fn a_task_that_came_two_periods_later_has_not_overtaken() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(FORGET, async {});
    world.pass(0);
    world.tick_for(2 * TICK);
    let later = world.spawn(RUN, poll_of(move || drop(world.tick_for(2 * STALL_AFTER))));
    world.pass(0);
    assert!(later.is_finished() && !held.is_finished());
    assert!(policy.exit_info().is_none());
}

#[test]
fn a_worker_that_asked_for_work_is_proof() {
    let world = World::new(2);
    let policy = world.load(obedient());
    let held = world.spawn(FORGET, async {});
    let _long = world.spawn(
        RUN,
        poll_of(move || {
            world.tick_for(12 * TICK);
            world.run(1);
            // It goes to work again, so that it does not sit idle.
            world.unpark(1);
            world.tick_for(LATE_AFTER - 12 * TICK);
        }),
    );
    world.pass(0);
    let message = stall_of(&policy, held.id());
    let expected = "; worker 1 asked for work and got none";
    assert!(message.ends_with(expected), "{message}");
}

/// Both are asked about at one tick, and a worker may always be between two polls.
#[test]
fn a_worker_that_was_parked_at_one_tick_only_is_no_proof() {
    let world = World::new(2);
    let policy = world.load(obedient());
    world.run(1);
    let held = world.spawn(FORGET, async {});
    let _long = world.spawn(
        RUN,
        poll_of(move || {
            world.unpark(1);
            world.tick_for(STALL_AFTER);
            assert!(policy.exit_info().is_none());
            // Parked, but it asked before the policy got the task: so it does not count as having asked.
            world.core.sleepers.announce(1);
            // Else it would be woken, to keep watch over the long poll.
            assert!(world.core.sleepers.become_sentinel(1));
            world.tick_for(TICK);
            assert!(policy.exit_info().is_none());
            world.tick_for(TICK);
            let message = exit_of(&policy).message.clone();
            assert!(message.ends_with("; worker 1 sat idle"), "{message}");
        }),
    );
    world.pass(0);
    assert!(!held.is_finished());
}

#[test]
fn a_policy_whose_tasks_wait_behind_long_polls_is_not_blamed_until_somebody_asks() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(FORGET, async {});
    let _long = world.spawn(RUN, poll_of(move || drop(world.tick_for(2 * STALL_AFTER))));
    world.pass(0);
    assert!(policy.exit_info().is_none());
    world.run(0);
    world.tick_for(TICK);
    let message = stall_of(&policy, held.id());
    let expected = "; worker 0 asked for work and got none";
    assert!(message.ends_with(expected), "{message}");
}

/// A spare changes what can run, and so who is to blame.
#[test]
fn a_stand_in_that_asks_for_work_is_proof() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(FORGET, async {});
    let _long = world.spawn(
        RUN,
        poll_of(move || {
            let findings = world.tick_for(12 * TICK);
            assert!(
                matches!(
                    findings[..],
                    [
                        Finding::NeedsStandIn {
                            cause: Cause::LongPoll,
                            others: Others::AreStuckToo,
                            ..
                        },
                        ..
                    ]
                ),
                "{findings:?}"
            );
            world.stand_in(1, 0, Cause::LongPoll);
            world.run(1);
            world.tick_for(LATE_AFTER - 12 * TICK);
        }),
    );
    world.pass(0);
    let message = stall_of(&policy, held.id());
    let expected = "; worker 0 asked for work and got none";
    assert!(message.ends_with(expected), "{message}");
}

#[test]
fn a_task_that_only_a_worker_in_a_long_poll_may_run_is_not_blamed_on_the_policy() {
    let world = World::new(2);
    let policy = world.load(obedient());
    world.run(1);
    let held = world.spawn_with(attributes(FORGET).affinity(only(0)), async {});
    let _long = world.spawn_with(
        attributes(RUN).affinity(only(0)),
        poll_of(move || {
            world.tick_for(4 * TICK);
            world.run(1);
            let others = world.spawn_with(Attributes::detached().tag(RUN), async {});
            world.run(1);
            assert!(others.is_finished());
            world.tick_for(2 * STALL_AFTER);
        }),
    );
    world.pass(0);
    // It has sat idle, asked for work and polled what came later; it may not run this one.
    assert!(policy.exit_info().is_none());
    world.run(0);
    world.tick_for(TICK);
    let message = stall_of(&policy, held.id());
    assert!(message.contains("; worker 0 "), "{message}");
}

#[test]
fn a_task_in_the_local_dsq_of_a_worker_in_a_long_poll_is_not_blamed_on_the_policy() {
    let world = World::new(2);
    let policy = world.load(obedient());
    drop(world.spawn(
        LOCAL,
        poll_of(move || {
            world.run(1);
            assert!(world.is_parked(1));
            world.tick_for(2 * STALL_AFTER);
        }),
    ));
    let placed = world.spawn(LOCAL, async {});
    world.pass(0);
    assert!(policy.exit_info().is_none());
    world.run(0);
    assert!(placed.is_finished());
    world.tick_for(2 * TICK);
    assert!(policy.exit_info().is_none());
}

/// Workers take several from the global DSQ at once.
#[test]
fn a_task_that_a_worker_in_a_long_poll_has_taken_from_the_global_dsq_is_not_blamed_on_the_policy() {
    let world = World::new(2);
    let policy = world.load(obedient());
    let overtakes = move || {
        world.tick_for(STALL_AFTER / 2 + 2 * TICK);
        let _younger = world.spawn(RUN, poll_of(move || drop(world.tick_for(STALL_AFTER / 2))));
        // What lies in the global DSQ still, and then that one.
        for _ in 0..3 {
            world.pass(1);
        }
    };
    let taken = Arc::new(Mutex::new(None));
    let spawned = Arc::clone(&taken);
    // Spawned on a worker they keep this order.
    let spawns = move || {
        drop(world.spawn(RUN, poll_of(overtakes)));
        *lock(&spawned) = Some(world.spawn(RUN, async {}));
        for _ in 0..2 {
            drop(world.spawn(RUN, async {}));
        }
    };
    drop(world.spawn(RUN, poll_of(spawns)));
    assert_eq!([world.pass(0), world.pass(0)], [Pass::Ran, Pass::Ran]);
    let taken = lock(&taken).take().unwrap();
    assert!(!taken.is_finished(), "else this proves nothing");
    assert!(policy.exit_info().is_none(), "{:?}", policy.exit_info());
    world.run(0);
    assert!(taken.is_finished());
}

/// Now and then the global DSQ comes before the local one, so that neither starves.
#[test]
fn what_core_prefers_to_a_local_dsq_is_not_blamed_on_the_policy() {
    let world = World::new(1);
    let policy = world.load(obedient());
    for _ in 0..40 {
        drop(world.spawn(LOCAL, poll_of(move || drop(world.tick_for(TICK)))));
    }
    let waits = world.spawn(LOCAL, async {});
    for pass in 0..40 {
        if pass == 30 {
            drop(world.spawn(RUN, async {}));
        }
        world.pass(0);
        assert!(policy.exit_info().is_none(), "{:?}", policy.exit_info());
    }
    assert!(!waits.is_finished(), "else this proves nothing");
    world.run(0);
    assert!(waits.is_finished());
}

#[test]
fn an_hour_in_which_the_process_was_stopped_ages_nothing() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(FORGET, async {});
    world.run(0);
    world.tick_for(STALL_AFTER / 2);
    world.advance(3_600_000 * MS);
    world.tick();
    // The hour counts as two periods: so much the watchdog may be late by itself.
    world.tick_for(STALL_AFTER / 2 - TICK);
    assert!(policy.exit_info().is_none());
    world.tick_for(TICK);
    stall_of(&policy, held.id());
}

#[test]
fn time_before_a_rebase_counts_for_nobody() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(FORGET, async {});
    world.run(0);
    world.tick_for(STALL_AFTER / 2);
    world.advance(2 * TICK);
    world.rebase();
    world.tick_for(STALL_AFTER / 2 + TICK);
    assert!(policy.exit_info().is_none());
    world.tick_for(TICK);
    stall_of(&policy, held.id());
}

#[test]
fn a_bypass_gives_tasks_back_as_new_ones() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(FORGET, async {});
    world.run(0);
    world.tick_for(STALL_AFTER - TICK);
    world.core.enter_bypass();
    world.core.leave_bypass();
    world.run(0);
    assert!(!held.is_finished());
    world.tick_for(LATE_AFTER - TICK);
    assert!(policy.exit_info().is_none());
    world.tick_for(TICK);
    stall_of(&policy, held.id());
}

#[test]
fn nothing_is_judged_in_a_bypass() {
    let world = World::new(1);
    let policy = world.load(obedient());
    // In a local DSQ, where a bypass leaves it.
    let held = world.spawn(LOCAL, async {});
    drop(world.spawn(LOCAL_HEAD, chain(world, LOCAL_HEAD, 20, a_period)));
    for _ in 0..15 {
        world.pass(0);
    }
    world.core.enter_bypass();
    world.core.enter_bypass();
    world.tick_for(2 * STALL_AFTER);
    world.core.leave_bypass();
    // One is left.
    world.tick_for(TICK);
    assert!(policy.exit_info().is_none());
    assert!(!held.is_finished(), "else this proves nothing");
    world.run(0);
    assert!(held.is_finished());
}

#[test]
fn time_in_a_bypass_ages_nothing() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(LOCAL, async {});
    drop(world.spawn(LOCAL_HEAD, chain(world, LOCAL_HEAD, 40, a_period)));
    for _ in 0..15 {
        world.pass(0);
    }
    world.core.enter_bypass();
    world.tick_for(2 * STALL_AFTER);
    world.core.leave_bypass();
    for _ in 0..5 {
        world.pass(0);
        assert!(policy.exit_info().is_none());
    }
    for _ in 0..10 {
        world.pass(0);
    }
    stall_of(&policy, held.id());
}

// The classes of the census come round after 268 ms.
const CLASSES_COME_ROUND: u64 = 55 * TICK;

#[test]
fn a_task_that_is_too_old_for_the_census_is_found_when_somebody_asks() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(FORGET, async {});
    let _long = world.spawn(
        RUN,
        poll_of(move || drop(world.tick_for(CLASSES_COME_ROUND))),
    );
    world.pass(0);
    assert!(policy.exit_info().is_none());
    world.run(0);
    world.tick_for(TICK);
    stall_of(&policy, held.id());
}

#[test]
fn a_task_that_a_stop_has_made_too_old_for_the_census_is_found_in_time() {
    let world = World::new(1);
    let policy = world.load(obedient());
    let held = world.spawn(FORGET, async {});
    world.run(0);
    world.tick_for(STALL_AFTER / 2);
    world.advance(CLASSES_COME_ROUND - STALL_AFTER / 2);
    world.rebase();
    world.tick_for(LATE_AFTER - STALL_AFTER / 2 - TICK);
    assert!(policy.exit_info().is_none());
    world.tick_for(TICK);
    stall_of(&policy, held.id());
}

#[test]
fn while_a_thread_lingers_in_dispatch_a_task_has_twice_the_time() {
    let world = World::new(2);
    let lingers = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&lingers);
    let policy = world.load(Script::new().enqueue(|_, _| {}).dispatch(move |_, worker| {
        if worker.index() == 1 && counted.fetch_add(1, Ordering::Relaxed) == 0 {
            // There would be proof: the other worker sits idle.
            world.tick_for(STALL_AFTER + 4 * TICK);
            assert!(world.core.current_policy().is_some());
            world.tick_for(STALL_AFTER);
        }
    }));
    // It does not get a processor, so it is not stuck.
    world.set_thread(
        1,
        Thread {
            processor_time: Some(0),
            state: Some(ThreadState::Runnable),
        },
    );
    let held = world.spawn(FORGET, async {});
    world.run(0);
    world.pass(1);
    assert!(lingers.load(Ordering::Relaxed) > 0);
    stall_of(&policy, held.id());
}

/// A policy of one queue, from which each worker takes one task at a time; and so many tasks in it that each waits for four
/// timeouts. Nobody is overtaken.
fn fair_backlog(workers: usize) {
    let world = World::new(workers);
    let queue: Arc<Mutex<VecDeque<TaskId>>> = Arc::default();
    let fill = Arc::clone(&queue);
    let policy = world.load(
        Script::new()
            .enqueue(move |_, task| lock(&fill).push_back(task.id()))
            .dispatch(move |host, _| {
                let first = lock(&queue).pop_front();
                if let Some(task) = first {
                    host.insert(task, DsqId::Local, Position::Tail);
                }
            }),
    );
    let backlog = (4 * STALL_AFTER / TICK) as usize * workers;
    for _ in 0..backlog {
        drop(world.spawn(RUN, chain(world, RUN, 10, |_| {})));
    }
    for poll in 0..10 * backlog {
        assert_eq!(world.pass(poll % workers), Pass::Ran);
        // Each poll takes a period, side by side on all workers.
        if (poll + 1) % workers == 0 {
            world.tick_for(TICK);
        }
        if let Some(info) = policy.exit_info() {
            panic!("poll {poll} of {workers} workers: {info}");
        }
    }
}

#[test]
fn a_fair_queue_that_is_longer_than_the_timeout_is_no_stall() {
    fair_backlog(1);
    fair_backlog(2);
}
