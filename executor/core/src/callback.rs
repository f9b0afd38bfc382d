//! The names of a policy's callbacks.

use std::fmt;

/// Which callback of a policy: for reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // named after the callbacks
pub enum Callback {
    Name,
    StallTimeout,
    Init,
    Exit,
    SelectWorker,
    Enqueue,
    Dequeue,
    Dispatch,
    Runnable,
    Running,
    Stopping,
    Quiescent,
    Wakes,
    SetWeight,
    SetAffinity,
}

impl Callback {
    /// All, in the order of their discriminants.
    pub(crate) const ALL: [Callback; 15] = [
        Callback::Name,
        Callback::StallTimeout,
        Callback::Init,
        Callback::Exit,
        Callback::SelectWorker,
        Callback::Enqueue,
        Callback::Dequeue,
        Callback::Dispatch,
        Callback::Runnable,
        Callback::Running,
        Callback::Stopping,
        Callback::Quiescent,
        Callback::Wakes,
        Callback::SetWeight,
        Callback::SetAffinity,
    ];
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Callback::Name => "name",
            Callback::StallTimeout => "stall_timeout",
            Callback::Init => "init",
            Callback::Exit => "exit",
            Callback::SelectWorker => "select_worker",
            Callback::Enqueue => "enqueue",
            Callback::Dequeue => "dequeue",
            Callback::Dispatch => "dispatch",
            Callback::Runnable => "runnable",
            Callback::Running => "running",
            Callback::Stopping => "stopping",
            Callback::Quiescent => "quiescent",
            Callback::Wakes => "wakes",
            Callback::SetWeight => "set_weight",
            Callback::SetAffinity => "set_affinity",
        })
    }
}
