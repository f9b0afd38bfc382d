//! What it costs when two tasks talk: spawn, wake, answer, wake.
//!
//! **Use it** after any change to wakers, the wake path or the LIFO slot. **Not for** latency of a single hop: 1,000
//! pairs run at once, so this is throughput of wakes.
//!
//! `ping_pong`: 1,000 × (spawn a task that makes two tokio oneshots and spawns a partner; one message each way). From
//! tokio `benches/rt_multi_threaded.rs` (MIT). All contenders use tokio's oneshot, so its cost is in every figure
//! alike and pulls the ratios towards 1. The number behind the name counts workers.
//!
//! **Noise.** With two workers it depends on whether both halves of a pair stay on one; 20 % between runs is normal.

fn main() {
    let mut criterion = polity_benches::settings();
    for workers in [2, 1] {
        polity_benches::bench_runtimes(&mut criterion, "ping_pong", workers);
    }
    criterion.final_summary();
}
