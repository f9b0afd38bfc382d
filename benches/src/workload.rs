//! The workloads, each written once for every [`Peer`].
//!
//! Except where a row says otherwise they are those of tokio's `benches/rt_multi_threaded.rs` and
//! `benches/spawn.rs` (MIT licence, copyright tokio contributors), with their sizes, written anew.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};

use tokio::sync::oneshot;

use crate::Peer;

/// One round of a workload, over and over; what needs no repeating is done already.
pub type Round<'a> = Box<dyn FnMut() + 'a>;

/// A workload for the runtime `P`.
///
/// ```
/// use polity_benches::{Peer, Tokio, named};
///
/// let (peer, workload) = (Tokio::start(1), named::<Tokio>("chained_spawn"));
/// (workload.prepare)(&peer)();
/// assert_eq!(workload.ops, 1_000);
/// ```
pub struct Workload<P> {
    /// Whose it is: `tokio`, or `polity` for our own.
    pub suite: &'static str,
    /// Its name there.
    pub name: &'static str,
    /// How many operations a round counts for: "ns per op" is a round's time divided by this.
    pub ops: u64,
    /// Makes the rounds.
    pub prepare: for<'a> fn(&'a P) -> Round<'a>,
}

const MANY: usize = 10_000;
const YIELDING_TASKS: usize = 200;
const YIELDS: usize = 1_000;
const PINGS: usize = 1_000;
const CHAIN: usize = 1_000;

/// Every workload, for the runtime `P`.
///
/// ```
/// use polity_benches::{Tokio, all};
/// assert!(all::<Tokio>().iter().any(|workload| workload.name == "yield_many"));
/// ```
pub fn all<P: Peer>() -> Vec<Workload<P>> {
    fn row<P>(
        suite: &'static str,
        name: &'static str,
        ops: usize,
        prepare: for<'a> fn(&'a P) -> Round<'a>,
    ) -> Workload<P> {
        Workload {
            suite,
            name,
            ops: ops as u64,
            prepare,
        }
    }
    vec![
        row("tokio", "spawn_many_local", MANY, spawn_many_local),
        row("polity", "spawn_many_worker", MANY, spawn_many_worker),
        row(
            "tokio",
            "spawn_many_remote_idle",
            MANY,
            spawn_many_remote_idle,
        ),
        row("tokio", "chained_spawn", CHAIN, chained_spawn),
        row("tokio", "spawn_1", 1, |peer| spawn_few(peer, 1)),
        row("tokio", "spawn_10", 10, |peer| spawn_few(peer, 10)),
        row("tokio", "yield_many", YIELDING_TASKS * YIELDS, yield_many),
        row("tokio", "ping_pong", PINGS, ping_pong),
    ]
}

/// One of [`all`].
///
/// # Panics
///
/// If there is none of that name.
///
/// ```
/// use polity_benches::{Tokio, named};
/// assert_eq!(named::<Tokio>("ping_pong").suite, "tokio");
/// ```
pub fn named<P: Peer>(name: &str) -> Workload<P> {
    all()
        .into_iter()
        .find(|workload| workload.name == name)
        .unwrap_or_else(|| panic!("no workload is called {name}"))
}

/// Spawns `MANY` tasks that count down; the last one reports.
fn spawn_countdown<P: Peer>(left: &Arc<AtomicUsize>, done: &SyncSender<()>) {
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
fn spawn_many_local<P: Peer>(peer: &P) -> Round<'_> {
    let (done, finished) = mpsc::sync_channel(1_000);
    let left = Arc::new(AtomicUsize::new(0));
    Box::new(move || {
        left.store(MANY, Ordering::Relaxed);
        peer.block_on(async {
            spawn_countdown::<P>(&left, &done);
            finished.recv().expect("the last task reports");
        });
    })
}

/// The same, spawned inside one task: really local. Our own.
fn spawn_many_worker<P: Peer>(peer: &P) -> Round<'_> {
    let (done, finished) = mpsc::sync_channel(1_000);
    let left = Arc::new(AtomicUsize::new(0));
    Box::new(move || {
        left.store(MANY, Ordering::Relaxed);
        let (left, done) = (Arc::clone(&left), done.clone());
        P::detach(peer.spawn_from_outside(async move { spawn_countdown::<P>(&left, &done) }));
        finished.recv().expect("the last task reports");
    })
}

/// Spawns onto idle workers from outside, then awaits every task.
fn spawn_many_remote_idle<P: Peer>(peer: &P) -> Round<'_> {
    let mut tasks = Vec::with_capacity(MANY);
    Box::new(move || {
        for _ in 0..MANY {
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
fn chained_spawn<P: Peer>(peer: &P) -> Round<'_> {
    fn link<P: Peer>(done: SyncSender<()>, left: usize) {
        if left == 0 {
            done.send(()).expect("the bench waits");
        } else {
            P::detach(P::spawn(async move { link::<P>(done, left - 1) }));
        }
    }

    let (done, finished) = mpsc::sync_channel(1_000);
    Box::new(move || {
        let done = done.clone();
        peer.block_on(async {
            P::detach(P::spawn(async move { link::<P>(done, CHAIN) }));
            finished.recv().expect("the last task reports");
        });
    })
}

/// Spawns a few tasks that yield once and awaits them: two thread wake-ups, and little else.
fn spawn_few<P: Peer>(peer: &P, tasks: usize) -> Round<'_> {
    async fn work<P: Peer>() -> usize {
        let two = 1 + 1;
        P::yield_now().await;
        black_box(two)
    }

    Box::new(move || {
        peer.block_on(async {
            let mut spawned = Vec::with_capacity(tasks);
            for _ in 0..tasks {
                spawned.push(P::spawn(work::<P>()));
            }
            for task in spawned {
                assert_eq!(P::join(task).await, 2);
            }
        });
    })
}

/// Tasks that do nothing but yield.
fn yield_many<P: Peer>(peer: &P) -> Round<'_> {
    let (done, finished) = mpsc::sync_channel(YIELDING_TASKS);
    Box::new(move || {
        for _ in 0..YIELDING_TASKS {
            let done = done.clone();
            P::detach(peer.spawn_from_outside(async move {
                for _ in 0..YIELDS {
                    P::yield_now().await;
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
fn ping_pong<P: Peer>(peer: &P) -> Round<'_> {
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

    let (done, finished) = mpsc::sync_channel(1_000);
    let left = Arc::new(AtomicUsize::new(0));
    Box::new(move || {
        left.store(PINGS, Ordering::Relaxed);
        let (left, done) = (Arc::clone(&left), done.clone());
        peer.block_on(async {
            P::detach(P::spawn(async move {
                for _ in 0..PINGS {
                    P::detach(P::spawn(ping::<P>(Arc::clone(&left), done.clone())));
                }
            }));
            finished.recv().expect("the last pair reports");
        });
    })
}
