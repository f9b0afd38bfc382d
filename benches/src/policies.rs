//! The policies whose price is measured.

use polity::Policy;
use polity_policies::{Fifo, Priority};

use crate::Polity;

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
}

/// Every policy that is measured against the built-in FIFO.
pub const POLICIES: [UnderPolicy; 4] = [
    UnderPolicy {
        name: "empty",
        start: |workers| Polity::under(workers, Empty),
    },
    UnderPolicy {
        name: "fifo",
        start: |workers| Polity::under(workers, Fifo::new()),
    },
    UnderPolicy {
        name: "fifo_per_worker",
        start: |workers| Polity::under(workers, Fifo::per_worker()),
    },
    UnderPolicy {
        name: "priority",
        start: |workers| Polity::under(workers, Priority::new()),
    },
];
