//! A FIFO behind a short lock, with a length that can be read without it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use polity_policy::{Position, WorkerId};

use crate::task::entry::Entry;

/// The queue does not accept entries any more; here is the one that was refused.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(crate) struct Closed {
    pub(crate) entry: Entry,
}

/// See the [module](self). The lock is held for a few moves of 8 bytes, never over foreign code.
#[derive(Debug, Default)]
pub(crate) struct Fifo {
    /// A hint: exact under the lock.
    len: AtomicUsize,
    /// Written under the lock. Read without it for each insert, and if it says no, once more under it.
    closed: AtomicBool,
    entries: Mutex<VecDeque<Entry>>,
}

fn push_at(entries: &mut VecDeque<Entry>, entry: Entry, at: Position) {
    match at {
        Position::Tail => entries.push_back(entry),
        Position::Head => entries.push_front(entry),
    }
}

impl Fifo {
    #[inline]
    fn lock(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        // Nothing under the lock can panic but an allocation that fails, which aborts.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // Ordering, for `len` everywhere: Relaxed. A reader that misses an entry is covered by the park protocol (idle),
    // whose fence orders the push before the look at the parked mask, and this load after the announcement.
    #[inline]
    fn note_len(&self, entries: &VecDeque<Entry>) {
        self.len.store(entries.len(), Ordering::Relaxed);
    }

    /// How many entries there are, stale ones included.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn push(&self, entry: Entry, at: Position) -> Result<(), Closed> {
        let mut entries = self.lock();
        if self.closed.load(Ordering::Relaxed) {
            return Err(Closed { entry });
        }
        push_at(&mut entries, entry, at);
        self.note_len(&entries);
        Ok(())
    }

    /// Pushes what `entry` makes under the lock, if it makes something and the queue is open.
    pub(crate) fn push_with(&self, at: Position, entry: impl FnOnce() -> Option<Entry>) {
        let mut entries = self.lock();
        if self.closed.load(Ordering::Relaxed) {
            return;
        }
        if let Some(entry) = entry() {
            push_at(&mut entries, entry, at);
            self.note_len(&entries);
        }
    }

    /// Pushes what `next` makes, entry by entry, under one lock. `false`: the queue is closed, and `next` was not called.
    pub(crate) fn push_each(&self, mut next: impl FnMut() -> Option<(Position, Entry)>) -> bool {
        let mut entries = self.lock();
        if self.closed.load(Ordering::Relaxed) {
            return false;
        }
        while let Some((at, entry)) = next() {
            push_at(&mut entries, entry, at);
        }
        self.note_len(&entries);
        true
    }

    /// Appends all, closed or not: for entries whose token must not get lost.
    pub(crate) fn extend(&self, more: impl IntoIterator<Item = Entry>) {
        let mut entries = self.lock();
        entries.extend(more);
        self.note_len(&entries);
    }

    /// Puts an entry behind all that became runnable before it, as far as the tail is in that order: what comes from another
    /// queue has waited already. Closed or not, as `extend`. Complexity: one step for each entry that it overtakes.
    pub(crate) fn insert_by_age(&self, entry: Entry) {
        let age = |entry: &Entry| entry.header().runnable_at();
        let since = age(&entry);
        let mut entries = self.lock();
        let younger = entries.iter().rev().take_while(|it| age(it) > since);
        let index = entries.len() - younger.count();
        entries.insert(index, entry);
        self.note_len(&entries);
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<Entry> {
        if self.is_empty() {
            return None;
        }
        let mut entries = self.lock();
        let entry = entries.pop_front();
        self.note_len(&entries);
        entry
    }

    /// Moves entries that may run on `worker` to `take`, from the head, until it answers `Enough`. The others keep
    /// their places. Complexity: one step for each entry taken or passed over.
    pub(crate) fn take_for(&self, worker: WorkerId, mut take: impl FnMut(Entry) -> Taking) {
        if self.is_empty() {
            return;
        }
        let mut entries = self.lock();
        let mut index = 0;
        while let Some(entry) = entries.get(index) {
            if entry.is_restricted() && !entry.header().allows(worker) {
                index += 1;
                continue;
            }
            // The head, the normal case: `remove` would find that out each time.
            let entry = match index {
                0 => entries.pop_front(),
                _ => entries.remove(index),
            };
            let Some(entry) = entry else {
                break;
            };
            if take(entry) == Taking::Enough {
                break;
            }
        }
        self.note_len(&entries);
    }

    /// The first entry that may run on `worker`.
    pub(crate) fn pop_for(&self, worker: WorkerId) -> Option<Entry> {
        let mut found = None;
        self.take_for(worker, |entry| {
            found = Some(entry);
            Taking::Enough
        });
        found
    }

    /// From now on `push` is refused.
    pub(crate) fn close(&self) {
        let _lock = self.lock();
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Closes the queue if it is empty; else says how many entries are in it.
    pub(crate) fn close_if_empty(&self) -> Result<(), usize> {
        let entries = self.lock();
        match entries.len() {
            0 => {
                self.closed.store(true, Ordering::Relaxed);
                Ok(())
            }
            waiting => Err(waiting),
        }
    }

    /// Accepts entries again.
    pub(crate) fn open(&self) {
        let _lock = self.lock();
        self.closed.store(false, Ordering::Relaxed);
    }

    /// Whether `push` is refused. Takes the lock only if so: who has heard of it being opened must not be told an old tale.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        // Ordering: Relaxed, as for `len`. One that is closed meanwhile is found out by the push, under the lock.
        self.closed.load(Ordering::Relaxed) && self.is_closed_still()
    }

    #[cold]
    fn is_closed_still(&self) -> bool {
        let _lock = self.lock();
        self.closed.load(Ordering::Relaxed)
    }
}

/// Whether `take_for` goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Taking {
    More,
    Enough,
}
