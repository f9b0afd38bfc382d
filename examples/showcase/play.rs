//! Plays the phases. Everything here happens on the main thread, while the workers go on serving: nothing in the server
//! knows that there are policies.

use std::thread;
use std::time::{Duration, Instant};

use polity::{ExitKind, Generation, LoadError, Policy, Runtime};
use polity_policies::Release;

use crate::phases::{Loadable, Outcome, Phase};
use crate::record::Record;

/// How long after a fault, or after its phase, the runtime is given to eject a policy. Twenty times the stall timeout.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long before a policy that starves from its load on its phase begins. A request that is under way when the policy
/// is loaded waits as long as those that come after; it must not spoil the figures of the phase before.
const LEAD_IN: Duration = Duration::from_millis(50);

/// Plays all phases, each for `length`, or a little longer than it takes to see its policy ejected.
pub(crate) fn play(
    runtime: &Runtime,
    record: &Record,
    length: Duration,
) -> Result<Vec<Outcome>, LoadError> {
    let mut play = Play {
        runtime,
        record,
        length,
        a_third: 0,
        outcomes: Vec::new(),
        loaded: None,
        release: None,
    };
    for phase in Phase::ALL {
        play.play(phase)?;
    }
    record.end_phases();
    if let Some(release) = &play.release {
        match release.stuck() {
            0 => {}
            calls => println!("{calls} callbacks are still stuck: released"),
        }
        release.release();
    }
    Ok(play.outcomes)
}

struct Play<'a> {
    runtime: &'a Runtime,
    record: &'a Record,
    length: Duration,
    /// Of the calls of `enqueue` that a phase brings.
    a_third: u64,
    outcomes: Vec<Outcome>,
    /// The policy of the last of `outcomes`, as long as we know of no end of it.
    loaded: Option<Generation>,
    /// Lets the calls of the last faulty policy return. Kept beyond its phase, so that they stay stuck beyond it.
    release: Option<Release>,
}

impl Play<'_> {
    fn play(&mut self, phase: Phase) -> Result<(), LoadError> {
        let offered = self.runtime.metrics().offered;
        let begun = self.begin(phase)?;
        let end = begun + self.length;
        match phase {
            Phase::Starve => self.note_fault(begun),
            Phase::Stuck => self.watch_for_stuck_calls(end + PATIENCE),
            Phase::Sysrq | Phase::SysrqStuck => {
                self.watch(begun + self.length / 2);
                self.quit();
            }
            Phase::Fifo | Phase::Priority | Phase::Panic | Phase::Error => {}
        }
        match phase.expected() {
            None | Some(ExitKind::Swap) => self.watch(end),
            Some(_) => self.insist(self.last().fault.unwrap_or(end) + PATIENCE),
        }
        // What comes after an ejection is to be seen too, however late it was.
        let ended = self.last().ended.map(|(_, at)| at + self.length / 3);
        let end = ended.map_or(end, |ended| ended.max(end));
        thread::sleep(end.saturating_duration_since(Instant::now()));
        let answered = self.record.answered();
        if let Some(outcome) = self.outcomes.last_mut() {
            outcome.answered = answered;
        }

        if phase == Phase::Priority {
            let offered = self.runtime.metrics().offered - offered;
            // A person may have ended it early: then there were fewer calls, in less time.
            let loaded_for = self.last().ended_after().unwrap_or(self.length);
            let share = self.length.as_secs_f64() / loaded_for.as_secs_f64() / 3.0;
            self.a_third = (offered as f64 * share) as u64;
        }
        Ok(())
    }

    fn begin(&mut self, phase: Phase) -> Result<Instant, LoadError> {
        let nth = self.outcomes.len() + 1;
        let loadable = phase.policy(self.a_third);
        let policy = loadable
            .as_ref()
            .map_or("built-in FIFO", |loadable| loadable.policy.name());
        let policy = policy.to_owned();
        let count = Phase::ALL.len();
        println!("phase {nth} of {count}, {}: {policy}", phase.name());

        if phase == Phase::Starve {
            self.record.begin_phase();
            thread::sleep(LEAD_IN);
        }
        let generation = match loadable {
            Some(Loadable { policy, release }) => {
                if release.is_some() {
                    self.release = release;
                }
                Some(self.runtime.load(policy)?)
            }
            None => None,
        };
        let begun = match phase {
            Phase::Starve => Instant::now(),
            _ => self.record.begin_phase(),
        };
        if let Some(generation) = generation {
            self.settle(); // if a policy was loaded, this one took its place
            self.loaded = Some(generation);
        }
        self.outcomes.push(Outcome {
            phase,
            policy,
            begun,
            fault: None,
            ended: None,
            answered: 0,
        });
        Ok(begun)
    }

    fn last(&self) -> &Outcome {
        self.outcomes.last().expect("a phase has begun")
    }

    fn note_fault(&mut self, at: Instant) {
        if let Some(outcome) = self.outcomes.last_mut() {
            outcome.fault = Some(at);
        }
    }

    /// Notes the end of a policy that has just been replaced or ejected by ourselves.
    fn settle(&mut self) {
        self.watch(Instant::now() + Duration::from_secs(1));
    }

    /// Returns when the policy ends, however it does, or at `until`.
    fn watch(&mut self, until: Instant) {
        let Some(generation) = self.loaded else {
            return;
        };
        let left = until.saturating_duration_since(Instant::now());
        let Some(info) = self.runtime.wait_exit(generation, left) else {
            return;
        };
        self.loaded = None;
        let Some(outcome) = self.outcomes.last_mut() else {
            return;
        };
        outcome.ended = Some((info.kind, Instant::now()));
        let (policy, kind, reason) = (&info.policy, info.kind, info.reason());
        let after = outcome.ended_after().unwrap_or_default().as_secs_f64();
        println!("  {policy}: {kind} after {after:.2} s, {reason}");
    }

    /// Returns when the first call is stuck, when the policy ends, or at `until`.
    fn watch_for_stuck_calls(&mut self, until: Instant) {
        while self.loaded.is_some() && Instant::now() < until {
            if self.release.as_ref().is_some_and(|it| it.stuck() > 0) {
                println!("  a callback does not return");
                self.note_fault(Instant::now());
                return;
            }
            self.watch(Instant::now() + Duration::from_millis(1));
        }
    }

    /// Waits for an ejection that the runtime owes. If it has not come by `until`, we do what can be done from outside,
    /// so that the run comes to its end and says what was missing.
    fn insist(&mut self, until: Instant) {
        self.watch(until);
        if self.loaded.is_none() {
            return;
        }
        println!("  NOT ejected by the runtime within {PATIENCE:?}: the showcase does it");
        self.runtime.eject("overdue");
        if let Some(release) = &self.release {
            release.release();
        }
        self.settle();
    }

    /// Does what a person does with `kill -QUIT`, unless somebody was faster.
    fn quit(&mut self) {
        if self.loaded.is_none() {
            return;
        }
        println!("  SIGQUIT to ourselves");
        self.note_fault(Instant::now());
        if let Err(error) = signal_hook::low_level::raise(signal_hook::consts::SIGQUIT) {
            tracing::warn!(%error, "raise failed");
        }
    }
}
