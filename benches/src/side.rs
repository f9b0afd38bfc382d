//! The two that take part in the suites of latency, I/O and memory, and who among their tasks goes first.

use std::future::Future;

use polity::Attributes;
use polity_policies::Priority;
use serde::{Deserialize, Serialize};

use crate::{Peer, Polity, Tokio};

/// Which runtime, under which policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Side {
    Polity,
    /// With the policy `Priority` loaded.
    PolityByPriority,
    Tokio,
}

/// Something that can be done on either.
pub(crate) trait Scenario {
    type Outcome;

    fn run<P: Contender>(self, on: P) -> Self::Outcome;
}

impl Side {
    /// Starts the runtime and does it there.
    pub(crate) fn run<S: Scenario>(self, workers: usize, scenario: S) -> S::Outcome {
        match self {
            Side::Polity => scenario.run(Polity::start(workers)),
            Side::PolityByPriority => scenario.run(Polity::under(workers, Priority::new())),
            Side::Tokio => scenario.run(Tokio::start(workers)),
        }
    }
}

/// A [`Peer`] that may be told which task is urgent.
pub(crate) trait Contender: Peer {
    /// [`Peer::spawn`] of a task that should go before others, where the runtime knows such a thing.
    fn spawn_urgent<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future<Output: Send> + Send + 'static;
}

impl Contender for Polity {
    /// Without a policy nobody reads the weight.
    fn spawn_urgent<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let urgent = Attributes::new().weight(10_000);
        polity::spawn_with(urgent, future).expect("a weight within bounds")
    }
}

impl Contender for Tokio {
    fn spawn_urgent<F>(future: F) -> Self::Join<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        Tokio::spawn(future)
    }
}
