//! What being watched costs: polity as it is against polity built without the watchdog's marks and counters.
//!
//! ```text
//! cargo run --release -p polity-benches --bin safety
//! ```
//!
//! builds itself a second time with `--cfg polity_unwatched` (no marks around callbacks and polls, no census, no spares, no
//! watchdog thread), and then runs both programs by turns, each turn a process of its own, so that neither the machine's
//! drift nor a lucky memory layout decides. The goal: at most 10 ns per poll and 3 %. A difference that lies inside the
//! quartiles says nothing.
//!
//! The second build is a `--cfg` and no feature, so that nobody loses the safety net by way of `default-features = false`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use polity_benches::{POLICIES, Peer, Polity, named};

/// The cost of being watched, in nanoseconds per operation.
#[derive(Parser)]
struct Options {
    /// Processes of each kind.
    #[arg(long, default_value_t = 15)]
    reps: usize,
    /// Workers of each runtime.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Measure this build once and print the figures for the other process.
    #[arg(long, hide = true)]
    probe: bool,
}

/// Workload, and the policy that is loaded.
const BENCHES: [(&str, Option<&str>); 7] = [
    ("yield_many", None),
    ("chained_spawn", None),
    ("spawn_many_local", None),
    ("ping_pong", None),
    ("yield_many", Some("fifo")),
    ("chained_spawn", Some("fifo")),
    ("yield_many", Some("priority")),
];
/// Turns of one bench in one process, of which the median counts.
const TURNS: usize = 9;
const TURN: Duration = Duration::from_millis(20);

fn start(policy: Option<&str>, workers: usize) -> Polity {
    match POLICIES.iter().find(|under| Some(under.name) == policy) {
        Some(under) => (under.start)(workers),
        None => Polity::start(workers),
    }
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch is what this is")]
fn ns_per_op(name: &str, policy: Option<&str>, workers: usize) -> f64 {
    let peer = start(policy, workers);
    let workload = named::<Polity>(name);
    let mut round = (workload.prepare)(&peer);
    let mut rounds = 1;
    let mut turn = |rounds: u32| {
        let start = Instant::now();
        for _ in 0..rounds {
            round();
        }
        start.elapsed()
    };
    while turn(rounds) < TURN {
        rounds *= 2;
    }
    let ops = workload.ops as f64 * f64::from(rounds);
    let turns = (0..TURNS).map(|_| turn(rounds).as_nanos() as f64 / ops);
    quartiles(turns.collect())[1]
}

fn quartiles(mut of: Vec<f64>) -> [f64; 3] {
    of.sort_by(f64::total_cmp);
    [1, 2, 3].map(|quarter| of[(of.len() - 1) * quarter / 4])
}

fn probe(workers: usize) {
    for (name, policy) in BENCHES {
        println!("{}", ns_per_op(name, policy, workers));
    }
}

/// Builds the unwatched twin, beside the other build outputs.
fn build_twin() -> Option<PathBuf> {
    let this = env::current_exe().ok()?;
    let target = this.parent()?.parent()?.join("unwatched");
    let flags = env::var("RUSTFLAGS").unwrap_or_default();
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "-p", "polity-benches"])
        .args(["--bin", "safety", "--target-dir"])
        .arg(&target)
        .env("RUSTFLAGS", format!("{flags} --cfg polity_unwatched"))
        .status();
    let twin = target.join("release").join(this.file_name()?);
    (built.is_ok_and(|status| status.success()) && twin.exists()).then_some(twin)
}

fn run_probe(program: &Path, workers: usize) -> Option<Vec<f64>> {
    let output = Command::new(program)
        .args(["--probe", "--workers", &workers.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let figures: Vec<f64> = text.lines().map_while(|line| line.parse().ok()).collect();
    (figures.len() == BENCHES.len()).then_some(figures)
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.probe {
        probe(options.workers);
        return ExitCode::SUCCESS;
    }
    let (Some(twin), Ok(this)) = (build_twin(), env::current_exe()) else {
        eprintln!("the unwatched build failed: run this by `cargo run` from the workspace");
        return ExitCode::FAILURE;
    };
    let mut figures = [Vec::new(), Vec::new()];
    for rep in 0..options.reps {
        // Forwards, backwards, forwards: a steady drift cancels out.
        for which in [rep % 2, 1 - rep % 2] {
            let program = [&this, &twin][which];
            let Some(probed) = run_probe(program, options.workers) else {
                eprintln!("{} did not answer", program.display());
                return ExitCode::FAILURE;
            };
            figures[which].push(probed);
        }
    }
    let (workers, reps) = (options.workers, options.reps);
    println!("{workers} workers, {reps} processes of each; ns per operation, median (quartiles)");
    println!("bench           policy              watched               unwatched          cost");
    for (index, (name, policy)) in BENCHES.iter().enumerate() {
        let [with, without] = [0, 1].map(|which: usize| {
            quartiles(figures[which].iter().map(|probed| probed[index]).collect())
        });
        let show = |[low, median, high]: [f64; 3]| format!("{median:7.1} ({low:.1}-{high:.1})");
        let policy = policy.unwrap_or("-");
        let (cost, percent) = (with[1] - without[1], (with[1] / without[1] - 1.0) * 100.0);
        let (with, without) = (show(with), show(without));
        println!("{name:16}{policy:10}{with:>24}{without:>24}{cost:>8.1} ns{percent:>7.1} %");
    }
    ExitCode::SUCCESS
}
