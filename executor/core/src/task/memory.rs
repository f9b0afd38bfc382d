//! Memory for cells: what a thread frees, it keeps for the next tasks.
//!
//! Tasks come and go in crowds, and often on two threads: spawned here, finished there. A general allocator keeps a few blocks
//! of a size at hand (glibc: seven); beyond these it searches, merges what lies side by side, and locks the arena that a
//! block came from, be that another worker's. That was a third of the instructions of a task that does nothing
//! (docs/performance.md).
//!
//! *Magazines* (Bonwick and Adams, "Magazines and Vmem", USENIX 2001): of each size, a thread has two stacks of blocks. When
//! both are full, one goes to a shelf that all threads share; when both are empty, one comes from there. So a lock is taken
//! once for a magazine, and no block is looked at on the way. A shelf holds [`SHELF_BYTES`] at most, and a thread
//! [`MAGAZINE_BYTES`] twice for each size (with tasks of all 32 sizes 32 MiB for the process, and 1 MiB for each thread); what is
//! more goes back to the allocator, and so does what a thread has when it ends.
//!
//! Rejected: stocks in each worker (`Local`), which the join handle, who often frees, would have to find; blocks inside the
//! slab (an output may outlive its slot); exchange without a lock, for what happens once in a hundred spawns.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::{self, NonNull};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Sizes are multiples of this.
const STEP: usize = 32;
const CLASSES: usize = 32;
/// What larger alignments need is not kept.
const ALIGN: usize = 16;
const MAGAZINE_BYTES: usize = 16 * 1024;
const SHELF_BYTES: usize = 1024 * 1024;

/// Sanitizers find what is used after it was freed only if the allocator sees the free.
const KEEPS: bool = !cfg!(any(miri, polity_fresh_cells));

/// The size class of such a block; `None` for one that is not kept.
#[inline]
fn class_of(layout: Layout) -> Option<usize> {
    let class = layout.size().wrapping_sub(1) / STEP;
    (KEEPS && class < CLASSES && layout.align() <= ALIGN).then_some(class)
}

/// What the allocator is asked for.
const fn layout_of(class: usize) -> Layout {
    match Layout::from_size_align((class + 1) * STEP, ALIGN) {
        Ok(layout) => layout,
        Err(_) => panic!("a small multiple of 32"),
    }
}

const fn magazine_len(class: usize) -> usize {
    MAGAZINE_BYTES / layout_of(class).size()
}

const fn shelf_len(class: usize) -> usize {
    SHELF_BYTES / (magazine_len(class) * layout_of(class).size())
}

/// A block that is free. It holds the next one.
struct Free(*mut Free);

/// A stack of free blocks of one class.
struct Magazine {
    top: *mut Free,
    len: usize,
}

// SAFETY: the blocks belong to whoever has the magazine, and hold nothing but the way to each other.
unsafe impl Send for Magazine {}

impl Magazine {
    const EMPTY: Magazine = Magazine {
        top: ptr::null_mut(),
        len: 0,
    };

    #[inline]
    fn push(&mut self, block: NonNull<u8>) {
        let block: NonNull<Free> = block.cast();
        // SAFETY: `write` requires memory that is ours to write, large enough and aligned: a block that nobody uses any more, of
        // 32 bytes or more at a multiple of 16.
        unsafe { block.write(Free(self.top)) };
        self.top = block.as_ptr();
        self.len += 1;
    }

    #[inline]
    fn pop(&mut self) -> Option<NonNull<u8>> {
        let block = NonNull::new(self.top)?;
        // SAFETY: `read` requires that a `Free` is there: `push` has written it, and the block was ours ever since.
        let Free(next) = unsafe { block.read() };
        self.top = next;
        self.len -= 1;
        Some(block.cast())
    }

    /// Gives the blocks back to the allocator.
    fn empty(&mut self, class: usize) {
        while let Some(block) = self.pop() {
            // SAFETY: `dealloc` requires a block of this allocator and this layout that is not used any more: all blocks of the
            // class were made with it by `fresh`, and this one was free.
            unsafe { dealloc(block.as_ptr(), layout_of(class)) };
        }
    }
}

/// What one thread has of one size: both are full, or empty, or in between, in any mixture.
struct Pair {
    at_hand: Magazine,
    other: Magazine,
}

/// What one thread has.
struct Stock([Pair; CLASSES]);

thread_local! {
    static STOCK: RefCell<Stock> = const {
        RefCell::new(Stock(
            [const {
                Pair {
                    at_hand: Magazine::EMPTY,
                    other: Magazine::EMPTY,
                }
            }; CLASSES],
        ))
    };
}

/// Full magazines, for any thread.
static SHELVES: [Mutex<Vec<Magazine>>; CLASSES] = [const { Mutex::new(Vec::new()) }; CLASSES];

fn shelf(class: usize) -> MutexGuard<'static, Vec<Magazine>> {
    // Nothing under the lock can panic but an allocation that fails, which aborts.
    SHELVES[class]
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
}

impl Pair {
    #[inline]
    fn take(&mut self, class: usize) -> Option<NonNull<u8>> {
        self.at_hand.pop().or_else(|| self.take_from_other(class))
    }

    #[cold]
    fn take_from_other(&mut self, class: usize) -> Option<NonNull<u8>> {
        if self.other.len == 0 {
            self.other = shelf(class).pop()?;
        }
        std::mem::swap(&mut self.at_hand, &mut self.other);
        self.at_hand.pop()
    }

