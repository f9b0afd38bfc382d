//! What a few tasks have and no hot path reads: a line of its own, beside the headers.
//!
//! Of a task that has none of it, the record is never touched; the header says whether there is something to look for.

use std::sync::atomic::{AtomicU64, Ordering};

use super::attributes::AttributesId;

/// All-zero memory is a valid record of which nothing is valid.
#[derive(Debug, Default)]
#[repr(align(32))]
pub(crate) struct Cold {
    /// In nanoseconds of the machine's clock. Valid if the header says so.
    deadline: AtomicU64,
    /// Attributes that have replaced those of the header: tenant in the upper half, id in the lower. Valid for that tenant.
    changed: AtomicU64,
}

// Ordering, for `deadline`: Relaxed; written by the token holder, as the header's fields are.
impl Cold {
    pub(super) fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Relaxed)
    }

    pub(super) fn set_deadline(&self, deadline: u64) {
        self.deadline.store(deadline, Ordering::Relaxed);
    }

    /// What the attributes of `tenant` were changed to, if they were.
    pub(super) fn changed(&self, tenant: u32) -> Option<AttributesId> {
        // Ordering: Relaxed; ordered by the fence in `Header::attributes_id`.
        let word = self.changed.load(Ordering::Relaxed);
        ((word >> 32) as u32 == tenant).then(|| AttributesId::from_bits(word as u32))
    }

    /// One at a time: see `Header::change`.
    pub(super) fn change(&self, tenant: u32, id: AttributesId) {
        let word = u64::from(tenant) << 32 | u64::from(id.to_bits());
        // Ordering: Relaxed; ordered by the mark that follows in `Header::change`.
        self.changed.store(word, Ordering::Relaxed);
    }
}
