//! The custom DSQs of one generation, by number.
//!
//! Looked up on every insert: two array steps, no lock. Blocks of 64 come into being when first used, so a policy
//! with eight DSQs pays for one block. A destroyed DSQ keeps its memory until the generation ends.
//!
//! A number that was destroyed may be created again as the other kind. So a place has room for one of each, of which at most
//! one is open.

use std::sync::{Mutex, OnceLock, PoisonError};

use polity_policy::{DsqError, DsqId, Position, WorkerId};

use crate::queue::{Fifo, Rank, Taking, VtimeQueue};
use crate::task::entry::Entry;

const BLOCK: usize = 64;
const BLOCKS: usize = (DsqId::MAX_CUSTOM as usize + 1) / BLOCK;

#[derive(Debug)]
pub(crate) struct DsqTable {
    blocks: [OnceLock<Box<[Place]>>; BLOCKS],
    /// Creation is rare, and one at a time.
    creating: Mutex<()>,
}

/// On lines of its own, two because processors fetch them in pairs: neighbours are levels of one policy, all of them busy.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Place {
    fifo: OnceLock<Fifo>,
    // In a box: most places have none.
    vtime: OnceLock<Box<VtimeQueue>>,
}

/// What a custom DSQ is ordered by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Order {
    Fifo,
    Vtime,
}

/// A custom DSQ.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dsq<'a> {
    Fifo(&'a Fifo),
    Vtime(&'a VtimeQueue),
}

impl Dsq<'_> {
    pub(crate) fn order(self) -> Order {
        match self {
            Dsq::Fifo(_) => Order::Fifo,
            Dsq::Vtime(_) => Order::Vtime,
        }
    }

    #[inline]
    pub(crate) fn len(self) -> usize {
        match self {
            Dsq::Fifo(fifo) => fifo.len(),
            Dsq::Vtime(queue) => queue.len(),
        }
    }

    /// Inserts what `entry` makes under the lock, if it makes something, the DSQ is open, and the rank is one of its order.
    pub(crate) fn push_with(self, rank: Rank, entry: impl FnOnce() -> Option<Entry>) {
        match (self, rank) {
            (Dsq::Fifo(fifo), Rank::End(at)) => fifo.push_with(at, entry),
            (Dsq::Vtime(queue), Rank::Vtime(vtime)) => queue.push_with(vtime, entry),
            _ => {}
        }
    }

    /// Whether an insert of this rank is one for its order.
    pub(crate) fn fits(self, rank: Rank) -> bool {
        matches!(
            (self, rank),
            (Dsq::Fifo(_), Rank::End(_)) | (Dsq::Vtime(_), Rank::Vtime(_))
        )
    }

    /// Inserts all that `next` makes under one lock; the ranks must fit. `false`: it is closed, and `next` was not called.
    pub(crate) fn push_each(self, mut next: impl FnMut() -> Option<(Rank, Entry)>) -> bool {
        match self {
            Dsq::Fifo(fifo) => fifo.push_each(|| {
                next().map(|(rank, entry)| match rank {
                    Rank::End(at) => (at, entry),
                    // Does not fit.
                    Rank::Vtime(_) => (Position::Tail, entry),
                })
            }),
            Dsq::Vtime(queue) => queue.push_each(|| {
                next().map(|(rank, entry)| match rank {
                    Rank::Vtime(vtime) => (vtime, entry),
                    // Does not fit.
                    Rank::End(_) => (0, entry),
                })
            }),
        }
    }

    /// See [`Fifo::take_for`].
    pub(crate) fn take_for(self, worker: WorkerId, take: impl FnMut(Entry) -> Taking) {
        match self {
            Dsq::Fifo(fifo) => fifo.take_for(worker, take),
            Dsq::Vtime(queue) => queue.take_for(worker, take),
        }
    }

    #[inline]
    fn is_closed(self) -> bool {
        match self {
            Dsq::Fifo(fifo) => fifo.is_closed(),
            Dsq::Vtime(queue) => queue.is_closed(),
        }
    }

    fn close_if_empty(self) -> Result<(), usize> {
        match self {
            Dsq::Fifo(fifo) => fifo.close_if_empty(),
            Dsq::Vtime(queue) => queue.close_if_empty(),
        }
    }
}

impl DsqTable {
    pub(crate) fn new() -> Self {
        DsqTable {
            blocks: [const { OnceLock::new() }; BLOCKS],
            creating: Mutex::new(()),
        }
    }

    #[inline]
    fn place(&self, number: u32) -> Option<&Place> {
        Some(&self.blocks.get(number as usize / BLOCK)?.get()?[number as usize % BLOCK])
    }

    /// The DSQ, if it exists. It may be destroyed by another worker at any moment: pushes say so.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<Dsq<'_>> {
        self.get_for_taking(number).filter(|dsq| !dsq.is_closed())
    }

    /// The DSQ, if it was ever created. For taking: what a destroyed one does not hold, it cannot give.
    #[inline]
    pub(crate) fn get_for_taking(&self, number: u32) -> Option<Dsq<'_>> {
        let place = self.place(number)?;
        match (place.fifo.get(), place.vtime.get()) {
            (Some(fifo), None) => Some(Dsq::Fifo(fifo)),
            (None, Some(queue)) => Some(Dsq::Vtime(queue)),
            (Some(fifo), Some(queue)) if queue.is_closed() => Some(Dsq::Fifo(fifo)),
            (Some(_), Some(queue)) => Some(Dsq::Vtime(queue)),
            (None, None) => None,
        }
    }

    /// The vtime of the first entry, if it is a DSQ ordered by vtime and not empty.
    pub(crate) fn first_vtime(&self, dsq: DsqId) -> Option<u64> {
        let DsqId::Custom(number) = dsq else {
            return None;
        };
        match self.get_for_taking(number)? {
            Dsq::Vtime(queue) => queue.first(),
            Dsq::Fifo(_) => None,
        }
    }

    pub(crate) fn create(&self, number: u32, order: Order) -> Result<DsqId, DsqError> {
        let dsq = DsqId::Custom(number);
        if number > DsqId::MAX_CUSTOM {
            return Err(DsqError::OutOfRange(dsq));
        }
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        if self.get(number).is_some() {
            return Err(DsqError::Exists(dsq));
        }
        let block = self.blocks[number as usize / BLOCK]
            .get_or_init(|| (0..BLOCK).map(|_| Place::default()).collect());
        let place = &block[number as usize % BLOCK];
        match order {
            Order::Fifo => place.fifo.get_or_init(Fifo::default).open(),
            Order::Vtime => place.vtime.get_or_init(Box::default).open(),
        }
        Ok(dsq)
    }

    pub(crate) fn destroy(&self, dsq: DsqId) -> Result<(), DsqError> {
        let DsqId::Custom(number) = dsq else {
            return Err(DsqError::OutOfRange(dsq));
        };
        let found = self.get(number).ok_or(DsqError::Unknown(dsq))?;
        found
            .close_if_empty()
            .map_err(|waiting| DsqError::NotEmpty(dsq, waiting))
    }
}
