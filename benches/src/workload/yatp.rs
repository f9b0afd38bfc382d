//! yatp's `benches/` for its future pool (Apache-2.0, copyright TiKV Project Authors).
//!
//! **The peer is tokio, one of those that yatp's benches compare with.** yatp itself cannot be measured here: it is not
//! on crates.io, its users take it from its repository, and this workspace takes nothing that is not in a registry
//! (`deny.toml`). The goals are those that were set against yatp.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::Poll;
use std::thread;

use super::tokio_rt::{link, spawn_pings};
use super::{Round, Workload};
use crate::{Goal, Peer};

const YIELDING_TASKS_PER_CORE: usize = 50;

pub(super) fn workloads<P: Peer>() -> Vec<Workload<P>> {
    fn pool<P>(name: &'static str, ops: usize, prepare: fn(&Rc<P>) -> Round) -> Workload<P> {
        Workload::new("yatp", name, ops, Goal::Ratio(2.0), prepare).without_drivers()
    }
    let tasks = yielding_tasks();
    vec![
        pool("chained_spawn_256", 256, |peer| chained_spawn(peer, 256)),
        pool("chained_spawn_512", 512, |peer| chained_spawn(peer, 512)),
        pool("chained_spawn_1024", 1_024, |peer| {
            chained_spawn(peer, 1_024)
        }),
        pool("ping_pong_256", 256, |peer| ping_pong(peer, 256)),
        pool("ping_pong_512", 512, |peer| ping_pong(peer, 512)),
        pool("ping_pong_1024", 1_024, |peer| ping_pong(peer, 1_024)),
        pool("spawn_many_1024", 1_024, |peer| spawn_many(peer, 1_024)),
        pool("spawn_many_4096", 4_096, |peer| spawn_many(peer, 4_096)),
        pool("spawn_many_8192", 8_192, |peer| spawn_many(peer, 8_192)),
        pool("spawn_many_16384", 16_384, |peer| spawn_many(peer, 16_384)),
        pool("yield_many_256", tasks * 256, |peer| yield_many(peer, 256)),
        pool("yield_many_512", tasks * 512, |peer| yield_many(peer, 512)),
        pool("yield_many_1024", tasks * 1_024, |peer| {
            yield_many(peer, 1_024)
        }),
    ]
}

fn yielding_tasks() -> usize {
    YIELDING_TASKS_PER_CORE * thread::available_parallelism().map_or(1, usize::from)
}

/// As tokio's, except that the first task comes from outside.
fn chained_spawn<P: Peer>(peer: &Rc<P>, chain: usize) -> Round {
    let (done, finished) = mpsc::sync_channel(1_000);
    let peer = Rc::clone(peer);
    Box::new(move || {
        let done = done.clone();
        P::detach(peer.spawn_from_outside(async move { link::<P>(done, chain) }));
        finished.recv().expect("the last task reports");
    })
}

/// As tokio's, except that the first task comes from outside.
fn ping_pong<P: Peer>(peer: &Rc<P>, pings: usize) -> Round {
    let (done, finished) = mpsc::sync_channel(1_000);
    let (peer, left) = (Rc::clone(peer), Arc::new(AtomicUsize::new(0)));
    Box::new(move || {
        left.store(pings, Ordering::Relaxed);
        let (left, done) = (Arc::clone(&left), done.clone());
        P::detach(peer.spawn_from_outside(spawn_pings::<P>(pings, left, done)));
        finished.recv().expect("the last pair reports");
    })
}

/// Tasks from outside that count down; nobody awaits them.
fn spawn_many<P: Peer>(peer: &Rc<P>, many: usize) -> Round {
    let (done, finished) = mpsc::sync_channel(1_000);
    let (peer, left) = (Rc::clone(peer), Arc::new(AtomicUsize::new(0)));
    Box::new(move || {
        left.store(many, Ordering::Relaxed);
        for _ in 0..many {
            let (left, done) = (Arc::clone(&left), done.clone());
            P::detach(peer.spawn_from_outside(async move {
                if left.fetch_sub(1, Ordering::Relaxed) == 1 {
                    done.send(()).expect("the bench waits");
                }
            }));
        }
        finished.recv().expect("the last task reports");
    })
}

/// Tasks that wake themselves so many times, with no yield of any runtime.
fn yield_many<P: Peer>(peer: &Rc<P>, yields: usize) -> Round {
    let tasks = yielding_tasks();
    let (done, finished) = mpsc::sync_channel(tasks);
    let peer = Rc::clone(peer);
    Box::new(move || {
        for _ in 0..tasks {
            let (done, mut left) = (done.clone(), yields);
            P::detach(peer.spawn_from_outside(async move {
                poll_fn(|context| {
                    if left == 0 {
                        return Poll::Ready(());
                    }
                    left -= 1;
                    context.waker().wake_by_ref();
                    Poll::Pending
                })
                .await;
                done.send(()).expect("the bench waits");
            }));
        }
        for _ in 0..tasks {
            finished.recv().expect("every task reports");
        }
    })
}
