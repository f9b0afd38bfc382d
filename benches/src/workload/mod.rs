//! The workloads, each written once for every [`Peer`]: those of the peers' own benches, with their sizes, written
//! anew. Each module names its source.

mod load;
mod own;
mod smol;
mod tokio_rt;
mod tokio_sync;
mod yatp;

use std::rc::Rc;

use crate::{Goal, Peer};

pub use load::Load;

/// One round of a workload, over and over; what needs no repeating is done already.
pub type Round = Box<dyn FnMut()>;

/// A workload for the runtime `P`.
///
/// ```
/// use std::rc::Rc;
/// use polity_benches::{Peer, Tokio, named};
///
/// let (tokio, workload) = (Rc::new(Tokio::start(1)), named::<Tokio>("chained_spawn"));
/// (workload.prepare)(&tokio)();
/// assert_eq!(workload.ops, 1_000);
/// ```
pub struct Workload<P> {
    /// Whose it is, as `versus --only` has it.
    pub suite: &'static str,
    /// Its name, of which there is one in all suites.
    pub name: &'static str,
    /// How many operations a round counts for: "ns per op" is a round's time divided by this.
    pub ops: u64,
    /// What polity is to reach against each peer of that suite.
    pub goal: Goal,
    /// What the bench it comes from gives to its runtime.
    pub drivers: Drivers,
    /// Makes the rounds. They may end with the runtime only, so whoever measures keeps it.
    pub prepare: fn(&Rc<P>) -> Round,
    /// What runs beside the rounds.
    pub load: Option<fn(&P) -> Load>,
}

/// What a runtime has besides its scheduler. Without drivers a worker of tokio sleeps on a condition variable, not in
/// `epoll_wait`; polity has no such choice and has always all.
///
/// ```
/// use polity_benches::{Drivers, Tokio, named};
/// assert_eq!(named::<Tokio>("yield_many").drivers, Drivers::All);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Drivers {
    /// I/O and timers.
    All,
    /// Neither.
    None,
}

impl<P> Workload<P> {
    fn new(
        suite: &'static str,
        name: &'static str,
        ops: usize,
        goal: Goal,
        prepare: fn(&Rc<P>) -> Round,
    ) -> Self {
        Workload {
            suite,
            name,
            ops: ops as u64,
            goal,
            drivers: Drivers::All,
            prepare,
            load: None,
        }
    }

    fn beside(mut self, load: fn(&P) -> Load) -> Self {
        self.load = Some(load);
        self
    }

    fn without_drivers(mut self) -> Self {
        self.drivers = Drivers::None;
        self
    }
}

/// Every workload, for the runtime `P`.
///
/// ```
/// use polity_benches::{Tokio, all};
/// assert!(all::<Tokio>().iter().any(|workload| workload.name == "yield_many"));
/// ```
pub fn all<P: Peer>() -> Vec<Workload<P>> {
    let mut all = tokio_rt::workloads();
    all.extend(own::workloads());
    all.extend(tokio_sync::workloads());
    all.extend(smol::workloads());
    all.extend(yatp::workloads());
    all
}

/// One of [`all`].
///
/// # Panics
///
/// If there is none of that name.
///
/// ```
/// use polity_benches::{Tokio, named};
/// assert_eq!(named::<Tokio>("ping_pong").suite, "tokio_rt");
/// ```
pub fn named<P: Peer>(name: &str) -> Workload<P> {
    all()
        .into_iter()
        .find(|workload| workload.name == name)
        .unwrap_or_else(|| panic!("no workload is called {name}"))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::Tokio;

    #[test]
    fn no_two_workloads_share_a_name() {
        let all = all::<Tokio>();
        let names: HashSet<_> = all.iter().map(|workload| workload.name).collect();
        assert_eq!(names.len(), all.len());
    }
}
