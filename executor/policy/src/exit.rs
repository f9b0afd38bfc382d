//! Why a policy ended.

use std::backtrace::Backtrace;
use std::fmt;
use std::sync::Arc;

use crate::{Generation, TaskId, WorkerId};

/// What ended a policy. The numbers keep the ranges of Linux sched_ext (`kernel/sched/ext/internal.h`): from 64
/// orderly, from 1024 an error.
///
/// ```
/// use polity_policy::ExitKind;
/// assert!(!ExitKind::Sysrq.is_error() && ExitKind::Panic.is_error());
/// assert_eq!(ExitKind::Sysrq.to_string(), "sysrq");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
#[repr(u32)]
pub enum ExitKind {
    /// The application unloaded it.
    Unload = 64,
    /// The policy asked for its own end with [`Host::exit`](crate::Host::exit).
    PolicyExit = 65,
    /// The runtime shut down.
    Shutdown = 66,
    /// A person asked with `kill -QUIT`.
    Sysrq = 67,
    /// The application loaded another policy in its place.
    Swap = 68,
    /// The application ejected it through the control handle.
    Ejected = 69,
    /// It passed or returned a value that makes no sense: the message names callback and value.
    Error = 1024,
    /// It reported an error of its own with [`Host::error`](crate::Host::error).
    PolicyError = 1025,
    /// It left a runnable task waiting for longer than its stall timeout while a worker could have run it.
    Stall = 1026,
    /// Its `dispatch` kept a worker busy without giving it anything to run for the whole stall timeout.
    DispatchLoop = 1028,
    /// A callback panicked.
    Panic = 1029,
    /// A callback did not return.
    StuckCallback = 1030,
}

impl ExitKind {
    /// The number, for logs and machines.
    ///
    /// ```
    /// assert_eq!(polity_policy::ExitKind::Unload.number(), 64);
    /// ```
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// Whether the policy did something wrong, as opposed to being removed in good order.
    ///
    /// ```
    /// assert!(polity_policy::ExitKind::DispatchLoop.is_error());
    /// ```
    pub const fn is_error(self) -> bool {
        self.number() >= 1024
    }

    /// One word or two, as in reports: `unload`, `sysrq`, `panic`, ...
    ///
    /// ```
    /// assert_eq!(polity_policy::ExitKind::DispatchLoop.as_str(), "dispatch_loop");
    /// ```
    pub const fn as_str(self) -> &'static str {
        match self {
            ExitKind::Unload => "unload",
            ExitKind::PolicyExit => "policy_exit",
            ExitKind::Shutdown => "shutdown",
            ExitKind::Sysrq => "sysrq",
            ExitKind::Swap => "swap",
            ExitKind::Ejected => "ejected",
            ExitKind::Error => "error",
            ExitKind::PolicyError => "policy_error",
            ExitKind::Stall => "stall",
            ExitKind::DispatchLoop => "dispatch_loop",
            ExitKind::Panic => "panic",
            ExitKind::StuckCallback => "stuck_callback",
        }
    }

    /// The kind, in a sentence.
    ///
    /// ```
    /// assert_eq!(polity_policy::ExitKind::Swap.reason(), "replaced by another policy");
    /// ```
    pub const fn reason(self) -> &'static str {
        match self {
            ExitKind::Unload => "unloaded by the application",
            ExitKind::PolicyExit => "ended by the policy itself",
            ExitKind::Shutdown => "the runtime shut down",
            ExitKind::Sysrq => "ejected by sysrq (SIGQUIT)",
            ExitKind::Swap => "replaced by another policy",
            ExitKind::Ejected => "ejected by the application",
            ExitKind::Error => "wrong value from the policy",
            ExitKind::PolicyError => "error reported by the policy",
            ExitKind::DispatchLoop => "dispatch never gave the worker anything to run",
            ExitKind::Stall => "a runnable task was left waiting",
            ExitKind::Panic => "a callback panicked",
            ExitKind::StuckCallback => "a callback did not return",
        }
    }
}

impl fmt::Display for ExitKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The report on a policy's end. The first one for a generation wins; later ones are dropped.
///
/// ```
/// use polity_policy::{ExitInfo, ExitKind, Generation};
/// let info = ExitInfo::new(ExitKind::Error, "mine", Generation::new(4)).with_message("no DSQ custom 9");
/// assert_eq!(
///     info.to_string(),
///     r#"policy "mine" ended (generation 4): error: wrong value from the policy: no DSQ custom 9"#
/// );
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ExitInfo {
    /// What ended it.
    pub kind: ExitKind,
    /// The policy's own code, from [`Host::exit`](crate::Host::exit); 0 otherwise.
    pub code: u64,
    /// What exactly: callback, value, panic message. At most 1,024 bytes.
    pub message: String,
    /// The policy's name.
    pub policy: String,
    /// Which load of it.
    pub generation: Generation,
    /// On which worker it happened, if on one.
    pub worker: Option<WorkerId>,
    /// Over which task it happened, if over one.
    pub task: Option<TaskId>,
    /// What the runtime looked like when the policy was swept out: workers, the tasks that it held, counters. At most
    /// 32 KiB; one that was cut says so. Missing for `Unload`, `Swap` and `Shutdown`.
    pub dump: Option<Arc<str>>,
    /// For a wrong value, a reported error or a panic: where in the policy. Its frames are looked up when it is printed.
    pub backtrace: Option<Arc<Backtrace>>,
}

impl ExitInfo {
    /// A report without details.
    ///
    /// ```
    /// use polity_policy::{ExitInfo, ExitKind, Generation};
    /// assert_eq!(ExitInfo::new(ExitKind::Unload, "mine", Generation::new(1)).code, 0);
    /// ```
    pub fn new(kind: ExitKind, policy: &str, generation: Generation) -> Self {
        ExitInfo {
            kind,
            code: 0,
            message: String::new(),
            policy: policy.to_owned(),
            generation,
            worker: None,
            task: None,
            dump: None,
            backtrace: None,
        }
    }

    /// The same with a message, cut at 1,024 bytes.
    ///
    /// ```
    /// use polity_policy::{ExitInfo, ExitKind, Generation};
    /// let info = ExitInfo::new(ExitKind::Error, "mine", Generation::new(1)).with_message("x".repeat(2000));
    /// assert_eq!(info.message.len(), 1024);
    /// ```
    #[must_use]
    pub fn with_message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        let mut end = self.message.len().min(1024);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        self.message.truncate(end);
        self
    }

    /// The kind, in a sentence.
    ///
    /// ```
    /// use polity_policy::{ExitInfo, ExitKind, Generation};
    /// let info = ExitInfo::new(ExitKind::Unload, "mine", Generation::new(1));
    /// assert_eq!(info.reason(), "unloaded by the application");
    /// ```
    pub const fn reason(&self) -> &'static str {
        self.kind.reason()
    }
}

impl fmt::Display for ExitInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExitInfo {
            kind,
            policy,
            generation,
            ..
        } = self;
        write!(
            f,
            "policy {policy:?} ended (generation {generation}): {kind}: {}",
            kind.reason()
        )?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        if let Some(task) = self.task {
            write!(f, " (task {task})")?;
        }
        if let Some(worker) = self.worker {
            write!(f, " (worker {worker})")?;
        }
        Ok(())
    }
}
