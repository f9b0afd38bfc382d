//! How long a policy finds DSQs while it is offered a batch, which is carried out afterwards.

use std::sync::{Arc, Mutex};

use polity_policy::{DsqId, Host, Policy, Position, TaskView, WorkerId};

use crate::scripted::world::{Script, World, lock};

const OTHER: DsqId = DsqId::LocalOn(WorkerId::new(1));

#[test]
fn what_a_batch_puts_into_local_dsqs_counts_at_once() {
    let world = World::new(2);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let policy = world.load(Script::new().enqueue(move |host, task| {
        let length = |dsq| host.dsq_len(dsq).unwrap();
        let dsq = match task.tag() {
            1 => DsqId::Local,
            2 => OTHER,
            3 => DsqId::Global,
            _ => DsqId::Custom(0),
        };
        // Alternately, so that neither count is the one asked about last.
        let before = (task.tag(), length(DsqId::Local), length(OTHER), length(dsq));
        host.insert(task.id(), dsq, Position::Tail);
        assert_eq!(length(dsq), before.3 + usize::from(task.tag() <= 2));
        lock(&log).push(before);
    }));
    drop(world.spawn(1, async move {
        for tag in [1, 2, 1, 3, 3, 4, 2, 1, 4] {
            drop(world.spawn(tag, async {}));
        }
    }));
    world.pass(0);
    lock(&seen).clear();
    world.pass(0);
    let expected = [
        (1, 0, 0, 0),
        (2, 1, 0, 0),
        (1, 1, 1, 1),
        (3, 2, 1, 0),
        (3, 2, 1, 0),
        (4, 2, 1, 0),
        (2, 2, 1, 1),
        (1, 2, 2, 2),
        (4, 3, 2, 0),
    ];
    assert_eq!(*lock(&seen), expected);
    assert!(policy.exit_info().is_none());
}

/// Inserts in `select_worker`, by turns for worker 1 and 0, and notes how long it finds their DSQs.
#[derive(Default)]
struct Selects(Arc<Mutex<Vec<[usize; 2]>>>);

impl Policy for Selects {
    type Task = ();

    fn name(&self) -> &str {
        "selects"
    }

    fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_>) -> WorkerId {
        let length = |worker| {
            let dsq = DsqId::LocalOn(WorkerId::new(worker));
            host.dsq_len(dsq).unwrap()
        };
        let mut seen = lock(&self.0);
        seen.push([length(0), length(1)]);
        host.insert(task.id(), DsqId::Local, Position::Tail);
        // Of the DSQ that is the local one until it has answered.
        host.dsq_len(DsqId::Local);
        WorkerId::new(seen.len() as u16 % 2)
    }
}

#[test]
fn what_select_worker_inserts_counts_for_the_worker_that_it_selects() {
    let world = World::new(2);
    let policy = Selects::default();
    let seen = Arc::clone(&policy.0);
    let policy = world.load(policy);
    for _ in 0..4 {
        drop(world.spawn(0, async {}));
    }
    world.pass(0);
    assert_eq!(*lock(&seen), [[0, 0], [0, 1], [1, 1], [1, 2]]);
    assert!(policy.exit_info().is_none());
}
