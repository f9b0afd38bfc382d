//! Tasks that take all the processors there are, a slice at a time.
//!
//! Between two slices they wake themselves, as any future can, and not by the runtime's own `yield_now`: that of tokio puts
//! a task aside until the worker has nothing else to do, where no other worker finds it. Then in some runs one worker has
//! the whole load, pings meet an idle one, and it is not the load that was asked for.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use futures_lite::future::yield_now;

use crate::Peer;
use crate::clock::now;

const SLICE: Duration = Duration::from_micros(100);
const TASKS_PER_WORKER: usize = 4;

/// Starts them, to the end of the process, and returns the count of their slices. To be called on the runtime.
pub(crate) fn spawn_slices<P: Peer>(workers: usize) -> Arc<AtomicU64> {
    let done = Arc::new(AtomicU64::new(0));
    for _ in 0..TASKS_PER_WORKER * workers {
        let done = Arc::clone(&done);
        P::detach(P::spawn(async move {
            loop {
                compute();
                done.fetch_add(1, Relaxed); // a count that stands alone
                yield_now().await;
            }
        }));
    }
    done
}

fn compute() {
    let begun = now();
    let mut state = 1u64;
    while begun.elapsed() < SLICE {
        for _ in 0..200 {
            state = black_box(
                state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1),
            );
        }
    }
}
