//! A worker that has nothing polls the first of a batch without having queued it. Nobody may be able to tell.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use polity_policy::{
    Attributes, DequeueReason, DsqId, ExitKind, Host, Policy, Position, Slice, TaskId, TaskView,
    WorkerId,
};

use crate::core::Cause;
use crate::machine::ThreadState;
use crate::scripted::world::{MS, Script, Thread, World, exit_of, lock, only};
use crate::task::JoinHandle;
use crate::watchdog::Finding;
use crate::worker::Pass;

const LOCAL: u64 = 0;
const LOCAL_HEAD: u64 = 1;
const GLOBAL: u64 = 2;

fn as_tagged() -> Script {
    Script::new().enqueue(|host, task| {
        let (dsq, at) = match task.tag() {
            LOCAL => (DsqId::Local, Position::Tail),
            LOCAL_HEAD => (DsqId::Local, Position::Head),
            _ => (DsqId::Global, Position::Tail),
        };
        host.insert(task.id(), dsq, at);
    })
}

/// The order in which tasks with these tags are polled that are offered together, by their indices.
fn order_of(tags: &[u64]) -> Vec<usize> {
    let world = World::new(1);
    let policy = world.load(as_tagged());
    let polled = Arc::<Mutex<Vec<usize>>>::default();
    for (index, tag) in tags.iter().enumerate() {
        let polled = Arc::clone(&polled);
        drop(world.spawn(*tag, async move { lock(&polled).push(index) }));
    }
    world.run(0);
    assert!(policy.exit_info().is_none());
    std::mem::take(&mut *lock(&polled))
}

#[test]
fn the_tasks_of_a_batch_are_polled_in_the_order_in_which_they_would_lie_in_queues() {
    assert_eq!(order_of(&[LOCAL; 3]), [0, 1, 2]);
    assert_eq!(order_of(&[GLOBAL; 3]), [0, 1, 2]);
    assert_eq!(order_of(&[GLOBAL, LOCAL]), [1, 0]);
    assert_eq!(order_of(&[LOCAL, LOCAL_HEAD, LOCAL]), [1, 0, 2]);
    assert_eq!(order_of(&[GLOBAL, LOCAL_HEAD, LOCAL]), [1, 2, 0]);
}

/// A chain of tasks, each of which spawns the next one and is all that its worker has.
fn chain(world: World, tag: u64, left: Arc<AtomicUsize>) {
    if left.fetch_sub(1, Ordering::Relaxed) > 1 {
        drop(world.spawn(tag, async move { chain(world, tag, left) }));
    }
}

#[test]
fn the_global_dsq_has_its_turn_beside_a_chain_whose_links_are_polled_at_once() {
    let world = World::new(1);
    world.load(as_tagged());
    let left = Arc::new(AtomicUsize::new(1_000));
    let link = Arc::clone(&left);
    let spawns = async move { chain(world, LOCAL, link) };
    let waits = Arc::<Mutex<_>>::default();
    let begins = Arc::clone(&waits);
    drop(world.spawn(LOCAL, async move {
        *lock(&begins) = Some(world.spawn(GLOBAL, async {}));
        drop(world.spawn(LOCAL, spawns));
    }));
    world.pass(0);
    let waits = lock(&waits).take().unwrap();
    while !waits.is_finished() {
        world.pass(0);
    }
    let links = 1_000 - left.load(Ordering::Relaxed);
    assert!((1..=33).contains(&links), "{links}");
    world.run(0);
}

#[test]
fn a_task_that_comes_alone_does_not_overtake_what_lies_in_the_global_dsq() {
    let world = World::new(2);
    world.load(as_tagged());
    let polled = Arc::<Mutex<Vec<&str>>>::default();
    let log = Arc::clone(&polled);
    // Of two in the global DSQ a worker takes one, which is the first; the other one lies there when the third comes.
    drop(world.spawn(LOCAL, async move {
        let (first, second) = (Arc::clone(&log), log);
        drop(world.spawn(GLOBAL, async move {
            let third = Arc::clone(&first);
            drop(world.spawn(GLOBAL, async move { lock(&third).push("third") }));
            lock(&first).push("first");
        }));
        drop(world.spawn(GLOBAL, async move { lock(&second).push("second") }));
    }));
    world.run(0);
    assert_eq!(*lock(&polled), ["first", "second", "third"]);
    world.run(1);
}

