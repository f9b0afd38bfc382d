//! What a worker has to run, or to offer to its policy: filled by its worker, emptied by all.
//!
//! A [`Ring`] for as long as that has room, then crossbeam's deque, until that is empty again; so the order is that of the
//! pushes, as long as nobody steals. The deque alone would do. But each time that a burst of tasks comes and goes it allocates,
//! and whichever thread collects its garbage frees that: memory wanders between the workers' arenas, and with it the arenas' locks. A
//! burst of 1,000 receivers of one message took twice as long (docs/performance.md, the ladder).
//!
//! Rejected: a ring that grows and never shrinks, and no deque. What a burst has left it with would stay for ever, in each
//! worker.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_deque::{Steal, Stealer, Worker};

use super::ring::{Ring, Taker};
use crate::task::entry::Entry;

/// Room for so many entries, 8 KiB, in the ring.
const ROOM: usize = 1024;
/// Entries that one theft takes at most.
const MOST_STOLEN: usize = 32;

/// The worker's end.
#[derive(Debug)]
pub(crate) struct Ingress {
    ring: Ring<ROOM>,
    rest: Worker<Entry>,
    /// `rest` may not be empty: what the flag says.
    has_rest: Cell<bool>,
    flag: Arc<AtomicBool>,
}

/// The end of all others.
#[derive(Debug)]
pub(crate) struct Thief {
    ring: Taker<ROOM>,
    rest: Stealer<Entry>,
    /// To ask the deque itself costs a fence.
    flag: Arc<AtomicBool>,
}

impl Ingress {
    pub(crate) fn new() -> Self {
        Ingress {
            ring: Ring::new(),
            rest: Worker::new_fifo(),
            has_rest: Cell::new(false),
            flag: Arc::default(),
        }
    }

    pub(crate) fn thief(&self) -> Thief {
        Thief {
            ring: self.ring.taker(),
            rest: self.rest.stealer(),
            flag: Arc::clone(&self.flag),
        }
    }

    /// Behind all others.
    #[inline]
    pub(crate) fn push(&self, entry: Entry) {
        if self.has_rest.get() {
            return self.rest.push(entry);
        }
        if let Err(bits) = self.ring.push(entry.into_bits()) {
            self.push_to_rest(bits);
        }
    }

    /// What was taken from another one.
    fn push_all(&self, words: &[u64]) {
        let entries = words.iter().filter_map(|bits| Entry::from_bits(*bits));
        entries.for_each(|entry| self.push(entry));
    }

    #[cold]
    fn push_to_rest(&self, bits: u64) {
        self.set_has_rest(true);
        if let Some(entry) = Entry::from_bits(bits) {
            self.rest.push(entry);
        }
    }

    /// The first.
    #[inline]
    pub(crate) fn pop(&self) -> Option<Entry> {
        match self.ring.pop() {
            Some(bits) => Entry::from_bits(bits),
            None if self.has_rest.get() => self.pop_rest(),
            None => None,
        }
    }

    fn pop_rest(&self) -> Option<Entry> {
        let entry = self.rest.pop();
        if entry.is_none() {
            self.set_has_rest(false);
        }
        entry
    }

    fn set_has_rest(&self, has_rest: bool) {
        self.has_rest.set(has_rest);
        // Ordering: Relaxed; whoever must not miss a push has made a fence before, as its pusher has after it.
        self.flag.store(has_rest, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.is_empty() && (!self.has_rest.get() || self.rest.is_empty())
    }
}

impl Thief {
    /// Takes the older half, but 32 at most, for `ours`. Whether there was something.
    pub(crate) fn steal_batch(&self, ours: &Ingress) -> bool {
        let mut words = [0; MOST_STOLEN];
        let count = self.ring.take(&mut words);
        ours.push_all(&words[..count]);
        count > 0 || self.steal_rest(ours)
    }

    /// The same, and the first of them at once.
    pub(crate) fn steal_batch_and_pop(&self, ours: &Ingress) -> Option<Entry> {
        let mut words = [0; MOST_STOLEN];
        let count = self.ring.take(&mut words);
        let (first, others) = words[..count].split_first().unwrap_or((&0, &[]));
        ours.push_all(others);
        Entry::from_bits(*first).or_else(|| self.steal_rest_and_pop(ours))
    }

    /// The first.
    pub(crate) fn steal(&self) -> Option<Entry> {
        let mut word = [0];
        match self.ring.take(&mut word) {
            0 => self.steal_from_rest(),
            _ => Entry::from_bits(word[0]),
        }
    }

