//! Latencies of a turn, and how they travel between processes.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// How long things took, to three digits. It travels as pairs of nanoseconds and how often they occurred.
#[derive(Clone, Serialize, Deserialize)]
#[serde(from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub(crate) struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Latencies(Histogram::new(3).expect("three digits are possible"))
    }
}

impl Latencies {
    pub(crate) fn record(&mut self, latency: Duration) {
        self.0 += latency.as_nanos() as u64;
    }

    pub(crate) fn merge(&mut self, others: &Latencies) {
        self.0 += &others.0;
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// Points of a curve: microseconds, and which share took longer. The longest has no share left, and is left out.
    pub(crate) fn longer(&self) -> impl Iterator<Item = (f64, f64)> {
        let all = self.count() as f64;
        let mut left = self.count();
        let points = self.0.iter_recorded().map(move |step| {
            left -= step.count_at_value();
            (step.value_iterated_to() as f64 / 1e3, left as f64 / all)
        });
        points.filter(|(_, share)| *share > 0.0)
    }

    /// What `quantile` of all stay below, in microseconds.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1e3
    }
}

impl From<Vec<(u64, u64)>> for Latencies {
    fn from(pairs: Vec<(u64, u64)>) -> Self {
        let mut all = Latencies::default();
        for (ns, count) in pairs {
            all.0.record_n(ns, count).expect("it resizes itself");
        }
        all
    }
}

impl From<Latencies> for Vec<(u64, u64)> {
    fn from(all: Latencies) -> Self {
        let recorded = all.0.iter_recorded();
        recorded
            .map(|step| (step.value_iterated_to(), step.count_at_value()))
            .collect()
    }
}

/// A record that many tasks write to.
#[derive(Clone, Default)]
pub(crate) struct Record(Arc<Mutex<Latencies>>);

impl Record {
    pub(crate) fn add(&self, latency: Duration) {
        // A count is whole whenever the lock is free, whoever panicked.
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .record(latency);
    }

    /// What has been recorded until now.
    pub(crate) fn so_far(&self) -> Latencies {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_the_same_at_the_end_of_the_journey() {
        let record = Record::default();
        for us in 1..=1000 {
            record.add(Duration::from_micros(us));
        }
        let sent = serde_json::to_string(&record.so_far()).unwrap();
        let come: Latencies = serde_json::from_str(&sent).unwrap();
        assert_eq!(come.count(), 1000);
        assert!((come.quantile_us(0.99) - 990.0).abs() < 2.0);
        assert_eq!(come.quantile_us(0.5), record.so_far().quantile_us(0.5));
    }

    #[test]
    fn half_take_longer_than_the_median() {
        let mut latencies = Latencies::default();
        (1..=100).for_each(|us| latencies.record(Duration::from_micros(us)));
        let at_median = latencies.longer().find(|(us, _)| *us >= 50.0).unwrap();
        assert!((at_median.1 - 0.5).abs() < 0.02, "{at_median:?}");
    }
}
