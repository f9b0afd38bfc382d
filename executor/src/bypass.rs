//! The guard of a bypass.

use std::fmt;

use crate::handle::Handle;

/// While it lives, core runs every task of the runtime, oldest first, whatever policy is loaded. From
/// [`Handle::bypass`].
///
/// The policy stays loaded and is told of polls (`runnable`, `running`, `stopping`, `quiescent`). What it held is taken from
/// it, each task told by `dequeue` with [`DequeueReason::Bypass`](crate::DequeueReason::Bypass); what is still runnable at
/// the end comes back by `enqueue`. Bypasses nest: the policy has its tasks again when the last guard is dropped.
///
/// When not to use it: to get rid of a policy. [`Handle::unload`] costs less, and nothing comes back.
///
/// ```
/// let runtime = polity::Runtime::new()?;
/// {
///     let _guard = runtime.bypass();
///     assert_eq!(runtime.bypass_depth(), 1);
/// }
/// assert_eq!(runtime.bypass_depth(), 0);
/// # Ok::<(), polity::BuildError>(())
/// ```
#[must_use = "the bypass ends when the guard is dropped"]
pub struct Bypass {
    handle: Handle,
}

impl Bypass {
    pub(crate) fn enter(handle: Handle) -> Self {
        handle.core().enter_bypass();
        Bypass { handle }
    }
}

impl Drop for Bypass {
    fn drop(&mut self) {
        self.handle.core().leave_bypass();
    }
}

impl fmt::Debug for Bypass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bypass").finish_non_exhaustive()
    }
}
