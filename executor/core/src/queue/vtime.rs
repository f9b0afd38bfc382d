//! Entries in the order of a number that the policy chose, behind a short lock.
//!
//! **Order.** Vtimes wrap: `a` is before `b` if `b - a`, modulo 2^64, is less than 2^63 (`time_before64` in the kernel). That
//! is no order on all numbers (of 0, 2^62 and 2^63 + 1 each is before the next, and the last before the first), and a heap
//! wants one. So a vtime is unrolled when it comes in: its key is the head's plus the signed distance between the two, a
//! number of 128 bits, which does not wrap in the life of a machine. Keys are ordered whatever the policy says; and where all
//! that waits lies within 2^63, as the contract asks, by vtime.
//!
//! **A binary heap** of keys and sequence numbers: a policy inserts mostly near the tail, which costs a heap a step or two,
//! and no allocation once it has grown. Rejected: a B-tree, which allocates under the lock, and could pass over a restricted
//! task for less; a skip list or a multi-queue without a lock, which trade the exact order for workers that we do not have
//! yet (`move_to_local` takes a batch under one lock).

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use polity_policy::WorkerId;

use crate::queue::Taking;
use crate::task::entry::Entry;

/// See the [module](self). The lock is held for a few steps in the heap, never over foreign code.
#[derive(Debug, Default)]
pub(crate) struct VtimeQueue {
    /// A hint: exact under the lock.
    len: AtomicUsize,
    /// The vtime of the head, if there is one. A hint too.
    first: AtomicU64,
    /// Written under the lock; see [`Fifo`](crate::queue::Fifo).
    closed: AtomicBool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    items: BinaryHeap<Item>,
    /// Of entries with one vtime the older one is first.
    next_sequence: u64,
    /// What `take_for` passes over; empty between uses.
    passed: Vec<Item>,
}

#[derive(Debug)]
struct Item {
    /// The vtime, unrolled: its lower half is the vtime itself.
    key: i128,
    sequence: u64,
    entry: Entry,
}

impl Item {
    fn vtime(&self) -> u64 {
        self.key as u64
    }
}

impl Ord for Item {
    /// The earliest is the greatest: `BinaryHeap` pops the greatest.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.key, other.sequence).cmp(&(self.key, self.sequence))
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Item {}

impl Inner {
    fn push(&mut self, vtime: u64, entry: Entry) {
        let key = match self.items.peek() {
            None => i128::from(vtime),
            Some(head) => head.key + i128::from(vtime.wrapping_sub(head.vtime()) as i64),
        };
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.items.push(Item {
            key,
            sequence,
            entry,
        });
    }
}

impl VtimeQueue {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can panic but an allocation that fails, which aborts.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Ordering, for `len` and `first` everywhere: Relaxed, for the reason that `Fifo` gives for its length. The two are read
    // one after the other, so they may be of different moments; each is a hint anyway.
    fn note(&self, inner: &Inner) {
        if let Some(head) = inner.items.peek() {
            self.first.store(head.vtime(), Relaxed);
        }
        self.len.store(inner.items.len(), Relaxed);
    }

    /// How many entries there are, stale ones included.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Relaxed)
    }

    /// The vtime of the head, stale or not.
    #[inline]
    pub(crate) fn first(&self) -> Option<u64> {
        (self.len() > 0).then(|| self.first.load(Relaxed))
    }

    /// Inserts what `entry` makes under the lock, if it makes something and the queue is open.
    pub(crate) fn push_with(&self, vtime: u64, entry: impl FnOnce() -> Option<Entry>) {
        let mut inner = self.lock();
        if self.closed.load(Relaxed) {
            return;
        }
        if let Some(entry) = entry() {
            inner.push(vtime, entry);
            self.note(&inner);
        }
    }

    /// Inserts what `next` makes, entry by entry, under one lock. `false`: the queue is closed, and `next` was not called.
    pub(crate) fn push_each(&self, mut next: impl FnMut() -> Option<(u64, Entry)>) -> bool {
        let mut inner = self.lock();
        if self.closed.load(Relaxed) {
            return false;
        }
        while let Some((vtime, entry)) = next() {
            inner.push(vtime, entry);
        }
        self.note(&inner);
        true
    }

    /// Moves entries that may run on `worker` to `take`, from the earliest on, until it answers `Enough`. The others keep
    /// their places. Complexity: O(log n) for each entry taken, and twice that for each passed over.
    pub(crate) fn take_for(&self, worker: WorkerId, mut take: impl FnMut(Entry) -> Taking) {
        if self.len() == 0 {
            return;
        }
        let mut inner = self.lock();
        let Inner { items, passed, .. } = &mut *inner;
        while let Some(item) = items.pop() {
            if item.entry.is_restricted() && !item.entry.header().allows(worker) {
                passed.push(item);
            } else if take(item.entry) == Taking::Enough {
                break;
            }
        }
        // With their old keys and sequences, so that neither what came meanwhile nor their equals overtake them.
        items.extend(passed.drain(..));
        self.note(&inner);
    }

    /// Closes the queue if it is empty; else says how many entries are in it.
    pub(crate) fn close_if_empty(&self) -> Result<(), usize> {
        let inner = self.lock();
        match inner.items.len() {
            0 => {
                self.closed.store(true, Relaxed);
                Ok(())
            }
            waiting => Err(waiting),
        }
    }

    /// Accepts entries again.
    pub(crate) fn open(&self) {
        let _lock = self.lock();
        self.closed.store(false, Relaxed);
    }

    /// Whether inserts are refused. Takes the lock only if so.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // Ordering: Relaxed, as in `Fifo::is_closed`.
        self.closed.load(Relaxed) && self.is_closed_still()
    }

    #[cold]
    fn is_closed_still(&self) -> bool {
        let _lock = self.lock();
        self.closed.load(Relaxed)
    }
}
