//! A set of local futures on a thread of the application.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use futures::FutureExt;
use futures::channel::oneshot;
use futures::future::Abortable;
use futures::stream::{FuturesUnordered, StreamExt};
use polity_core::JoinError;

use super::handle::{LocalJoinHandle, Member};
use super::residence::LocalFuture;
use crate::handle::Handle;

thread_local! {
    /// The set that is being run on this thread; of nested ones, the innermost.
    static CURRENT: RefCell<Option<Rc<Shared>>> = const { RefCell::new(None) };
}

/// The set in which `spawn_local` spawns here and now.
pub(super) fn current() -> Option<Rc<Shared>> {
    CURRENT
        .try_with(|current| current.borrow().clone())
        .ok()
        .flatten()
}

/// Futures that need not be `Send`, run by whoever runs the set: on a thread of the application inside
/// [`block_on`](LocalSet::block_on), or inside one task. As in tokio.
///
/// **No policy sees its members.** A thread that is no worker has nothing to schedule: the root future of `block_on` is not a task,
/// and nor are the members of a set that it runs. They take turns in the order of their wakes, among themselves alone. Inside
/// a task they are parts of that task. For tasks that a policy schedules use [`spawn_local`](crate::spawn_local()) in a
/// task, or [`Handle::spawn_pinned`].
///
/// Members run only while the set is run. Dropping the set drops them.
///
/// ```
/// use std::rc::Rc;
///
/// let runtime = polity::Runtime::new()?;
/// let set = polity::LocalSet::new();
/// let answer = set.block_on(&runtime, async {
///     let shared = Rc::new(6);
///     let theirs = Rc::clone(&shared);
///     let product = polity::spawn_local(async move { *theirs * 7 });
///     product.await
/// });
/// assert_eq!(answer?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Default)]
pub struct LocalSet {
    shared: Rc<Shared>,
}

#[derive(Default)]
pub(super) struct Shared {
    /// Borrowed while members are polled, so what they spawn goes to `new` first.
    members: RefCell<FuturesUnordered<LocalFuture>>,
    new: RefCell<Vec<LocalFuture>>,
    /// Of whoever runs the set: a member may be spawned while it is not being polled.
    runner: RefCell<Option<Waker>>,
}

impl LocalSet {
    /// An empty one.
    pub fn new() -> Self {
        LocalSet::default()
    }

    /// Adds a future to the set, which need not be running yet.
    ///
    /// ```
    /// let runtime = polity::Runtime::new()?;
    /// let set = polity::LocalSet::new();
    /// let member = set.spawn_local(async { std::rc::Rc::new(1) });
    /// assert_eq!(*set.block_on(&runtime, member)?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn spawn_local<F>(&self, future: F) -> LocalJoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.shared.spawn(Location::caller(), future)
    }

    /// Runs the set until `future` is done, and gives its output. Members that are not done by then wait until the set is run
    /// again. [`spawn_local`](crate::spawn_local()) inside adds to this set.
    ///
    /// ```
    /// let runtime = polity::Runtime::new()?;
    /// let set = polity::LocalSet::new();
    /// runtime.block_on(set.run_until(async {
    ///     polity::spawn_local(async {}).await
    /// }))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn run_until<F: Future>(&self, future: F) -> RunUntil<'_, F> {
        RunUntil {
            set: self,
            future: Box::pin(future),
        }
    }

    /// Runs the set on this thread until `future` is done. As `handle.block_on(self.run_until(future))`.
    ///
    /// # Panics
    /// As [`Handle::block_on`].
    #[track_caller]
    pub fn block_on<F: Future>(&self, handle: &Handle, future: F) -> F::Output {
        handle.block_on(self.run_until(future))
    }
}

