//! A policy that runs, as the application sees it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use polity_policy::{Generation, Policy};

use crate::handle::Handle;

/// A policy that was loaded when it was asked for, by its type: from [`Handle::policy`]. What its author made public can be
/// read and changed through it, on any thread, while workers are inside its callbacks: that is what `&P` of a `Sync` type is for.
///
/// It holds nothing up. The policy can be swapped, unloaded and ejected as before, and its `exit` does not wait; what the
/// policy kept for tasks goes with the generation. The value itself stays, so statistics can be read after the end; only **its
/// drop then runs where the last of these is dropped**, and not on a thread of its own. To keep such a drop off a
/// thread that must not wait, drop this first.
///
/// Not a way to call callbacks: what they would say, nobody hears.
///
/// ```
/// struct Calm;
///
/// impl polity::Policy for Calm {
///     type Task = ();
///     fn name(&self) -> &str {
///         "calm"
///     }
/// }
///
/// let runtime = polity::Runtime::new()?;
/// let generation = runtime.load(Calm).unwrap();
/// let calm = runtime.policy::<Calm>().unwrap();
/// assert_eq!(calm.generation(), generation);
/// assert!(calm.is_loaded());
/// runtime.unload();
/// assert!(!calm.is_loaded());
/// # Ok::<(), polity::BuildError>(())
/// ```
pub struct PolicyRef<P> {
    policy: Arc<P>,
    generation: Generation,
    handle: Handle,
}

impl<P: Policy> PolicyRef<P> {
    pub(crate) fn current(handle: &Handle) -> Option<Self> {
        let loaded = handle.core().current_policy()?;
        Some(PolicyRef {
            policy: loaded.policy()?,
            generation: loaded.generation(),
            handle: handle.clone(),
        })
    }
}

impl<P> PolicyRef<P> {
    /// Which load it is, for [`Handle::exit_info`].
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether it is loaded still. May change at once.
    pub fn is_loaded(&self) -> bool {
        let current = self.handle.core().current_policy();
        current.is_some_and(|current| current.generation() == self.generation)
    }
}

impl<P> Deref for PolicyRef<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.policy
    }
}

impl<P> Clone for PolicyRef<P> {
    fn clone(&self) -> Self {
        PolicyRef {
            policy: Arc::clone(&self.policy),
            generation: self.generation,
            handle: self.handle.clone(),
        }
    }
}

impl<P> fmt::Debug for PolicyRef<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PolicyRef")
            .field("policy", &std::any::type_name::<P>())
            .field("generation", &self.generation)
            .finish()
    }
}
