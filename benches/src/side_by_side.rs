//! Criterion groups of several contenders.

use std::cell::OnceCell;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};

use crate::{AsyncExecutor, AsyncStatic, POLICIES, Peer, Polity, Tokio, Workload, named};

/// Criterion with settings modest enough that the whole package takes minutes; the command line overrides them.
///
/// ```
/// let _criterion = polity_benches::settings();
/// ```
pub fn settings() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

/// Benches one workload on every runtime, as the group `name/workers`.
///
/// ```no_run
/// polity_benches::bench_runtimes(&mut polity_benches::settings(), "yield_many", 2);
/// ```
pub fn bench_runtimes(criterion: &mut Criterion, name: &str, workers: usize) {
    let mut group = criterion.benchmark_group(format!("{name}/{workers}"));
    one::<Polity>(&mut group, Polity::NAME, &named(name), || {
        Polity::start(workers)
    });
    one::<Tokio>(&mut group, Tokio::NAME, &named(name), || {
        Tokio::start(workers)
    });
    one::<AsyncExecutor>(&mut group, AsyncExecutor::NAME, &named(name), || {
        AsyncExecutor::start(workers)
    });
    one::<AsyncStatic>(&mut group, AsyncStatic::NAME, &named(name), || {
        AsyncStatic::start(workers)
    });
    group.finish();
}

/// Benches one workload on polity without a policy and under each of [`POLICIES`].
///
/// ```no_run
/// polity_benches::bench_policies(&mut polity_benches::settings(), "yield_many", 2);
/// ```
pub fn bench_policies(criterion: &mut Criterion, name: &str, workers: usize) {
    let mut group = criterion.benchmark_group(format!("policy_call/{name}/{workers}"));
    one::<Polity>(&mut group, "built_in", &named(name), || {
        Polity::start(workers)
    });
    for under in &POLICIES {
        one::<Polity>(&mut group, under.name, &named(name), || {
            (under.start)(workers)
        });
    }
    group.finish();
}

/// Starts a contender when criterion first asks for it (never, if the filter leaves it out) and keeps it for all
/// samples.
fn one<P: Peer>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    workload: &Workload<P>,
    start: impl Fn() -> P,
) {
    let peer = OnceCell::new();
    let mut round = None;
    group.throughput(Throughput::Elements(workload.ops));
    group.bench_function(name, |bencher| {
        let round = round.get_or_insert_with(|| (workload.prepare)(peer.get_or_init(&start)));
        bencher.iter(round);
    });
    if let Some(peer) = peer.get() {
        peer.check();
    }
}
