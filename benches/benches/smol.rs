//! async-executor's own benches, on polity and on both executors of that crate.
//!
//! **Use it** to see what a change to spawn, join and wake does where a thread outside awaits all tasks. **Not for** a
//! web server: `web_server` has channels and dice, and no sockets.
//!
//! | group | what it shows |
//! |---|---|
//! | `spawn_one` | one empty task, awaited by a blocked thread: thread wake-ups |
//! | `spawn_many` | 25,000 empty tasks, spawned and awaited by the same thread |
//! | `spawn_recursively` | 300 chains of tasks, each of 300 that await one another |
//! | `yield_now` | 300 tasks × 300 yields |
//! | `channels` | a token goes 300 times around a ring of 300 tasks |
//! | `web_server` | 300 clients; half of them ask a database, one task, 150 to 300 times |
//!
//! Workloads: async-executor `benches/executor.rs` (Apache-2.0 or MIT). `spawn_one` has two speeds, as `spawn_1` has.

fn main() {
    let mut criterion = polity_benches::settings();
    polity_benches::bench_suite(&mut criterion, "async-executor", 2);
    criterion.final_summary();
}
