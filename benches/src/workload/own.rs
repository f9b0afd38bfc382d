//! Our own: what the peers' benches leave out.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use super::tokio_rt::{MANY, YIELDING_TASKS, YIELDS, spawn_countdown, yield_many};
use super::{Round, Workload};
use crate::{Goal, Peer};

pub(super) fn workloads<P: Peer>() -> Vec<Workload<P>> {
    fn own<P>(name: &'static str, ops: usize, prepare: fn(&Rc<P>) -> Round) -> Workload<P> {
        Workload::new("polity", name, ops, Goal::None, prepare)
    }
    vec![
        own("spawn_many_worker", MANY, spawn_many_worker),
        own("yield_many_own", YIELDING_TASKS * YIELDS, |peer| {
            // Each runtime by its own yield.
            yield_many(peer, P::yield_now)
        }),
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
