//! The one place of these suites that reads a clock or sleeps: both are what a load generator lives by.

use std::thread;
use std::time::{Duration, Instant};

#[expect(clippy::disallowed_methods, reason = "the seam is the runtime's")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Blocks this thread.
#[expect(clippy::disallowed_methods, reason = "the seam is the runtime's")]
pub(crate) fn block_for(time: Duration) {
    thread::sleep(time);
}

/// Blocks this thread until then, or not at all.
pub(crate) fn block_until(then: Instant) {
    block_for(then.saturating_duration_since(now()));
}
