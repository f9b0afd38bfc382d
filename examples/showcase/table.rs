//! The figures, for people and for machines.

use std::time::Duration;

use serde::Serialize;

use crate::phases::Ending;
use crate::record::Tally;

/// One phase. The field names are those of the JSON.
#[derive(Serialize)]
pub(crate) struct Row {
    name: &'static str,
    policy: String,
    /// `/ping` and `/work` together.
    requests: u64,
    errors: u64,
    /// Of `/ping`, counted from when it was due.
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    work_per_s: f64,
    ended_by: Option<&'static str>,
    /// Counted from the load.
    ended_after_ms: Option<u64>,
}

/// `tallies` begin with the warm-up, which gets no row.
pub(crate) fn rows(endings: &[Ending], tallies: &[Tally]) -> Vec<Row> {
    endings
        .iter()
        .zip(&tallies[1..])
        .map(|(ending, tally)| Row::new(ending, tally))
        .collect()
}

impl Row {
    fn new(ending: &Ending, tally: &Tally) -> Row {
        Row {
            name: ending.phase,
            policy: ending.policy.clone(),
            requests: tally.requests(),
            errors: tally.errors,
            p50_us: tally.ping_us.value_at_quantile(0.5),
            p99_us: tally.ping_us.value_at_quantile(0.99),
            max_us: tally.ping_us.max(),
            work_per_s: (tally.works_per_second() * 10.0).round() / 10.0,
            ended_by: ending.ended.map(|(kind, _)| kind.as_str()),
            ended_after_ms: ending.ended.map(|(_, after)| after.as_millis() as u64),
        }
    }

    fn end(&self) -> String {
        match (self.ended_by, self.ended_after_ms) {
            (Some(kind), Some(after_ms)) => format!("{kind} after {:.2} s", after_ms as f64 / 1e3),
            _ => "-".into(),
        }
    }
}

pub(crate) fn print(rows: &[Row]) {
    println!();
    println!(
        "{:10} {:14} {:>8} {:>6} | {:>8} {:>8} {:>8} | {:>6} | policy ended by",
        "phase", "policy", "requests", "errors", "p50", "p99", "max", "work/s"
    );
    for row in rows {
        println!(
            "{:10} {:14} {:>8} {:>6} | {:>8} {:>8} {:>8} | {:>6.0} | {}",
            row.name,
            row.policy,
            row.requests,
            row.errors,
            in_ms(row.p50_us),
            in_ms(row.p99_us),
            in_ms(row.max_us),
            row.work_per_s,
            row.end(),
        );
    }
    println!("p50, p99, max: latency of /ping, counted from when it was due");
}

/// All rows as one line.
pub(crate) fn json(rows: &[Row]) -> serde_json::Result<String> {
    #[derive(Serialize)]
    struct Figures<'a> {
        phases: &'a [Row],
    }
    serde_json::to_string(&Figures { phases: rows })
}

fn in_ms(us: u64) -> String {
    format!("{:.1} ms", Duration::from_micros(us).as_secs_f64() * 1e3)
}
