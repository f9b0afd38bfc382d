//! tokio's `benches/rt_multi_threaded.rs`, `benches/spawn.rs` and `benches/remote_spawn.rs` (MIT licence, copyright
//! tokio contributors). All contenders use tokio's oneshot and tokio's yield, as these benches do.

use std::hint::black_box;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Barrier};
use std::thread;

use tokio::sync::oneshot;

use super::{Load, Round, Workload};
use crate::{Goal, Peer};

pub(super) const MANY: usize = 10_000;
pub(super) const YIELDING_TASKS: usize = 200;
pub(super) const YIELDS: usize = 1_000;
const BUSY2: usize = 1_000;
const PINGS: usize = 1_000;
const CHAIN: usize = 1_000;
const REMOTE: usize = 12_800;

pub(super) fn workloads<P: Peer>() -> Vec<Workload<P>> {
    fn rt<P>(
        name: &'static str,
        ops: usize,
        goal: f64,
        prepare: fn(&Rc<P>) -> Round,
    ) -> Workload<P> {
        Workload::new("tokio_rt", name, ops, Goal::Ratio(goal), prepare)
    }
    let mut all = vec![
        rt("spawn_many_local", MANY, 3.5, spawn_many_local),
        rt("spawn_many_remote_idle", MANY, 4.0, |peer| {
            spawn_many_remote(peer, MANY)
        }),
        rt("spawn_many_remote_busy1", MANY, 3.5, |peer| {
            spawn_many_remote(peer, MANY)
        })
        .beside(Load::yielding),
        rt("spawn_many_remote_busy2", BUSY2, 2.0, |peer| {
            spawn_many_remote(peer, BUSY2)
        })
        .beside(Load::respawning),
        rt("yield_many", YIELDING_TASKS * YIELDS, 5.0, |peer| {
            yield_many(peer, tokio::task::yield_now)
        }),
        rt("ping_pong", PINGS, 4.0, ping_pong),
        rt("chained_spawn", CHAIN, 6.0, chained_spawn),
        rt("spawn_1", 1, 1.2, |peer| spawn_few(peer, 1)).without_drivers(),
        rt("spawn_10", 10, 1.2, |peer| spawn_few(peer, 10)).without_drivers(),
        rt("remote_spawn_1", REMOTE, 2.5, |peer| remote_spawn(peer, 1)),
        rt("remote_spawn_2", REMOTE, 2.5, |peer| remote_spawn(peer, 2)),
    ];
    // As their bench does, no more spawning threads than there are cores. For these no goal was set.
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if cores >= 4 {
        all.push(Workload::new(
            "tokio_rt",
            "remote_spawn_4",
            REMOTE,
            Goal::None,
            |peer| remote_spawn(peer, 4),
        ));
    }
    if cores >= 8 {
        all.push(Workload::new(
            "tokio_rt",
            "remote_spawn_8",
            REMOTE,
            Goal::None,
            |peer| remote_spawn(peer, 8),
        ));
    }
    all
}

/// Spawns `MANY` tasks that count down; the last one reports.
pub(super) fn spawn_countdown<P: Peer>(left: &Arc<AtomicUsize>, done: &SyncSender<()>) {
    for _ in 0..MANY {
        let (left, done) = (Arc::clone(left), done.clone());
        P::detach(P::spawn(async move {
            if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                done.send(()).expect("the bench waits");
            }
        }));
    }
}

/// Spawns from the root of `block_on`. tokio calls it local, but in all contenders that thread is no worker.
fn spawn_many_local<P: Peer>(peer: &Rc<P>) -> Round {
    let (done, finished) = mpsc::sync_channel(1_000);
    let (peer, left) = (Rc::clone(peer), Arc::new(AtomicUsize::new(0)));
    Box::new(move || {
        left.store(MANY, Ordering::Relaxed);
        peer.block_on(async {
            spawn_countdown::<P>(&left, &done);
            finished.recv().expect("the last task reports");
        });
    })
}

/// Spawns from outside, then awaits every task; onto idle workers, or onto those that a [`Load`] keeps busy.
fn spawn_many_remote<P: Peer>(peer: &Rc<P>, many: usize) -> Round {
    let (peer, mut tasks) = (Rc::clone(peer), Vec::with_capacity(many));
    Box::new(move || {
        for _ in 0..many {
            tasks.push(peer.spawn_from_outside(async {}));
        }
        peer.block_on(async {
            for task in tasks.drain(..) {
                P::join(task).await;
            }
        });
    })
}

