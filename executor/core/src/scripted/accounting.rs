//! How long a poll took, as a policy is told. Not the watchdog's, but its tick is the coarse clock.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity_policy::{Accounting, Host, Policy, Stopped, TaskView};

use crate::scripted::world::{MS, TICK, World, lock};

/// Writes down how long each poll took.
struct Accounts {
    accounting: Accounting,
    ran: Arc<Mutex<Vec<Duration>>>,
}

impl Policy for Accounts {
    type Task = ();

    fn name(&self) -> &str {
        "accounts"
    }

    fn accounting(&self) -> Accounting {
        self.accounting
    }

    fn running(&self, _host: &Host<'_>, task: &TaskView<'_>) {
        assert_eq!(task.ran(), Duration::ZERO);
    }

    fn stopping(&self, _host: &Host<'_>, task: &TaskView<'_>, _stopped: Stopped) {
        lock(&self.ran).push(task.ran());
    }
}

/// What the policy is told of polls in which this happens.
fn ran(
    accounting: Accounting,
    between: impl Fn(World),
    polls: impl IntoIterator<Item = fn(World)>,
) -> Vec<u64> {
    let world = World::new(1);
    let ran = Arc::<Mutex<Vec<Duration>>>::default();
    world.load(Accounts {
        accounting,
        ran: Arc::clone(&ran),
    });
    world.tick();
    for poll in polls {
        world.run(0);
        between(world);
        let task = world.spawn(0, async move { poll(world) });
        world.run(0);
        assert!(task.is_finished());
    }
    let ran = lock(&ran);
    ran.iter().map(|ran| ran.as_nanos() as u64).collect()
}

const POLLS: [fn(World); 4] = [
    |_| {},
    |world| world.advance(7),
    |world| drop(world.tick_for(2 * TICK)),
    |world| world.advance(3 * MS),
];

#[test]
fn exact_accounting_is_the_time_from_the_begin_of_a_poll_to_its_end() {
    let told = ran(Accounting::Exact, |world| world.advance(MS), POLLS);
    assert_eq!(
        told,
        [0, 7, 2 * TICK, 3 * MS],
        "and nothing of what came between"
    );
}

#[test]
fn coarse_accounting_is_how_far_the_tick_moved() {
    let told = ran(Accounting::Coarse, |_| {}, POLLS);
    assert_eq!(
        told,
        [0, 0, 2 * TICK + 7, 0],
        "who is hit by the tick pays for those before"
    );
}

#[test]
fn the_first_poll_after_an_idle_time_is_not_charged_for_it() {
    let idle = |world: World| world.advance(10_000 * MS);
    let wakes: fn(World) = |world| {
        world.advance(2 * MS);
        world.tick();
    };
    let told = ran(Accounting::Coarse, idle, [wakes, wakes]);
    assert_eq!(told, [2 * MS, 2 * MS]);
}

#[test]
fn without_accounting_every_poll_took_no_time() {
    let told = ran(Accounting::None, |_| {}, POLLS);
    assert_eq!(told, [0; 4]);
}

#[test]
fn time_for_which_a_task_has_said_that_it_blocks_is_not_charged() {
    let blocks: fn(World) = |world| {
        for _ in 0..2 {
            world.advance(7);
            assert!(world.core.begin_in_place().is_some());
            world.tick_for(2 * TICK);
            world.core.end_in_place();
        }
    };
    let spins: fn(World) = |world| drop(world.tick_for(2 * TICK));
    let told = ran(Accounting::Exact, |_| {}, [blocks, spins, blocks]);
    assert_eq!(told, [14, 2 * TICK, 14]);
    let told = ran(
        Accounting::Coarse,
        |world| drop(world.tick()),
        [blocks, spins],
    );
    assert_eq!(told, [14, 2 * TICK]);
}
