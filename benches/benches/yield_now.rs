//! What it costs to go once around: a task gives its worker up, is queued, and is polled again.
//!
//! **Use it** after any change to the worker's cycle, the queues or the poll path: it is the purest of the benches,
//! 200,000 polls and as many re-enqueues with nothing allocated. **Not for** wakes (`yield` never leaves the worker)
//! nor fairness: nobody looks at the order.
//!
//! `yield_many`: 200 tasks × 1,000 yields, spawned from outside, all by tokio's `yield_now`. From tokio
//! `benches/rt_multi_threaded.rs` (MIT); async-executor's `benches/executor.rs` has the same idea with 300 × 300 (bench
//! `smol`). `yield_many_own`: the same, each runtime by its own `yield_now`. The number behind the name counts workers.
//!
//! **Noise.** Small per operation but bimodal with two workers: a run in which the tasks stay where they were
//! spawned and one in which they are stolen back and forth differ. Look at one worker first, it is steady.
//!
//! `yield_if_due`: what a task pays for asking whether its slice is over, when it is not; clock readings included.

use std::time::{Duration, Instant};

use criterion::Criterion;
use futures_lite::future::block_on;

/// As many questions, in slices of 20,000: the poll ends before a millisecond has passed.
#[expect(clippy::disallowed_methods, reason = "benches measure")]
async fn ask(times: u64) -> Duration {
    let mut took = Duration::ZERO;
    let mut left = times;
    while left > 0 {
        let now = left.min(20_000);
        let start = Instant::now();
        for _ in 0..now {
            polity::yield_if_due().await;
        }
        took += start.elapsed();
        left -= now;
        polity::yield_now().await;
    }
    took
}

fn bench_yield_if_due(criterion: &mut Criterion) {
    let runtime = polity::Builder::new().worker_threads(1).build();
    let runtime = runtime.expect("the runtime starts");
    criterion.bench_function("yield_if_due/not_due", |bencher| {
        bencher.iter_custom(|times| block_on(runtime.spawn(ask(times))).expect("it ends"));
    });
}

fn main() {
    let mut criterion = polity_benches::settings();
    bench_yield_if_due(&mut criterion);
    for workers in [2, 1] {
        for name in ["yield_many", "yield_many_own"] {
            polity_benches::bench_runtimes(&mut criterion, name, workers);
        }
    }
    criterion.final_summary();
}
