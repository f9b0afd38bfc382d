//! One value per worker, each on cache lines of its own, so that what one worker counts does not slow the others.
//!
//! Not for what must be exact across workers: users read and write with plain relaxed loads and stores.

use std::sync::OnceLock;

use polity_policy::WorkerId;

#[derive(Debug, Default)]
pub(crate) struct PerWorker<T> {
    // Only `init` learns how many workers there are, and it has `&self`.
    values: OnceLock<Box<[Padded<T>]>>,
}

// Two lines of 64 bytes, because processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Padded<T>(T);

impl<T: Default> PerWorker<T> {
    /// From `init`.
    pub(crate) fn provide(&self, workers: usize) {
        self.values
            .get_or_init(|| (0..workers).map(|_| Padded::default()).collect());
    }

    /// Those of all workers; none before `init`.
    pub(crate) fn all(&self) -> impl Iterator<Item = &T> {
        let values = self.values.get().map_or(&[][..], |values| values);
        values.iter().map(|value| &value.0)
    }

    #[inline]
    pub(crate) fn of(&self, worker: WorkerId) -> &T {
        let values = self.values.get().expect("init comes before other calls");
        &values[worker.index()].0
    }
}
