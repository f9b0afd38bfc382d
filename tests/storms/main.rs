//! Storms: a process is stopped and continued at random, sixteen busy threads compete with two workers, tasks hog them for up
//! to 300 ms, and the stall timeout is 500 ms or a second. None of that may eject a policy. Policies that really are wrong are
//! loaded in between, and each must be found.
//!
//! Some seconds in CI. For longer, and for a seed that has failed:
//!
//! ```sh
//! POLITY_STORM_SECONDS=900 cargo test -p polity-tests --release --test storms -- --nocapture
//! POLITY_SEED=1234 cargo test -p polity-tests --test storms -- --nocapture
//! ```
//!
//! The seed decides what is done, not when the kernel lets it happen.

#[path = "../signals/process.rs"]
#[expect(dead_code, reason = "the signal tests use all of it")]
mod process;
mod storm;
mod workload;
