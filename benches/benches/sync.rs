//! What it costs when tasks talk through tokio's channels and locks, on polity and on tokio.
//!
//! **Use it** after any change to wakers, the wake path or the budget that tokio's primitives ask for. **Not for**
//! choosing a channel: what is compared is the runtime beneath the same channel.
//!
//! | group | what it shows |
//! |---|---|
//! | `mpsc_*` | five tasks send 1,000 messages each to the root of `block_on`; `full` with room for 100 |
//! | `request_reply` | two hops between a task and the root, one at a time |
//! | `notify_waiters_*` | so many tasks are woken at once, from outside |
//! | `watch_*`, `broadcast_*` | one value to so many tasks, each of which formats a few floats |
//! | `semaphore_*` | six tasks take one of ten permits, or of five |
//!
//! Workloads: tokio `benches/sync_*.rs` (MIT). Where tasks send to the root, a thread that is no worker takes part: on
//! two cores three threads compete, and 20 % between runs is normal.

fn main() {
    let mut criterion = polity_benches::settings();
    polity_benches::bench_suite(&mut criterion, "tokio_sync", 2);
    criterion.final_summary();
}
