//! One load of a policy.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use polity_policy::{Accounting, ExitInfo, Generation as GenerationNumber, Slice, Wakes};

use crate::hosting::adapter::Callbacks;
use crate::hosting::census::Census;
use crate::hosting::early::EarlyVtimes;
use crate::hosting::timers::Timers;
use crate::hosting::unwritten::Unwritten;
use crate::queue::DsqTable;

/// See the [module](self). Kept alive by the current slot, by workers that have it cached, and by control.
pub(crate) struct Generation {
    pub(crate) number: GenerationNumber,
    /// Brands custody words. Not given to another generation before this one is dead.
    pub(crate) tag: u8,
    pub(crate) name: String,
    pub(crate) callbacks: Box<dyn Callbacks>,
    pub(crate) dsqs: DsqTable,
    pub(crate) early_vtimes: EarlyVtimes,
    pub(crate) accounting: Accounting,
    pub(crate) census: Census,
    pub(crate) timers: Timers,
    pub(crate) slice: Slice,
    /// How long a task may wait in its hands.
    pub(crate) stall_after_ns: u64,
    pub(crate) wakes: Wakes,
    pub(crate) unwritten: Unwritten,
    swept: Mutex<Swept>,
    /// The exit info with its dump.
    complete: OnceLock<Arc<ExitInfo>>,
    exit: OnceLock<Arc<ExitInfo>>,
    published_at: AtomicU64,
}

impl Generation {
    pub(crate) fn new(
        number: GenerationNumber,
        terms: Terms,
        callbacks: Box<dyn Callbacks>,
        workers: usize,
        seats: usize,
    ) -> Self {
        let Terms {
            tag,
            name,
            stall_after_ns,
            slice,
            accounting,
            wakes,
        } = terms;
        Generation {
            number,
            tag,
            name,
            slice,
            unwritten: Unwritten::new(callbacks.kind(), callbacks.keeps_values()),
            callbacks,
            dsqs: DsqTable::new(),
            early_vtimes: EarlyVtimes::default(),
            accounting,
            census: Census::new(seats, stall_after_ns),
            timers: Timers::new(workers),
            stall_after_ns,
            wakes,
            swept: Mutex::default(),
            complete: OnceLock::new(),
            exit: OnceLock::new(),
            published_at: AtomicU64::new(0),
        }
    }

    /// The first exit info wins; `false` says that this one was not it.
    pub(crate) fn claim_exit(&self, info: ExitInfo) -> bool {
        self.exit.set(Arc::new(info)).is_ok()
    }

    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.exit.get().is_some()
    }

    pub(crate) fn exit_info(&self) -> Option<Arc<ExitInfo>> {
        self.complete.get().or_else(|| self.exit.get()).cloned()
    }

    /// What a sweep has taken back, for the dump.
    pub(crate) fn note_swept(&self, count: usize, oldest: Vec<String>) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        swept.count += count;
        let room = SHOWN.saturating_sub(swept.oldest.len());
        swept.oldest.extend(oldest.into_iter().take(room));
    }

    pub(crate) fn swept(&self) -> Swept {
        self.swept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The exit info with everything in it that takes time to find out. For control, once.
    pub(crate) fn complete_exit(&self, dump: Option<Arc<str>>) {
        if let Some(info) = self.exit.get() {
            let mut info = ExitInfo::clone(info);
            info.dump = dump;
            let _ = self.complete.set(Arc::new(info));
        }
    }

    // Ordering: Relaxed; for reports.
    pub(crate) fn note_published(&self, now: u64) {
        self.published_at.store(now, Ordering::Relaxed);
    }

    pub(crate) fn published_at(&self) -> u64 {
        self.published_at.load(Ordering::Relaxed)
    }
}

/// What is agreed with a policy before it is loaded.
pub(crate) struct Terms {
    pub(crate) tag: u8,
    pub(crate) name: String,
    pub(crate) stall_after_ns: u64,
    pub(crate) slice: Slice,
    pub(crate) accounting: Accounting,
    pub(crate) wakes: Wakes,
}

/// How many tasks a dump shows one by one.
pub(crate) const SHOWN: usize = 64;

/// The tasks that were taken back from a generation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Swept {
    pub(crate) count: usize,
    /// A line for each of the oldest.
    pub(crate) oldest: Vec<String>,
}

/// Hands out tags: at most 255 generations are alive or abandoned at once.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    in_use: Mutex<Vec<u8>>,
}

impl Tags {
    /// A tag that no live generation has. 0 is never handed out: it means "no generation".
    pub(crate) fn take(&self) -> Option<u8> {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let tag = (1..=u8::MAX).find(|tag| !in_use.contains(tag))?;
        in_use.push(tag);
        Some(tag)
    }

    pub(crate) fn give_back(&self, tag: u8) {
        self.in_use
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|used| *used != tag);
    }
}
