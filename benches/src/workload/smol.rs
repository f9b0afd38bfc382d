//! async-executor's `benches/executor.rs` (Apache-2.0 or MIT, smol-rs authors). All contenders use async-channel and
//! futures-lite's yield, as that bench does.

use std::future::Future;
use std::hint::black_box;
use std::mem;
use std::rc::Rc;

use async_channel::{Receiver, Sender, bounded};
use fastrand::Rng;
use futures_lite::future::{FutureExt, yield_now};

use super::{Round, Workload};
use crate::{Goal, Peer};

const TASKS: usize = 300;
const STEPS: usize = 300;
const LIGHT_TASKS: usize = 25_000;

pub(super) fn workloads<P: Peer>() -> Vec<Workload<P>> {
    fn smol<P>(
        name: &'static str,
        ops: usize,
        goal: f64,
        prepare: fn(&Rc<P>) -> Round,
    ) -> Workload<P> {
        Workload::new("async-executor", name, ops, Goal::Ratio(goal), prepare).without_drivers()
    }
    vec![
        smol("spawn_one", 1, 1.5, |peer| spawn_many(peer, 1)),
        smol("spawn_many", LIGHT_TASKS, 4.0, |peer| {
            spawn_many(peer, LIGHT_TASKS)
        }),
        smol("spawn_recursively", TASKS * STEPS, 4.0, spawn_recursively),
        smol("yield_now", TASKS * STEPS, 15.0, yield_many),
        smol("channels", TASKS * STEPS, 3.0, channels),
        smol("web_server", TASKS, 2.0, web_server),
    ]
}

async fn join_all<P: Peer>(tasks: Vec<P::Join<()>>) {
    for task in tasks {
        P::join(task).await;
    }
}

/// From the root of `block_on`, which is no worker: spawns empty tasks and awaits them.
fn spawn_many<P: Peer>(peer: &Rc<P>, many: usize) -> Round {
    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            let mut tasks = Vec::new();
            for _ in 0..many {
                tasks.push(P::spawn(async {}));
            }
            join_all::<P>(tasks).await;
        });
    })
}

/// Each task awaits one that it spawned, down to a depth.
fn spawn_recursively<P: Peer>(peer: &Rc<P>) -> Round {
    #[expect(
        clippy::manual_async_fn,
        reason = "it contains itself, so that it is `Send` has to be said"
    )]
    fn descend<P: Peer>(depth: usize) -> impl Future<Output = ()> + Send + 'static {
        async move {
            if depth > 0 {
                let below = async move { descend::<P>(depth - 1).boxed().await };
                P::join(P::spawn(below)).await;
            }
        }
    }

    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            let mut tasks = Vec::new();
            for _ in 0..TASKS {
                tasks.push(P::spawn(descend::<P>(STEPS)));
            }
            join_all::<P>(tasks).await;
        });
    })
}

/// Tasks that do nothing but yield.
fn yield_many<P: Peer>(peer: &Rc<P>) -> Round {
    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            let mut tasks = Vec::new();
            for _ in 0..TASKS {
                tasks.push(P::spawn(async {
                    for _ in 0..STEPS {
                        yield_now().await;
                    }
                }));
            }
            join_all::<P>(tasks).await;
        });
    })
}

/// A token goes around a ring of tasks, from channel to channel, with the root of `block_on` in the ring.
fn channels<P: Peer>(peer: &Rc<P>) -> Round {
    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            let mut tasks = Vec::new();
            let (first, mut last) = bounded(1);
            for _ in 0..TASKS {
                let (next, next_received) = bounded(1);
                let received = mem::replace(&mut last, next_received);
                tasks.push(P::spawn(async move {
                    for _ in 0..STEPS {
                        received.recv().await.expect("the ring is closed");
                        next.send(()).await.expect("the ring is closed");
                    }
                }));
            }
            for _ in 0..STEPS {
                first.send(()).await.expect("the ring is closed");
                last.recv().await.expect("the ring is closed");
            }
            join_all::<P>(tasks).await;
        });
    })
}

/// A server spawns a task for each client; half of these ask a database, a single task, a few hundred times.
fn web_server<P: Peer>(peer: &Rc<P>) -> Round {
    let peer = Rc::clone(peer);
    Box::new(move || {
        peer.block_on(async {
            let (queries, queried) = bounded(TASKS / 5);
            let mut rng = Rng::with_seed(0x1234_5678);
            let clients = rng.fork();
            let database = P::spawn(database(rng, queried));
            let server = P::spawn(serve::<P>(clients, queries));
            P::join(server).await;
            P::join(database).await;
        });
    })
}

/// Answers until the last client is gone.
async fn database(mut rng: Rng, queried: Receiver<Sender<usize>>) {
    while let Ok(reply) = queried.recv().await {
        for _ in 0..rng.usize(..10) {
            yield_now().await;
        }
        // A client waits for its reply, so it is never gone.
        let _ = reply.send(rng.usize(..)).await;
    }
}

async fn serve<P: Peer>(mut rng: Rng, queries: Sender<Sender<usize>>) {
    for client in 0..TASKS {
        if rng.usize(..=16) == 16 {
            yield_now().await;
        }
        P::detach(P::spawn(answer(rng.fork(), queries.clone())));
        if client & 16 == 0 {
            yield_now().await;
        }
    }
}

/// One client's request: from the cache, or by many questions to the database.
async fn answer(mut rng: Rng, queries: Sender<Sender<usize>>) {
    if rng.bool() {
        yield_now().await;
        return;
    }
    for _ in 0..rng.usize(STEPS / 2..STEPS) {
        let (reply, replied) = bounded(1);
        queries.send(reply).await.expect("the database runs");
        black_box(replied.recv().await.expect("the database answers"));
    }
    for _ in 0..rng.usize(3..16) {
        yield_now().await;
    }
}
