//! When the watchdog sleeps, and who wakes it.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use polity_policy::{DsqId, Position, TaskId};

use crate::core::Cause;
use crate::scripted::world::{LATE_AFTER, MS, Script, TICK, World, lock};
use crate::watchdog::{Finding, IDLE_PERIOD_NS, IDLE_TICKS, Next};

impl World {
    /// Ticks at the times that it is told, until it is told to wait for work. Returns after how many.
    fn tick_until_asleep(self) -> usize {
        for ticks in 1..10_000 {
            match self.tick().1 {
                Next::After(ns) => self.advance(ns),
                Next::WhenWorkBegins => return ticks,
            }
        }
        panic!("it does not fall asleep");
    }
}

#[test]
fn it_sleeps_after_a_second_in_which_nothing_runs() {
    let world = World::new(2);
    world.run_all();
    let begun = world.now();
    assert_eq!(world.tick_until_asleep(), IDLE_TICKS as usize);
    assert_eq!(world.now() - begun, 990 * MS);
}

#[test]
fn a_tick_of_work_starts_the_second_anew() {
    let world = World::new(1);
    world.run(0);
    for _ in 1..IDLE_TICKS {
        assert_eq!(world.tick().1, Next::After(IDLE_PERIOD_NS));
        world.advance(IDLE_PERIOD_NS);
    }
    world.unpark(0);
    assert_eq!(world.tick().1, Next::After(TICK));
    world.run(0);
    assert_eq!(world.tick_until_asleep(), IDLE_TICKS as usize);
}

#[test]
fn the_first_thread_that_leaves_its_park_wakes_it_and_the_others_need_not() {
    let world = World::new(2);
    world.run_all();
    world.tick_until_asleep();
    assert_eq!(world.work_began(), 0);
    world.unpark(1);
    assert_eq!(world.work_began(), 1);
    world.unpark(0);
    assert_eq!(world.work_began(), 1);
    assert_eq!(world.tick().1, Next::After(TICK));
    world.run_all();
    world.tick_until_asleep();
    world.unpark(0);
    assert_eq!(world.work_began(), 2);
}

/// Announced is as good as parked for whoever looks; so a worker that finds something after all has to say so.
#[test]
fn a_worker_that_takes_its_announcement_back_wakes_it() {
    let world = World::new(1);
    let held = Arc::new(Mutex::new(None::<TaskId>));
    let (keep, rounds) = (Arc::clone(&held), Arc::new(AtomicUsize::new(0)));
    world.load(
        Script::new()
            .enqueue(move |_, task| *lock(&keep) = Some(task.id()))
            .dispatch(move |host, _| {
                // The second round comes after the announcement.
                if rounds.fetch_add(1, Ordering::Relaxed) == 1 {
                    world.core.watchdog_sleeps.store(true, Ordering::Relaxed);
                    let task = lock(&held).take().unwrap();
                    assert!(host.insert(task, DsqId::Local, Position::Tail));
                }
            }),
    );
    let task = world.spawn(0, async {});
    world.pass(0);
    assert!(task.is_finished());
    assert_eq!(world.work_began(), 1);
}

#[test]
fn it_does_not_sleep_while_a_policy_has_a_task() {
    let world = World::new(1);
    let policy = world.load(Script::new().stall_timeout(std::time::Duration::from_secs(30)));
    let held = world.spawn(0, async {});
    world.run(0);
    for _ in 0..10 * IDLE_TICKS {
        assert_eq!(world.tick().1, Next::After(TICK));
        world.advance(TICK);
    }
    assert!(policy.exit_info().is_none());
    held.abort();
    world.run(0);
    world.tick_until_asleep();
}

#[test]
fn it_does_not_sleep_during_a_poll() {
    let world = World::new(2);
    world.run(1);
    drop(world.spawn(0, async move {
        for _ in 0..10 * IDLE_TICKS {
            assert_eq!(world.tick().1, Next::After(TICK));
            world.advance(TICK);
        }
    }));
    world.run_all();
    world.tick_until_asleep();
}

#[test]
fn it_does_not_sleep_while_somebody_stands_in() {
    let world = World::new(1);
    drop(world.spawn(0, async move {
        world.tick_for(4 * TICK);
        world.stand_in(1, 0, Cause::LongPoll);
    }));
    world.run(0);
    world.run(1);
    // Dismissed at the next tick, but it has not left yet.
    for _ in 0..2 * IDLE_TICKS {
        assert_eq!(world.tick().1, Next::After(TICK));
        world.advance(TICK);
    }
    assert_eq!(world.pass(1), crate::worker::Pass::Dismissed);
}

#[test]
fn it_does_not_sleep_while_the_work_of_a_convicted_thread_is_nobodys() {
    let world = World::new(2);
    world.load(Script::new().enqueue(move |_, _| {
        world.run(1);
        world.tick_for(4 * TICK);
        assert_eq!(world.core.metrics().convictions, 1);
        world.run(1);
        for _ in 0..2 * IDLE_TICKS {
            let (findings, next) = world.tick();
            let [Finding::NeedsStandIn { .. }] = findings[..] else {
                panic!("{findings:?}");
            };
            assert_eq!(next, Next::After(TICK));
            world.advance(TICK);
        }
    }));
    drop(world.spawn(0, async {}));
    world.pass(0);
}

#[test]
fn what_it_slept_through_is_nobodys_age() {
    let world = World::new(1);
    let policy = world.load(Script::new());
    world.run(0);
    world.tick_until_asleep();
    world.advance(3_600_000 * MS);
    let held = world.spawn(0, async {});
    world.run(0);
    assert_eq!(world.work_began(), 1);
    world.tick();
    world.tick_for(LATE_AFTER - TICK);
    assert!(policy.exit_info().is_none());
    world.tick_for(TICK);
    assert_eq!(policy.exit_info().unwrap().task, Some(held.id()));
}