/// Each task spawns the next: one runnable task at any time, so never anything to share.
fn chained_spawn<P: Peer>(peer: &Rc<P>) -> Round {
    let (done, finished) = mpsc::sync_channel(1_000);
    let peer = Rc::clone(peer);
    Box::new(move || {
        let done = done.clone();
        peer.block_on(async {
            P::detach(P::spawn(async move { link::<P>(done, CHAIN) }));
            finished.recv().expect("the last task reports");
        });
    })
}

/// The rest of a chain of spawns, so many tasks long.
pub(super) fn link<P: Peer>(done: SyncSender<()>, left: usize) {
    if left == 0 {
        done.send(()).expect("the bench waits");
    } else {
        P::detach(P::spawn(async move { link::<P>(done, left - 1) }));
    }
}

/// Spawns a few tasks that yield once and awaits them: two thread wake-ups, and little else.
fn spawn_few<P: Peer>(peer: &Rc<P>, tasks: usize) -> Round {
    async fn work() -> usize {
        let two = 1 + 1;
        tokio::task::yield_now().await;
        black_box(two)
    }

    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            let mut spawned = Vec::with_capacity(tasks);
            for _ in 0..tasks {
                spawned.push(P::spawn(work()));
            }
            for task in spawned {
                assert_eq!(P::join(task).await, 2);
            }
        });
    })
}

/// Several threads spawn at once from outside, each its part of `REMOTE` tasks; the caller awaits them all.
fn remote_spawn<P: Peer>(peer: &Rc<P>, threads: usize) -> Round {
    let (peer, part) = (Rc::clone(peer), REMOTE / threads);
    Box::new(move || {
        let (peer, barrier) = (&*peer, &Barrier::new(threads));
        let spawn_part = || {
            let mut tasks = Vec::with_capacity(part);
            barrier.wait();
            for _ in 0..part {
                tasks.push(peer.spawn_from_outside(async {}));
            }
            tasks
        };
        let tasks: Vec<_> = thread::scope(|scope| {
            let spawning: Vec<_> = (0..threads).map(|_| scope.spawn(spawn_part)).collect();
            let parts = spawning.into_iter();
            parts
                .flat_map(|thread| thread.join().expect("spawning does not panic"))
                .collect()
        });
        peer.block_on(async {
            for task in tasks {
                P::join(task).await;
            }
        });
    })
}

/// Tasks that do nothing but yield, in this way.
pub(super) fn yield_many<P, Y>(peer: &Rc<P>, yield_now: fn() -> Y) -> Round
where
    P: Peer,
    Y: Future<Output = ()> + Send + 'static,
{
    let (done, finished) = mpsc::sync_channel(YIELDING_TASKS);
    let peer = Rc::clone(peer);
    Box::new(move || {
        for _ in 0..YIELDING_TASKS {
            let done = done.clone();
            P::detach(peer.spawn_from_outside(async move {
                for _ in 0..YIELDS {
                    yield_now().await;
                }
                done.send(()).expect("the bench waits");
            }));
        }
        for _ in 0..YIELDING_TASKS {
            finished.recv().expect("every task reports");
        }
    })
}

/// Pairs of tasks that exchange one message each way.
fn ping_pong<P: Peer>(peer: &Rc<P>) -> Round {
    let (done, finished) = mpsc::sync_channel(1_000);
    let (peer, left) = (Rc::clone(peer), Arc::new(AtomicUsize::new(0)));
    Box::new(move || {
        left.store(PINGS, Ordering::Relaxed);
        let (left, done) = (Arc::clone(&left), done.clone());
        peer.block_on(async {
            P::detach(P::spawn(spawn_pings::<P>(PINGS, left, done)));
            finished.recv().expect("the last pair reports");
        });
    })
}

/// Spawns so many pairs.
pub(super) async fn spawn_pings<P: Peer>(
    pings: usize,
    left: Arc<AtomicUsize>,
    done: SyncSender<()>,
) {
    async fn ping<P: Peer>(left: Arc<AtomicUsize>, done: SyncSender<()>) {
        let (ping, pinged) = oneshot::channel();
        let (pong, ponged) = oneshot::channel();
        P::detach(P::spawn(async move {
            pinged.await.expect("the other side pings");
            pong.send(()).expect("the other side waits");
        }));
        ping.send(()).expect("the other side waits");
        ponged.await.expect("the other side answers");
        if left.fetch_sub(1, Ordering::Relaxed) == 1 {
            done.send(()).expect("the bench waits");
        }
    }
    for _ in 0..pings {
        P::detach(P::spawn(ping::<P>(Arc::clone(&left), done.clone())));
    }
}
