//! Our own: what the peers' benches leave out.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::tokio_rt::{MANY, YIELDING_TASKS, YIELDS, spawn_countdown};
use super::{Round, Workload};
use crate::{Goal, Peer};

pub(super) fn workloads<P: Peer>() -> Vec<Workload<P>> {
    fn own<P>(name: &'static str, ops: usize, prepare: fn(&Rc<P>) -> Round) -> Workload<P> {
        Workload::new("polity", name, ops, Goal::None, prepare)
    }
    vec![
        own("spawn_many_worker", MANY, spawn_many_worker),
        own("yield_many_own", YIELDING_TASKS * YIELDS, yield_many_own),
    ]
}

/// tokio's `spawn_many_local`, spawned inside one task: really local.
fn spawn_many_worker<P: Peer>(peer: &Rc<P>) -> Round {
    let (done, finished) = mpsc::sync_channel(1_000);
    let (peer, left) = (Rc::clone(peer), Arc::new(AtomicUsize::new(0)));
    Box::new(move || {
        left.store(MANY, Ordering::Relaxed);
        let (left, done) = (Arc::clone(&left), done.clone());
        P::detach(peer.spawn_from_outside(async move { spawn_countdown::<P>(&left, &done) }));
        finished.recv().expect("the last task reports");
    })
}

/// tokio's `yield_many`, each runtime by its own yield.
fn yield_many_own<P: Peer>(peer: &Rc<P>) -> Round {
    let (done, finished) = mpsc::sync_channel(YIELDING_TASKS);
    let peer = Rc::clone(peer);
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
