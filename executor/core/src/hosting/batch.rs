//! What is being offered to a policy, and what it said about each task.
//!
//! Verdicts are recorded here and carried out after the callback has returned: otherwise the task could run, end and
//! have its slot reused while `enqueue` still looks at it.

use std::cell::{Cell, RefCell};

use polity_policy::{DequeueReason, DsqId, Position, Slice, TaskView, WorkerId};

use crate::core::Changed;
use crate::queue::{Fifo, Rank};
use crate::task::entry::Entry;
use crate::task::header::Header;
use crate::task::token::Token;

/// What a policy is told of a task before it is asked where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum News {
    /// Nothing: it knows it as runnable.
    None,
    /// `runnable`.
    Runnable,
    /// `init_task` and `runnable`: it has never met it.
    Met,
}

/// One task of a batch.
pub(crate) struct Offered {
    pub(crate) token: Token,
    pub(crate) view: TaskView<'static>,
    /// What the policy has not been told yet.
    pub(crate) news: News,
    /// What `select_worker` chose, or the last worker.
    pub(crate) selected: Cell<WorkerId>,
    pub(crate) verdict: Cell<Option<(DsqId, Rank)>>,
    /// How long its next slice is, if the policy has said so.
    pub(crate) slice: Cell<Option<Slice>>,
}

impl Offered {
    /// Whose local DSQ that is, for this task.
    fn worker_of(&self, dsq: DsqId) -> Option<WorkerId> {
        match dsq {
            DsqId::Local => Some(self.selected.get()),
            DsqId::LocalOn(worker) => Some(worker),
            _ => None,
        }
    }
}

/// A task that `dispatch` has claimed, and where it goes when the callback has returned.
pub(crate) struct Claimed {
    pub(crate) token: Token,
    pub(crate) dsq: DsqId,
    pub(crate) at: Position,
}

/// A task whose verdict is a custom DSQ.
pub(crate) struct ForCustom {
    pub(crate) token: Token,
    pub(crate) number: u32,
    pub(crate) rank: Rank,
}

/// A task that has left the policy's custody, to be told by `dequeue`.
pub(crate) struct Departed {
    pub(crate) view: TaskView<'static>,
    pub(crate) reason: DequeueReason,
}

/// A task whose attributes have changed, to be told.
pub(crate) struct Told {
    pub(crate) view: TaskView<'static>,
    pub(crate) what: Changed,
}

/// The task that a worker polls next without its having been in a queue: to push it under a lock and to pop it under the same
/// lock a moment later would come to the same.
#[derive(Default)]
pub(crate) struct Next {
    wanted: Cell<bool>,
    task: Cell<Option<Token>>,
}

impl Next {
    /// As soon as the verdicts or claims at hand have been carried out, the worker takes the head of its local DSQ, or else of the
    /// global one. From [`give`](Next::give) to [`take`](Next::take) it makes no call: it could be convicted in it, and nobody knows of a task in its hands.
    #[inline]
    pub(crate) fn want(&self) {
        self.wanted.set(true);
    }

    /// Whether it should get what comes to the tail of this queue.
    #[inline]
    pub(crate) fn is_wanted_from(&self, queue: &Fifo) -> bool {
        self.wanted.get() && queue.is_empty()
    }

    /// Once, if it is wanted.
    #[inline]
    pub(crate) fn give(&self, entry: Entry) {
        self.wanted.set(false);
        self.task.set(Some(entry.redeem()));
    }

    /// The task, if there is one; from now on none is wanted.
    #[inline]
    pub(crate) fn take(&self) -> Option<Token> {
        self.wanted.set(false);
        self.task.take()
    }
}

/// The worker's notes on the callbacks in flight. Reused, so that offering allocates nothing.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) batch: Vec<Offered>,
    /// Gathered for the batch, but not for the generation that this worker follows.
    pub(crate) unfit: Vec<Entry>,
    /// On their way to the global DSQ; empty between uses.
    pub(crate) global: Vec<Entry>,
    /// On their way to custom DSQs; empty between uses.
    pub(crate) custom: Vec<ForCustom>,
    /// Those for the global DSQ that not every worker may run; empty between uses.
    pub(crate) restricted: Vec<&'static Header>,
    /// Index of the task at hand.
    pub(crate) at_hand: Cell<usize>,
    /// How many tasks of the batch go to one worker's local DSQ, so far: of the one that was asked about last.
    bound: Cell<Option<(WorkerId, usize)>>,
    pub(crate) departed: RefCell<Vec<Departed>>,
    pub(crate) changed: Vec<Told>,
    pub(crate) next: Next,
    /// Claims of this round of `dispatch` for local and global DSQs.
    pub(crate) claimed: RefCell<Vec<Claimed>>,
    /// This round of `dispatch` has inserted something or moved something.
    pub(crate) progress: Cell<bool>,
    /// What `running` has said of the task that is about to be polled.
    pub(crate) slice: Cell<Option<Slice>>,
    /// Something was put into the policy's custody during `dispatch`: recheck the epoch afterwards.
    pub(crate) kept: RefCell<Vec<&'static Header>>,
    /// A call was revoked: nothing above is this thread's any more.
    pub(crate) revoked: Cell<bool>,
    pub(crate) stale_claims: Cell<u64>,
    pub(crate) redirected: Cell<u64>,
}

impl Notes {
    /// These go to the tail of the worker's own local DSQ, but for the first, if that is wanted at once.
    pub(crate) fn push_own(&self, queue: &Fifo, mut entries: impl ExactSizeIterator<Item = Entry>) {
        if self.next.is_wanted_from(queue)
            && let Some(first) = entries.next()
        {
            self.next.give(first);
        }
        if entries.len() > 0 {
            queue.extend(entries);
        }
    }

    /// A batch is going to be offered by this worker.
    pub(crate) fn begin_batch(&self, worker: WorkerId) {
        self.bound.set(Some((worker, 0)));
    }

    /// What the policy has said of the task at hand.
    pub(crate) fn record(&self, offered: &Offered, dsq: DsqId, rank: Rank) {
        offered.verdict.set(Some((dsq, rank)));
        if let Some((worker, count)) = self.bound.get()
            && offered.worker_of(dsq) == Some(worker)
        {
            self.bound.set(Some((worker, count + 1)));
        }
    }

    /// What `select_worker` has answered: from now on that worker's DSQ is the local one.
    pub(crate) fn select(&self, offered: &Offered, worker: WorkerId) {
        offered.selected.set(worker);
        if offered.verdict.get().is_some() {
            // It was counted for the worker before.
            self.bound.set(None);
        }
    }

    /// How many tasks of the batch go to that worker's local DSQ, so far.
    pub(crate) fn bound_for(&self, worker: WorkerId) -> usize {
        if let Some((counted, count)) = self.bound.get()
            && counted == worker
        {
            return count;
        }
        let goes_there = |offered: &&Offered| {
            let verdict = offered.verdict.get();
            verdict.and_then(|(dsq, _)| offered.worker_of(dsq)) == Some(worker)
        };
        let count = self.batch.iter().filter(goes_there).count();
        self.bound.set(Some((worker, count)));
        count
    }
}
