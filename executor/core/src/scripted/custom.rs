//! What a batch says for custom DSQs.

use std::sync::{Arc, Mutex};

use polity_policy::{DsqId, ExitKind, Host, Position, TaskView};

use crate::scripted::world::{Script, World, exit_of, lock};

const FIFO: DsqId = DsqId::Custom(0);
const BY_VTIME: DsqId = DsqId::Custom(1);

/// Spawns one task for each tag, which the policy is offered in one batch.
fn spawn_together(world: World, tags: Vec<u64>) {
    drop(world.spawn(0, async move {
        for tag in tags {
            drop(world.spawn(tag, async {}));
        }
    }));
}

#[test]
fn tasks_of_one_batch_lie_in_each_dsq_in_the_order_in_which_they_were_inserted() {
    let world = World::new(1);
    let ran = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&ran);
    let policy = Script::new()
        .enqueue(|host, task| match task.tag() {
            1..10 => {
                host.insert(task.id(), FIFO, Position::Tail);
            }
            10..20 => {
                host.insert(task.id(), FIFO, Position::Head);
            }
            tag => {
                host.insert_vtime(task.id(), BY_VTIME, 100 - tag);
            }
        })
        .dispatch(|host, _| {
            if host.move_to_local(FIFO, 1) == 0 {
                host.move_to_local(BY_VTIME, 1);
            }
        })
        .running(move |_, task| lock(&log).push(task.tag()));
    let policy = world.load(policy);
    spawn_together(world, vec![1, 30, 2, 11, 40, 3, 12, 30]);
    world.run(0);
    // The spawner, which has the tag 0 and so the vtime 100; then the ends of the FIFO; then by vtime.
    assert_eq!(*lock(&ran), [0, 12, 11, 1, 2, 3, 40, 30, 30]);
    assert!(policy.exit_info().is_none());
}

/// A task with this tag makes its policy do something in the middle of the batch.
const TURN: u64 = 9;

/// The batch is for both DSQs; in its middle, the policy does `turn`.
fn the_dsq_goes(turn: fn(&Host<'_>)) {
    let world = World::new(1);
    let ran = Arc::new(Mutex::new(Vec::new()));
    let insert = move |host: &Host<'_>, task: &TaskView<'_>| {
        if task.tag() == TURN {
            turn(host);
        }
        match task.tag() {
            0 => host.insert(task.id(), DsqId::Local, Position::Tail),
            tag if tag % 2 == 0 => host.insert_vtime(task.id(), BY_VTIME, tag),
            tag if tag < TURN => host.insert(task.id(), FIFO, Position::Tail),
            _ => host.insert(task.id(), DsqId::Global, Position::Tail),
        };
    };
    let policy = world.load(Script::new().enqueue(insert));
    let log = Arc::clone(&ran);
    drop(world.spawn(0, async move {
        for tag in [1, 2, 3, TURN, 4, 11] {
            let log = Arc::clone(&log);
            drop(world.spawn(tag, async move { lock(&log).push(tag) }));
        }
    }));
    world.run(0);
    let info = exit_of(&policy);
    assert_eq!(info.kind, ExitKind::Error);
    assert_eq!(
        info.message,
        "enqueue: insert into DSQ custom 0, which was destroyed meanwhile"
    );
    assert!(info.task.is_some());
    world.sweep();
    world.run_all();
    lock(&ran).sort_unstable();
    assert_eq!(*lock(&ran), [1, 2, 3, 4, TURN, 11]);
}

#[test]
fn no_task_is_lost_whose_dsq_was_destroyed_later_in_the_batch() {
    the_dsq_goes(|host| host.destroy_dsq(FIFO).unwrap());
}

#[test]
fn no_task_is_lost_whose_dsq_was_destroyed_and_made_anew_with_another_order() {
    the_dsq_goes(|host| {
        host.destroy_dsq(FIFO).unwrap();
        host.create_vtime_dsq(0).unwrap();
    });
}