#[test]
fn the_global_dsq_has_its_turn_also_when_what_was_taken_from_it_was_stolen() {
    let world = World::new(2);
    world.load(as_tagged());
    let left = Arc::new(AtomicUsize::new(1_000));
    let link = Arc::clone(&left);
    let waits = Arc::<Mutex<Option<JoinHandle<()>>>>::default();
    let (begins, stolen) = (
        Arc::clone(&waits),
        Arc::<Mutex<Option<JoinHandle<()>>>>::default(),
    );
    let shared = Arc::clone(&stolen);
    let long = async move {
        let shared = lock(&shared).take().unwrap();
        while !shared.is_finished() {
            world.advance(MS);
            world.pass(1);
        }
        *lock(&begins) = Some(world.spawn(GLOBAL, async {}));
        drop(world.spawn(LOCAL, async move { chain(world, LOCAL, link) }));
    };
    // Of four in the global DSQ a worker takes two.
    drop(world.spawn(LOCAL, async move {
        drop(world.spawn(GLOBAL, long));
        *lock(&stolen) = Some(world.spawn(GLOBAL, async {}));
        for _ in 0..2 {
            drop(world.spawn(GLOBAL, async {}));
        }
    }));
    world.pass(0);
    world.pass(0);
    let waits = lock(&waits).take().expect("the long poll is over");
    while !waits.is_finished() {
        world.pass(0);
    }
    let links = 1_000 - left.load(Ordering::Relaxed);
    assert!(links <= 33, "{links}");
    world.run_all();
}

#[test]
fn a_task_that_may_not_run_here_any_more_is_not_taken_for_the_next_one() {
    let world = World::new(2);
    let policy = world.load(as_tagged());
    let here = Attributes::new().tag(GLOBAL).affinity(only(0));
    let task = world.spawn_with(here, async {});
    task.set_affinity(only(1)).unwrap();
    world.run(0);
    assert!(!task.is_finished());
    world.run(1);
    assert!(task.is_finished() && policy.exit_info().is_none());
    assert_eq!(world.core.metrics().redirected, 0);
}

#[test]
fn a_task_that_comes_meanwhile_does_not_cut_the_slice_of_another_one_short() {
    let world = World::new(1);
    world.load(as_tagged().slice(Slice::new(Duration::from_millis(1))));
    let polls = Arc::<AtomicUsize>::default();
    let (counted, at) = (Arc::clone(&polls), Arc::<AtomicUsize>::default());
    let noted = Arc::clone(&at);
    drop(world.spawn(LOCAL, async move {
        poll_fn(|context| {
            world.advance(MS / 10);
            if counted.fetch_add(1, Ordering::Relaxed) == 0 {
                let (counted, noted) = (Arc::clone(&counted), Arc::clone(&noted));
                drop(world.spawn(LOCAL, async move {
                    noted.store(counted.load(Ordering::Relaxed), Ordering::Relaxed);
                }));
            }
            if counted.load(Ordering::Relaxed) == 20 {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }));
    world.run(0);
    assert_eq!(
        (at.load(Ordering::Relaxed), polls.load(Ordering::Relaxed)),
        (10, 20)
    );
}

/// Keeps one task as an id, which another worker claims while that task is being offered still, and is stuck in its `dequeue`.
struct StuckInDequeue {
    world: World,
    kept: Mutex<Option<TaskId>>,
}

const KEPT: u64 = 7;

impl Policy for StuckInDequeue {
    type Task = ();

    fn name(&self) -> &str {
        "stuck_in_dequeue"
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if task.tag() == KEPT {
            *lock(&self.kept) = Some(task.id());
            self.world.pass(1);
        } else {
            host.insert(task.id(), DsqId::Local, Position::Tail);
        }
    }

    fn dispatch(&self, host: &Host<'_>, _worker: WorkerId, _prev: Option<&TaskView<'_>>) {
        if let Some(kept) = lock(&self.kept).take() {
            assert!(host.insert(kept, DsqId::Local, Position::Tail));
        }
    }

    fn dequeue(&self, _host: &Host<'_>, _task: &TaskView<'_>, _reason: DequeueReason) {
        self.world.tick();
        let findings = self.world.tick_while_running(0, 10 * MS);
        let stuck = |it: &Finding| matches!(it, Finding::Stuck { .. });
        assert!(findings.iter().any(stuck), "{findings:?}");
        self.world.stand_in(2, 0, Cause::Conviction);
    }
}

#[test]
fn no_task_is_in_hand_while_the_policy_is_told_of_another_one() {
    let world = World::new(2);
    let running = Thread {
        processor_time: Some(0),
        state: Some(ThreadState::Runnable),
    };
    world.set_thread(0, running);
    let policy = world.load(StuckInDequeue {
        world,
        kept: Mutex::default(),
    });
    let tasks = [LOCAL, KEPT].map(|tag| world.spawn(tag, async {}));
    assert_eq!(world.pass(0), Pass::Revoked);
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
    world.sweep();
    world.run(2);
    world.run(1);
    assert!(tasks.iter().all(|task| task.is_finished()));
}
