//! The cell: a future, later its output, behind one erased pointer.
//!
//! Not in the slab: futures differ in size, and an output may outlive its slot. Both ends (the token holder, the
//! join handle) reach it through [`CellPtr`]; the join word says who frees it.
//!
//! **Invariant.** `stage` is touched by the token holder until the join word says complete, and by the join handle
//! after that.

use std::alloc::Layout;
use std::any::Any;
use std::cell::UnsafeCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll, Waker};

use polity_policy::TaskId;

use super::join::JoinError;
use super::join_word::{Completed, Found, JoinWord};
use super::memory;

/// The part that does not depend on the future's type.
pub(crate) struct CellHead {
    vtable: &'static Vtable,
    join: JoinWord,
    /// Written by the join handle, only while the join word says unregistered; read by both while registered.
    join_waker: UnsafeCell<Option<Waker>>,
    /// Where `spawn` was called, for reports.
    spawned_at: &'static Location<'static>,
}

struct Vtable {
    /// Polls the future; `true` when the output (or panic) is in place.
    poll: unsafe fn(NonNull<CellHead>, TaskId, &mut Context<'_>) -> bool,
    /// Drops the future and puts "cancelled" in place of the output.
    cancel: unsafe fn(NonNull<CellHead>, TaskId),
    /// Moves the output to `*mut Option<Result<T, JoinError>>`.
    take: unsafe fn(NonNull<CellHead>, *mut ()),
    free: unsafe fn(NonNull<CellHead>),
}

enum Stage<F: Future> {
    Future(F),
    Output(Result<F::Output, JoinError>),
    Taken,
}

#[repr(C)] // the head comes first, so a pointer to the cell is a pointer to its head
struct Cell<F: Future> {
    head: CellHead,
    stage: UnsafeCell<Stage<F>>,
}

/// An erased pointer to a cell. Copying it copies no right; see the [module](self) for who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CellPtr(NonNull<CellHead>);

// SAFETY: a cell's future and output are `Send` (`CellPtr::new`), its waker is `Send + Sync`, and each part is touched
// by one thread at a time: the lifecycle's token and the join word hand over with Release and Acquire.
unsafe impl Send for CellPtr {}
// SAFETY: as for `Send`; sharing the pointer gives no access without the token or the handle.
unsafe impl Sync for CellPtr {}

impl CellPtr {
    /// Allocates the cell of a new task.
    pub(super) fn new<F>(future: F, spawned_at: &'static Location<'static>) -> Self
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let cell = Cell {
            head: CellHead {
                vtable: &Vtable {
                    poll: poll::<F>,
                    cancel: cancel::<F>,
                    take: take::<F>,
                    free: free::<F>,
                },
                join: JoinWord::new(),
                join_waker: UnsafeCell::new(None),
                spawned_at,
            },
            stage: UnsafeCell::new(Stage::Future(future)),
        };
        let place: NonNull<Cell<F>> = memory::take(Layout::new::<Cell<F>>()).cast();
        // SAFETY: `write` requires memory that is ours to write, large enough and aligned: a block of this type's layout.
        unsafe { place.write(cell) };
        CellPtr(place.cast())
    }

    pub(super) fn as_ptr(self) -> *mut CellHead {
        self.0.as_ptr()
    }

    pub(super) fn from_raw(cell: *mut CellHead) -> Self {
        CellPtr(NonNull::new(cell).expect("a live task has a cell"))
    }

    /// # Safety
    /// The cell is alive: the caller has the task's token, or is the join handle.
    unsafe fn head<'a>(self) -> &'a CellHead {
        // SAFETY: the pointer came from `new`; alive by our own contract; only shared references to a head
        // are ever made, its mutable parts being in `UnsafeCell` and atomics.
        unsafe { self.0.as_ref() }
    }

    /// Polls the future. `true`: the output is in place, call `complete` next. A panic counts as output.
    ///
    /// # Safety
    /// The caller has the token of task `id`, whose cell this is.
    #[inline]
    pub(crate) unsafe fn poll(self, id: TaskId, context: &mut Context<'_>) -> bool {
        // SAFETY: alive, by our contract.
        let head = unsafe { self.head() };
        // SAFETY: the function is the one for this cell's type; the token gives exclusive use of the stage.
        unsafe { (head.vtable.poll)(self.0, id, context) }
    }

