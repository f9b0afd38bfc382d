//! What the clients saw, by phase. A request belongs to the phase in which it was due, however late its answer came:
//! a phase cannot pass its slow requests on to the next one.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::timeline::Timeline;

/// A thousand requests a second or so: one lock will do.
pub(crate) struct Record(Mutex<Seen>);

/// What the clients have seen so far.
#[derive(Clone)]
pub(crate) struct Seen {
    /// Of the warm-up (the first) and of the phases, in order.
    pub(crate) tallies: Vec<Tally>,
    pub(crate) pings: Timeline,
}

/// What happened to the requests that were due in one phase.
#[derive(Clone)]
pub(crate) struct Tally {
    pub(crate) begun: Instant,
    pub(crate) length: Duration,
    /// In µs, with two significant digits.
    pub(crate) ping_us: Histogram<u64>,
    /// How many `/work`s were answered.
    pub(crate) works: u64,
    /// A connection that failed, a status that is not 200, or a wrong body.
    pub(crate) errors: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Ping,
    Work,
}

impl Record {
    /// Begins with the warm-up of a run that will take about so long.
    pub(crate) fn new(run: Duration) -> Record {
        let now = Instant::now();
        Record(Mutex::new(Seen {
            tallies: vec![Tally::new(now)],
            pings: Timeline::new(now, run),
        }))
    }

    /// Returns the moment from which on requests are the new phase's.
    pub(crate) fn begin_phase(&self) -> Instant {
        let mut seen = self.lock();
        let now = Instant::now();
        close_last(&mut seen.tallies, now);
        seen.tallies.push(Tally::new(now));
        now
    }

    pub(crate) fn add(&self, kind: Kind, due: Instant, latency: Duration, result: io::Result<()>) {
        let mut guard = self.lock();
        let Seen { tallies, pings } = &mut *guard;
        // Requests due before the record began (a client's first) are the warm-up's.
        let phase = tallies
            .iter()
            .rposition(|tally| tally.begun <= due)
            .unwrap_or(0);
        let tally = &mut tallies[phase];
        match (result, kind) {
            (Ok(()), Kind::Ping) => {
                tally.ping_us.saturating_record(latency.as_micros() as u64);
                pings.add(due, latency);
            }
            (Ok(()), Kind::Work) => tally.works += 1,
            (Err(error), _) => {
                // All of them count; the first few are enough to read.
                if tally.errors < 5 {
                    tracing::error!(?kind, phase, %error, "request failed");
                }
                tally.errors += 1;
            }
        }
    }

    /// How many requests have been answered so far of those that were due in the present phase.
    pub(crate) fn answered(&self) -> u64 {
        let seen = self.lock();
        let present = seen.tallies.last();
        present.map_or(0, |tally| tally.ping_us.len() + tally.works)
    }

    /// Closes the last phase.
    pub(crate) fn end_phases(&self) {
        close_last(&mut self.lock().tallies, Instant::now());
    }

    /// All of it.
    pub(crate) fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close_last(tallies: &mut [Tally], now: Instant) {
    if let Some(last) = tallies.last_mut() {
        last.length = now - last.begun;
    }
}

impl Tally {
    fn new(begun: Instant) -> Tally {
        // One minute is far above the clients' timeout.
        let ping_us = Histogram::new_with_bounds(1, 60_000_000, 2).expect("the bounds are valid");
        Tally {
            begun,
            length: Duration::ZERO,
            ping_us,
            works: 0,
            errors: 0,
        }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.ping_us.len() + self.works + self.errors
    }

    pub(crate) fn works_per_second(&self) -> f64 {
        self.works as f64 / self.length.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}
