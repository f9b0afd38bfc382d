//! The policies whose price is measured.

use polity::{DsqId, Host, InitError, Policy, Position, TaskView, WorkerId};
use polity_policies::{Fifo, Priority, Vtime};

use crate::{Goal, Polity};

/// A policy with a name and nothing else: every callback is the contract's default, an insert at the tail of the
/// global DSQ included.
///
/// ```
/// use polity::Policy;
/// assert_eq!(polity_benches::Empty.name(), "empty");
/// ```
pub struct Empty;

impl Policy for Empty {
    type Task = ();

    fn name(&self) -> &str {
        "empty"
    }
}

/// All tasks through one custom FIFO DSQ, from which a worker takes so many at once.
///
/// ```
/// use polity::Policy;
/// assert_eq!(polity_benches::CustomFifo { batch: 32 }.name(), "custom_fifo");
/// ```
pub struct CustomFifo {
    /// 1 keeps the exact order, and moves the queue's lines between workers for each task.
    pub batch: usize,
}

const QUEUE: DsqId = DsqId::Custom(0);

impl Policy for CustomFifo {
    type Task = ();

    fn name(&self) -> &str {
        "custom_fifo"
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        host.create_dsq(0)?;
        Ok(())
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        host.insert(task.id(), QUEUE, Position::Tail);
    }

    fn dispatch(&self, host: &Host<'_>, _worker: WorkerId, _prev: Option<&TaskView<'_>>) {
        host.move_to_local(QUEUE, self.batch);
    }
}

/// polity with one policy in charge, ready to start.
///
/// ```
/// use polity_benches::{POLICIES, Peer};
///
/// let first = &POLICIES[0];
/// assert_eq!(first.name, "empty");
/// assert_eq!((first.start)(1).block_on(async { 7 }), 7);
/// ```
pub struct UnderPolicy {
    /// What reports call it.
    pub name: &'static str,
    /// Starts it with so many workers.
    pub start: fn(usize) -> Polity,
    /// What a task may cost more than under the built-in FIFO, in nanoseconds.
    pub hop: Goal,
    /// What is to be reached against tokio; `None` for those that do not come with polity.
    pub against_tokio: Goal,
}

/// Every policy that is measured against the built-in FIFO.
pub const POLICIES: [UnderPolicy; 8] = [
    UnderPolicy {
        name: "empty",
        start: |workers| Polity::under(workers, Empty),
        hop: Goal::None,
        against_tokio: Goal::None,
    },
    UnderPolicy {
        name: "custom_fifo",
        start: |workers| Polity::under(workers, CustomFifo { batch: 32 }),
        hop: Goal::Cost(30.0),
        against_tokio: Goal::None,
    },
    UnderPolicy {
        name: "custom_fifo_exact",
        start: |workers| Polity::under(workers, CustomFifo { batch: 1 }),
        hop: Goal::None,
        against_tokio: Goal::None,
    },
    UnderPolicy {
        name: "fifo",
        start: |workers| Polity::under(workers, Fifo::new()),
        hop: Goal::None,
        against_tokio: Goal::Ratio(2.0),
    },
    UnderPolicy {
        name: "fifo_per_worker",
        start: |workers| Polity::under(workers, Fifo::per_worker()),
        hop: Goal::Cost(5.0),
        against_tokio: Goal::Ratio(2.0),
    },
    UnderPolicy {
        name: "priority",
        start: |workers| Polity::under(workers, Priority::new()),
        hop: Goal::None,
        against_tokio: Goal::Ratio(1.0),
    },
    UnderPolicy {
        name: "vtime",
        start: |workers| Polity::under(workers, Vtime::new()),
        hop: Goal::Cost(60.0),
        against_tokio: Goal::Ratio(1.0),
    },
    UnderPolicy {
        name: "vtime_coarse",
        start: |workers| Polity::under(workers, Vtime::coarse()),
        hop: Goal::Cost(60.0),
        against_tokio: Goal::Ratio(1.0),
    },
];