/// Runs all members until none is left.
///
/// ```
/// let runtime = polity::Runtime::new()?;
/// let set = polity::LocalSet::new();
/// let member = set.spawn_local(async { 7 });
/// runtime.block_on(set);
/// assert_eq!(runtime.block_on(member)?, 7);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl Future for LocalSet {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let _current = Current::enter(&self.shared);
        self.shared.note_runner(context);
        self.shared.run(context)
    }
}

impl Shared {
    pub(super) fn spawn<F>(
        &self,
        spawned_at: &'static Location<'static>,
        future: F,
    ) -> LocalJoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let (tell, output) = oneshot::channel();
        let (aborter, registration) = futures::future::AbortHandle::new_pair();
        let finished = Arc::new(AtomicBool::new(false));
        // Also when the set is dropped, and it with it.
        let end = SetOnDrop(Arc::clone(&finished));
        let future = Abortable::new(AssertUnwindSafe(future).catch_unwind(), registration);
        let member = async move {
            // In this order: the future is dropped, the output is there, and `finished` says so.
            let _end = end;
            let ended = future.await;
            match ended {
                Ok(Ok(output)) => drop(tell.send(Ok(output))),
                Ok(Err(payload)) => {
                    let error = JoinError::of_no_task(spawned_at, Some(payload));
                    drop(tell.send(Err(error)));
                }
                Err(futures::future::Aborted) => drop(tell),
            }
        };
        // A future whose drop panics must not take the others with it. What it panicked with is not dropped: that may panic too.
        let member = AssertUnwindSafe(member).catch_unwind();
        let member = member.map(|ended| ended.unwrap_or_else(std::mem::forget));
        self.new.borrow_mut().push(Box::pin(member));
        let runner = self.runner.borrow().clone();
        if let Some(runner) = runner {
            runner.wake();
        }
        LocalJoinHandle::of_member(Member {
            output,
            aborter,
            finished,
            spawned_at,
        })
    }

    fn note_runner(&self, context: &Context<'_>) {
        let mut runner = self.runner.borrow_mut();
        if !runner
            .as_ref()
            .is_some_and(|it| it.will_wake(context.waker()))
        {
            *runner = Some(context.waker().clone());
        }
    }

    /// Polls every member that was woken, and some twice; those that wake themselves again and again do so in the next poll.
    fn run(&self, context: &mut Context<'_>) -> Poll<()> {
        // A member that runs its own set would find it borrowed.
        let Ok(mut members) = self.members.try_borrow_mut() else {
            return Poll::Pending;
        };
        members.extend(self.new.take());
        while let Poll::Ready(Some(())) = members.poll_next_unpin(context) {}
        // What was spawned meanwhile has woken us.
        if members.is_empty() && self.new.borrow().is_empty() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

/// The future of [`LocalSet::run_until`].
#[must_use = "a set does not run until this is awaited"]
pub struct RunUntil<'a, F> {
    set: &'a LocalSet,
    // In a box: this crate pins nothing by hand outside of it.
    future: Pin<Box<F>>,
}

impl<F: Future> Future for RunUntil<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let set = self.set;
        let _current = Current::enter(&set.shared);
        set.shared.note_runner(context);
        if let Poll::Ready(output) = self.future.as_mut().poll(context) {
            return Poll::Ready(output);
        }
        // Whether members are left does not matter: the future may spawn more.
        let _ = set.shared.run(context);
        Poll::Pending
    }
}

/// While it lives, a set is the current one.
struct Current {
    before: Option<Rc<Shared>>,
}

impl Current {
    fn enter(shared: &Rc<Shared>) -> Current {
        Current {
            before: CURRENT.replace(Some(Rc::clone(shared))),
        }
    }
}

impl Drop for Current {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        // Ordering: Release pairs with the Acquire in `LocalJoinHandle::is_finished`.
        self.0.store(true, Ordering::Release);
    }
}

impl fmt::Debug for LocalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalSet").finish_non_exhaustive()
    }
}

impl<F> fmt::Debug for RunUntil<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunUntil").finish_non_exhaustive()
    }
}
