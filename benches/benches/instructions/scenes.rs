//! What is done in each row, [`OPS`] times: a function that prepares it, and returns the part that is counted.

use std::future::{Future, poll_fn};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use polity_core::{JoinHandle, Local};

use crate::world::{Spawner, World, with_local};

/// Operations per row.
pub(crate) const OPS: usize = 1_000;

/// Of the rows in which several tasks yield by turns.
const YIELDING_TASKS: usize = 10;

/// The part of a scene that is counted.
pub(crate) type Act = Box<dyn FnOnce(&mut World)>;

/// The worker does what is there to be done.
fn run() -> Act {
    Box::new(World::run)
}

/// A task spawns empty ones, which then run.
pub(crate) fn spawn_local(world: &mut World) -> Act {
    let spawner = world.spawner();
    drop(spawner.spawn(async move {
        for _ in 0..OPS {
            drop(spawner.spawn(async {}));
        }
    }));
    run()
}

/// A thread that is no worker spawns empty tasks, which then run.
pub(crate) fn spawn_outside(_: &mut World) -> Act {
    Box::new(|world| {
        let spawner = world.spawner();
        for _ in 0..OPS {
            drop(spawner.spawn(async {}));
        }
        world.run();
    })
}

/// Each task spawns the next one.
pub(crate) fn spawn_chained(world: &mut World) -> Act {
    fn link(spawner: Spawner, left: usize) {
        if left > 0 {
            drop(spawner.spawn(async move { link(spawner, left - 1) }));
        }
    }
    link(world.spawner(), OPS);
    run()
}

/// Two tasks wake each other by turns.
pub(crate) fn wake_pair(world: &mut World) -> Act {
    let [ping, pong] = [(); 2].map(|()| Arc::new(Flag::default()));
    let (their_ping, their_pong) = (Arc::clone(&ping), Arc::clone(&pong));
    drop(world.spawner().spawn(async move {
        for _ in 0..OPS / 2 {
            ping.raise();
            pong.lower().await;
        }
    }));
    drop(world.spawner().spawn(async move {
        for _ in 0..OPS / 2 {
            their_ping.lower().await;
            their_pong.raise();
        }
    }));
    run()
}

/// A thread that is no worker wakes many tasks, which then end.
pub(crate) fn wake_outside(world: &mut World) -> Act {
    let flags: Vec<Arc<Flag>> = (0..OPS).map(|_| Arc::default()).collect();
    for flag in &flags {
        let flag = Arc::clone(flag);
        drop(world.spawner().spawn(async move { flag.lower().await }));
    }
    world.run();
    Box::new(move |world| {
        for flag in &flags {
            flag.raise();
        }
        world.run();
    })
}

/// A thread that is no worker wakes one task, and the worker parks after each of its polls.
pub(crate) fn wake_parked(world: &mut World) -> Act {
    let flag = Arc::new(Flag::default());
    let theirs = Arc::clone(&flag);
    drop(world.spawner().spawn(async move {
        for _ in 0..OPS {
            theirs.lower().await;
        }
    }));
    world.run();
    Box::new(move |world| {
        for _ in 0..OPS {
            flag.raise();
            world.run();
        }
    })
}

/// A few tasks yield by turns, as other runtimes' yields do: by their own wakers.
pub(crate) fn yield_waker(world: &mut World) -> Act {
    yield_by_turns(world, |context| context.waker().wake_by_ref())
}

/// The same as `polity::yield_now` does it.
pub(crate) fn yield_own(world: &mut World) -> Act {
    yield_by_turns(world, |context| {
        with_local(|local| local.into_iter().for_each(Local::note_yielded));
        context.waker().wake_by_ref();
    })
}

fn yield_by_turns(world: &mut World, by: impl Fn(&Context<'_>) + Copy + Send + 'static) -> Act {
    for _ in 0..YIELDING_TASKS {
        drop(world.spawner().spawn(async move {
            for _ in 0..OPS / YIELDING_TASKS {
                yield_once(by).await;
            }
        }));
    }
    run()
}

async fn yield_once(by: impl Fn(&Context<'_>)) {
    let mut yielded = false;
    poll_fn(move |context| {
        if mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        by(context);
        Poll::Pending
    })
    .await;
}

/// A task awaits others that have ended.
pub(crate) fn join_finished(world: &mut World) -> Act {
    let handles = spawn_empty(world.spawner());
    world.run();
    drop(world.spawner().spawn(join_all(handles)));
    run()
}

/// A task awaits others that have not run yet: each of them wakes it.
pub(crate) fn join_unfinished(world: &mut World) -> Act {
    let spawner = world.spawner();
    // Whoever awaits comes before those that it awaits in the queue, so it has no handles when it is spawned.
    let handles = Arc::new(Mutex::new(Vec::new()));
    let theirs = Arc::clone(&handles);
    drop(spawner.spawn(async move {
        let handles = mem::take(&mut *theirs.lock().expect("nobody panics"));
        assert_eq!(handles.len(), OPS);
        join_all(handles).await;
    }));
    *handles.lock().expect("nobody panics") = spawn_empty(spawner);
    run()
}

fn spawn_empty(spawner: Spawner) -> Vec<JoinHandle<()>> {
    (0..OPS).map(|_| spawner.spawn(async {})).collect()
}

async fn join_all(handles: Vec<JoinHandle<()>>) {
    for handle in handles {
        handle.await.expect("it ends");
    }
}

/// What one task waits for, and somebody else does. As little as can be, since it is counted too.
#[derive(Default)]
struct Flag {
    is_up: AtomicBool,
    /// Of the one task that ever waits, whose waker is always the same.
    waker: OnceLock<Waker>,
}

// Ordering: Relaxed; there is one thread. So nothing happens either between a look at the flag and the registration.
impl Flag {
    fn raise(&self) {
        self.is_up.store(true, Ordering::Relaxed);
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    fn lower(&self) -> impl Future<Output = ()> {
        poll_fn(|context| {
            if self.is_up.load(Ordering::Relaxed) {
                self.is_up.store(false, Ordering::Relaxed);
                return Poll::Ready(());
            }
            self.waker.get_or_init(|| context.waker().clone());
            Poll::Pending
        })
    }
}