    /// Drops the future; the output is "cancelled". Call `complete` next.
    ///
    /// # Safety
    /// As for `poll`.
    pub(crate) unsafe fn cancel(self, id: TaskId) {
        // SAFETY: alive, by our contract.
        let head = unsafe { self.head() };
        // SAFETY: as in `poll`.
        unsafe { (head.vtable.cancel)(self.0, id) };
    }

    /// Hands the output to the join handle and wakes it, or frees the cell if nobody waits.
    ///
    /// # Safety
    /// The caller has the token, `poll` returned `true` or `cancel` was called, and neither is called again.
    #[inline]
    pub(crate) unsafe fn complete(self) {
        // SAFETY: alive, by our contract.
        let head = unsafe { self.head() };
        let free = match head.join.complete() {
            Completed::Nothing => return, // from here on the cell may be gone
            Completed::Free => true,
            Completed::Wake => {
                // SAFETY: reading the slot requires that nobody writes it: after COMPLETE the handle cannot
                // unregister, and it does not free before DONE.
                let waker = unsafe { &*head.join_waker.get() };
                if let Some(waker) = waker {
                    // Another runtime's waker may panic; that is not the worker's fault.
                    contained(|| waker.wake_by_ref());
                }
                head.join.done()
            }
        };
        if free {
            // SAFETY: the join word says that the handle is gone and that we are last.
            unsafe { self.free() };
        }
    }

    /// # Safety
    /// The join word gave this caller the duty to free.
    unsafe fn free(self) {
        // SAFETY: alive until here.
        let head = unsafe { self.head() };
        let free = head.vtable.free;
        // SAFETY: the function is the one for this cell's type; nobody uses the cell afterwards.
        unsafe { free(self.0) };
    }

    /// Join handle: is the output there?
    ///
    /// # Safety
    /// The caller is the join handle.
    pub(super) unsafe fn is_complete(self) -> bool {
        // SAFETY: alive, by our contract.
        unsafe { self.head() }.join.is_complete()
    }

    /// Join handle: the output, or registers the waker.
    ///
    /// # Safety
    /// The caller is the join handle, and `T` is the future's output type.
    pub(super) unsafe fn poll_join<T>(
        self,
        context: &mut Context<'_>,
    ) -> Poll<Result<T, JoinError>> {
        // SAFETY: alive, by our contract.
        let head = unsafe { self.head() };
        let waiting = match head.join.look() {
            Found::Complete => false,
            Found::Unregistered => {
                // SAFETY: unregistered: the slot is the handle's alone.
                unsafe { *head.join_waker.get() = Some(context.waker().clone()) };
                head.join.register()
            }
            Found::Registered => {
                // SAFETY: registered: both sides only read.
                let registered = unsafe { &*head.join_waker.get() };
                if registered
                    .as_ref()
                    .is_some_and(|waker| waker.will_wake(context.waker()))
                {
                    true
                } else if head.join.unregister() {
                    // SAFETY: unregistered again: the slot is the handle's alone.
                    unsafe { *head.join_waker.get() = Some(context.waker().clone()) };
                    head.join.register()
                } else {
                    false
                }
            }
        };
        if waiting {
            return Poll::Pending;
        }
        let mut output: Option<Result<T, JoinError>> = None;
        // SAFETY: complete, so the stage is the handle's; the destination has the type that `take` expects, by our
        // contract.
        unsafe { (head.vtable.take)(self.0, (&raw mut output).cast()) };
        Poll::Ready(output.expect("a join handle is not polled after it has answered"))
    }

    /// Join handle, at its drop.
    ///
    /// # Safety
    /// The caller is the join handle, and does not use the cell again.
    #[inline]
    pub(super) unsafe fn leave(self) {
        // SAFETY: alive, by our contract.
        let head = unsafe { self.head() };
        if head.join.leave() {
            // SAFETY: the join word says that we are last.
            unsafe { self.free() };
        }
    }
}

/// # Safety
/// `cell` points to the head of a live `Cell<F>`, and the caller has the stage for itself.
unsafe fn stage<'a, F: Future>(cell: NonNull<CellHead>) -> &'a mut Stage<F> {
    // SAFETY: the head is the first field of a `repr(C)` struct, so the cast points to the cell, which is alive by
    // our contract.
    let cell: &Cell<F> = unsafe { cell.cast().as_ref() };
    // SAFETY: exclusive, by our contract.
    unsafe { &mut *cell.stage.get() }
}

