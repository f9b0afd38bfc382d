//! Who is parked, and how nobody sleeps through work. `README.md` beside this file has the protocol and its proof.
//!
//! Not the parking itself: the machine blocks threads. Called by workers, and by any thread that makes a task runnable.
//!
//! **Invariant.** A bit in `parked` is set by its worker only, and cleared once: by the worker when it goes on by
//! itself, or by the one that has taken on the duty to unpark it.

#[cfg(all(test, polity_loom))]
mod loom_tests;

use crate::sync::{AtomicU64, Ordering, fence};

/// The masks. Arrays of words, so that the number of workers is not bounded by one of them.
#[derive(Debug)]
pub(crate) struct Sleepers {
    /// Announced and not unparked. Core alone clears it.
    parked: Box<[AtomicU64]>,
    /// A hint for policies: idle and not claimed. A policy that claims and forgets loses nothing.
    idle: Box<[AtomicU64]>,
    /// 1 + the worker that is looking for work to steal, or is being unparked to do so; 0 for none.
    searching: AtomicU64,
    /// 1 + the worker that keeps watch while others run, or 0.
    sentinel: AtomicU64,
}

fn place(worker: usize) -> (usize, u64) {
    (worker / 64, 1 << (worker % 64))
}

impl Sleepers {
    pub(crate) fn new(workers: usize) -> Self {
        let words = || {
            (0..workers.div_ceil(64))
                .map(|_| AtomicU64::new(0))
                .collect()
        };
        Sleepers {
            parked: words(),
            idle: words(),
            searching: AtomicU64::new(0),
            sentinel: AtomicU64::new(0),
        }
    }

    /// *Announce*: this worker is about to park. It must look for work once more before it does.
    pub(crate) fn announce(&self, worker: usize) {
        let (word, bit) = place(worker);
        // Ordering: Relaxed; the fence below is what orders it.
        self.parked[word].fetch_or(bit, Ordering::Relaxed);
        self.idle[word].fetch_or(bit, Ordering::Relaxed);
        // Ordering: SeqCst fence (AnnounceFence), partner of PushFence in `wake_one`: either the pusher sees our bit
        // or our next look sees its push. Loom: `a_push_is_never_slept_through`.
        fence(Ordering::SeqCst);
    }

    /// Takes the announcement back, or notes the return from a park. `false`: somebody had taken the bit, and has
    /// unparked this worker or is about to, perhaps as the searcher.
    pub(crate) fn retract(&self, worker: usize) -> bool {
        let (word, bit) = place(worker);
        // Ordering: Relaxed; whoever cleared it first has set or will set our token, and the token orders.
        let was_parked = self.parked[word].fetch_and(!bit, Ordering::Relaxed) & bit != 0;
        self.idle[word].fetch_and(!bit, Ordering::Relaxed);
        was_parked
    }

    /// Whether anybody seems parked. For throttling only.
    #[inline]
    pub(crate) fn any_parked(&self) -> bool {
        // Ordering: Relaxed, and no fence: a worker that asks goes on to look at its own queues anyway.
        self.parked
            .iter()
            .any(|word| word.load(Ordering::Relaxed) != 0)
    }

    /// After a push that not every worker may run: chooses one parked worker for which `allows` holds, `prefer` first.
    /// The caller must unpark it.
    pub(crate) fn wake_one(&self, prefer: usize, allows: impl Fn(usize) -> bool) -> Option<usize> {
        // Ordering: SeqCst fence (PushFence), partner of AnnounceFence in `announce`.
        fence(Ordering::SeqCst);
        self.pick(prefer, allows)
    }

    /// After a push to a queue that every worker looks into: chooses one parked worker and makes it the searcher,
    /// unless there is one. The caller must unpark it.
    pub(crate) fn wake_unless_searching(&self, prefer: usize) -> Option<usize> {
        // Ordering: SeqCst fence (PushFence), partner of AnnounceFence in `announce`. If we then see a searcher, it
        // gives the role up before its AnnounceFence, so that fence comes after ours and its last look sees the push.
        fence(Ordering::SeqCst);
        if self.somebody_searches() {
            return None;
        }
        let worker = self.pick(prefer, |_| true)?;
        // Ordering: Relaxed; before the unpark, so that the worker which ends the search comes after it.
        self.searching.store(worker as u64 + 1, Ordering::Relaxed);
        Some(worker)
    }

