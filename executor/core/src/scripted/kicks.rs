//! A worker that is kicked looks at once: so what it is kicked for must be there.

use std::sync::{Arc, Mutex};

use polity_policy::{Attributes, DsqId, Position, TaskId, WorkerId};

use crate::scripted::world::{Script, World, lock, only};

/// Worker 0 takes a task from its policy that only worker 1 may run. That one is parked, and passes as soon as it is
/// unparked, inside the kick.
fn dispatched_on_the_wrong_worker(dsq: DsqId, at: Position) {
    let world = World::new(2);
    let held: Arc<Mutex<Option<TaskId>>> = Arc::default();
    let keep = Arc::clone(&held);
    world.load(
        Script::new()
            .enqueue(move |_, task| *lock(&keep) = Some(task.id()))
            .dispatch(move |host, worker| {
                if worker == WorkerId::new(0)
                    && let Some(task) = lock(&held).take()
                {
                    assert!(host.insert(task, dsq, at));
                }
            }),
    );
    let task = world.spawn_with(Attributes::new().affinity(only(1)), async {});
    world.run(1);
    assert!(world.is_parked(1) && !task.is_finished());
    world.on_unpark(move |seat| {
        if world.is_parked(seat.index()) {
            world.run(seat.index());
        }
    });
    world.run(0);
    assert!(
        task.is_finished(),
        "{dsq} {at:?}: kicked too early, or not at all"
    );
}

#[test]
fn a_task_for_another_worker_is_in_its_dsq_when_that_worker_is_kicked() {
    let other = DsqId::LocalOn(WorkerId::new(1));
    for dsq in [DsqId::Global, other, DsqId::Local] {
        for at in [Position::Head, Position::Tail] {
            dispatched_on_the_wrong_worker(dsq, at);
        }
    }
}
