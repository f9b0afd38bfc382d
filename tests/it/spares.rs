//! Spares: what goes on while threads are stuck. In a policy's callback: `stuck.rs`; in a long poll: here.

mod caps;
mod comebacks;
pub(crate) mod ledger;
mod long_polls;
mod stress;
pub(crate) mod trap;
mod trials;
mod turns;

use std::time::Duration;

/// `POLITY_TRIALS`: tests that measure say what they found, and judge it.
fn is_long_form() -> bool {
    std::env::var_os("POLITY_TRIALS").is_some()
}

/// How often a test measures.
fn trials(short_form: usize) -> usize {
    match std::env::var("POLITY_TRIALS") {
        Ok(trials) => trials.parse().expect("POLITY_TRIALS is a number"),
        Err(_) => short_form,
    }
}

/// Sorts, prints, and returns median, p90, p99 and the longest.
fn percentiles(what: &str, took: &mut [Duration]) -> [Duration; 4] {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    let [p50, p90, p99, max] = [50, 90, 99, 100].map(at);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!(
        "{what}: p50 {p50:.2?}, p90 {p90:.2?}, p99 {p99:.2?}, max {max:.2?}; load average {}",
        load.trim()
    );
    [p50, p90, p99, max]
}
