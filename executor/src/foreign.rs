//! Foreign tasks (what libraries start with `tokio::spawn`) beside a policy: said once for each load.
//!
//! Not a count: that is the driver's ([`Driver::foreign_tasks`](crate::driver::Driver::foreign_tasks)). [`look`] is called on the
//! thread that drives, before each round and park of the driver and after each wait in it. These are the moments at which what a
//! task, or the root future, has just spawned has not been polled yet, so that nearly always even one which ends in its first
//! round is seen. Without foreign tasks a look costs two uncontended RMWs beside a round of half a microsecond; nobody wakes up
//! for it, and an idle runtime does not look.
//! Rejected: the watchdog or control (they would have to poll, and sleep for good reasons), and tokio's spawn hook, which is
//! unstable.

use std::sync::atomic::{AtomicU32, Ordering};

use polity_core::Core;

use crate::context;
use crate::machine::RealMachine;
use crate::report::{self, Report};

/// The last generation under which it was said.
#[derive(Debug, Default)]
pub(crate) struct SaidFor(AtomicU32);

impl SaidFor {
    /// `true` for the first call with this generation or a later one.
    fn is_news(&self, generation: u32) -> bool {
        // Ordering: Relaxed; it guards nothing but who speaks. A maximum, because a thread may be late with an older one.
        self.0.load(Ordering::Relaxed) < generation
            && self.0.fetch_max(generation, Ordering::Relaxed) < generation
    }
}

/// Says so, if there are foreign tasks under a policy for which that has not been said yet.
pub(crate) fn look() {
    // Of this thread: a worker of the runtime whose driver this is.
    if let Some(core) = context::core() {
        look_at(core);
    }
}

fn look_at(core: &Core<RealMachine>) {
    let machine = core.machine();
    let tasks = machine.driver.foreign_tasks();
    if tasks == 0 {
        return;
    }
    let Some(policy) = core.current_policy() else {
        return;
    };
    if machine.said_foreign.is_news(policy.generation().number()) {
        report::send(Report::Warn(warning(tasks, policy.name())));
    }
}

fn warning(tasks: usize, policy: &str) -> String {
    let live = match tasks {
        1 => "1 task lives".to_owned(),
        tasks => format!("{tasks} tasks live"),
    };
    format!(
        "{live} on the I/O driver, where policy {policy:?} does not see them: they were started with tokio::spawn, perhaps by a \
         library. Start what should be scheduled with polity::spawn, or give the library an executor; what only moves bytes may \
         stay. Metrics::foreign_tasks counts them"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_is_news_once() {
        let said = SaidFor::default();
        assert!(said.is_news(1));
        assert!(!said.is_news(1));
        assert!(said.is_news(3));
        assert!(!said.is_news(2));
        assert!(!said.is_news(3));
    }
}
