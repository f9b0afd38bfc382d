//! What the tests of callbacks that do not return share.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use polity_policy::WorkerId;

use crate::hosting::LoadedPolicy;
use crate::machine::ThreadState;
use crate::scripted::world::{Script, Thread, World};
use crate::seat::SeatId;
use crate::watchdog::Finding;
use crate::worker::Pass;

// Tags of tasks in whose `enqueue` something happens. The policies of these tests forget all tasks.
pub(super) const LONG: u64 = 1;
pub(super) const BESIDE: u64 = 2;

pub(super) fn on_a_processor(ran_ns: u64) -> Thread {
    Thread {
        processor_time: Some(ran_ns),
        state: Some(ThreadState::Runnable),
    }
}

pub(super) fn blocked() -> Thread {
    Thread {
        processor_time: Some(0),
        state: Some(ThreadState::Blocked),
    }
}

/// Loads a policy whose `enqueue` of a task tagged [`LONG`] is `body`, and passes with worker 0, which offers one.
pub(super) fn in_enqueue(
    world: World,
    body: impl Fn() + Send + Sync + 'static,
) -> (LoadedPolicy, Pass) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let policy = world.load(Script::new().enqueue(move |_, task| {
        if task.tag() == LONG {
            counted.fetch_add(1, Ordering::Relaxed);
            body();
        }
    }));
    drop(world.spawn(LONG, async {}));
    let pass = world.pass(0);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    (policy, pass)
}

pub(super) fn stuck(findings: &[Finding]) -> Vec<(SeatId, WorkerId)> {
    let stuck = findings.iter().filter_map(|finding| match finding {
        Finding::Stuck { seat, worker } => Some((*seat, *worker)),
        _ => None,
    });
    stuck.collect()
}

pub(super) const FIRST: (SeatId, WorkerId) = (SeatId::new(0), WorkerId::new(0));
pub(super) const SECOND: (SeatId, WorkerId) = (SeatId::new(1), WorkerId::new(1));
