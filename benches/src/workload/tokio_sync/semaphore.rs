//! `sync_semaphore.rs`, on many threads.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::sync;
use crate::Peer;
use crate::workload::{Round, Workload};

const TASKS: usize = 6;

pub(super) fn workloads<P: Peer>() -> Vec<Workload<P>> {
    vec![
        sync("semaphore_uncontended", TASKS, 1.1, |peer| six(peer, 10)),
        sync("semaphore_contended", TASKS, 1.1, |peer| six(peer, 5)),
    ]
}

async fn acquire(semaphore: Arc<Semaphore>) {
    let permit = semaphore.acquire().await;
    drop(permit.expect("nobody closes it"));
}

/// Six tasks take a permit and give it back, and the root of `block_on` awaits them all at once.
fn six<P: Peer>(peer: &Rc<P>, permits: usize) -> Round {
    let (peer, semaphore) = (Rc::clone(peer), Arc::new(Semaphore::new(permits)));
    Box::new(move || {
        let spawn = || P::join(P::spawn(acquire(Arc::clone(&semaphore))));
        peer.block_on(async {
            tokio::join!(spawn(), spawn(), spawn(), spawn(), spawn(), spawn());
        });
    })
}
