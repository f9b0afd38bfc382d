//! How soon a policy is shown what is woken or new, on a worker that has other tasks in its local DSQ.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use polity_policy::{Attributes, DsqId, Position};

use crate::scripted::world::{Script, World, lock, only};

const US: u64 = 1_000;
/// The task that spawns the new one: late enough for its worker to know how long polls are.
const SPAWNS: u64 = 20;
const NEW: u64 = 99;

/// What is tried.
#[derive(Clone, Copy)]
struct Trial {
    world: World,
    /// Where the first task goes; all others go to the tail of the local DSQ.
    first_goes_to: (DsqId, Position),
    poll_ns: u64,
}

impl Trial {
    fn on(world: World) -> Self {
        Trial {
            world,
            first_goes_to: (DsqId::Local, Position::Tail),
            poll_ns: 0,
        }
    }

    /// How many tasks are polled between the poll that spawns a task and the `enqueue` of that task, if `shift` passes come first.
    fn polls_before_the_offer(self, shift: usize) -> usize {
        let world = self.world;
        let polls = Arc::<AtomicUsize>::default();
        let (spawned_at, offered_at) = (Arc::<Mutex<_>>::default(), Arc::<Mutex<_>>::default());
        let (count, offered) = (Arc::clone(&polls), Arc::clone(&offered_at));
        world.load(Script::new().enqueue(move |host, task| {
            let (dsq, at) = match task.tag() {
                0 => self.first_goes_to,
                NEW => {
                    *lock(&offered) = Some(count.load(Ordering::Relaxed));
                    (DsqId::Local, Position::Tail)
                }
                _ => (DsqId::Local, Position::Tail),
            };
            host.insert(task.id(), dsq, at);
        }));
        for _ in 0..shift {
            world.pass(0);
        }
        let tasks: Vec<_> = (0..30)
            .map(|tag| {
                let (polls, spawned) = (Arc::clone(&polls), Arc::clone(&spawned_at));
                world.spawn_with(here(tag), async move {
                    world.advance(self.poll_ns);
                    let polled = 1 + polls.fetch_add(1, Ordering::Relaxed);
                    if tag == SPAWNS {
                        *lock(&spawned) = Some(polled);
                        drop(world.spawn(NEW, async {}));
                    }
                })
            })
            .collect();
        world.run(0);
        assert!(tasks.iter().all(|task| task.is_finished()));
        let (spawned, offered) = (*lock(&spawned_at), *lock(&offered_at));
        offered.unwrap() - spawned.unwrap()
    }
}

/// So that no other worker has anything to do.
fn here(tag: u64) -> Attributes {
    Attributes::new().tag(tag).affinity(only(0))
}

/// Each at another turn of its counts.
fn trials(trial: impl Fn(World) -> Trial, workers: usize) -> Vec<usize> {
    let shifts = 0..8;
    shifts
        .map(|shift| trial(World::new(workers)).polls_before_the_offer(shift))
        .collect()
}

#[test]
fn a_new_task_is_offered_after_three_polls_at_most_if_every_worker_is_busy() {
    let waited = trials(Trial::on, 1);
    assert_eq!(waited.iter().max(), Some(&3), "{waited:?}");
}

#[test]
fn a_new_task_is_offered_at_once_if_a_worker_is_parked() {
    let waited = trials(
        |world| {
            world.run(1);
            Trial::on(world)
        },
        2,
    );
    assert_eq!(waited, [0; 8]);
}

#[test]
fn a_new_task_is_offered_at_once_to_a_policy_that_has_put_one_at_a_head() {
    for dsq in [DsqId::Local, DsqId::Global] {
        let waited = trials(
            |world| Trial {
                first_goes_to: (dsq, Position::Head),
                ..Trial::on(world)
            },
            1,
        );
        assert_eq!(waited, [0; 8], "{dsq}");
    }
}

#[test]
fn a_new_task_is_offered_at_once_where_polls_are_long() {
    let waited = trials(
        |world| Trial {
            poll_ns: 50 * US,
            ..Trial::on(world)
        },
        1,
    );
    assert_eq!(waited, [0; 8]);
}
