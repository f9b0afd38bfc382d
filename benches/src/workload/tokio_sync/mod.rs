//! tokio's `benches/sync_*.rs` (MIT licence, copyright tokio contributors): tokio's channels and locks, between tasks of
//! either runtime. What these benches do without a second task is left out: no scheduler is in it.

mod channels;
mod fan_out;
mod semaphore;

use std::rc::Rc;

use super::{Round, Workload};
use crate::{Goal, Peer};

pub(super) fn workloads<P: Peer>() -> Vec<Workload<P>> {
    let mut all = channels::workloads();
    all.extend(fan_out::workloads());
    all.extend(semaphore::workloads());
    all
}

fn sync<P>(name: &'static str, ops: usize, goal: f64, prepare: fn(&Rc<P>) -> Round) -> Workload<P> {
    Workload::new("tokio_sync", name, ops, Goal::Ratio(goal), prepare).without_drivers()
}
