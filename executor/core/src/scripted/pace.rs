//! How soon a worker looks where, and when it wakes another one to keep watch. On the scripted machine, since it is about time.

use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};

use polity_policy::{Attributes, DsqId, Position};

use crate::scripted::world::{MS, Script, TICK, World, lock, only};
use crate::seat::SeatId;

const US: u64 = 1_000;

type Log = Arc<Mutex<Vec<String>>>;

fn note(log: &Log, what: &str, tag: u64) {
    lock(log).push(format!("{what} {tag}"));
}

/// A policy that puts each task at the tail of its local DSQ, and says so.
fn by_turns(log: &Log) -> Script {
    let log = Arc::clone(log);
    Script::new().enqueue(move |host, task| {
        note(&log, "enqueue", task.tag());
        host.insert(task.id(), DsqId::Local, Position::Tail);
    })
}

/// So many polls, each of which says so and yields, after `during`.
async fn yields(log: Log, tag: u64, polls: usize, during: impl Fn(usize)) {
    let mut polled = 0;
    poll_fn(|context| {
        note(&log, "poll", tag);
        during(polled);
        polled += 1;
        if polled == polls {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn tasks_that_have_yielded_are_offered_together_when_the_local_dsq_is_empty() {
    let world = World::new(1);
    let log = Log::default();
    world.load(by_turns(&log));
    let tasks = [1, 2, 3].map(|tag| world.spawn(tag, yields(Arc::clone(&log), tag, 2, |_| {})));
    world.run(0);
    assert!(tasks.iter().all(|task| task.is_finished()));
    let expected = [
        "enqueue 1",
        "enqueue 2",
        "enqueue 3",
        "poll 1",
        "poll 2",
        "poll 3",
        "enqueue 1",
        "enqueue 2",
    ];
    assert_eq!(lock(&log)[..8], expected);
}

#[test]
fn what_has_yielded_is_offered_with_a_task_that_is_woken() {
    let world = World::new(1);
    let log = Log::default();
    world.load(by_turns(&log));
    let waker = Arc::<Mutex<Option<Waker>>>::default();
    let keep = Arc::clone(&waker);
    let waits = world.spawn(9, async move {
        poll_fn(
            |context| match lock(&keep).replace(context.waker().clone()) {
                None => Poll::Pending,
                Some(_) => Poll::Ready(()),
            },
        )
        .await;
    });
    world.run(0);
    lock(&log).clear();
    let wakes = yields(Arc::clone(&log), 1, 2, move |polled| {
        if polled == 0 {
            lock(&waker).as_ref().unwrap().wake_by_ref();
        }
    });
    let first = world.spawn(1, wakes);
    let others = [2, 3].map(|tag| world.spawn(tag, yields(Arc::clone(&log), tag, 2, |_| {})));
    world.run(0);
    assert!(waits.is_finished() && first.is_finished());
    assert!(others.iter().all(|task| task.is_finished()));
    let offered = lock(&log).iter().position(|it| it == "enqueue 9").unwrap();
    assert_eq!(lock(&log)[offered + 1], "enqueue 1");
}

/// Polls of a task that takes 50 us each time and yields, until a task that lies in a queue for all is polled.
fn polls_before(world: World, other: impl FnOnce(World) -> crate::JoinHandle<()>) -> usize {
    let polls = Arc::new(AtomicUsize::new(0));
    let stop = Arc::new(AtomicUsize::new(usize::MAX));
    let busy = [0; 2].map(|_| {
        let (polls, stop) = (Arc::clone(&polls), Arc::clone(&stop));
        world.spawn(0, async move {
            poll_fn(|context| {
                world.advance(50 * US);
                if polls.fetch_add(1, Ordering::Relaxed) >= stop.load(Ordering::Relaxed) {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        })
    });
    for _ in 0..50 {
        world.pass(0);
    }
    let before = polls.load(Ordering::Relaxed);
    let other = other(world);
    while !other.is_finished() {
        world.pass(0);
    }
    let after = polls.load(Ordering::Relaxed);
    stop.store(0, Ordering::Relaxed);
    world.run(0);
    assert!(busy.iter().all(|task| task.is_finished()));
    after - before
}

#[test]
fn a_task_from_outside_waits_for_a_few_long_polls_only() {
    let built_in = polls_before(World::new(1), |world| world.spawn(1, async {}));
    assert!(built_in <= 8, "{built_in}");

    let world = World::new(1);
    world.load(by_turns(&Log::default()));
    let by_policy = polls_before(world, |world| world.spawn(1, async {}));
    assert!(by_policy <= 8, "{by_policy}");
}

#[test]
fn a_task_in_the_global_dsq_waits_for_a_few_long_polls_only() {
    let world = World::new(1);
    world.load(Script::new().enqueue(|host, task| {
        let dsq = [DsqId::Local, DsqId::Global][task.tag() as usize];
        host.insert(task.id(), dsq, Position::Tail);
    }));
    let polls = polls_before(world, |world| world.spawn(1, async {}));
    assert!(polls <= 8, "{polls}");
}

/// Worker 0 is the sentinel, worker 1 is parked, too.
fn parked() -> World {
    let world = World::new(2);
    world.run(0);
    world.run(1);
    assert!(world.core.sleepers.has_sentinel());
    assert!(!world.has_to_run(0) && !world.has_to_run(1));
    world
}

#[test]
fn a_sentinel_that_goes_to_work_wakes_nobody_for_work_that_is_short() {
    let world = parked();
    for _ in 0..10 {
        world.unpark(0);
        let here = Attributes::new().affinity(only(0));
        let task = world.spawn_with(here, async move { world.advance(20 * US) });
        world.run(0);
        assert!(task.is_finished());
    }
    assert!(!world.has_to_run(1));
}

#[test]
fn a_sentinel_that_goes_to_work_wakes_another_one_when_polls_have_been_long_of_late() {
    let world = parked();
    world.unpark(0);
    let here = Attributes::new().affinity(only(0));
    let long = world.spawn_with(here, async move { world.advance(MS) });
    world.run(0);
    assert!(long.is_finished());
    world.run(1);
    world.run(0);
    assert!(!world.has_to_run(1));
    // Whoever of them keeps watch goes to work, and the other one is woken.
    let sentinel = usize::from(!world.core.sleepers.become_sentinel(0));
    world.unpark(sentinel);
    assert!(world.has_to_run(1 - sentinel));
}

#[test]
fn a_worker_whose_work_goes_on_wakes_another_one_to_keep_watch() {
    let world = parked();
    world.unpark(0);
    let here = || Attributes::new().affinity(only(0));
    let tasks = [(); 12].map(|()| world.spawn_with(here(), async move { world.advance(20 * US) }));
    world.run(0);
    assert!(tasks.iter().all(|task| task.is_finished()));
    assert!(world.has_to_run(1));
}

#[test]
fn the_watchdog_wakes_somebody_to_keep_watch_over_a_poll_that_goes_on() {
    let world = parked();
    world.unpark(0);
    let here = Attributes::new().affinity(only(0));
    let task = world.spawn_with(here, async move {
        world.tick_for(TICK);
        assert!(!world.has_to_run(1), "it may have begun just now");
        world.tick_for(TICK);
        assert!(world.has_to_run(1));
    });
    world.run(0);
    assert!(task.is_finished());
}

/// Nobody else would look into the driver.
#[test]
fn a_sentinel_that_goes_to_work_and_is_dismissed_wakes_another_one() {
    let world = parked();
    world.unpark(0);
    assert!(!world.has_to_run(1));
    world.core.dismiss(SeatId::new(0), SeatId::new(1));
    world.leave(0);
    assert!(world.has_to_run(1));
}

#[test]
fn a_policy_is_told_to_take_sixteen_when_polls_are_short_and_one_when_they_are_long() {
    let world = World::new(1);
    let hints = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&hints);
    world.load(
        Script::new()
            .enqueue(|host, task| {
                host.insert(task.id(), DsqId::Local, Position::Tail);
            })
            .running(move |host, _| lock(&log).push(host.batch_hint())),
    );
    let short = |world: World| {
        for _ in 0..200 {
            drop(world.spawn(0, async move { world.advance(US) }));
        }
    };
    short(world);
    drop(world.spawn(0, async move { world.advance(MS) }));
    short(world);
    world.run(0);
    let hints = lock(&hints);
    assert!(hints[0] <= 2, "next to nothing was polled yet");
    assert!(hints[..200].is_sorted());
    assert_eq!(hints[200], 16);
    let soon = &hints[201..218];
    assert!(soon.contains(&1), "{soon:?}");
    assert_eq!(hints.last(), Some(&16));
}

/// The global DSQ has its turn now and then before what lies in the local one; not before what was taken from it.
#[test]
fn tasks_that_yield_in_the_global_dsq_take_turns_whatever_the_clock_says() {
    let world = World::new(1);
    world.load(Script::new().enqueue(|host, task| {
        host.insert(task.id(), DsqId::Global, Position::Tail);
    }));
    let turns = Arc::new(Mutex::new([0_u32; 5]));
    for task in 0..5 {
        let turns = Arc::clone(&turns);
        drop(world.spawn(0, async move {
            for _ in 0..200 {
                world.advance(7 * US);
                {
                    let mut turns = lock(&turns);
                    turns[task] += 1;
                    let (least, most) = (turns.iter().min(), turns.iter().max());
                    assert!(most.unwrap() - least.unwrap() <= 2, "{turns:?}");
                }
                yield_once().await;
            }
        }));
    }
    world.run(0);
    assert_eq!(*lock(&turns), [200; 5]);
}

async fn yield_once() {
    let mut yielded = false;
    poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
