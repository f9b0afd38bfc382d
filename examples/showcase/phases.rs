//! The phases: the same load, eight answers to the question who runs first.

use std::time::{Duration, Instant};

use polity::{BoxPolicy, ExitKind};
use polity_policies::{Callback, Fault, Faulty, Priority, Release};

use crate::server::PING_WEIGHT;

/// | phase         | what is loaded at its start                           | what ends it                       |
/// |---------------|-------------------------------------------------------|------------------------------------|
/// | `fifo`        | nothing                                               |                                    |
/// | `priority`    | `Priority`                                            | the next phase's policy: a swap    |
/// | `panic`       | a policy that panics after a third of it              | ejection; FIFO for the rest of it  |
/// | `error`       | a policy that gives up after a third                  | ejection; FIFO for the rest of it  |
/// | `sysrq`       | `Priority`                                            | SIGQUIT in the middle, then FIFO   |
/// | `starve`      | a policy that never dispatches `/ping`                | the watchdog, then FIFO            |
/// | `stuck`       | a policy whose `enqueue` returns no more after a third, on any worker | the watchdog, then FIFO on spares |
/// | `sysrq_stuck` | `Priority`, while those calls still burn their cores  | SIGQUIT in the middle, then FIFO   |
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Fifo,
    Priority,
    Panic,
    Error,
    Sysrq,
    Starve,
    Stuck,
    SysrqStuck,
}

impl Phase {
    pub(crate) const ALL: [Phase; 8] = [
        Phase::Fifo,
        Phase::Priority,
        Phase::Panic,
        Phase::Error,
        Phase::Sysrq,
        Phase::Starve,
        Phase::Stuck,
        Phase::SysrqStuck,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Phase::Fifo => "fifo",
            Phase::Priority => "priority",
            Phase::Panic => "panic",
            Phase::Error => "error",
            Phase::Sysrq => "sysrq",
            Phase::Starve => "starve",
            Phase::Stuck => "stuck",
            Phase::SysrqStuck => "sysrq_stuck",
        }
    }

    /// What has to end the phase's policy.
    pub(crate) const fn expected(self) -> Option<ExitKind> {
        match self {
            Phase::Fifo => None,
            Phase::Priority => Some(ExitKind::Swap),
            Phase::Panic => Some(ExitKind::Panic),
            Phase::Error => Some(ExitKind::PolicyError),
            Phase::Sysrq | Phase::SysrqStuck => Some(ExitKind::Sysrq),
            Phase::Starve => Some(ExitKind::Stall),
            Phase::Stuck => Some(ExitKind::StuckCallback),
        }
    }

    /// The policy that is loaded. Faults that are to come after a third of the phase come at call number `a_third` of
    /// `enqueue`.
    pub(crate) fn policy(self, a_third: u64) -> Option<Loadable> {
        let callback = Callback::Enqueue;
        let call = a_third.max(1); // a call of 0 would never come
        match self {
            Phase::Fifo => None,
            Phase::Priority | Phase::Sysrq | Phase::SysrqStuck => Some(Loadable {
                policy: BoxPolicy::new(Priority::new()),
                release: None,
            }),
            Phase::Panic => Some(Loadable::faulty(Fault::Panic { callback, call })),
            Phase::Error => Some(Loadable::faulty(Fault::ErrorAfterEnqueues(call))),
            Phase::Starve => Some(Loadable::faulty(Fault::Starve {
                weight: PING_WEIGHT,
            })),
            Phase::Stuck => Some(Loadable::faulty(Fault::NeverReturn { callback, call })),
        }
    }
}

/// A policy, and what undoes its fault.
pub(crate) struct Loadable {
    pub(crate) policy: BoxPolicy,
    pub(crate) release: Option<Release>,
}

impl Loadable {
    fn faulty(fault: Fault) -> Self {
        let policy = Faulty::new(fault);
        let release = Some(policy.release_handle());
        Loadable {
            policy: BoxPolicy::new(policy),
            release,
        }
    }
}

/// How a phase's policy fared.
pub(crate) struct Outcome {
    pub(crate) phase: Phase,
    pub(crate) policy: String,
    /// When the policy was loaded; where there is none, when the phase began.
    pub(crate) begun: Instant,
    /// When it began to starve or to be stuck, or SIGQUIT was sent. `None` where the fault is its own report, as a
    /// panic is.
    pub(crate) fault: Option<Instant>,
    pub(crate) ended: Option<(ExitKind, Instant)>,
    /// How many requests of the phase were answered before it was over: none at all would mean that the runtime got rid
    /// of the policy, and nobody took over.
    pub(crate) answered: u64,
}

impl Outcome {
    /// Whether the policy ended as it should have, and requests were served. A person who was faster with SIGQUIT is always
    /// right.
    pub(crate) fn is_as_expected(&self) -> bool {
        let ended = match (self.phase.expected(), self.ended) {
            (None, None) => true,
            (Some(expected), Some((kind, _))) => kind == expected || kind == ExitKind::Sysrq,
            _ => false,
        };
        ended && self.answered > 0
    }

    /// From the load to the end.
    pub(crate) fn ended_after(&self) -> Option<Duration> {
        self.ended.map(|(_, at)| at - self.begun)
    }

    /// From the fault, or the signal, to the end.
    pub(crate) fn reaction(&self) -> Option<Duration> {
        let (_, ended) = self.ended?;
        Some(ended.saturating_duration_since(self.fault?))
    }
}
