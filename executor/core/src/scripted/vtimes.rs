//! Claims with a vtime on a task that another worker is still offering. Not the watchdog's, but here two workers can meet at
//! will.

use std::sync::{Arc, Mutex};

use futures::channel::oneshot;
use polity_policy::{DsqId, EnqueueReason, Host, Position, TaskId, TaskView};

use crate::scripted::world::{Script, World, lock};

const FIFO: DsqId = DsqId::Custom(0);
const BY_VTIME: DsqId = DsqId::Custom(1);
/// A task with this tag is claimed by worker 1 while worker 0 is inside its `enqueue`. Others are inserted with their tags as vtimes.
const EARLY: u64 = 100;

type Claim = fn(&Host<'_>, TaskId) -> bool;

/// `claims`: what worker 1 says, time for time; `verdict`: what worker 0 says then.
fn world(claims: Vec<Claim>, verdict: fn(&Host<'_>, &TaskView<'_>)) -> (World, Ran) {
    let world = World::new(2);
    let ran = Ran::default();
    let noted = Arc::<Mutex<Option<TaskId>>>::default();
    let (to_claim, log) = (Arc::clone(&noted), Arc::clone(&ran));
    let claims = Mutex::new(claims.into_iter());
    let policy = Script::new()
        .enqueue(move |host, task| {
            if task.tag() != EARLY {
                assert!(host.insert_vtime(task.id(), BY_VTIME, task.tag()));
                return;
            }
            *lock(&noted) = Some(task.id());
            world.pass(1);
            assert_eq!(*lock(&noted), None, "worker 1 has claimed it");
            verdict(host, task);
        })
        .dispatch(move |host, _| match lock(&to_claim).take() {
            Some(task) => {
                let claim = lock(&claims).next().expect("a claim for each offer");
                assert!(claim(host, task));
            }
            None => {
                if host.move_to_local(BY_VTIME, 1) == 0 {
                    host.move_to_local(FIFO, 1);
                }
            }
        })
        .running(move |_, task| lock(&log).push(task.tag()));
    world.load(policy);
    (world, ran)
}

type Ran = Arc<Mutex<Vec<u64>>>;

#[test]
fn a_claim_with_a_vtime_that_came_early_is_carried_out_at_that_vtime() {
    let claim: Claim = |host, task| host.insert_vtime(task, BY_VTIME, 5);
    let (world, ran) = world(vec![claim], |_, _| {});
    world.run(1);
    // Worker 0 spawns them, and so offers them in one batch.
    let spawner = world.spawn(0, async move {
        for tag in [7, EARLY, 4, 6] {
            drop(world.spawn(tag, async {}));
        }
    });
    world.run(0);
    assert!(spawner.is_finished());
    assert_eq!(*lock(&ran), [0, 4, EARLY, 6, 7]);
    assert!(world.core.current_policy().is_some());
}

#[test]
fn a_verdict_overrides_an_early_claim_and_its_vtime_is_not_found_again() {
    let with_vtime: Claim = |host, task| host.insert_vtime(task, BY_VTIME, 5);
    let without: Claim = |host, task| host.insert(task, FIFO, Position::Tail);
    let (world, ran) = world(vec![with_vtime, without], |host, task| {
        if task.reason() == EnqueueReason::Spawn {
            assert!(host.insert_vtime(task.id(), BY_VTIME, 9));
        }
    });
    world.run_all();
    let (wake, woken) = oneshot::channel::<()>();
    let task = world.spawn(EARLY, async move { woken.await.unwrap() });
    world.run(0);
    wake.send(()).unwrap();
    // The second claim has no vtime, and a FIFO would refuse one.
    world.run(0);
    assert!(task.is_finished());
    assert_eq!(*lock(&ran), [EARLY, EARLY]);
    assert!(world.core.current_policy().is_some());
}