    #[inline]
    fn give(&mut self, block: NonNull<u8>, class: usize) {
        if self.at_hand.len >= magazine_len(class) {
            self.make_room(class);
        }
        self.at_hand.push(block);
    }

    #[cold]
    fn make_room(&mut self, class: usize) {
        std::mem::swap(&mut self.at_hand, &mut self.other);
        if self.at_hand.len >= magazine_len(class) {
            put_on_shelf(std::mem::replace(&mut self.at_hand, Magazine::EMPTY), class);
        }
    }
}

/// A full one. If there is no room, its blocks go back to the allocator.
fn put_on_shelf(mut magazine: Magazine, class: usize) {
    let mut shelf = shelf(class);
    if shelf.len() < shelf_len(class) {
        shelf.push(magazine);
    } else {
        drop(shelf);
        magazine.empty(class);
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        for (class, pair) in self.0.iter_mut().enumerate() {
            pair.at_hand.empty(class);
            pair.other.empty(class);
        }
    }
}

fn fresh(layout: Layout) -> NonNull<u8> {
    // SAFETY: `alloc` requires a size other than zero: a cell has a head.
    let block = unsafe { alloc(layout) };
    NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
}

/// A block of this layout, whose size must not be zero.
#[inline]
pub(super) fn take(layout: Layout) -> NonNull<u8> {
    let Some(class) = class_of(layout) else {
        return fresh(layout);
    };
    // A thread that is ending may have no stock any more.
    let kept = STOCK.try_with(|stock| stock.borrow_mut().0[class].take(class));
    kept.ok()
        .flatten()
        .unwrap_or_else(|| fresh(layout_of(class)))
}

/// Takes a block back.
///
/// # Safety
/// It came from [`take`] with this layout, and is not used any more.
#[inline]
pub(super) unsafe fn give(block: NonNull<u8>, layout: Layout) {
    let Some(class) = class_of(layout) else {
        // SAFETY: made by `fresh` with this layout, since `take` answers the same for the same layout.
        return unsafe { dealloc(block.as_ptr(), layout) };
    };
    let kept = STOCK.try_with(|stock| stock.borrow_mut().0[class].give(block, class));
    if kept.is_err() {
        // SAFETY: made by `fresh` with the class's layout.
        unsafe { dealloc(block.as_ptr(), layout_of(class)) };
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    fn give_back(block: NonNull<u8>, size: usize) {
        // SAFETY: each test gives back once what it took with this size.
        unsafe { give(block, layout(size)) };
    }

    /// Shelves are everybody's, so each test that counts has a size of its own.
    fn on_the_shelf(class: usize) -> usize {
        shelf(class).len()
    }

    #[test]
    fn what_a_thread_gave_back_last_it_gets_next_for_any_size_of_the_class() {
        if !KEEPS {
            return;
        }
        let [first, second] = [take(layout(961)), take(layout(992))];
        give_back(first, 961);
        give_back(second, 992);
        assert_eq!(take(layout(970)), second);
        assert_eq!(take(layout(961)), first);
        give_back(first, 961);
        give_back(second, 970);
    }

    #[test]
    fn blocks_are_as_large_and_as_aligned_as_was_asked() {
        for size in (1..2_000).step_by(7) {
            for align in [1, 8, 16, 64, 128] {
                let layout = Layout::from_size_align(size, align).unwrap();
                let block = take(layout);
                assert_eq!(block.addr().get() % align, 0);
                // SAFETY: `size` bytes from `take`, ours until `give`.
                unsafe { block.write_bytes(0xa5, size) };
                // SAFETY: taken with this layout, once.
                unsafe { give(block, layout) };
            }
        }
    }

    #[test]
    fn what_one_thread_gives_back_another_one_gets() {
        if !KEEPS {
            return;
        }
        const SIZE: usize = 900;
        let class = class_of(layout(SIZE)).unwrap();
        let many = 4 * magazine_len(class);
        let blocks: Vec<usize> = (0..many).map(|_| take(layout(SIZE)).addr().get()).collect();
        let before = on_the_shelf(class);
        let given = blocks.clone();
        thread::spawn(move || {
            for block in given {
                let block = NonNull::new(ptr::with_exposed_provenance_mut(block)).unwrap();
                give_back(block, SIZE);
            }
            // Two magazines stay with this thread, and go with it.
            assert_eq!(on_the_shelf(class), before + 2);
        })
        .join()
        .unwrap();
        let again: Vec<_> = (0..2 * magazine_len(class))
            .map(|_| take(layout(SIZE)))
            .collect();
        assert_eq!(on_the_shelf(class), before);
        assert!(
            again
                .iter()
                .all(|block| blocks.contains(&block.addr().get()))
        );
        for block in again {
            give_back(block, SIZE);
        }
    }

    #[test]
    fn a_shelf_that_is_full_takes_no_more() {
        if !KEEPS {
            return;
        }
        const SIZE: usize = 840;
        let class = class_of(layout(SIZE)).unwrap();
        let many = (shelf_len(class) + 8) * magazine_len(class);
        let blocks: Vec<_> = (0..many).map(|_| take(layout(SIZE))).collect();
        for block in blocks {
            give_back(block, SIZE);
        }
        assert_eq!(on_the_shelf(class), shelf_len(class));
        // Not left to the other tests.
        for mut magazine in shelf(class).drain(..) {
            magazine.empty(class);
        }
    }
}
