//! A bounded FIFO of words, filled by one thread and emptied by any.
//!
//! Not a queue of references: what lies in it is plain words, so that reading one that has been taken meanwhile is harmless, and
//! there is no unsafe code.
//!
//! # Protocol
//!
//! `tail` counts the pushes, `head` the takes, both for ever (64 bits do not wrap), and word `n` lies in slot `n` modulo the
//! capacity. Events: *Push* (owner: write the slot, then `tail`), *Take* (anybody: read `head`, `tail` and the slots, then move
//! `head` by compare-and-swap).
//!
//! * **A word is taken once.** A take of words `h..h+n` is the read-modify-write that moves `head` away from `h`, and no two of
//!   these can read the same `h`.
//! * **It is the word that was pushed.** Push of `h` comes before every Take that has seen a `tail` beyond it (Release, Acquire). The
//!   next word for the same slot is `h + capacity`, which the owner writes only when it has seen `head` beyond `h`. If somebody
//!   else has moved it, whoever reads that word instead finds `head` moved, and its Take fails. If its own Take has, its reads come
//!   before (Release, Acquire; loom cannot show this one, since it runs each thread in its own order).
//! * **None is lost.** A slot is written again only after its word was taken.
//!
//! `tail` may be seen older than `head`, which then looks like an empty ring: a look that must not miss a push is ordered by
//! the fences of whoever looks (`idle/README.md`), as with all queues here.
//!
//! The algorithm is that of Chase and Lev's deque (SPAA 2005) without its bottom end, as in the run queues of Go and tokio; those
//! keep `head` in 32 bits. Models: `ring_tests.rs`.

use std::cell::Cell;
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;

use crate::sync::{AtomicU64, Ordering};

/// See the [module](self). This end is the owner's.
#[derive(Debug)]
pub(crate) struct Ring<const N: usize> {
    shared: Arc<Shared<N>>,
    /// What `tail` is: nobody else writes it.
    tail: Cell<u64>,
    /// What `head` was at least.
    head: Cell<u64>,
}

/// The end of all others.
#[derive(Debug)]
pub(crate) struct Taker<const N: usize>(Arc<Shared<N>>);

#[derive(Debug)]
struct Shared<const N: usize> {
    head: CachePadded<AtomicU64>,
    tail: CachePadded<AtomicU64>,
    /// Made by the first push: most seats are never sat in.
    slots: OnceLock<Box<[AtomicU64]>>,
}

impl<const N: usize> Ring<N> {
    pub(crate) fn new() -> Self {
        const { assert!(N.is_power_of_two()) };
        let shared = Shared {
            head: CachePadded::new(AtomicU64::new(0)),
            tail: CachePadded::new(AtomicU64::new(0)),
            slots: OnceLock::new(),
        };
        Ring {
            shared: Arc::new(shared),
            tail: Cell::new(0),
            head: Cell::new(0),
        }
    }

    pub(crate) fn taker(&self) -> Taker<N> {
        Taker(Arc::clone(&self.shared))
    }

    /// The word comes back if there is no room.
    #[inline]
    pub(crate) fn push(&self, word: u64) -> Result<(), u64> {
        let tail = self.tail.get();
        if tail - self.head.get() >= N as u64 {
            // Ordering: Acquire pairs with the Release in `Taker::take`; owner's takes in between continue its release
            // sequence. What is written below comes after that taker has read the slot.
            self.head.set(self.shared.head.load(Ordering::Acquire));
            if tail - self.head.get() >= N as u64 {
                return Err(word);
            }
        }
        let slots = self.shared.slots.get_or_init(Shared::<N>::make_slots);
        // Ordering: Relaxed; published by the next store.
        slots[tail as usize % N].store(word, Ordering::Relaxed);
        // Ordering: Release pairs with the Acquire in `Taker::take`.
        self.shared.tail.store(tail + 1, Ordering::Release);
        self.tail.set(tail + 1);
        Ok(())
    }

    /// The oldest word.
    #[inline]
    pub(crate) fn pop(&self) -> Option<u64> {
        let shared = &*self.shared;
        // Ordering: Relaxed; all words are this thread's own.
        let mut head = shared.head.load(Ordering::Relaxed);
        while head < self.tail.get() {
            let slots = shared.slots.get()?;
            let word = slots[head as usize % N].load(Ordering::Relaxed);
            // Ordering: Relaxed; the words and the slots are this thread's own, and it writes them in its own order.
            let moved = { &shared.head }.compare_exchange(
                head,
                head + 1,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
            match moved {
                Ok(_) => return Some(word),
                Err(now) => head = now,
            }
        }
        None
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        // Ordering: Relaxed, as in `pop`.
        self.shared.head.load(Ordering::Relaxed) == self.tail.get()
    }
}

impl<const N: usize> Taker<N> {
    /// Moves the older half, `into.len()` words at most, to the beginning of `into`. Returns how many.
    pub(crate) fn take(&self, into: &mut [u64]) -> usize {
        let shared = &*self.0;
        // Ordering: Relaxed; if it is old, the exchange fails.
        let mut head = shared.head.load(Ordering::Relaxed);
        loop {
            // Ordering: Acquire pairs with the Release in `Ring::push`: the slots, and what the words stand for.
            let tail = shared.tail.load(Ordering::Acquire);
            let waiting = tail.saturating_sub(head) as usize;
            let count = waiting.div_ceil(2).min(into.len());
            let Some(slots) = shared.slots.get().filter(|_| count > 0) else {
                return 0;
            };
            for (nth, word) in into[..count].iter_mut().enumerate() {
                // Ordering: Relaxed; see the module.
                *word = slots[(head as usize + nth) % N].load(Ordering::Relaxed);
            }
            let next = head + count as u64;
            // Ordering: Release pairs with the Acquire in `Ring::push`: the slots have been read.
            match { &shared.head }.compare_exchange(
                head,
                next,
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return count,
                Err(now) => head = now,
            }
        }
    }

    /// A sample.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        // Ordering: Relaxed; whoever must not miss a push has made a fence before.
        let head = self.0.head.load(Ordering::Relaxed);
        let tail = self.0.tail.load(Ordering::Relaxed);
        tail.saturating_sub(head) as usize
    }
}

impl<const N: usize> Shared<N> {
    #[cold]
    fn make_slots() -> Box<[AtomicU64]> {
        (0..N).map(|_| AtomicU64::new(0)).collect()
    }
}
