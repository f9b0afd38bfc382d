//! Event counters: plain numbers in the worker, copied to its seat every few cycles.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts of events since the runtime started, summed over its workers; and what is there now.
        ///
        /// Workers publish their counts every few polls and before they park, so a reading may lag by
        /// microseconds. Counts only grow; only `foreign_tasks` is a number of what is there now.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[non_exhaustive]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,)*
            /// Live tasks that were started with `tokio::spawn`, by libraries or by mistake: they run on the I/O driver, and no
            /// policy sees them.
            pub foreign_tasks: u64,
        }

        /// The published counters of one worker.
        #[derive(Debug, Default)]
        pub(crate) struct Published {
            $($name: AtomicU64,)*
        }

        impl Metrics {
            /// The counters by name.
            pub(crate) fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [
                    $((stringify!($name), self.$name),)*
                    ("foreign_tasks", self.foreign_tasks),
                ]
                .into_iter()
            }
        }

        impl Published {
            /// For the worker that owns the seat.
            // Ordering: Relaxed; each counter stands for itself.
            pub(crate) fn publish(&self, counts: &Metrics) {
                $(self.$name.store(counts.$name, Ordering::Relaxed);)*
            }

            pub(crate) fn add_to(&self, sum: &mut Metrics) {
                $(sum.$name += self.$name.load(Ordering::Relaxed);)*
            }
        }
    };
}

counters! {
    /// Polls of tasks.
    polls,
    /// Tasks that ended: finished, panicked or cancelled.
    completed,
    /// Times that a worker took tasks from another one.
    steals,
    /// Parks.
    parks,
    /// Times that a worker with a backlog unparked another one for it.
    unparks,
    /// Tasks offered to a policy.
    offered,
    /// Calls of a policy's `dispatch`.
    dispatches,
    /// Times that a worker left the dispatch loop after 32 rounds with nothing to run.
    dispatch_loops_cut,
    /// Slices that were over before the task let go of its worker.
    slice_overruns,
    /// By how much, in nanoseconds, all of them together.
    slice_overrun_ns,
    /// Calls of a policy's `timer`.
    timers,
    /// Times that a worker went on with the task it had just polled because `dispatch` gave it nothing else.
    kept_last,
    /// Claims in `dispatch` of tasks that were not there to be claimed.
    stale_claims,
    /// Inserts redirected because the task may not run on the worker that the policy named.
    redirected,
    /// Polls that took longer than the hog threshold.
    hogs,
    /// Times that a spare did the work of a worker that was in a long poll.
    stand_ins,
    /// Threads that were replaced because a policy's callback did not return.
    convictions,
    /// Times that a spare was needed and none was left.
    spares_exhausted,
    /// Times that a parked worker woke up by itself to look for forgotten work, as the sentinel.
    sentinel_rounds,
}
