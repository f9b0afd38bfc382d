//! polity against its peers, and policies against the built-in FIFO, in one interleaved run.
//!
//! ```text
//! cargo run --release -p polity-benches --bin versus
//! cargo run --release -p polity-benches --bin versus -- --workers 1,2 --only tokio_rt,yield --reps 31 --json
//! ```
//!
//! The contenders of a bench take turns, so that the machine's drift meets all of them alike: quote the ratios of
//! one run, and do not compare nanoseconds of two. A ratio above 1 says how many times better polity is, and one that
//! lies inside the quartiles says nothing. Rows without a goal are there to be seen.

use clap::Parser;
use polity_benches::{
    Goal, Row, Settings, Suite, async_executor, geometric_mean, idle, io, own, policy_hop,
    quartiles, scale, tail, tokio_rt, tokio_sync, yatp,
};
use serde::Serialize;

/// What is measured, in this order.
const SUITES: [Suite; 10] = [
    tokio_rt,
    own,
    tokio_sync,
    async_executor,
    yatp,
    policy_hop,
    io,
    tail,
    scale,
    idle,
];

/// What the geometric mean over the rows of `tokio_rt` is to reach.
const MEAN_GOAL: f64 = 4.0;

/// polity against its peers, taking turns.
#[derive(Parser)]
struct Options {
    /// Measured turns of each contender.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    reps: u32,
    /// Workers of each contender: one table for each number, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "2")]
    workers: Vec<usize>,
    /// Only rows whose `suite/bench` contains one of these, separated by commas.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Say it again as JSON on the last line.
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize)]
struct Report {
    rows: Vec<JsonRow>,
    geometric_means: Vec<Mean>,
}

/// A row as JSON has it.
#[derive(Serialize)]
struct JsonRow {
    suite: &'static str,
    bench: String,
    peer: &'static str,
    workers: usize,
    unit: &'static str,
    ours: f64,
    theirs: f64,
    ratio: f64,
    quartiles: [f64; 3],
    cost: f64,
    goal: Goal,
    met: Option<bool>,
}

impl JsonRow {
    fn new(row: &Row, workers: usize) -> Self {
        let median = |of: &[f64]| quartiles(of.iter().copied())[1];
        JsonRow {
            suite: row.suite,
            bench: row.bench.clone(),
            peer: row.peer,
            workers,
            unit: row.unit,
            ours: median(&row.ours),
            theirs: median(&row.theirs),
            ratio: row.ratio(),
            quartiles: row.ratio_quartiles(),
            cost: row.cost(),
            goal: row.goal,
            met: row.is_met(),
        }
    }
}

/// The geometric mean of the ratios of `tokio_rt`.
#[derive(Serialize)]
struct Mean {
    suite: &'static str,
    workers: usize,
    rows: usize,
    ratio: f64,
    goal: f64,
    met: bool,
}

impl Mean {
    /// Over the rows that have a goal, if any of them was measured.
    fn of(rows: &[JsonRow], workers: usize) -> Option<Self> {
        let counts = |row: &&JsonRow| row.suite == "tokio_rt" && row.goal != Goal::None;
        let ratios: Vec<f64> = rows.iter().filter(counts).map(|row| row.ratio).collect();
        let rows = ratios.len();
        geometric_mean(ratios).map(|ratio| Mean {
            suite: "tokio_rt",
            workers,
            rows,
            ratio,
            goal: MEAN_GOAL,
            met: ratio >= MEAN_GOAL,
        })
    }
}

/// Measures and prints one table.
fn table(settings: &Settings) -> Report {
    let workers = settings.workers;
    println!("{workers} workers, {} turns each", settings.reps);
    println!("{}", Row::header());
    let mut report = Report::default();
    for suite in SUITES {
        suite(settings, &mut |row| {
            println!("{row}");
            report.rows.push(JsonRow::new(&row, workers));
        });
    }
    if let Some(mean) = Mean::of(&report.rows, workers) {
        let (rows, ratio, goal) = (mean.rows, mean.ratio, mean.goal);
        let met = if mean.met { "yes" } else { "NO" };
        println!(
            "geometric mean over {rows} rows of tokio_rt: {ratio:.2}, goal >= {goal:.2}, met: {met}"
        );
        report.geometric_means.push(mean);
    }
    report
}

fn main() {
    if polity_benches::played_a_role() {
        return;
    }
    let options = Options::parse();
    let mut whole = Report::default();
    for workers in options.workers {
        let report = table(&Settings {
            reps: options.reps,
            workers,
            only: options.only.clone(),
        });
        whole.rows.extend(report.rows);
        whole.geometric_means.extend(report.geometric_means);
    }
    if options.json {
        let line = serde_json::to_string(&whole).expect("plain figures");
        println!("{line}");
    }
}