/// Runs foreign code whose panic nobody can be told of. The drop of what it panicked with may panic too, and so on: after
/// a few such rounds the rest is leaked.
pub(super) fn contained(body: impl FnOnce()) {
    let mut result = catch_unwind(AssertUnwindSafe(body));
    for _ in 0..4 {
        let Err(payload) = result else { return };
        result = catch_unwind(AssertUnwindSafe(|| drop(payload)));
    }
    std::mem::forget(result);
}

/// Replaces the stage; a panic in the drop of what was there is returned.
fn replace<F: Future>(stage: &mut Stage<F>, with: Stage<F>) -> Result<(), Box<dyn Any + Send>> {
    // An assignment writes the new value also when the drop of the old one panics.
    catch_unwind(AssertUnwindSafe(|| *stage = with))
}

/// # Safety
/// As for [`stage`].
unsafe fn poll<F: Future>(cell: NonNull<CellHead>, id: TaskId, context: &mut Context<'_>) -> bool {
    // SAFETY: the cell is alive, by the contract passed on; heads are only ever shared.
    let spawned_at = unsafe { cell.as_ref() }.spawned_at;
    // SAFETY: passed on.
    let stage = unsafe { stage::<F>(cell) };
    if let Stage::Output(_) = stage {
        // Polled before by a thread that got stuck in a policy's callback on the way to `complete`.
        return true;
    }
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let Stage::Future(future) = &mut *stage else {
            unreachable!("polled after completion")
        };
        // SAFETY: pinning requires that the future is not moved until it is dropped: it lies in a cell that is never
        // moved out of, and is dropped in place by `replace` or with the cell.
        unsafe { Pin::new_unchecked(future) }.poll(context)
    }));
    let output = match polled {
        Ok(Poll::Pending) => return false,
        Ok(Poll::Ready(output)) => Ok(output),
        Err(payload) => Err(JoinError::panicked(id, spawned_at, payload)),
    };
    if let Err(payload) = replace(stage, Stage::Taken) {
        // The future's drop panicked: the task panicked, as in tokio. The output, if there was one, goes first.
        contained(|| drop(output));
        *stage = Stage::Output(Err(JoinError::panicked(id, spawned_at, payload)));
    } else {
        *stage = Stage::Output(output);
    }
    true
}

/// # Safety
/// As for [`stage`].
unsafe fn cancel<F: Future>(cell: NonNull<CellHead>, id: TaskId) {
    // SAFETY: the cell is alive, by the contract passed on; heads are only ever shared.
    let spawned_at = unsafe { cell.as_ref() }.spawned_at;
    // SAFETY: passed on.
    let stage = unsafe { stage::<F>(cell) };
    let error = match replace(stage, Stage::Taken) {
        Ok(()) => JoinError::cancelled(id, spawned_at),
        Err(payload) => JoinError::panicked(id, spawned_at, payload),
    };
    *stage = Stage::Output(Err(error));
}

/// # Safety
/// As for [`stage`]; `output` is a valid `*mut Option<Result<F::Output, JoinError>>`.
unsafe fn take<F: Future>(cell: NonNull<CellHead>, output: *mut ()) {
    // SAFETY: passed on.
    let stage = unsafe { stage::<F>(cell) };
    if let Stage::Output(result) = std::mem::replace(stage, Stage::Taken) {
        // SAFETY: valid for writes and of this type, by our contract; it holds `None`, whose drop does nothing.
        unsafe { *output.cast() = Some(result) };
    }
}

/// # Safety
/// `cell` came from `CellPtr::new::<F>` and is not used again.
unsafe fn free<F: Future>(cell: NonNull<CellHead>) {
    let cell: NonNull<Cell<F>> = cell.cast();
    // An output or a waker whose drop panics must not take the worker with it.
    contained(|| {
        // SAFETY: `drop_in_place` requires a value that is ours and not used again: made by `new`, the head is its first
        // field; freed once, by our contract.
        unsafe { cell.drop_in_place() };
    });
    // SAFETY: taken by `new` with this layout; nothing is in it any more.
    unsafe { memory::give(cell.cast(), Layout::new::<Cell<F>>()) };
}
