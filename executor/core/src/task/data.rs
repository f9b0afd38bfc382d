//! What a policy keeps for each task: a side slab that belongs to one generation, indexed by slot.
//!
//! Not shared with another generation, not even one of the same policy: each load has a table of its own. Chunk k holds
//! `1024 << k` places, as in `slab.rs`, and is made when a task in it is met first, from zeroed pages that cost nothing
//! until they are touched. A lookup is two shifts, two loads and one comparison. A type without size and without a drop has no
//! table: one value stands for all.
//!
//! # Who may touch a place, when
//!
//! | what | by whom | when |
//! |---|---|---|
//! | `put`, `drop_one` | whoever has the task's token, inside the generation | it has not ended when the thread enters |
//! | `get` | the same | for as long as the callback goes on |
//! | `clear` | the owner of the table, alone | nobody is inside any more |
//!
//! **Why nobody uses what another one drops.** A callback about a task is made by the thread that has the task's token, and
//! there is one token. So a place is put, read and dropped by one thread at a time, and the token carries the writes from one
//! to the next: it is passed with Release and Acquire, through a queue or a custody word. A token changes hands without its
//! holder's consent in one case only: the thread is stuck in a callback and gets convicted (`core/seats.rs`). It may still have a
//! `&T` then, or be about to put what `init_task` returns, or to drop what `exit_task` has parted from. But before a conviction the generation's exit
//! is claimed, and the new holder gets the token after that, so it finds the generation ended at the door (`hosting/call.rs`)
//! and touches no place of it: the convicted thread stays the only one. Nor is the table dropped under it: its `Arc` of the
//! generation keeps it. Two threads inside the generation at its end have different tokens, as ever.
//!
//! (The task that `dispatch` is shown as `prev` has its token in the thread's own seat meanwhile, which nobody else empties but whoever
//! convicts the thread.)
//!
//! No loom model: this protocol has no word of its own. It leans on the token (models in `loom_tests.rs`), on the conviction
//! (`seat/loom_tests.rs`) and on the reference count of the generation. Under AddressSanitizer and Miri: `data_tests.rs`.
//!
//! Rejected: a map (a lock or a probe on each callback), a pointer in the header (the line is full, and a value would outlive its
//! generation), a reference count for each value (a read-modify-write on each callback, for a race that cannot be).

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::any::Any;
use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::mem::{MaybeUninit, needs_drop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use polity_policy::TaskId;

use super::cell::contained;
use super::slab::{CHUNK_COUNT, FIRST_CHUNK, handed_out, locate};

/// Whether the policy wants places.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Keeps {
    /// It does not: what `put` is given says nothing.
    Nothing,
    /// One for each task, if the type has anything to keep.
    Values,
}

/// See the [module](self).
pub(crate) struct TaskData<T> {
    /// Stands for all tasks where nothing is kept. In a box, so that a large type does not make the table large.
    shared: Option<Box<T>>,
    chunks: [AtomicPtr<Place<T>>; CHUNK_COUNT],
    _values: PhantomData<T>,
}

/// All-zero memory is an empty place.
struct Place<T> {
    /// Whose value it is; 0 for none. No task has this tenant number.
    tenant: AtomicU32,
    value: UnsafeCell<MaybeUninit<T>>,
}

impl<T> Place<T> {
    /// Takes the value out, if there is one.
    ///
    /// # Safety
    /// Nobody else reads, puts or takes it meanwhile, and no reference to it is used any more.
    unsafe fn take(&self) -> Option<T> {
        // Ordering: Relaxed, here and below; the token orders, or the `&mut` of the table.
        if self.tenant.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.tenant.store(0, Ordering::Relaxed);
        // SAFETY: dereferencing requires that nobody else touches the value: by our contract.
        let value = unsafe { &*self.value.get() };
        // SAFETY: `assume_init_read` requires (1) a value that was written: the tenant was not 0, and `put` sets it after
        // it has written; (2) that it is not used again as if it were still there: the tenant is 0 now.
        Some(unsafe { value.assume_init_read() })
    }

