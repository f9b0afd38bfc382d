//! What it costs to go once around: a task gives its worker up, is queued, and is polled again.
//!
//! **Use it** after any change to the worker's cycle, the queues or the poll path: it is the purest of the benches,
//! 200,000 polls and as many re-enqueues with nothing allocated. **Not for** wakes (`yield` never leaves the worker)
//! nor fairness: nobody looks at the order.
//!
//! `yield_many`: 200 tasks × 1,000 yields, spawned from outside. From tokio `benches/rt_multi_threaded.rs` (MIT);
//! async-executor's `benches/executor.rs` has the same idea with 300 × 300. The number behind the name counts
//! workers; every runtime yields by its own `yield_now`.
//!
//! **Noise.** Small per operation but bimodal with two workers: a run in which the tasks stay where they were
//! spawned and one in which they are stolen back and forth differ. Look at one worker first, it is steady.

fn main() {
    let mut criterion = polity_benches::settings();
    for workers in [2, 1] {
        polity_benches::bench_runtimes(&mut criterion, "yield_many", workers);
    }
    criterion.final_summary();
}
