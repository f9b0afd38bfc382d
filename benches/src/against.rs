//! The suites of `versus` in which polity stands against its peers, on the peers' own benches.

use std::iter;

use crate::{
    AsyncExecutor, AsyncStatic, Contender, Goal, Peer, Polity, Row, Settings, Tokio, all,
    take_turns,
};

/// Who can take part.
pub(crate) struct Entrant {
    /// What reports call it.
    pub(crate) name: &'static str,
    /// Starts it with a workload and so many workers.
    pub(crate) start: fn(&str, usize) -> Contender,
}

impl Entrant {
    const fn of<P: Peer>() -> Self {
        Entrant {
            name: P::NAME,
            start: Contender::start::<P>,
        }
    }
}

const POLITY: Entrant = Entrant::of::<Polity>();
const TOKIO: Entrant = Entrant::of::<Tokio>();
const EXECUTOR: Entrant = Entrant::of::<AsyncExecutor>();
const STATIC_EXECUTOR: Entrant = Entrant::of::<AsyncStatic>();

/// With whom polity is compared in a suite.
pub(crate) struct Peers {
    /// Those for whom the suite's goals were set.
    own: &'static [Entrant],
    /// Those who are there to be seen.
    others: &'static [Entrant],
}

impl Peers {
    pub(crate) fn of(suite: &str) -> Self {
        match suite {
            "tokio_rt" | "polity" => Peers {
                own: &[TOKIO],
                others: &[EXECUTOR, STATIC_EXECUTOR],
            },
            "async-executor" => Peers {
                own: &[EXECUTOR, STATIC_EXECUTOR],
                others: &[],
            },
            _ => Peers {
                own: &[TOKIO],
                others: &[],
            },
        }
    }

    /// polity, and then these.
    pub(crate) fn and_polity(&self) -> impl Iterator<Item = &'static Entrant> {
        iter::once(&POLITY).chain(self.own).chain(self.others)
    }
}

fn compare(suite: &'static str, settings: &Settings, report: &mut dyn FnMut(Row)) {
    let peers = Peers::of(suite);
    for workload in all::<Polity>() {
        if workload.suite != suite || !settings.wants(suite, workload.name) {
            continue;
        }
        // Fresh runtimes for each row, as each of the peers' benches has one of its own.
        let start = |entrant: &Entrant| (entrant.start)(workload.name, settings.workers);
        let mut contenders: Vec<Contender> = peers.and_polity().map(start).collect();
        take_turns(&mut contenders, settings.reps);
        let (ours, theirs) = contenders.split_first().expect("polity is in");
        let goals = iter::repeat_n(workload.goal, peers.own.len()).chain(iter::repeat(Goal::None));
        for (theirs, goal) in theirs.iter().zip(goals) {
            report(ours.against(theirs, suite, workload.name, goal));
        }
    }
}

/// tokio's scheduler benches; the goal is for all of them together, as a geometric mean of 4.
///
/// ```
/// use polity_benches::{Settings, tokio_rt};
///
/// let settings = Settings { reps: 1, workers: 1, only: vec!["chained_spawn".to_owned()] };
/// let mut peers = Vec::new();
/// tokio_rt(&settings, &mut |row| peers.push(row.peer));
/// assert_eq!(peers, ["tokio", "async-executor", "async-static"]);
/// ```
pub fn tokio_rt(settings: &Settings, report: &mut dyn FnMut(Row)) {
    compare("tokio_rt", settings, report);
}

/// Our own additions to these: no goals.
///
/// ```
/// # use polity_benches::{Settings, own};
/// # let settings = Settings { reps: 1, workers: 1, only: vec!["spawn_many_worker".to_owned()] };
/// own(&settings, &mut |row| println!("{row}"));
/// ```
pub fn own(settings: &Settings, report: &mut dyn FnMut(Row)) {
    compare("polity", settings, report);
}

/// tokio's channels and locks, on both runtimes.
///
/// ```
/// # use polity_benches::{Settings, tokio_sync};
/// # let settings = Settings { reps: 1, workers: 1, only: vec!["request_reply".to_owned()] };
/// tokio_sync(&settings, &mut |row| println!("{row}"));
/// ```
pub fn tokio_sync(settings: &Settings, report: &mut dyn FnMut(Row)) {
    compare("tokio_sync", settings, report);
}

/// async-executor's benches, against both of its executors.
///
/// ```
/// # use polity_benches::{Settings, async_executor};
/// # let settings = Settings { reps: 1, workers: 1, only: vec!["spawn_one".to_owned()] };
/// async_executor(&settings, &mut |row| println!("{row}"));
/// ```
pub fn async_executor(settings: &Settings, report: &mut dyn FnMut(Row)) {
    compare("async-executor", settings, report);
}

/// The benches of yatp's future pool, with tokio in its place: yatp cannot be had from crates.io.
///
/// ```
/// # use polity_benches::{Settings, yatp};
/// # let settings = Settings { reps: 1, workers: 1, only: vec!["chained_spawn_256".to_owned()] };
/// yatp(&settings, &mut |row| println!("{row}"));
/// ```
pub fn yatp(settings: &Settings, report: &mut dyn FnMut(Row)) {
    compare("yatp", settings, report);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_ends_on_polity_and_on_all_peers_of_its_suite() {
        for workload in all::<Polity>() {
            for entrant in Peers::of(workload.suite).and_polity() {
                (entrant.start)(workload.name, 2).lap(1);
            }
        }
    }
}
