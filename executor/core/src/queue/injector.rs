//! Where threads that are not workers put runnable tasks.

use crossbeam_utils::CachePadded;
use polity_policy::{Position, WorkerId};

use crate::queue::{Closed, Fifo, Taking};
use crate::task::entry::Entry;

/// One locked FIFO per worker, so that pushers and takers seldom meet. With one worker the order is exact.
#[derive(Debug)]
pub(crate) struct Injector {
    shards: Box<[CachePadded<Fifo>]>,
}

impl Injector {
    pub(crate) fn new(workers: usize) -> Self {
        let shards = workers.next_power_of_two().min(16);
        Injector {
            shards: (0..shards).map(|_| CachePadded::default()).collect(),
        }
    }

    /// Slots are handed to threads in batches of 64, so neighbours usually come from one thread and keep their order.
    fn shard_of(&self, entry: &Entry) -> &Fifo {
        let shard = entry.header().slot() as usize / 64;
        &self.shards[shard & (self.shards.len() - 1)]
    }

    /// For new tasks, which may be turned away.
    pub(crate) fn push(&self, entry: Entry) -> Result<(), Closed> {
        self.shard_of(&entry).push(entry, Position::Tail)
    }

    /// For tasks that exist already: never refused.
    pub(crate) fn push_woken(&self, entry: Entry) {
        self.shard_of(&entry).extend([entry]);
    }

    /// For a sweep: all into one shard, so that their order is kept.
    pub(crate) fn extend_in_order(&self, entries: impl IntoIterator<Item = Entry>) {
        self.shards[0].extend(entries);
    }

    /// Moves up to `at_most` entries to `take`, starting at the worker's own shard.
    pub(crate) fn take(&self, worker: WorkerId, at_most: usize, mut take: impl FnMut(Entry)) {
        let mut left = at_most;
        for nth in 0..self.shards.len() {
            if left == 0 {
                return;
            }
            let shard = &self.shards[(worker.index() + nth) & (self.shards.len() - 1)];
            shard.take_for(worker, |entry| {
                take(entry);
                left -= 1;
                if left == 0 {
                    Taking::Enough
                } else {
                    Taking::More
                }
            });
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.is_empty())
    }

    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    pub(crate) fn pop(&self) -> Option<Entry> {
        self.shards.iter().find_map(|shard| shard.pop())
    }

    pub(crate) fn close(&self) {
        self.shards.iter().for_each(|shard| shard.close());
    }
}