    /// Into our deque, behind whatever our ring has.
    fn steal_rest(&self, ours: &Ingress) -> bool {
        if !self.has_rest() {
            return false;
        }
        // Before it is true, or other thieves would miss them. If it does not come true, the next pop says so.
        ours.set_has_rest(true);
        retry(|| self.rest.steal_batch(&ours.rest)).is_some()
    }

    fn steal_rest_and_pop(&self, ours: &Ingress) -> Option<Entry> {
        if !self.has_rest() {
            return None;
        }
        ours.set_has_rest(true);
        retry(|| self.rest.steal_batch_and_pop(&ours.rest))
    }

    fn steal_from_rest(&self) -> Option<Entry> {
        if !self.has_rest() {
            return None;
        }
        retry(|| self.rest.steal())
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.ring.len() == 0 && (!self.has_rest() || self.rest.is_empty())
    }

    #[inline]
    fn has_rest(&self) -> bool {
        // Ordering: Relaxed, as in `set_has_rest`.
        self.flag.load(Ordering::Relaxed)
    }

    /// A sample.
    pub(crate) fn len(&self) -> usize {
        self.ring.len() + self.rest.len()
    }
}

/// Steals until the answer is not "try again".
fn retry<T>(mut steal: impl FnMut() -> Steal<T>) -> Option<T> {
    loop {
        match steal() {
            Steal::Success(stolen) => return Some(stolen),
            Steal::Empty => return None,
            Steal::Retry => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize) -> Entry {
        Entry::from_bits(number as u64 + 1).expect("not zero")
    }

    fn number(entry: Entry) -> usize {
        entry.into_bits() as usize - 1
    }

    fn pushed(count: usize) -> Ingress {
        let ingress = Ingress::new();
        (0..count).for_each(|nth| ingress.push(entry(nth)));
        ingress
    }

    fn popped(ingress: &Ingress) -> Vec<usize> {
        std::iter::from_fn(|| ingress.pop()).map(number).collect()
    }

    #[test]
    fn more_entries_than_the_ring_has_room_for_come_out_in_order() {
        let ingress = pushed(3 * ROOM);
        let thief = ingress.thief();
        assert_eq!(thief.len(), 3 * ROOM);
        // While the deque empties, the ring has room again; new ones wait behind the deque all the same.
        let mut first: Vec<_> = (0..2 * ROOM)
            .map(|_| number(ingress.pop().unwrap()))
            .collect();
        ingress.push(entry(3 * ROOM));
        first.extend(popped(&ingress));
        assert_eq!(first, (0..=3 * ROOM).collect::<Vec<_>>());
        assert!(ingress.is_empty() && thief.is_empty());
        assert!(!ingress.has_rest.get(), "the ring is in use again");
    }

    #[test]
    fn a_theft_takes_the_older_half_but_thirty_two_at_most() {
        let (theirs, ours) = (pushed(7), Ingress::new());
        assert!(theirs.thief().steal_batch(&ours));
        assert_eq!(
            (popped(&ours), popped(&theirs)),
            (vec![0, 1, 2, 3], vec![4, 5, 6])
        );
        let theirs = pushed(100);
        assert_eq!(
            theirs.thief().steal_batch_and_pop(&ours).map(number),
            Some(0)
        );
        assert_eq!(popped(&ours), (1..32).collect::<Vec<_>>());
        assert!(!Ingress::new().thief().steal_batch(&ours));
        assert_eq!(Ingress::new().thief().steal_batch_and_pop(&ours), None);
    }

    #[test]
    fn thieves_find_what_the_ring_had_no_room_for() {
        let (theirs, ours) = (pushed(ROOM + 10), Ingress::new());
        let thief = theirs.thief();
        for nth in 0..ROOM {
            assert_eq!(thief.steal().map(number), Some(nth));
        }
        assert!(!thief.is_empty());
        assert!(thief.steal_batch(&ours));
        let first = thief.steal_batch_and_pop(&ours).map(number);
        assert_eq!(first, Some(ROOM + 5));
        // Five of ten, one of five, and two of the other four.
        let stolen: Vec<_> = (ROOM..ROOM + 5).chain(ROOM + 6..ROOM + 8).collect();
        assert!(!ours.thief().is_empty());
        assert_eq!(popped(&ours), stolen);
        assert_eq!(popped(&theirs), [ROOM + 8, ROOM + 9]);
        assert!(thief.is_empty());
    }
}