    /// Puts a value in. Returns what was there.
    ///
    /// # Safety
    /// As for `take`.
    unsafe fn put(&self, tenant: u32, value: T) -> Option<T> {
        // SAFETY: passed on.
        let before = unsafe { self.take() };
        // SAFETY: writing through the pointer requires that nobody else touches the value: by our contract. What was there has
        // been moved out.
        unsafe { *self.value.get() = MaybeUninit::new(value) };
        self.tenant.store(tenant, Ordering::Relaxed);
        before
    }
}

impl<T: Default + Send + Sync + 'static> TaskData<T> {
    /// An empty table. Runs `T::default()`, which is foreign code, where nothing is kept.
    pub(crate) fn new(keeps: Keeps) -> Self {
        let nothing = keeps == Keeps::Nothing || (size_of::<T>() == 0 && !needs_drop::<T>());
        TaskData {
            shared: nothing.then(Box::default),
            chunks: [const { AtomicPtr::new(null_mut()) }; CHUNK_COUNT],
            _values: PhantomData,
        }
    }

    /// Whether there are places; else `put` and `drop_one` have nothing to do.
    #[inline]
    pub(crate) fn keeps_values(&self) -> bool {
        self.shared.is_none()
    }

    #[inline]
    fn place(&self, slot: u32) -> Option<&Place<T>> {
        let (chunk, offset) = locate(slot);
        // Ordering: Acquire pairs with the Release in `grow_for`: the zeroes are visible.
        let base = self.chunks.get(chunk)?.load(Ordering::Acquire);
        if base.is_null() {
            return None;
        }
        // SAFETY: `add` requires that the result lies in the same allocation: chunk k has `FIRST_CHUNK << k` places, and
        // `locate` yields an offset below that.
        let place = unsafe { base.add(offset) };
        // SAFETY: turning it into a reference requires (1) alignment and size: the layout is an array of places; (2) initialised
        // memory: zeroed, and all-zero is an empty place; (3) that it lives as long as `self`: chunks are freed with `&mut self`
        // only; (4) no `&mut` to it: none is made while `self` is shared.
        Some(unsafe { &*place })
    }

    /// The value of this task. For whoever has its token; not to be used after the token was given away.
    #[inline]
    pub(crate) fn get(&self, task: TaskId) -> Option<&T> {
        if self.shared.is_some() {
            return self.shared.as_deref();
        }
        let place = self.place(task.slot())?;
        // Ordering: Relaxed; the token orders.
        if place.tenant.load(Ordering::Relaxed) != task.tenant() {
            return None;
        }
        // SAFETY: dereferencing requires that nobody writes the value while the reference is used: `put` and `drop_one` want the
        // token, which the caller has, or has lost in a conviction, after which nobody comes (see the module).
        let value = unsafe { &*place.value.get() };
        // SAFETY: `assume_init_ref` requires a value that was written: the tenant says so, see `put`.
        Some(unsafe { value.assume_init_ref() })
    }

    /// Keeps `value` for this task. `false`: there is no memory for it, and it is dropped. For whoever has the task's token.
    ///
    /// # Panics
    /// If a drop of `T` does; nothing is lost or dropped twice by that.
    #[inline]
    #[must_use]
    pub(crate) fn put(&self, task: TaskId, value: T) -> bool {
        !self.keeps_values() || self.put_into_place(task, value)
    }

    fn put_into_place(&self, task: TaskId, value: T) -> bool {
        let place = self.place(task.slot()).or_else(|| {
            self.grow_for(task.slot());
            self.place(task.slot())
        });
        let Some(place) = place else {
            return false;
        };
        // SAFETY: `put` requires that nobody else is at this place: whoever has the token has it alone (see the module), and
        // makes no reference here.
        let before = unsafe { place.put(task.tenant(), value) };
        // An earlier tenant ended where this generation was not followed. Its drop comes last: it may panic.
        drop(before);
        true
    }

    /// Drops the value of this task. For whoever has its token, when no callback about it is under way.
    ///
    /// # Panics
    /// If the drop of `T` does. The value is gone then all the same.
    pub(crate) fn drop_one(&self, task: TaskId) {
        let Some(place) = self.place(task.slot()) else {
            return;
        };
        // Ordering: Relaxed; the token orders.
        if place.tenant.load(Ordering::Relaxed) == task.tenant() {
            // SAFETY: `take` requires that nobody else is at this place, as in `put`, and that no reference is used any more: the
            // callback that had it is over.
            drop(unsafe { place.take() });
        }
    }

    #[cfg(test)]
    pub(super) fn chunks_in_use(&self) -> usize {
        let chunks = self.chunks.iter();
        chunks
            .filter(|chunk| !chunk.load(Ordering::Relaxed).is_null())
            .count()
    }

    /// Makes sure that the chunk of `slot` exists, if there is memory.
    #[cold]
    fn grow_for(&self, slot: u32) {
        let (chunk, _) = locate(slot);
        let (Some(chunk_place), Some(layout)) = (self.chunks.get(chunk), layout::<T>(chunk)) else {
            return;
        };
        // SAFETY: `alloc_zeroed` requires a layout of non-zero size: a place holds at least its tenant.
        let base: *mut Place<T> = unsafe { alloc_zeroed(layout) }.cast();
        if base.is_null() {
            return;
        }
        // Ordering: Release pairs with the Acquire in `place`. On failure nothing is read: `place` loads again.
        let ours = chunk_place
            .compare_exchange(null_mut(), base, Ordering::Release, Ordering::Relaxed)
            .is_ok();
        if !ours {
            // SAFETY: `dealloc` requires the layout that it was allocated with, and that nobody uses it: nobody has seen it.
            unsafe { dealloc(base.cast(), layout) };
        }
    }
}

