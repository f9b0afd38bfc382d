//! Long polls: named once each, and nobody's fault but the task's.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use polity_policy::{Attributes, WorkerId};

use crate::machine::ThreadState;
use crate::scripted::world::{HOG_AFTER, MS, TICK, Thread, World};
use crate::watchdog::{Finding, Hog};

fn hogs(findings: Vec<Finding>) -> Vec<Hog> {
    let hogs = findings.into_iter().filter_map(|finding| match finding {
        Finding::Hog(hog) => Some(hog),
        _ => None,
    });
    hogs.collect()
}

#[test]
fn a_poll_as_long_as_the_threshold_is_found_once_with_everything_about_its_task() {
    let world = World::new(2);
    let found = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&found);
    let attributes = Attributes::new().name("ledger");
    let task = world.spawn_with(attributes, async move {
        // The poll is seen at the first tick.
        assert!(hogs(world.tick_for(TICK)).is_empty());
        assert!(hogs(world.tick_for(HOG_AFTER - TICK)).is_empty());
        let found = hogs(world.tick_for(TICK));
        assert!(hogs(world.tick_for(20 * HOG_AFTER)).is_empty());
        let [hog] = &found[..] else {
            panic!("{found:?}");
        };
        counted.store(hog.for_ns as usize, Ordering::Relaxed);
        assert_eq!(hog.name.as_deref(), Some("ledger"));
        assert_eq!(hog.worker, WorkerId::new(1));
        assert_eq!(
            hog.task.slot(),
            world.core.seats[1].activity.task().unwrap().slot()
        );
        assert_eq!(hog.spawned_at.unwrap().file(), file!());
    });
    world.run(1);
    assert_eq!(found.load(Ordering::Relaxed) as u64, HOG_AFTER);
    assert!(task.is_finished());
    assert_eq!(world.core.metrics().hogs, 1);
}

/// A machine with too much to do has no hogs.
#[test]
fn a_poll_whose_thread_was_kept_from_running_is_no_hog_until_it_has_run_for_half_the_threshold() {
    let world = World::new(1);
    let ran = move |processor_time| {
        let thread = Thread {
            processor_time: Some(processor_time),
            state: Some(ThreadState::Runnable),
        };
        world.set_thread(0, thread);
    };
    ran(7 * MS);
    drop(world.spawn(0, async move {
        assert!(hogs(world.tick_for(10 * HOG_AFTER)).is_empty());
        ran(7 * MS + HOG_AFTER / 2 - 1);
        assert!(hogs(world.tick_for(TICK)).is_empty());
        ran(7 * MS + HOG_AFTER / 2);
        assert_eq!(hogs(world.tick_for(TICK)).len(), 1);
    }));
    world.run(0);
    assert_eq!(world.core.metrics().hogs, 1);
}

#[test]
fn each_long_poll_of_one_task_is_found() {
    let world = World::new(1);
    let mut polls = 0;
    drop(world.spawn(
        0,
        poll_fn(move |context| {
            let found = hogs(world.tick_for(HOG_AFTER + 2 * TICK));
            assert_eq!(found.len(), 1);
            polls += 1;
            context.waker().wake_by_ref();
            if polls < 3 {
                Poll::Pending
            } else {
                Poll::Ready(())
            }
        }),
    ));
    world.run(0);
    assert_eq!(world.core.metrics().hogs, 3);
}

#[test]
fn a_poll_below_the_threshold_is_not_found() {
    let world = World::new(1);
    for _ in 0..10 {
        drop(world.spawn(0, async move {
            assert!(hogs(world.tick_for(HOG_AFTER - TICK)).is_empty());
            world.advance(TICK - 1);
            assert!(hogs(world.tick().0).is_empty());
        }));
        world.run(0);
        world.advance(1);
        world.tick();
    }
    assert_eq!(world.core.metrics().hogs, 0);
}

#[test]
fn time_in_which_the_process_was_stopped_makes_no_hog() {
    let world = World::new(1);
    drop(world.spawn(0, async move {
        assert!(hogs(world.tick_for(TICK)).is_empty());
        world.advance(3_600_000 * MS);
        assert!(hogs(world.tick().0).is_empty());
    }));
    world.run(0);
    assert_eq!(world.core.metrics().hogs, 0);
}

#[test]
fn many_short_polls_are_no_hog() {
    let world = World::new(1);
    for _ in 0..100 {
        drop(world.spawn(0, async move { world.advance(TICK) }));
        world.run(0);
        assert!(hogs(world.tick().0).is_empty());
    }
}
