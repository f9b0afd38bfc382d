//! polity against its peers, and policies against the built-in FIFO, in one interleaved run.
//!
//! ```text
//! cargo run --release -p polity-benches --bin versus
//! cargo run --release -p polity-benches --bin versus -- --workers 1 --only yield,policy_call --reps 31 --json
//! ```
//!
//! The contenders of a bench take turns, so that the machine's drift meets all of them alike: quote the ratios of
//! one run, and do not compare nanoseconds of two. A ratio above 1 says how many times longer the contender takes
//! than the first of its group: above 1 is good for polity against the peers, and is the price of a policy in
//! `policy_call`. A ratio that lies inside the quartiles says nothing. Empty tasks only: no latency, no I/O.

use std::time::{Duration, Instant};

use clap::Parser;
use polity_benches::{
    AsyncExecutor, AsyncStatic, POLICIES, Peer, Polity, Round, Tokio, Workload, all, named,
};

/// polity against its peers, taking turns.
#[derive(Parser)]
struct Options {
    /// Measured turns of each contender.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
    /// Workers of each contender.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Only benches whose `suite/name` contains one of these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Say it again as JSON on the last line.
    #[arg(long)]
    json: bool,
}

/// Each turn lasts at least this long: rounds are repeated until it does.
const TURN: Duration = Duration::from_millis(20);

/// Some contenders doing the same thing; the first is the one that the others are compared with.
struct Bench {
    workload: Workload<Polity>,
    contenders: Vec<Contender>,
}

struct Contender {
    name: &'static str,
    round: Round<'static>,
    check: Box<dyn Fn()>,
    rounds_per_turn: u32,
    ns_per_op: Vec<f64>,
}

impl Contender {
    #[expect(clippy::disallowed_methods, reason = "a stopwatch is what this is")]
    fn turn(&mut self) -> Duration {
        let start = Instant::now();
        for _ in 0..self.rounds_per_turn {
            (self.round)();
        }
        start.elapsed()
    }

    fn warm_up(&mut self) {
        while self.turn() < TURN {
            self.rounds_per_turn *= 2;
        }
        for _ in 0..2 {
            self.turn();
        }
    }

    fn measure(&mut self, ops: u64) {
        let ops = ops as f64 * f64::from(self.rounds_per_turn);
        let ns = self.turn().as_nanos() as f64;
        self.ns_per_op.push(ns / ops);
    }

    /// The lower quartile, the median, the upper quartile; call it when all is measured.
    fn quartiles(&self) -> [f64; 3] {
        let mut sorted = self.ns_per_op.clone();
        sorted.sort_by(f64::total_cmp);
        [1, 2, 3].map(|quarter| sorted[(sorted.len() - 1) * quarter / 4])
    }
}

impl Bench {
    /// Takes turns: forwards, backwards, forwards, so that a steady drift cancels out.
    fn measure(&mut self, reps: u32) {
        self.contenders.iter_mut().for_each(Contender::warm_up);
        for rep in 0..reps {
            let mut turns: Vec<_> = self.contenders.iter_mut().collect();
            if rep % 2 == 1 {
                turns.reverse();
            }
            for contender in turns {
                contender.measure(self.workload.ops);
            }
        }
    }

    /// Prints this bench's part of the table and returns it as JSON rows.
    fn report(&self) -> Vec<String> {
        let (suite, bench) = (self.workload.suite, self.workload.name);
        let [_, ours, _] = self.contenders[0].quartiles();
        let print = |contender: &Contender| {
            (contender.check)();
            let peer = contender.name;
            let [low, median, high] = contender.quartiles();
            let ratio = median / ours;
            println!(
                "{suite:<12}{bench:<24}{peer:<16}{median:>10.1}{low:>10.1}{high:>10.1}{ratio:>8.2}"
            );
            format!(
                r#"{{"suite":"{suite}","bench":"{bench}","peer":"{peer}","ours_ns":{ours:.2},"peer_ns":{median:.2},"ratio":{ratio:.3}}}"#
            )
        };
        let rows = self.contenders.iter().map(print);
        rows.collect::<Vec<_>>().split_off(1) // the first is no peer of itself
    }
}

/// The benches that `only` admits, with nobody in them yet.
fn wanted(workloads: Vec<Workload<Polity>>, only: &[String]) -> Vec<Bench> {
    let admits = |workload: &Workload<Polity>| {
        let whole = format!("{}/{}", workload.suite, workload.name);
        only.is_empty() || only.iter().any(|part| whole.contains(part))
    };
    let empty = |workload| Bench {
        workload,
        contenders: Vec::new(),
    };
    workloads.into_iter().filter(admits).map(empty).collect()
}

/// Lets `peer` take part in all of `benches`. It lives to the end of the program: an idle runtime sleeps.
fn enter<P: Peer>(benches: &mut [Bench], name: &'static str, peer: P) {
    let peer: &'static P = Box::leak(Box::new(peer));
    for bench in benches {
        bench.contenders.push(Contender {
            name,
            round: (named::<P>(bench.workload.name).prepare)(peer),
            check: Box::new(|| peer.check()),
            rounds_per_turn: 1,
            ns_per_op: Vec::new(),
        });
    }
}

/// Every workload, on every runtime.
fn runtimes(workers: usize, only: &[String]) -> Vec<Bench> {
    fn enter_with<P: Peer>(benches: &mut [Bench], workers: usize) {
        enter(benches, P::NAME, P::start(workers));
    }
    let mut benches = wanted(all(), only);
    if !benches.is_empty() {
        enter_with::<Polity>(&mut benches, workers);
        enter_with::<Tokio>(&mut benches, workers);
        enter_with::<AsyncExecutor>(&mut benches, workers);
        enter_with::<AsyncStatic>(&mut benches, workers);
    }
    benches
}

/// The workloads of the bench `policy_call`, without a policy and under each.
fn policies(workers: usize, only: &[String]) -> Vec<Bench> {
    let workloads = ["yield_many", "chained_spawn"].map(|name| Workload {
        suite: "policy_call",
        ..named(name)
    });
    let mut benches = wanted(workloads.into(), only);
    if !benches.is_empty() {
        enter(&mut benches, "built_in", Polity::start(workers));
        for under in &POLICIES {
            enter(&mut benches, under.name, (under.start)(workers));
        }
    }
    benches
}

fn main() {
    let options = Options::parse();
    let (workers, reps) = (options.workers, options.reps);
    println!("{workers} workers, {reps} turns each; ns per operation");
    println!(
        "suite       bench                   contender           median  quartile  quartile   ratio"
    );
    let mut rows = Vec::new();
    for suite in [runtimes, policies] {
        for mut bench in suite(workers, &options.only) {
            bench.measure(reps);
            rows.extend(bench.report());
        }
    }
    if options.json {
        println!(r#"{{"rows":[{}]}}"#, rows.join(","));
    }
}
