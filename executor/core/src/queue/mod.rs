//! Queues of [`Entry`](crate::task::entry::Entry)s. A queue owns no task; the entry that matches the custody word does.
//!
//! | queue | kind | who pushes | who takes |
//! |---|---|---|---|
//! | ingress | a ring and crossbeam's FIFO deque behind it, one per worker | its worker | its worker, thieves |
//! | injector | locked FIFOs, sharded | any other thread, sweeps | every worker |
//! | pinned inbox | locked FIFO, one per worker | any thread | workers that the entry allows |
//! | local, global, custom DSQ | locked FIFO | workers, for the policy | see the contract |
//! | custom DSQ ordered by vtime | locked heap | the same | the same |
//!
//! Tasks with an affinity mask never enter an ingress: its pop cannot pass over one.
//!
//! Rejected for the injector: crossbeam's, which lost badly against a locked queue when thieves retried.

mod fifo;
mod ingress;
mod injector;
mod ring;
#[cfg(test)]
mod ring_tests;
mod table;
mod vtime;
#[cfg(test)]
mod vtime_tests;

use polity_policy::Position;

pub(crate) use fifo::{Closed, Fifo, Taking};
pub(crate) use ingress::{Ingress, Thief};
pub(crate) use injector::Injector;
pub(crate) use table::{Dsq, DsqTable, Order};
pub(crate) use vtime::VtimeQueue;

/// Where in a DSQ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Rank {
    /// At an end of a FIFO.
    End(Position),
    /// In the order of vtimes.
    Vtime(u64),
}
