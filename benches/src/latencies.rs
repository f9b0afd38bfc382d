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
