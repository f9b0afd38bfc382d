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
    AsyncExecutor, AsyncStatic, Better, Goal, POLICIES, Peer, Polity, Round, Row, Settings, Tokio,
    Workload, all, idle, io, named, scale, tail,
};
use serde::Serialize;

/// polity against its peers, taking turns.
#[derive(Parser)]
struct Options {
    #[command(flatten)]
    settings: Settings,
    /// Say it again as JSON on the last line.
    #[arg(long)]
    json: bool,
}

/// A row as JSON has it.
#[derive(Serialize)]
struct JsonRow {
    suite: &'static str,
    bench: String,
    peer: &'static str,
    ratio: f64,
    quartiles: [f64; 3],
    cost: f64,
    unit: &'static str,
    goal: Goal,
    met: Option<bool>,
}

impl From<&Row> for JsonRow {
    fn from(row: &Row) -> Self {
        JsonRow {
            suite: row.suite,
            bench: row.bench.clone(),
            peer: row.peer,
            ratio: row.ratio(),
            quartiles: row.ratio_quartiles(),
            cost: row.cost(),
            unit: row.unit,
            goal: row.goal,
            met: row.is_met(),
        }
    }
}

#[derive(Serialize)]
struct Table {
    rows: Vec<JsonRow>,
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

    fn rows(&self) -> Vec<Row> {
        let [ours, theirs @ ..] = &self.contenders[..] else {
            return Vec::new();
        };
        (ours.check)();
        let row = |contender: &Contender| {
            (contender.check)();
            Row {
                suite: self.workload.suite,
                bench: self.workload.name.to_owned(),
                peer: contender.name,
                unit: "ns",
                better: Better::Less,
                goal: Goal::None,
                ours: ours.ns_per_op.clone(),
                theirs: contender.ns_per_op.clone(),
            }
        };
        theirs.iter().map(row).collect()
    }
}

/// The benches that `only` admits, with nobody in them yet.
fn wanted(workloads: Vec<Workload<Polity>>, settings: &Settings) -> Vec<Bench> {
    let admits = |workload: &Workload<Polity>| settings.wants(workload.suite, workload.name);
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
fn runtimes(settings: &Settings) -> Vec<Bench> {
    fn enter_with<P: Peer>(benches: &mut [Bench], workers: usize) {
        enter(benches, P::NAME, P::start(workers));
    }
    let mut benches = wanted(all(), settings);
    if !benches.is_empty() {
        enter_with::<Polity>(&mut benches, settings.workers);
        enter_with::<Tokio>(&mut benches, settings.workers);
        enter_with::<AsyncExecutor>(&mut benches, settings.workers);
        enter_with::<AsyncStatic>(&mut benches, settings.workers);
    }
    benches
}

/// The workloads of the bench `policy_call`, without a policy and under each.
fn policies(settings: &Settings) -> Vec<Bench> {
    let workloads = ["yield_many", "chained_spawn"].map(|name| Workload {
        suite: "policy_call",
        ..named(name)
    });
    let mut benches = wanted(workloads.into(), settings);
    if !benches.is_empty() {
        enter(&mut benches, "built_in", Polity::start(settings.workers));
        for under in &POLICIES {
            enter(&mut benches, under.name, (under.start)(settings.workers));
        }
    }
    benches
}

fn main() {
    if polity_benches::played_a_role() {
        return;
    }
    let options = Options::parse();
    let Settings { reps, workers, .. } = options.settings;
    println!("{workers} workers, {reps} turns each");
    println!("{}", Row::header());
    let mut rows = Vec::new();
    for suite in [runtimes, policies] {
        for mut bench in suite(&options.settings) {
            bench.measure(reps);
            for row in bench.rows() {
                println!("{row}");
                rows.push(JsonRow::from(&row));
            }
        }
    }
    for suite in [io, tail, scale, idle] {
        suite(&options.settings, &mut |row| {
            println!("{row}");
            rows.push(JsonRow::from(&row));
        });
    }
    if options.json {
        let table = serde_json::to_string(&Table { rows }).expect("plain figures");
        println!("{table}");
    }
}