impl<T> TaskData<T> {
    /// Drops every value. Goes on after a panic in one of them, and returns what the first one panicked with.
    ///
    /// Complexity: one look at each slot of the chunks that were used.
    pub(crate) fn clear(&mut self) -> Option<Box<dyn Any + Send>> {
        let mut first = None;
        for (chunk, place) in self.chunks.iter_mut().enumerate() {
            let base = std::mem::replace(place.get_mut(), null_mut());
            let Some(layout) = layout::<T>(chunk).filter(|_| !base.is_null()) else {
                continue;
            };
            if needs_drop::<T>() {
                for offset in 0..used_places(chunk) {
                    // SAFETY: `add` requires that the result lies in the same allocation: `used_places` is at most the
                    // number of places in the chunk.
                    let place = unsafe { base.add(offset) };
                    // SAFETY: a valid place, as in `TaskData::place`; the chunk is not freed yet.
                    let place = unsafe { &*place };
                    // SAFETY: `take` requires that nobody else is here, and that no reference is used: we have the table
                    // alone, and references borrow from it.
                    let value = unsafe { place.take() };
                    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
                        match first {
                            None => first = Some(payload),
                            Some(_) => contained(|| drop(payload)),
                        }
                    }
                }
            }
            // SAFETY: `dealloc` requires the layout that it was allocated with, and that nobody uses it: the pointer was the
            // table's only one and has been taken out of it.
            unsafe { dealloc(base.cast(), layout) };
        }
        first
    }
}

impl<T> Drop for TaskData<T> {
    fn drop(&mut self) {
        // Usually empty: `Retired::finish` clears it, and reports.
        let payload = self.clear();
        contained(|| drop(payload));
    }
}

/// The memory of chunk `chunk`; `None` if it cannot be.
fn layout<T>(chunk: usize) -> Option<Layout> {
    Layout::array::<Place<T>>((FIRST_CHUNK as usize) << chunk).ok()
}

/// How many places of this chunk belong to slots that were ever handed out.
fn used_places(chunk: usize) -> usize {
    let first = ((1usize << chunk) - 1) * FIRST_CHUNK as usize;
    let end = handed_out() as usize;
    end.saturating_sub(first)
        .min((FIRST_CHUNK as usize) << chunk)
}
