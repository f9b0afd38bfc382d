//! What lies in queues: a slot, a sequence, and whether the task may run anywhere.

use std::fmt;

use super::header::Header;
use super::slab;

/// A queue entry: moved, never copied. In a core queue it is the task's token; in a custom DSQ it is worth what the
/// custody word says when it is claimed.
#[derive(PartialEq, Eq)]
pub(crate) struct Entry(u64);

const RESTRICTED: u64 = 1 << 31;

impl Entry {
    #[inline]
    pub(super) fn new(header: &Header, sequence: u32) -> Self {
        let restricted = if header.is_restricted() {
            RESTRICTED
        } else {
            0
        };
        Entry(u64::from(sequence) << 32 | restricted | u64::from(header.slot()))
    }

    /// Never zero: slot 0 is not used.
    #[inline]
    pub(crate) fn into_bits(self) -> u64 {
        self.0
    }

    /// The inverse of `into_bits`; `None` for zero, which marks an empty slot.
    #[inline]
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        (bits != 0).then_some(Entry(bits))
    }

    /// Whose entry these bits are, without taking it.
    #[inline]
    pub(crate) fn peek(bits: u64) -> Option<&'static Header> {
        Self::from_bits(bits).map(|entry| entry.header())
    }

    /// Whether the task has an affinity mask. Kept in the entry so that queues need not touch the header.
    #[inline]
    pub(crate) fn is_restricted(&self) -> bool {
        self.0 & RESTRICTED != 0
    }

    #[inline]
    pub(crate) fn sequence(&self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    pub(crate) fn header(&self) -> &'static Header {
        let slot = self.0 as u32 & !(RESTRICTED as u32);
        slab::get(slot).expect("a queue entry names a slot that was handed out")
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Entry(slot {}, seq {})",
            self.0 as u32 & !(RESTRICTED as u32),
            self.sequence()
        )
    }
}
