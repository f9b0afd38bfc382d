//! What a few tasks have and no hot path reads: a line of its own, beside the headers.
//!
//! Of a task that has none of it, the record is never touched; the header says whether there is something to look for.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use polity_policy::{TaskId, TaskView, WakeSource};

use super::attributes::AttributesId;

/// All-zero memory is a valid record of which nothing is valid.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Cold {
    /// In nanoseconds of the machine's clock. Valid if the header says so.
    deadline: AtomicU64,
    /// Attributes that have replaced those of the header: tenant in the upper half, id in the lower. Valid for that tenant.
    changed: AtomicU64,
    /// The wake that made it runnable: the task that woke it, or 0. The next three are valid if the header says so.
    woken_by: AtomicU64,
    /// When, in nanoseconds of the machine's clock, coarse: the lower two bits are the source.
    woken_at: AtomicU64,
    /// For which generation it was recorded.
    recorded_for: AtomicU32,
    /// How long its next slice is, in nanoseconds. Valid if the header says so.
    slice: AtomicU64,
}

/// A wake that is to be recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wake {
    pub(crate) source: WakeSource,
    pub(crate) by: Option<TaskId>,
    pub(crate) at: u64,
    pub(crate) generation: u32,
}

const SOURCES: [WakeSource; 4] = [
    WakeSource::Spawn,
    WakeSource::Task,
    WakeSource::Driver,
    WakeSource::Outside,
];

// Ordering, for all fields but `changed`: Relaxed; written by the token holder, as the header's fields are.
impl Cold {
    pub(super) fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Relaxed)
    }

    pub(super) fn set_deadline(&self, deadline: u64) {
        self.deadline.store(deadline, Ordering::Relaxed);
    }

    pub(super) fn slice(&self) -> u64 {
        self.slice.load(Ordering::Relaxed)
    }

    pub(super) fn set_slice(&self, slice: u64) {
        self.slice.store(slice, Ordering::Relaxed);
    }

    pub(super) fn set_wake(&self, wake: Wake) {
        let by = wake.by.map_or(0, |task| {
            u64::from(task.tenant()) << 32 | u64::from(task.slot())
        });
        self.woken_by.store(by, Ordering::Relaxed);
        let source = match wake.source {
            WakeSource::Spawn => 0,
            WakeSource::Task => 1,
            WakeSource::Driver => 2,
            _ => 3,
        };
        self.woken_at
            .store(wake.at & !3 | source, Ordering::Relaxed);
        self.recorded_for.store(wake.generation, Ordering::Relaxed);
    }

    /// Adds the wake to what this generation is shown, if it was recorded for it.
    pub(super) fn show_wake<'a>(&self, view: TaskView<'a>, generation: u32) -> TaskView<'a> {
        if self.recorded_for.load(Ordering::Relaxed) != generation {
            return view;
        }
        let by = self.woken_by.load(Ordering::Relaxed);
        let by = (by != 0).then(|| TaskId::from_parts(by as u32, (by >> 32) as u32));
        let at = self.woken_at.load(Ordering::Relaxed);
        let source = SOURCES[(at & 3) as usize];
        view.with_wake(source, by, Duration::from_nanos(at & !3))
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
