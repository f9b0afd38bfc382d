//! Pictures for docs/performance.md.
//!
//! ```text
//! cargo run --release -p polity-benches --bin versus -- --json | tee table.txt
//! cargo run --release -p polity-benches --bin plots -- ratios table.txt ratios.svg
//! cargo run --release -p polity-benches --bin plots -- tails tails.svg --reps 15
//! ```

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use clap::Parser;
use polity_benches::{Settings, draw_ratios, draw_tails, played_a_role};

/// Draws what `versus` measures.
#[derive(Parser)]
enum Options {
    /// Bars of the ratios of a run of `versus --json`.
    Ratios {
        /// Its output, or the last line of it.
        table: PathBuf,
        /// The SVG file to write.
        to: PathBuf,
    },
    /// Measures the suite `tail`, and draws all of its latencies.
    Tails {
        /// The SVG file to write.
        to: PathBuf,
        /// Measured turns of each contender.
        #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
        reps: u32,
        /// Workers of each contender.
        #[arg(long, default_value_t = 2)]
        workers: usize,
    },
}

fn main() -> Result<(), Box<dyn Error>> {
    if played_a_role() {
        return Ok(());
    }
    match Options::parse() {
        Options::Ratios { table, to } => {
            let output = fs::read_to_string(table)?;
            let last = output
                .trim_end()
                .lines()
                .last()
                .ok_or("the table is empty")?;
            draw_ratios(last, &to)
        }
        Options::Tails { to, reps, workers } => {
            let only = Vec::new();
            let settings = Settings {
                reps,
                workers,
                only,
            };
            draw_tails(&settings, &to)
        }
    }
}
