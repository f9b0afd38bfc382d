//! What it costs to bring an empty task into the world and through its end.
//!
//! **Use it** after any change to task cells, spawn paths, ingress, stealing or parking. **Not for** throughput of
//! real tasks (these are empty) nor for what a policy adds (`policy_call`).
//!
//! | group | what it shows |
//! |---|---|
//! | `spawn_many_local` | 10,000 spawns from the root of `block_on`, which is no worker in any contender |
//! | `spawn_many_worker` | the same from inside a task: worker-local spawn, overflow, sharing |
//! | `spawn_many_remote_idle` | 10,000 spawns from outside onto idle workers, then awaited one by one |
//! | `spawn_many_remote_busy1`, `_busy2` | the same while other tasks stall the workers for 10 µs at a time |
//! | `remote_spawn_1`, `_2` | 12,800 spawns from that many threads at once, then awaited |
//! | `chained_spawn` | 1,000 tasks, each spawns the next: the path without any sharing |
//! | `spawn_1`, `spawn_10` | a few tasks, each yields once, awaited by a blocked thread: thread wake-ups |
//!
//! Workloads: tokio `benches/rt_multi_threaded.rs`, `benches/spawn.rs` and `benches/remote_spawn.rs` (MIT);
//! `spawn_many_worker` is ours. The number behind the name counts workers.
//!
//! **Noise.** On two cores the spawning thread and two workers compete, so `spawn_many_*` swing by a third between
//! runs. One worker is often *faster* than two: the cost is the sharing. For a ratio worth quoting run `versus`.
//!
//! **Do not rank runtimes by `spawn_1` and `spawn_10`.** They have two speeds, a factor of four apart: the kernel
//! puts the worker on the blocked thread's core or on the other. And on one core `spawn_10` shows the order in which
//! tasks finish: each handle awaited in that order costs a switch to the blocked thread and back. tokio lets tasks
//! that yielded go on in reverse, so the handle awaited first is ready last and most switches vanish; with the
//! handles awaited in reverse, tokio went from 14 to 29 µs a round and polity from 33 to 6.

fn main() {
    let mut criterion = polity_benches::settings();
    for workers in [2, 1] {
        for name in [
            "spawn_many_local",
            "spawn_many_worker",
            "spawn_many_remote_idle",
            "spawn_many_remote_busy1",
            "spawn_many_remote_busy2",
            "remote_spawn_1",
            "remote_spawn_2",
            "chained_spawn",
            "spawn_1",
            "spawn_10",
        ] {
            polity_benches::bench_runtimes(&mut criterion, name, workers);
        }
    }
    criterion.final_summary();
}
