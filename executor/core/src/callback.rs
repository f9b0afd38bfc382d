//! The names of a policy's callbacks.

use std::fmt;

/// Which callback of a policy: for reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)] // named after the callbacks
pub enum Callback {
    Name,
    StallTimeout,
    Slice,
    Accounting,
    Init,
    Exit,
    InitTask,
    ExitTask,
    SelectWorker,
    Enqueue,
    Dequeue,
    Dispatch,
    Runnable,
    Running,
    Stopping,
    Quiescent,
    Timer,
    Wakes,
    SetWeight,
    SetAffinity,
}

impl Callback {
    /// All, in the order of their discriminants.
    pub(crate) const ALL: [Callback; 20] = [
        Callback::Name,
        Callback::StallTimeout,
        Callback::Slice,
        Callback::Accounting,
        Callback::Init,
        Callback::Exit,
        Callback::InitTask,
        Callback::ExitTask,
        Callback::SelectWorker,
        Callback::Enqueue,
        Callback::Dequeue,
        Callback::Dispatch,
        Callback::Runnable,
        Callback::Running,
        Callback::Stopping,
        Callback::Quiescent,
        Callback::Timer,
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
            Callback::Slice => "slice",
            Callback::Accounting => "accounting",
            Callback::Init => "init",
            Callback::Exit => "exit",
            Callback::InitTask => "init_task",
            Callback::ExitTask => "exit_task",
            Callback::SelectWorker => "select_worker",
            Callback::Enqueue => "enqueue",
            Callback::Dequeue => "dequeue",
            Callback::Dispatch => "dispatch",
            Callback::Runnable => "runnable",
            Callback::Running => "running",
            Callback::Stopping => "stopping",
            Callback::Quiescent => "quiescent",
            Callback::Timer => "timer",
            Callback::Wakes => "wakes",
            Callback::SetWeight => "set_weight",
            Callback::SetAffinity => "set_affinity",
        })
    }
}
