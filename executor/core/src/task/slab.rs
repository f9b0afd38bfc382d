//! The header slab: process-wide, grows, is never unmapped.
//!
//! Not an allocator for futures: those lie in cells of their own. Chunk k holds `1024 << k` headers, so 21 chunks
//! make two thousand million slots and a slot is found by two shifts. Pages that were never touched cost nothing.
//!
//! Behind its headers a chunk holds one [`LocationCell`] for each: where the task was spawned. Only reports read it, so it
//! lies outside the headers' lines. Behind those it holds one [`Cold`] for each: what few tasks have. Those are apart from the
//! locations, because each spawn writes a location.
//!
//! Slots are handed out through a [`SlotCache`], one for each worker (and a few for other threads), in batches of
//! 64. Complexity: O(1), and one lock in 64 operations.
//!
//! Rejected: one lock around a `slab::Slab` (0.2 to 0.6 of the speed in the prototypes), and reference-counted
//! headers: every clone of a waker would pay for a header that is hot anyway.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use super::cold::Cold;
use super::header::Header;
use super::location::LocationCell;

pub(super) const FIRST_CHUNK: u32 = 1024;
pub(super) const CHUNK_COUNT: usize = 21;
const BATCH: usize = 64;

static CHUNKS: [AtomicPtr<Header>; CHUNK_COUNT] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; CHUNK_COUNT];
/// The first slot that was never handed out. Slot 0 stays unused, so a queue entry is never zero.
static FRESH: AtomicU32 = AtomicU32::new(1);
static FREE: Mutex<Vec<Vec<u32>>> = Mutex::new(Vec::new());

/// Chunk and offset of a slot.
#[inline]
pub(super) fn locate(slot: u32) -> (usize, usize) {
    let nth = (slot / FIRST_CHUNK + 1).ilog2();
    (
        nth as usize,
        (slot - ((1 << nth) - 1) * FIRST_CHUNK) as usize,
    )
}

/// The header in `slot`, if the slot was ever handed out. Any number may be asked for.
#[inline]
pub(crate) fn get(slot: u32) -> Option<&'static Header> {
    let (chunk, offset) = locate(slot);
    // Ordering: Acquire pairs with the Release in `chunk`: the zeroes are visible.
    let base = CHUNKS.get(chunk)?.load(Ordering::Acquire);
    if base.is_null() {
        return None;
    }
    // SAFETY: `add` requires that the result lies in the same allocation: chunk k holds `FIRST_CHUNK << k` headers
    // and `locate` yields an offset below that.
    let header = unsafe { base.add(offset) };
    // SAFETY: turning it into a `&'static` requires (1) alignment and size: the layout is an array of headers;
    // (2) initialised memory: zeroed, and all-zero is a valid header, being integers and null pointers in atomics;
    // (3) that it lives for ever: chunks are never freed; (4) no `&mut`: none is ever made.
    Some(unsafe { &*header })
}

/// Where the tasks of `slot` are spawned, if the slot was ever handed out.
#[inline]
pub(crate) fn spawn_site(slot: u32) -> Option<&'static LocationCell> {
    let (chunk, offset) = locate(slot);
    // Ordering: Acquire as in `get`.
    let base = CHUNKS.get(chunk)?.load(Ordering::Acquire);
    if base.is_null() {
        return None;
    }
    // SAFETY: `add` requires that the result lies in the same allocation, or one past: chunk k holds `FIRST_CHUNK << k`
    // headers, and then as many cells.
    let cells = unsafe { base.add((FIRST_CHUNK as usize) << chunk) }.cast::<LocationCell>();
    // SAFETY: as above; `locate` yields an offset below that number.
    let cell = unsafe { cells.add(offset) };
    // SAFETY: turning it into a `&'static` requires (1) alignment: a multiple of 64 bytes from a base aligned to 64, and
    // then an array of pointers; (2) initialised memory: zeroed, and null is a valid cell; (3) that it lives for ever:
    // chunks are never freed; (4) no `&mut`: none is ever made.
    Some(unsafe { &*cell })
}

