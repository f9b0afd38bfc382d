//! The custom DSQs of one generation, by number.
//!
//! Looked up on every insert: two array steps, no lock. Blocks of 64 come into being when first used, so a policy
//! with eight DSQs pays for one block. A destroyed DSQ keeps its memory until the generation ends.

use std::sync::{Mutex, OnceLock, PoisonError};

use polity_policy::{DsqError, DsqId};

use crate::queue::Fifo;

const BLOCK: usize = 64;
const BLOCKS: usize = (DsqId::MAX_CUSTOM as usize + 1) / BLOCK;

#[derive(Debug)]
pub(crate) struct DsqTable {
    blocks: [OnceLock<Box<[OnceLock<Fifo>]>>; BLOCKS],
    /// Creation is rare, and one at a time.
    creating: Mutex<()>,
}

impl DsqTable {
    pub(crate) fn new() -> Self {
        DsqTable {
            blocks: [const { OnceLock::new() }; BLOCKS],
            creating: Mutex::new(()),
        }
    }

    fn slot(&self, number: u32) -> Option<&Fifo> {
        self.blocks.get(number as usize / BLOCK)?.get()?[number as usize % BLOCK].get()
    }

    /// The DSQ, if it exists. It may be destroyed by another worker at any moment: `push` says so.
    pub(crate) fn get(&self, number: u32) -> Option<&Fifo> {
        self.slot(number).filter(|fifo| !fifo.is_closed())
    }

    /// The DSQ, if it was ever created. For taking: what a destroyed one does not hold, it cannot give.
    #[inline]
    pub(crate) fn get_for_taking(&self, number: u32) -> Option<&Fifo> {
        self.slot(number)
    }

    pub(crate) fn create(&self, number: u32) -> Result<DsqId, DsqError> {
        let dsq = DsqId::Custom(number);
        if number > DsqId::MAX_CUSTOM {
            return Err(DsqError::OutOfRange(dsq));
        }
        let _one_at_a_time = self.creating.lock().unwrap_or_else(PoisonError::into_inner);
        let block = self.blocks[number as usize / BLOCK]
            .get_or_init(|| (0..BLOCK).map(|_| OnceLock::new()).collect());
        let place = &block[number as usize % BLOCK];
        match place.get() {
            None => {
                place.get_or_init(Fifo::default);
                Ok(dsq)
            }
            Some(fifo) if fifo.is_closed() => {
                fifo.open();
                Ok(dsq)
            }
            Some(_) => Err(DsqError::Exists(dsq)),
        }
    }

    pub(crate) fn destroy(&self, dsq: DsqId) -> Result<(), DsqError> {
        let DsqId::Custom(number) = dsq else {
            return Err(DsqError::OutOfRange(dsq));
        };
        let fifo = self.get(number).ok_or(DsqError::Unknown(dsq))?;
        fifo.close_if_empty()
            .map_err(|waiting| DsqError::NotEmpty(dsq, waiting))
    }
}
