//! The benches of yatp's future pool, on polity and on tokio, with which yatp's authors compare too: yatp itself is not
//! on crates.io.
//!
//! **Use it** to see whether a change pays at small sizes as at large ones. **Not for** more than that: `spawn`,
//! `yield` and `ping_pong` measure nearly the same things. Here everything is spawned from outside.
//!
//! Workloads: yatp `benches/` (Apache-2.0). The number in the name is the length of the chain, the number of pairs, of
//! tasks, or of yields of each of 50 tasks per core.

fn main() {
    let mut criterion = polity_benches::settings();
    polity_benches::bench_suite(&mut criterion, "yatp", 2);
    criterion.final_summary();
}