    /// The sentinel is chosen last: as long as it keeps watch, nobody else has to be woken for that.
    fn pick(&self, prefer: usize, allows: impl Fn(usize) -> bool) -> Option<usize> {
        // Ordering: Relaxed; a role.
        let sentinel = (self.sentinel.load(Ordering::Relaxed) as usize).wrapping_sub(1);
        if prefer != sentinel && allows(prefer) && self.take(prefer) {
            return Some(prefer);
        }
        for (index, word) in self.parked.iter().enumerate() {
            // Ordering: Relaxed; ordered by the caller's fence.
            let mut bits = word.load(Ordering::Relaxed);
            while bits != 0 {
                let worker = index * 64 + bits.trailing_zeros() as usize;
                bits &= bits - 1;
                if worker != sentinel && allows(worker) && self.take(worker) {
                    return Some(worker);
                }
            }
        }
        (allows(sentinel) && self.take(sentinel)).then_some(sentinel)
    }

    /// Whether one of so many threads is not parked.
    pub(crate) fn anybody_runs(&self, threads: usize) -> bool {
        // Ordering: Relaxed; a hint for the length of a watch.
        let parked: u32 = self
            .parked
            .iter()
            .map(|word| word.load(Ordering::Relaxed).count_ones())
            .sum();
        (parked as usize) < threads
    }

    /// Whether this one is parked, or about to be. For samplers.
    pub(crate) fn is_parked(&self, worker: usize) -> bool {
        let (word, bit) = place(worker);
        // Ordering: Relaxed; a sample, or ordered by the caller's fence.
        self.parked
            .get(word)
            .is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// For one worker: after a push to its own queue, or a kick.
    pub(crate) fn wake_this(&self, worker: usize) -> bool {
        // Ordering: SeqCst fence (PushFence), as in `wake_one`.
        fence(Ordering::SeqCst);
        self.take(worker)
    }

    fn take(&self, worker: usize) -> bool {
        let (word, bit) = place(worker);
        let Some(word) = self.parked.get(word) else {
            return false;
        };
        // Ordering: Relaxed; of several callers one sees the bit, and the unpark that follows orders.
        word.load(Ordering::Relaxed) & bit != 0
            && word.fetch_and(!bit, Ordering::Relaxed) & bit != 0
    }

    /// For policies: takes the hint bit. Of several callers one gets `true`.
    pub(crate) fn claim_idle(&self, worker: usize) -> bool {
        let (word, bit) = place(worker);
        // Ordering: Relaxed; a hint.
        self.idle
            .get(word)
            .is_some_and(|word| word.fetch_and(!bit, Ordering::Relaxed) & bit != 0)
    }

    pub(crate) fn is_idle(&self, worker: usize) -> bool {
        let (word, bit) = place(worker);
        // Ordering: Relaxed; a hint.
        self.idle
            .get(word)
            .is_some_and(|word| word.load(Ordering::Relaxed) & bit != 0)
    }

    /// Becomes the searcher, if nobody is. At most one: thieves that search for the same work only take cache
    /// lines from each other.
    pub(crate) fn begin_search(&self, worker: usize) -> bool {
        // Ordering: Relaxed; a throttle, not a lock.
        self.searching.load(Ordering::Relaxed) == 0
            && self.searching.swap(worker as u64 + 1, Ordering::Relaxed) == 0
    }

    pub(crate) fn end_search(&self) {
        self.searching.store(0, Ordering::Relaxed);
    }

    /// Gives the role up if it was handed to this worker behind its back: whoever unparks a worker names it the searcher
    /// just before, and the worker may have found something by then. Asked whenever the clock is read, because nobody
    /// else is unparked while the role is taken.
    pub(crate) fn decline_search(&self, worker: usize) {
        if self.searching.load(Ordering::Relaxed) == worker as u64 + 1 {
            self.end_search();
        }
    }

    pub(crate) fn somebody_searches(&self) -> bool {
        self.searching.load(Ordering::Relaxed) != 0
    }

    /// Takes the watch, if nobody has it. The holder may call it again.
    pub(crate) fn become_sentinel(&self, worker: usize) -> bool {
        let me = worker as u64 + 1;
        // Ordering: Relaxed; a role, not a lock. Two sentinels for a moment would be harmless.
        let holder = self.sentinel.load(Ordering::Relaxed);
        holder == me
            || (holder == 0
                && self
                    .sentinel
                    .compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok())
    }

    /// Gives the watch up if this worker has it.
    pub(crate) fn leave_watch(&self, worker: usize) {
        let me = worker as u64 + 1;
        if self.sentinel.load(Ordering::Relaxed) == me {
            self.sentinel.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn has_sentinel(&self) -> bool {
        self.sentinel.load(Ordering::Relaxed) != 0
    }
}
