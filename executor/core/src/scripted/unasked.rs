//! A policy that writes no callback of an offer is not asked: its tasks go where its `enqueue` would put them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use polity_policy::{Attributes, BoxPolicy, Host, InitError, Policy, TaskView, WorkerId};

use crate::scripted::world::{World, lock, only};

const TASKS: usize = 40;

/// Tasks that are spawned on worker 0 one after the other, each in a poll of its own.
fn one_by_one(world: World) {
    for _ in 0..TASKS {
        assert_eq!(world.run(0), 0, "nothing is left");
        let task = world.spawn(0, async {});
        world.run(0);
        assert!(task.is_finished());
    }
}

/// Calls that worker 0 has made so far.
fn calls(world: World) -> u64 {
    let call = &world.core.seats[0].activity.call;
    let number = call.enter();
    assert!(call.leave(number, || {}));
    // Each counts for two, and so did this one.
    number / 2
}

struct Quiet;

impl Policy for Quiet {
    type Task = ();

    fn name(&self) -> &str {
        "quiet"
    }
}

/// A policy that writes only this callback, and counts how often it is called.
macro_rules! writes {
    ($name:ident, $($callback:tt)*) => {
        struct $name(Arc<AtomicUsize>);

        impl Policy for $name {
            type Task = ();

            fn name(&self) -> &str {
                "writes_one"
            }

            $($callback)*
        }
    };
}

fn note(count: &AtomicUsize) {
    count.fetch_add(1, Ordering::Relaxed);
}

writes! { WritesInitTask,
    fn init_task(&self, _host: &Host<'_>, _task: &TaskView<'_>) -> Result<(), InitError> {
        note(&self.0);
        Ok(())
    }
}
writes! { WritesRunnable,
    fn runnable(&self, _host: &Host<'_>, _task: &TaskView<'_>) {
        note(&self.0);
    }
}
writes! { WritesSelectWorker,
    fn select_worker(&self, _host: &Host<'_>, task: &TaskView<'_>) -> WorkerId {
        note(&self.0);
        task.last_worker()
    }
}
writes! { WritesEnqueue,
    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        note(&self.0);
        host.insert(task.id(), polity_policy::DsqId::Global, polity_policy::Position::Tail);
    }
}

/// How often the one callback of this policy is called.
fn heard<P: Policy>(make: impl FnOnce(Arc<AtomicUsize>) -> P) -> usize {
    let world = World::new(1);
    let count = Arc::default();
    world.load(make(Arc::clone(&count)));
    one_by_one(world);
    count.load(Ordering::Relaxed)
}

#[test]
fn each_callback_of_an_offer_that_a_policy_writes_is_called_for_each_task() {
    assert_eq!(heard(WritesInitTask), TASKS);
    assert_eq!(heard(WritesRunnable), TASKS);
    assert_eq!(heard(WritesSelectWorker), TASKS);
    assert_eq!(heard(WritesEnqueue), TASKS);
}

#[test]
fn a_policy_that_writes_none_of_them_is_not_called_for_a_task_that_is_spawned_polled_and_ends() {
    for boxed in [false, true] {
        let world = World::new(1);
        match boxed {
            false => world.load(Quiet),
            true => world.load(BoxPolicy::new(Quiet)),
        };
        one_by_one(world);
        // Nothing but `dispatch`, before each park: the last one, and one more when it looks again.
        let before = calls(world);
        let dispatches = world.core.metrics().dispatches;
        one_by_one(world);
        let called = calls(world) - before - 1;
        assert_eq!(called, world.core.metrics().dispatches - dispatches);
    }
}

/// What is kept for a task is made by the default `init_task`.
struct Keeps(Arc<AtomicUsize>);

impl Policy for Keeps {
    type Task = AtomicUsize;

    fn name(&self) -> &str {
        "keeps"
    }

    fn running(&self, _host: &Host<'_>, task: &TaskView<'_, AtomicUsize>) {
        note(task.data());
    }

    fn exit_task(&self, _host: &Host<'_>, task: &TaskView<'_, AtomicUsize>) {
        self.0
            .fetch_add(task.data().load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

#[test]
fn a_policy_that_keeps_something_for_each_task_has_it_without_writing_init_task() {
    assert_eq!(heard(Keeps), TASKS);
}

#[test]
fn tasks_of_a_policy_that_is_not_asked_run_in_the_order_of_their_coming_on_workers_that_they_allow()
{
    let world = World::new(2);
    let policy = world.load(Quiet);
    one_by_one(world);
    let polled = Arc::<Mutex<Vec<(usize, usize)>>>::default();
    let at = Arc::<AtomicUsize>::default();
    let (log, on) = (Arc::clone(&polled), Arc::clone(&at));
    drop(world.spawn(0, async move {
        for index in 0..TASKS {
            let (log, on) = (Arc::clone(&log), Arc::clone(&on));
            let body = async move { lock(&log).push((index, on.load(Ordering::Relaxed))) };
            drop(match index % 4 {
                3 => world.spawn_with(Attributes::new().affinity(only(1)), body),
                _ => world.spawn(0, body),
            });
        }
    }));
    world.run(0);
    let of_worker_0: Vec<usize> = lock(&polled).iter().map(|(index, _)| *index).collect();
    let expected: Vec<usize> = (0..TASKS).filter(|index| index % 4 != 3).collect();
    assert_eq!(of_worker_0, expected);
    at.store(1, Ordering::Relaxed);
    world.run(1);
    let restricted = lock(&polled)[expected.len()..].to_vec();
    let expected: Vec<_> = (0..TASKS)
        .filter(|index| index % 4 == 3)
        .map(|index| (index, 1))
        .collect();
    assert_eq!(restricted, expected);
    let metrics = world.core.metrics();
    assert_eq!(
        (metrics.redirected, metrics.offered),
        (0, 2 * TASKS as u64 + 1)
    );
    assert!(policy.exit_info().is_none());
    let dump = world.core.dump().to_string();
    assert!(dump.contains("has 0 tasks"), "{dump}");
}

#[test]
fn another_worker_is_woken_for_what_a_policy_that_is_not_asked_leaves_behind() {
    let world = World::new(2);
    world.load(Quiet);
    one_by_one(world);
    world.run(1);
    assert!(!world.has_to_run(1));
    let here = Attributes::new().affinity(only(0));
    drop(world.spawn_with(here, async move {
        for _ in 0..3 {
            drop(world.spawn_with(Attributes::detached(), async {}));
        }
    }));
    world.pass(0);
    assert!(!world.has_to_run(1));
    // The three are put into the global DSQ.
    world.pass(0);
    assert!(world.has_to_run(1));
    world.run_all();
}

#[test]
fn the_watchdog_knows_the_tasks_of_a_policy_that_is_not_asked() {
    let world = World::new(1);
    let policy = world.load(Quiet);
    one_by_one(world);
    let seen = Arc::<Mutex<String>>::default();
    let dump = Arc::clone(&seen);
    drop(world.spawn(0, async move {
        drop(world.spawn(
            0,
            async move { *lock(&dump) = world.core.dump().to_string() },
        ));
        drop(world.spawn(0, async {}));
    }));
    world.run(0);
    assert!(lock(&seen).contains("has 1 tasks"), "{}", lock(&seen));
    assert!(policy.exit_info().is_none());
}
