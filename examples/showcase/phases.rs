//! The phases: the same load, five answers to the question who runs first. Everything here happens on the main thread,
//! while the workers go on serving: nothing in the server knows that there are policies.

use std::thread;
use std::time::{Duration, Instant};

use polity::{BoxPolicy, ExitKind, Generation, LoadError, Policy, Runtime};
use polity_policies::{Callback, Fault, Faulty, Priority};

use crate::record::Record;

/// How many phases there are.
pub(crate) const COUNT: u32 = Phase::ALL.len() as u32;

/// | phase      | what is loaded at its start              | what ends it                       |
/// |------------|------------------------------------------|------------------------------------|
/// | `fifo`     | nothing                                  |                                    |
/// | `priority` | `Priority`                               | the next phase's policy: a swap    |
/// | `panic`    | a policy that panics after a third of it | ejection; FIFO for the rest of it  |
/// | `error`    | a policy that gives up after a third     | ejection; FIFO for the rest of it  |
/// | `sysrq`    | `Priority`                               | SIGQUIT in the middle, then FIFO   |
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Fifo,
    Priority,
    Panic,
    Error,
    Sysrq,
}

impl Phase {
    const ALL: [Phase; 5] = [
        Phase::Fifo,
        Phase::Priority,
        Phase::Panic,
        Phase::Error,
        Phase::Sysrq,
    ];

    const fn name(self) -> &'static str {
        match self {
            Phase::Fifo => "fifo",
            Phase::Priority => "priority",
            Phase::Panic => "panic",
            Phase::Error => "error",
            Phase::Sysrq => "sysrq",
        }
    }
}

/// How a phase's policy fared.
pub(crate) struct Ending {
    pub(crate) phase: &'static str,
    pub(crate) policy: String,
    /// What ended the policy, and how long after it was loaded. `None` where no policy was loaded.
    pub(crate) ended: Option<(ExitKind, Duration)>,
}

/// Plays all phases, each for `length`.
pub(crate) fn play(
    runtime: &Runtime,
    record: &Record,
    length: Duration,
) -> Result<Vec<Ending>, LoadError> {
    let mut play = Play {
        runtime,
        record,
        endings: Vec::new(),
        loaded: None,
    };
    let mut a_third = 0; // of the calls of `enqueue` that a phase brings
    for phase in Phase::ALL {
        let offered = runtime.metrics().offered;
        let begun = play.begin(phase, policy_for(phase, a_third))?;
        if phase == Phase::Sysrq {
            play.watch(begun + length / 2);
            play.quit();
        }
        play.watch(begun + length);
        thread::sleep((begun + length).saturating_duration_since(Instant::now()));
        if phase == Phase::Priority {
            let offered = runtime.metrics().offered - offered;
            // A person may have ended it early: then there were fewer calls, in less time.
            let loaded_for = play.last_ended().map_or(length, |(_, after)| after);
            let share = length.as_secs_f64() / loaded_for.as_secs_f64() / 3.0;
            a_third = (offered as f64 * share) as u64;
        }
    }
    record.end_phases();
    runtime.unload();
    play.settle();
    Ok(play.endings)
}

fn policy_for(phase: Phase, calls: u64) -> Option<BoxPolicy> {
    let faulty = |fault| BoxPolicy::new(Faulty::new(fault));
    match phase {
        Phase::Fifo => None,
        Phase::Priority | Phase::Sysrq => Some(BoxPolicy::new(Priority::new())),
        Phase::Panic => Some(faulty(Fault::Panic {
            callback: Callback::Enqueue,
            call: calls,
        })),
        Phase::Error => Some(faulty(Fault::ErrorAfterEnqueues(calls))),
    }
}

struct Play<'a> {
    runtime: &'a Runtime,
    record: &'a Record,
    endings: Vec<Ending>,
    /// The policy of the last of `endings`, as long as we know of no end of it.
    loaded: Option<(Generation, Instant)>,
}

impl Play<'_> {
    fn begin(&mut self, phase: Phase, policy: Option<BoxPolicy>) -> Result<Instant, LoadError> {
        let nth = self.endings.len() + 1;
        let name = policy.as_ref().map_or("built-in FIFO", Policy::name);
        let name = name.to_owned();
        println!("phase {nth} of {COUNT}, {}: {name}", phase.name());

        let generation = match policy {
            Some(policy) => Some(self.runtime.load(policy)?),
            None => None,
        };
        let begun = self.record.begin_phase();
        if let Some(generation) = generation {
            self.settle(); // if a policy was loaded, this one took its place
            self.loaded = Some((generation, begun));
        }
        self.endings.push(Ending {
            phase: phase.name(),
            policy: name,
            ended: None,
        });
        Ok(begun)
    }

    fn last_ended(&self) -> Option<(ExitKind, Duration)> {
        self.endings.last().and_then(|ending| ending.ended)
    }

    /// Notes the end of a policy that has just been replaced or unloaded.
    fn settle(&mut self) {
        self.watch(Instant::now() + Duration::from_secs(1));
    }

    /// Returns when the policy ends, however it does, or at `until`.
    fn watch(&mut self, until: Instant) {
        let Some((generation, at)) = self.loaded else {
            return;
        };
        let left = until.saturating_duration_since(Instant::now());
        let Some(info) = self.runtime.wait_exit(generation, left) else {
            return;
        };
        let after = at.elapsed();
        let (policy, kind, reason) = (&info.policy, info.kind, info.reason());
        println!(
            "  {policy}: {kind} after {:.2} s, {reason}",
            after.as_secs_f64()
        );
        if let Some(ending) = self.endings.last_mut() {
            ending.ended = Some((info.kind, after));
        }
        self.loaded = None;
    }

    /// Does what a person does with `kill -QUIT`, unless somebody was faster.
    fn quit(&self) {
        if self.loaded.is_none() {
            return;
        }
        println!("  SIGQUIT to ourselves");
        if let Err(error) = signal_hook::low_level::raise(signal_hook::consts::SIGQUIT) {
            tracing::warn!(%error, "raise failed");
        }
    }
}
