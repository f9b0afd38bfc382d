//! A thread that says beforehand that it is going to block.

use std::time::Duration;

use polity_policy::{DsqId, Policy, Position, Slice};

use crate::core::Cause;
use crate::scripted::world::{HOG_AFTER, MS, Script, TICK, World, only};
use crate::seat::SeatId;
use crate::watchdog::Finding;
use crate::worker::Pass;

fn is_hog(finding: &Finding) -> bool {
    matches!(finding, Finding::Hog(_))
}

/// The thread in seat 0, in the middle of a poll, and a stand-in in seat 1.
fn begin(world: World) {
    assert_eq!(world.core.begin_in_place(), Some(SeatId::new(0)));
    world.stand_in(1, 0, Cause::InPlace);
}

fn end(world: World) {
    world.core.end_in_place();
    // Those who watch see it at the next tick.
    world.tick_for(TICK);
    world.leave(1);
}

#[test]
fn what_a_blocked_thread_has_is_run_by_its_stand_in_without_any_tick() {
    let world = World::new(1);
    let outer = world.spawn(0, async move {
        // The last one lies in the LIFO slot, which thieves leave alone at first.
        let inner = [world.spawn(0, async {}), world.spawn(0, async {})];
        let attributes = polity_policy::Attributes::new().affinity(only(0));
        let pinned = world.spawn_with(attributes, async {});
        begin(world);
        assert_eq!(world.run(1), 3);
        assert!(inner.iter().all(|inner| inner.is_finished()) && pinned.is_finished());
        end(world);
    });
    assert_eq!(world.run(0), 1);
    assert!(outer.is_finished());
    assert_eq!(world.core.metrics().stand_ins, 1);
}

#[test]
fn a_stand_in_runs_what_the_policy_has_and_is_told_of_what_is_woken() {
    let world = World::new(1);
    let policy = world.load(Script::new().enqueue(|host, task| {
        host.insert(task.id(), DsqId::Global, Position::Tail);
    }));
    drop(world.spawn(0, async move {
        begin(world);
        assert_eq!(world.run(1), 0);
        let woken = world.spawn(0, async {});
        assert!(world.has_to_run(1));
        assert_eq!(world.run(1), 1);
        assert!(woken.is_finished());
        end(world);
    }));
    world.run(0);
    assert!(policy.exit_info().is_none());
}

#[test]
fn a_block_that_was_announced_is_no_hog_however_long_it_takes_and_keeps_its_stand_in() {
    let world = World::new(1);
    drop(world.spawn(0, async move {
        begin(world);
        let findings = world.tick_for(20 * HOG_AFTER);
        assert!(findings.is_empty(), "{findings:?}");
        assert!(matches!(world.pass(1), Pass::Park(_)));
        end(world);
    }));
    world.run(0);
    assert_eq!(world.core.metrics().hogs, 0);
}

#[test]
fn what_the_poll_does_after_it_has_blocked_counts() {
    let world = World::new(1);
    drop(world.spawn(0, async move {
        begin(world);
        world.tick_for(20 * HOG_AFTER);
        end(world);
        assert!(!world.tick_for(HOG_AFTER - 2 * TICK).iter().any(is_hog));
        assert!(world.tick_for(2 * TICK).iter().any(is_hog));
    }));
    world.run(0);
}

#[test]
fn without_a_spare_a_blocked_thread_is_relieved_by_the_rules_for_long_polls() {
    let world = World::new(1);
    drop(world.spawn(0, async move {
        world.core.begin_in_place();
        let findings = world.tick_for(3 * TICK);
        let needs = |finding: &Finding| matches!(finding, Finding::NeedsStandIn { .. });
        assert!(findings.iter().any(needs), "{findings:?}");
        world.stand_in(1, 0, Cause::LongPoll);
        end(world);
    }));
    world.run(0);
}

#[test]
fn only_a_thread_in_a_poll_says_that_it_blocks_and_only_once() {
    let world = World::new(1);
    assert_eq!(world.core.begin_in_place(), None);
    drop(world.spawn(0, async move {
        begin(world);
        assert_eq!(world.core.begin_in_place(), None);
        end(world);
        assert_eq!(world.core.begin_in_place(), Some(SeatId::new(0)));
        world.core.end_in_place();
    }));
    world.run(0);
    // Inside a policy nobody may block, whatever they say.
    world.load(Script::new().enqueue(move |_, _| {
        assert_eq!(world.core.begin_in_place(), None);
    }));
    drop(world.spawn(0, async {}));
    world.pass(0);
}

struct OneMillisecond;

impl Policy for OneMillisecond {
    type Task = ();

    fn name(&self) -> &str {
        "one_millisecond"
    }

    fn slice(&self) -> Slice {
        Slice::new(Duration::from_millis(1))
    }
}

#[test]
fn a_slice_does_not_run_while_its_task_blocks_in_place() {
    let world = World::new(1);
    world.load(OneMillisecond);
    let overruns = || world.core.metrics().slice_overruns;
    drop(world.spawn(0, async move {
        assert!(world.core.begin_in_place().is_some());
        world.tick_for(10 * TICK);
        world.core.end_in_place();
    }));
    world.run(0);
    assert_eq!(overruns(), 0);
    drop(world.spawn(0, async move { world.advance(10 * MS) }));
    world.run(0);
    assert_eq!(overruns(), 1);
}
