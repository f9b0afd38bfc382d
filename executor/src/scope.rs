//! Attributes for all that a future spawns.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use polity_core::{Scope, SpawnError};
use polity_policy::{Attributes, WorkerMask};

use crate::context;
use crate::machine;

/// Opens a scope: tasks that `future` spawns, and those that they spawn, inherit `attributes`. What is not set in them is
/// inherited as it would be without the scope, so scopes nest, the inner one winning. A task's own attributes
/// ([`spawn_with`](crate::spawn_with)) win over every scope.
///
/// The scope is open while `future` is polled, on whatever thread, and not while it is dropped. It changes nothing about the
/// task that polls it, and nothing about tasks that exist already.
///
/// **When not to use it.** For one task: `spawn_with` says it where it happens. And not to hand down data: that is what
/// `tokio::task_local!` is for.
///
/// # Errors
/// If the weight is not in 1..=10,000, the deadline has passed, or the affinity mask names no worker of the current runtime.
/// (A scope that is made for one runtime and polled on another one whose workers the mask does not name is open there without
/// the mask.)
///
/// ```
/// use polity::Attributes;
/// # let runtime = polity::Runtime::new()?;
/// runtime.block_on(async {
///     let tenant = Attributes::new().name("tenant-7").group(7).weight(300);
///     let scope = polity::with(tenant, async {
///         // Both belong to group 7; the second has another name.
///         let query = polity::spawn(async { "rows" });
///         let index = polity::spawn_with(Attributes::new().name("index"), async { "built" })?;
///         Ok::<_, polity::SpawnError>((query.await.unwrap(), index.await.unwrap()))
///     })?;
///     assert_eq!(scope.await?, ("rows", "built"));
///     Ok::<(), polity::SpawnError>(())
/// }).unwrap();
/// # Ok::<(), polity::BuildError>(())
/// ```
pub fn with<F: Future>(attributes: Attributes, future: F) -> Result<With<F>, SpawnError> {
    check(&attributes)?;
    Ok(With {
        attributes,
        resolved: None,
        future,
    })
}

fn check(attributes: &Attributes) -> Result<(), SpawnError> {
    if let Some(core) = context::core() {
        return core.check_attributes(attributes);
    }
    let weight = attributes.get_weight();
    if !(1..=10_000).contains(&weight) {
        return Err(SpawnError::Weight(weight));
    }
    let mask = attributes.get_affinity();
    if let Some(mask) = mask.filter(|mask| **mask == WorkerMask::default()) {
        let (mask, workers) = (mask.clone(), 0);
        return Err(SpawnError::Affinity { mask, workers });
    }
    let late_by = |deadline| machine::now().checked_duration_since(deadline);
    match attributes.get_deadline().and_then(late_by) {
        Some(late_by) => Err(SpawnError::Deadline { late_by }),
        None => Ok(()),
    }
}

pin_project! {
    /// The future of [`with`](with()).
    #[must_use = "a scope does nothing until it is awaited"]
    pub struct With<F> {
        attributes: Attributes,
        // For what would be inherited without it, what it leads to. Changes when the task is moved into another one's poll,
        // to another runtime, or has its attributes changed: seldom, so most polls take no lock.
        resolved: Option<(Scope, Scope)>,
        #[pin]
        future: F,
    }
}

impl<F> fmt::Debug for With<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("With")
            .field("attributes", &self.attributes)
            .finish_non_exhaustive()
    }
}

impl<F: Future> Future for With<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        // Outside of every runtime nothing can be spawned but by a handle, which inherits nothing.
        let Some(core) = context::core() else {
            return this.future.poll(context);
        };
        let outer = core.scope_here();
        let scope = match this.resolved {
            Some((before, scope)) if *before == outer => *scope,
            _ => {
                let scope = core.scope(this.attributes.clone());
                *this.resolved = Some((outer, scope));
                scope
            }
        };
        let _open = context::set_scope(Some(scope));
        Poll::Ready(ready!(this.future.poll(context)))
    }
}
