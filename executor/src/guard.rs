//! Control's look after the watchdog.
//!
//! The watchdog runs nothing that could stop it; but it is the one that finds what is stuck, so somebody should notice if it
//! is. While there is something to watch, it ticks at least every 10 ms. Two looks in a row, a second apart, between which it has
//! not ticked, and control does its duty until it is back. Two, so that a process that was stopped in between does not
//! count. While nothing runs, neither of them wakes up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::report::{self, Report};
use crate::watch::{AfterRound, Watch};

/// How often control looks.
const EVERY: Duration = Duration::from_secs(1);
/// Looks in a row without a new beat, after which the watchdog counts as lost.
const MISSED: u32 = 2;

/// See the [module](self).
pub(crate) struct Guard {
    watch: Arc<Watch>,
    pulse: Pulse,
}

impl Guard {
    pub(crate) fn new(watch: Arc<Watch>, now: Instant) -> Self {
        Guard {
            watch,
            pulse: Pulse::new(now),
        }
    }

    /// Looks, or does the watchdog's work. Returns how long control may wait; `None`: until something happens.
    pub(crate) fn look(&mut self, now: Instant) -> Option<Duration> {
        if self.watch.is_controls() {
            return match self.watch.round() {
                AfterRound::Wait(time) => Some(time),
                AfterRound::Sleep | AfterRound::WorkFor(..) => Some(EVERY),
            };
        }
        if self.watch.is_asleep() {
            self.pulse = Pulse::new(now);
            return None;
        }
        match self.pulse.feel(self.watch.beat(), now) {
            Felt::Fine(wait) => Some(wait),
            Felt::Nothing => {
                report::send(Report::Warn(
                    "the watchdog has not ticked for two seconds: control does its duty".to_owned(),
                ));
                self.watch.take_over();
                Some(Duration::ZERO)
            }
        }
    }
}

/// What was felt of the watchdog's pulse.
struct Pulse {
    beat: u64,
    felt_at: Instant,
    missed: u32,
}

#[derive(PartialEq, Eq, Debug)]
enum Felt {
    /// Look again after so long.
    Fine(Duration),
    /// It is lost.
    Nothing,
}

impl Pulse {
    fn new(now: Instant) -> Self {
        Pulse {
            // No tick has this number.
            beat: u64::MAX,
            felt_at: now,
            missed: 0,
        }
    }

    fn feel(&mut self, beat: u64, now: Instant) -> Felt {
        let since = now.saturating_duration_since(self.felt_at);
        if since < EVERY {
            return Felt::Fine(EVERY - since);
        }
        self.felt_at = now;
        self.missed = if beat == self.beat {
            self.missed + 1
        } else {
            0
        };
        self.beat = beat;
        if self.missed < MISSED {
            return Felt::Fine(EVERY);
        }
        self.missed = 0;
        Felt::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::now;

    #[test]
    fn a_watchdog_that_ticks_is_left_alone() {
        let start = now();
        let mut pulse = Pulse::new(start);
        for second in 1..100 {
            let felt = pulse.feel(u64::from(second), start + EVERY * second);
            assert_eq!(felt, Felt::Fine(EVERY));
        }
    }

    #[test]
    fn a_watchdog_that_stops_ticking_is_replaced_after_two_looks() {
        let start = now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.feel(7, start + EVERY), Felt::Fine(EVERY));
        assert_eq!(pulse.feel(7, start + EVERY * 2), Felt::Fine(EVERY));
        assert_eq!(pulse.feel(7, start + EVERY * 3), Felt::Nothing);
    }

    #[test]
    fn a_process_that_was_stopped_for_an_hour_has_not_lost_its_watchdog() {
        let start = now();
        let mut pulse = Pulse::new(start);
        assert_eq!(pulse.feel(7, start + EVERY), Felt::Fine(EVERY));
        // Control may be the first of the two to run again.
        let later = start + EVERY * 3600;
        assert_eq!(pulse.feel(7, later), Felt::Fine(EVERY));
        assert_eq!(pulse.feel(8, later + EVERY), Felt::Fine(EVERY));
    }

    #[test]
    fn looks_in_quick_succession_count_once() {
        let start = now();
        let mut pulse = Pulse::new(start);
        for ms in 0..1000 {
            let felt = pulse.feel(7, start + Duration::from_millis(ms));
            assert!(matches!(felt, Felt::Fine(wait) if wait <= EVERY));
        }
    }
}