/// What few tasks of `slot` have, if the slot was ever handed out.
pub(crate) fn cold(slot: u32) -> Option<&'static Cold> {
    let (chunk, offset) = locate(slot);
    // Ordering: Acquire as in `get`.
    let base = CHUNKS.get(chunk)?.load(Ordering::Acquire);
    if base.is_null() {
        return None;
    }
    let parts = parts(chunk);
    // SAFETY: `byte_add` requires that the result lies in the same allocation, or one past: the records begin at that offset of
    // the layout that the chunk was allocated with.
    let records = unsafe { base.byte_add(parts.cold_at) }.cast::<Cold>();
    // SAFETY: as above; the layout has as many records as headers, and `locate` yields an offset below that number.
    let record = unsafe { records.add(offset) };
    // SAFETY: turning it into a `&'static` requires (1) alignment: `Layout::extend` has aligned the offset, and the base is
    // aligned to 64; (2) initialised memory: zeroed, and an all-zero record is valid; (3) that it lives for ever: chunks are
    // never freed; (4) no `&mut`: none is ever made.
    Some(unsafe { &*record })
}

/// How the memory of a chunk is laid out: headers, locations, records.
struct Parts {
    whole: Layout,
    cold_at: usize,
}

fn parts(chunk: usize) -> Parts {
    const LESS: &str = "a chunk is less than the memory";
    let count = (FIRST_CHUNK as usize) << chunk;
    let headers = Layout::array::<Header>(count).expect(LESS);
    let cells = Layout::array::<LocationCell>(count).expect(LESS);
    let records = Layout::array::<Cold>(count).expect(LESS);
    let (both, _) = headers.extend(cells).expect(LESS);
    let (whole, cold_at) = both.extend(records).expect(LESS);
    Parts { whole, cold_at }
}

/// Makes sure that the chunk of `slot` exists.
fn grow_for(slot: u32) {
    let (chunk, _) = locate(slot);
    let place = CHUNKS
        .get(chunk)
        .expect("two thousand million tasks are alive");
    // Ordering: Acquire as in `get`.
    if !place.load(Ordering::Acquire).is_null() {
        return;
    }
    let _one_at_a_time = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    if !place.load(Ordering::Acquire).is_null() {
        return;
    }
    let layout = parts(chunk).whole;
    // SAFETY: `alloc_zeroed` requires a layout of non-zero size: headers are 64 bytes, and there are some.
    let base = unsafe { alloc_zeroed(layout) };
    if base.is_null() {
        handle_alloc_error(layout);
    }
    // Ordering: Release pairs with the Acquire in `get`.
    place.store(base.cast(), Ordering::Release);
}

/// One more than the last slot that was ever handed out. A sample.
pub(super) fn handed_out() -> u32 {
    // Ordering: Relaxed; who asks comes after whoever told it of a slot.
    FRESH.load(Ordering::Relaxed)
}

/// Every slot that was ever handed out, for walks.
pub(crate) fn all() -> impl Iterator<Item = &'static Header> {
    // Ordering: Relaxed; a slot handed out during the walk is the business of whoever hands it out (the publication
    // protocol re-reads the generation, closing re-walks).
    let end = FRESH.load(Ordering::Relaxed);
    (1..end).filter_map(get)
}

/// A stock of free slots. Owned by one worker, or behind a lock.
#[derive(Debug, Default)]
pub(crate) struct SlotCache {
    slots: Vec<u32>,
}

impl SlotCache {
    /// A free slot.
    #[inline]
    pub(crate) fn take(&mut self) -> u32 {
        match self.slots.pop() {
            Some(slot) => slot,
            None => self.refill(),
        }
    }

    #[cold]
    fn refill(&mut self) -> u32 {
        let returned = FREE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match returned {
            Some(batch) => self.slots = batch,
            None => {
                // Ordering: Relaxed; the count only has to be unique.
                let first = FRESH.fetch_add(BATCH as u32, Ordering::Relaxed);
                grow_for(first);
                grow_for(first + BATCH as u32 - 1);
                self.slots.extend((first..first + BATCH as u32).rev());
            }
        }
        self.slots.pop().expect("a batch is not empty")
    }

    /// Takes back a slot whose lifecycle says free.
    #[inline]
    pub(crate) fn give(&mut self, slot: u32) {
        self.slots.push(slot);
        if self.slots.len() >= 2 * BATCH {
            self.spill(BATCH);
        }
    }

    #[cold]
    fn spill(&mut self, keep: usize) {
        let batch = self.slots.split_off(keep);
        if !batch.is_empty() {
            FREE.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(batch);
        }
    }
}

impl Drop for SlotCache {
    fn drop(&mut self) {
        self.spill(0);
    }
}
