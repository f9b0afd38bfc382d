//! The free functions: what a task calls without a handle.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use polity_core::{Core, JoinHandle, Local, SpawnError};
use polity_policy::Attributes;

use crate::context;
use crate::error::TryCurrentError;
use crate::handle::Handle;
use crate::machine::RealMachine;
use crate::sys::tls;

#[inline]
#[track_caller]
fn current_core() -> &'static Core<RealMachine> {
    match context::core() {
        Some(core) => core,
        None => panic!("{}", TryCurrentError(())),
    }
}

/// Spawns a task on the current runtime. It runs also if the handle is dropped. It inherits the [`Attributes`] of the task
/// that spawns it, or of the innermost [`with`](crate::with()).
///
/// # Panics
/// Outside a runtime: see [`Handle::current`].
///
/// ```
/// # let runtime = polity::Runtime::new()?;
/// let doubled = runtime.block_on(async { polity::spawn(async { 21 * 2 }).await });
/// assert_eq!(doubled.unwrap(), 42);
/// # Ok::<(), polity::BuildError>(())
/// ```
#[track_caller]
#[inline]
pub fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    current_core().spawn(Location::caller(), future)
}

/// Spawns a task with attributes on the current runtime. What they do not set is inherited: see [`Attributes`].
///
/// # Errors
/// If the weight is not in 1..=10,000, the affinity mask names no worker of this runtime, or the deadline has passed.
///
/// # Panics
/// Outside a runtime: see [`Handle::current`].
///
/// ```
/// # let runtime = polity::Runtime::new()?;
/// use polity::Attributes;
/// runtime.block_on(async {
///     let urgent = Attributes::new().name("ping").weight(1000);
///     let answer = polity::spawn_with(urgent, async { "pong" })?.await;
///     assert_eq!(answer.unwrap(), "pong");
///     Ok::<(), polity::SpawnError>(())
/// }).unwrap();
/// # Ok::<(), polity::BuildError>(())
/// ```
#[track_caller]
pub fn spawn_with<F>(attributes: Attributes, future: F) -> Result<JoinHandle<F::Output>, SpawnError>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    current_core().spawn_with(attributes, Location::caller(), future)
}

/// Runs `body`, which may block, on a thread of a pool kept for that; see [`Handle::spawn_blocking`].
///
/// # Panics
/// Outside a runtime: see [`Handle::current`].
#[track_caller]
pub fn spawn_blocking<F, R>(body: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    Handle::current().spawn_blocking(body)
}

/// Lets others run: the task goes back to the queue, under the policy that is loaded.
///
/// ```
/// # let runtime = polity::Runtime::new()?;
/// runtime.block_on(async {
///     for _slice in 0..3 {
///         // ... some work ...
///         polity::yield_now().await;
///     }
/// });
/// # Ok::<(), polity::BuildError>(())
/// ```
pub fn yield_now() -> YieldNow {
    YieldNow { yielded: false }
}

/// The future of [`yield_now`].
#[derive(Debug)]
#[must_use = "a yield does nothing until it is awaited"]
pub struct YieldNow {
    yielded: bool,
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.yielded {
            return Poll::Ready(());
        }
        self.yielded = true;
        tls::with_local(|local| local.into_iter().for_each(Local::note_yielded));
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Lets others run if this task has used its slice up, and does nothing otherwise. For loops that compute: call it every
/// microsecond or so.
///
/// Costs about 2 ns if the time is not up. The clock is read the first time in each poll, and then about every 20 µs; so a
/// slice ends so much late, or a call later if calls are rarer than that.
///
/// The slice is the policy's ([`Policy::slice`](crate::Policy::slice)). Under a policy without slices, and under none, it is
/// 1 ms, counted from the first call in a poll. Outside a task it does nothing.
///
/// ```
/// # let runtime = polity::Runtime::new()?;
/// let sum = runtime.block_on(async {
///     let sums = polity::spawn(async {
///         let mut sum = 0_u64;
///         for number in 0..1_000_000 {
///             sum += number;
///             polity::yield_if_due().await;
///         }
///         sum
///     });
///     sums.await.unwrap()
/// });
/// assert_eq!(sum, 499_999_500_000);
/// # Ok::<(), polity::BuildError>(())
/// ```
#[inline]
pub fn yield_if_due() -> YieldIfDue {
    YieldIfDue { asked: false }
}

/// The future of [`yield_if_due`].
#[derive(Debug)]
#[must_use = "a yield does nothing until it is awaited"]
pub struct YieldIfDue {
    asked: bool,
}

impl Future for YieldIfDue {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.asked {
            return Poll::Ready(());
        }
        let early = tls::with_local(|local| local.is_none_or(Local::counts_down));
        if early || !context::core().is_some_and(Core::ends_slice) {
            return Poll::Ready(());
        }
        self.asked = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
