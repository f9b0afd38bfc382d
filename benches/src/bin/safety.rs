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

use clap::Parser;
use polity_benches::{Contender, POLICIES, Peer, Polity, named, quartiles, take_turns};

/// The cost of being watched, in nanoseconds per operation.
#[derive(Parser)]
struct Options {
    /// Processes of each kind.
    #[arg(long, default_value_t = 15)]
    reps: usize,
    /// Workers of each runtime.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Only benches whose `workload/policy` contains this.
    #[arg(long, default_value = "")]
    only: String,
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
const TURNS: u32 = 9;

fn start(policy: Option<&str>, workers: usize) -> Polity {
    match POLICIES.iter().find(|under| Some(under.name) == policy) {
        Some(under) => (under.start)(workers),
        None => Polity::start(workers),
    }
}

fn ns_per_op(name: &str, policy: Option<&str>, workers: usize) -> f64 {
    let polity = start(policy, workers);
    let mut alone = [Contender::new(Polity::NAME, polity, named(name))];
    take_turns(&mut alone, TURNS);
    quartiles(alone[0].ns_per_op().iter().copied())[1]
}

fn wanted(options: &Options) -> Vec<(&'static str, Option<&'static str>)> {
    let is_wanted = |(name, policy): &(&str, Option<&str>)| {
        format!("{name}/{}", policy.unwrap_or("-")).contains(&options.only)
    };
    BENCHES.into_iter().filter(is_wanted).collect()
}

fn probe(options: &Options) {
    for (name, policy) in wanted(options) {
        println!("{}", ns_per_op(name, policy, options.workers));
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

fn run_probe(program: &Path, options: &Options) -> Option<Vec<f64>> {
    let output = Command::new(program)
        .args(["--probe", "--workers", &options.workers.to_string()])
        .args(["--only", &options.only])
        .stderr(Stdio::inherit())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let figures: Vec<f64> = text.lines().map_while(|line| line.parse().ok()).collect();
    (figures.len() == wanted(options).len()).then_some(figures)
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.probe {
        probe(&options);
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
            let Some(probed) = run_probe(program, &options) else {
                eprintln!("{} did not answer", program.display());
                return ExitCode::FAILURE;
            };
            figures[which].push(probed);
        }
    }
    let (workers, reps) = (options.workers, options.reps);
    println!("{workers} workers, {reps} processes of each; ns per operation, median (quartiles)");
    println!("bench            policy             watched               unwatched          cost");
    for (index, (name, policy)) in wanted(&options).iter().enumerate() {
        let [with, without] =
            [0, 1].map(|which: usize| quartiles(figures[which].iter().map(|probed| probed[index])));
        let show = |[low, median, high]: [f64; 3]| format!("{median:7.1} ({low:.1}-{high:.1})");
        let policy = policy.unwrap_or("-");
        let (cost, percent) = (with[1] - without[1], (with[1] / without[1] - 1.0) * 100.0);
        let (with, without) = (show(with), show(without));
        println!("{name:17}{policy:9}{with:>24}{without:>24}{cost:>8.1} ns{percent:>7.1} %");
    }
    ExitCode::SUCCESS
}
