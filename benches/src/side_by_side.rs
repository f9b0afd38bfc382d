//! Criterion groups of several contenders.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};

use crate::against::Peers;
use crate::{Contender, POLICIES, Peer, Polity, all, named};

/// Criterion with settings modest enough that the whole package takes minutes; the command line overrides them.
///
/// ```
/// let _criterion = polity_benches::settings();
/// ```
pub fn settings() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .configure_from_args()
}

/// Benches every workload of a suite on polity and on the suite's peers.
///
/// ```no_run
/// polity_benches::bench_suite(&mut polity_benches::settings(), "tokio_sync", 2);
/// ```
pub fn bench_suite(criterion: &mut Criterion, suite: &str, workers: usize) {
    for workload in all::<Polity>() {
        if workload.suite == suite {
            bench_runtimes(criterion, workload.name, workers);
        }
    }
}

/// Benches one workload on polity and on the peers of its suite, as the group `name/workers`.
///
/// ```no_run
/// polity_benches::bench_runtimes(&mut polity_benches::settings(), "yield_many", 2);
/// ```
pub fn bench_runtimes(criterion: &mut Criterion, name: &str, workers: usize) {
    let workload = named::<Polity>(name);
    let mut group = criterion.benchmark_group(format!("{name}/{workers}"));
    group.throughput(Throughput::Elements(workload.ops));
    for entrant in Peers::of(workload.suite).and_polity() {
        one(&mut group, entrant.name, || (entrant.start)(name, workers));
    }
    group.finish();
}

/// Benches one workload on polity without a policy and under each of [`POLICIES`].
///
/// ```no_run
/// polity_benches::bench_policies(&mut polity_benches::settings(), "yield_many", 2);
/// ```
pub fn bench_policies(criterion: &mut Criterion, name: &str, workers: usize) {
    let mut group = criterion.benchmark_group(format!("policy_call/{name}/{workers}"));
    group.throughput(Throughput::Elements(named::<Polity>(name).ops));
    one(&mut group, "built_in", || {
        Contender::new("built_in", Polity::start(workers), named(name))
    });
    for under in &POLICIES {
        one(&mut group, under.name, || {
            Contender::new(under.name, (under.start)(workers), named(name))
        });
    }
    group.finish();
}

/// Starts a contender when criterion first asks for it (never, if the filter leaves it out) and keeps it for all
/// samples.
fn one(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, start: impl Fn() -> Contender) {
    let mut contender = None;
    group.bench_function(name, |bencher| {
        let contender = contender.get_or_insert_with(&start);
        bencher.iter_custom(|rounds| contender.lap(rounds));
    });
}
