//! The figures, for people and for machines.

use std::time::Duration;

use polity::ExitKind;
use serde::Serialize;

use crate::phases::Outcome;
use crate::record::Tally;

/// One phase. The field names are those of the JSON.
#[derive(Serialize)]
pub(crate) struct Row {
    name: &'static str,
    policy: String,
    /// `/ping` and `/work` together.
    requests: u64,
    errors: u64,
    /// Before the phase was over.
    answered: u64,
    /// Of `/ping`, counted from when it was due.
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    work_per_s: f64,
    /// The kind of end that the phase was made to show.
    expected: Option<&'static str>,
    ended_by: Option<&'static str>,
    as_expected: bool,
    /// From the load to the end.
    ended_after_ms: Option<u64>,
    /// From the fault, or the signal, to the ejection. Missing where the fault is its own report.
    reaction_us: Option<u64>,
}

/// `tallies` begin with the warm-up, which gets no row.
pub(crate) fn rows(outcomes: &[Outcome], tallies: &[Tally]) -> Vec<Row> {
    outcomes
        .iter()
        .zip(&tallies[1..])
        .map(|(outcome, tally)| Row::new(outcome, tally))
        .collect()
}

impl Row {
    fn new(outcome: &Outcome, tally: &Tally) -> Row {
        let micros = |time: Duration| time.as_micros() as u64;
        Row {
            name: outcome.phase.name(),
            policy: outcome.policy.clone(),
            requests: tally.requests(),
            errors: tally.errors,
            answered: outcome.answered,
            p50_us: tally.ping_us.value_at_quantile(0.5),
            p99_us: tally.ping_us.value_at_quantile(0.99),
            max_us: tally.ping_us.max(),
            work_per_s: (tally.works_per_second() * 10.0).round() / 10.0,
            expected: outcome.phase.expected().map(ExitKind::as_str),
            ended_by: outcome.ended.map(|(kind, _)| kind.as_str()),
            as_expected: outcome.is_as_expected(),
            ended_after_ms: outcome.ended_after().map(|after| micros(after) / 1000),
            reaction_us: outcome.reaction().map(micros),
        }
    }

    fn end(&self) -> String {
        let mut end = match (self.ended_by, self.ended_after_ms) {
            (Some(kind), Some(after_ms)) => format!("{kind} after {:.2} s", after_ms as f64 / 1e3),
            _ => "-".into(),
        };
        if self.answered == 0 {
            end += ", NOBODY WAS SERVED";
        } else if !self.as_expected {
            end += &format!(", NOT {}", self.expected.unwrap_or("at all"));
        }
        end
    }
}

pub(crate) fn print(rows: &[Row]) {
    println!();
    println!(
        "{:11} {:13} {:>8} {:>6} | {:>9} {:>9} {:>9} | {:>6} | {:>9} | policy ended by",
        "phase", "policy", "requests", "errors", "p50", "p99", "max", "work/s", "reaction"
    );
    for row in rows {
        println!(
            "{:11} {:13} {:>8} {:>6} | {:>9} {:>9} {:>9} | {:>6.0} | {:>9} | {}",
            row.name,
            row.policy,
            row.requests,
            row.errors,
            in_ms(row.p50_us),
            in_ms(row.p99_us),
            in_ms(row.max_us),
            row.work_per_s,
            row.reaction_us.map_or_else(|| "-".into(), in_ms),
            row.end(),
        );
    }
    println!("p50, p99, max: latency of /ping, counted from when it was due");
    println!("reaction: from the fault, or the signal, to the ejection");
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
