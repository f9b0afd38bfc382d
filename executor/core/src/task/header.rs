//! The header of a task: one cache line in the slab.

use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use polity_policy::{Attributes, DequeueReason, EnqueueReason, TaskId, TaskView, WorkerId};

use super::attributes::{self, AttributesId, Given, SPARE};
use super::cell::CellPtr;
use super::change::{Change, ChangeError};
use super::cold::{Cold, Wake};
use super::custody::Custody;
use super::lifecycle::Lifecycle;
use super::slab;
use super::token::Token;

/// What a header needs of the runtime that owns the task.
///
/// A `&'static dyn`: a runtime's core is never freed, because a waker on any thread may be between winning the
/// token and pushing it when the runtime shuts down.
pub(crate) trait Owner: Sync {
    /// The task was waiting and is runnable now: put its token into a queue.
    fn now_runnable(&self, token: Token);
    /// The caller has just marked this tenant of the slot as aborted while somebody else has its token: make it run soon.
    fn now_aborted(&self, header: &'static Header, tenant: u32);
    /// Changes an attribute of this task, which lives or lived in the header's slot.
    fn change(
        &self,
        header: &'static Header,
        task: TaskId,
        change: Change,
    ) -> Result<(), ChangeError>;
}

/// See [`task`](super) for who may touch which field when. All-zero memory is a valid header of a free slot.
#[repr(C, align(64))]
pub(crate) struct Header {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) custody: Custody,
    /// Null, or a leaked `&'static dyn Owner` (the reference itself is leaked, to have a thin pointer to it).
    owner: AtomicPtr<&'static dyn Owner>,
    cell: AtomicPtr<super::cell::CellHead>,
    tag: AtomicU64,
    /// When it became runnable, in nanoseconds of the machine's clock; coarse. For the order of a sweep.
    runnable_at: AtomicU64,
    /// The interned set that the tenant was born with, and the mark `CHANGED`.
    attributes: AtomicU32,
    /// The generation that has met the task, by `init_task`, and not yet parted from it; 0 for none.
    seen_by: AtomicU32,
    slot: AtomicU32,
    last_worker: AtomicU16,
    reason: AtomicU8,
    /// `HAS_DEADLINE`, `COUNTED`, `OWES_DEQUEUE`, `TOLD`, `HAS_WAKE`, `AFFINITY_CHANGED`, `HAS_SLICE`.
    flags: AtomicU8,
}

/// In the field `attributes`: perhaps they were changed since; the cold record knows for which tenant.
const CHANGED: u32 = SPARE;
/// The cold record has its deadline.
const HAS_DEADLINE: u8 = 1;
/// It is in the census of the generation that `seen_by` names.
const COUNTED: u8 = 2;
/// A bypass, or a change of affinity, has taken it out of custody, and its policy has not been told.
const OWES_DEQUEUE: u8 = 4;
/// The generation that `seen_by` names was told `runnable`, and not yet `quiescent`.
const TOLD: u8 = 8;
/// The cold record has a wake, recorded for some generation.
const HAS_WAKE: u8 = 16;
/// With `OWES_DEQUEUE`: not a bypass, but a change of affinity.
const AFFINITY_CHANGED: u8 = 32;
/// The cold record has the length of its next slice.
const HAS_SLICE: u8 = 64;

const _: () = assert!(size_of::<Header>() == 64);

/// In the field `reason`: no reason to enqueue, the task is on its way to be dropped.
const LEFT_CUSTODY: u8 = 4;

// Ordering, for all fields below but `owner`, `cell` and `attributes`: Relaxed. They are written by the token holder and read by the
// next one, and the token itself is passed with Release and Acquire (lifecycle, custody, or a queue's lock). Other
// readers want a snapshot only.
impl Header {
    /// Fills in what does not change during the task's life. For the owner of a free slot.
    pub(super) fn prepare(
        &self,
        slot: u32,
        owner: &'static &'static dyn Owner,
        cell: CellPtr,
        given: Given,
    ) {
        self.slot.store(slot, Ordering::Relaxed);
        // Ordering: Release pairs with the Acquire in `owner`, which reads through the pointer.
        self.owner
            .store(std::ptr::from_ref(owner).cast_mut(), Ordering::Release);
        // Ordering: Release pairs with the Acquire in `cell`.
        self.cell.store(cell.as_ptr(), Ordering::Release);
        self.attributes.store(given.id.to_bits(), Ordering::Relaxed);
        self.tag.store(given.tag, Ordering::Relaxed);
        self.seen_by.store(0, Ordering::Relaxed);
        self.last_worker.store(0, Ordering::Relaxed);
        let mut flags = 0;
        if given.deadline != 0
            && let Some(cold) = slab::cold(slot)
        {
            cold.set_deadline(given.deadline);
            flags |= HAS_DEADLINE;
        }
        self.flags.store(flags, Ordering::Relaxed);
        self.set_reason(EnqueueReason::Spawn);
    }

    pub(crate) fn owner(&self) -> Option<&'static dyn Owner> {
        // Ordering: Acquire pairs with the Release in `prepare`.
        let owner = self.owner.load(Ordering::Acquire);
        // SAFETY: `as_ref` requires that the pointer is null or valid, aligned and not written to for the lifetime:
        // it is null (zeroed slab memory) or was made in `prepare` from a `&'static &'static dyn Owner`.
        unsafe { owner.as_ref() }.copied()
    }

    /// The cell. For the token holder: only then is it alive.
    #[inline]
    pub(crate) fn cell(&self) -> CellPtr {
        // Ordering: Acquire pairs with the Release in `prepare`.
        CellPtr::from_raw(self.cell.load(Ordering::Acquire))
    }

    /// For the token holder: how long its next slice is, in nanoseconds.
    pub(crate) fn set_slice(&self, nanos: u64) {
        if let Some(cold) = slab::cold(self.slot()) {
            cold.set_slice(nanos);
            self.flags
                .store(self.flags() | HAS_SLICE, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(crate) fn has_slice(&self) -> bool {
        self.flags() & HAS_SLICE != 0
    }

    /// For the token holder: the slice that begins now, if somebody has said how long it is.
    #[inline]
    pub(crate) fn take_slice(&self) -> Option<u64> {
        if !self.take_flag(HAS_SLICE) {
            return None;
        }
        slab::cold(self.slot()).map(Cold::slice)
    }

    #[inline]
    pub(crate) fn slot(&self) -> u32 {
        self.slot.load(Ordering::Relaxed)
    }

    /// The present tenant's id. For the token holder.
    #[inline]
    pub(crate) fn id(&self) -> TaskId {
        TaskId::from_parts(self.slot(), self.lifecycle.tenant().unwrap_or(0))
    }

    /// Whether not every worker may run the task.
    #[inline]
    pub(crate) fn is_restricted(&self) -> bool {
        self.attributes_id().is_restricted()
    }

    #[inline]
    fn flags(&self) -> u8 {
        self.flags.load(Ordering::Relaxed)
    }

    /// For the token holder.
    #[inline]
    pub(crate) fn note_counted(&self) {
        self.flags.store(self.flags() | COUNTED, Ordering::Relaxed);
    }

    pub(crate) fn is_counted(&self) -> bool {
        self.flags() & COUNTED != 0
    }

    /// Takes the mark back; `true` if it was there. For the token holder.
    #[inline]
    pub(crate) fn take_counted(&self) -> bool {
        self.take_flag(COUNTED)
    }

    /// For the token holder: `dequeue` is owed for the custody that a bypass has ended.
    pub(crate) fn note_owes_dequeue(&self) {
        self.flags
            .store(self.flags() | OWES_DEQUEUE, Ordering::Relaxed);
    }

    /// The same for a custody that a change of affinity has ended.
    pub(crate) fn note_left_custody_by_change(&self) {
        let owed = OWES_DEQUEUE | AFFINITY_CHANGED;
        self.flags.store(self.flags() | owed, Ordering::Relaxed);
    }

    /// Takes the mark back; with its reason, if it was there. For the token holder.
    #[inline]
    pub(crate) fn take_owes_dequeue(&self) -> Option<DequeueReason> {
        if !self.take_flag(OWES_DEQUEUE) {
            return None;
        }
        match self.take_flag(AFFINITY_CHANGED) {
            true => Some(DequeueReason::Affinity),
            false => Some(DequeueReason::Bypass),
        }
    }

    /// For the token holder: this wake has made the task runnable.
    pub(crate) fn note_wake(&self, wake: Wake) {
        if let Some(cold) = self.cold() {
            cold.set_wake(wake);
            self.flags.store(self.flags() | HAS_WAKE, Ordering::Relaxed);
        }
    }

    #[inline]
    fn take_flag(&self, flag: u8) -> bool {
        let flags = self.flags();
        if flags & flag == 0 {
            return false;
        }
        self.flags.store(flags & !flag, Ordering::Relaxed);
        true
    }

    /// The present tenant's interned set.
    #[inline]
    pub(crate) fn attributes_id(&self) -> AttributesId {
        // Ordering: Relaxed; the token is passed with Release and Acquire, so a new tenant's set is seen by whoever has it.
        let bits = self.attributes.load(Ordering::Relaxed);
        if bits & CHANGED == 0 {
            return AttributesId::from_bits(bits);
        }
        self.changed_id(bits & !CHANGED)
    }

    #[cold]
    fn changed_id(&self, born_with: u32) -> AttributesId {
        // Ordering: Acquire fence, pairs with the Release in `change`: who sees the mark sees the record.
        fence(Ordering::Acquire);
        let tenant = self.lifecycle.tenant().unwrap_or(0);
        self.cold()
            .and_then(|cold| cold.changed(tenant))
            .unwrap_or_else(|| AttributesId::from_bits(born_with))
    }

    /// Replaces the attributes of `tenant` by what `with` makes of them. `false`: the task has ended.
    ///
    /// By any thread, without the token: the task may end meanwhile, and the slot have another tenant. So what is stored is
    /// marked with the tenant's number. The mark in the header says no more than "look there", and does no harm to another
    /// tenant, who finds a number that is not its own.
    pub(crate) fn change(&self, tenant: u32, with: impl FnOnce(Attributes) -> Attributes) -> bool {
        // One at a time, in the whole process: changes are rare, and a slot may go to another runtime.
        static CHANGING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(cold) = self.cold() else {
            return false;
        };
        if !self.lifecycle.is(tenant) {
            return false;
        }
        let id = attributes::intern(with(self.attributes().clone()));
        cold.change(tenant, id);
        // Ordering: Release pairs with the fence in `changed_id`.
        self.attributes.fetch_or(CHANGED, Ordering::Release);
        // Should it have ended in between, the caller had better know: nobody will ever see the change.
        self.lifecycle.is(tenant)
    }

    fn cold(&self) -> Option<&'static Cold> {
        slab::cold(self.slot())
    }

    #[inline]
    pub(crate) fn attributes(&self) -> &'static Attributes {
        attributes::get(self.attributes_id())
    }

    /// What tasks inherit that are spawned by this one. For its own thread, in its poll.
    #[inline]
    pub(crate) fn to_inherit(&self) -> Given {
        Given {
            id: self.attributes_id(),
            tag: self.tag.load(Ordering::Relaxed),
            deadline: self.deadline(),
        }
    }

    /// In nanoseconds of the machine's clock; 0 for none.
    #[inline]
    fn deadline(&self) -> u64 {
        if self.flags() & HAS_DEADLINE == 0 {
            return 0;
        }
        self.cold().map_or(0, Cold::deadline)
    }

    #[inline]
    pub(crate) fn allows(&self, worker: WorkerId) -> bool {
        !self.is_restricted() || self.attributes().allows(worker)
    }

    #[inline]
    pub(crate) fn last_worker(&self) -> WorkerId {
        WorkerId::new(self.last_worker.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn set_last_worker(&self, worker: WorkerId) {
        self.last_worker
            .store(worker.index() as u16, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn runnable_at(&self) -> u64 {
        self.runnable_at.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set_runnable_at(&self, now: u64) {
        self.runnable_at.store(now, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn reason(&self) -> EnqueueReason {
        match self.reason.load(Ordering::Relaxed) {
            0 => EnqueueReason::Spawn,
            1 => EnqueueReason::Wake,
            2 => EnqueueReason::StillRunnable,
            _ => EnqueueReason::Inherited,
        }
    }

    #[inline]
    pub(crate) fn set_reason(&self, reason: EnqueueReason) {
        let bits = match reason {
            EnqueueReason::Spawn => 0,
            EnqueueReason::Wake => 1,
            EnqueueReason::StillRunnable => 2,
            _ => 3,
        };
        self.reason.store(bits, Ordering::Relaxed);
    }

    /// An abort has taken the task out of a policy's custody, for which the policy gets a `dequeue`.
    pub(crate) fn note_left_custody_by_abort(&self) {
        self.reason.store(LEFT_CUSTODY, Ordering::Relaxed);
    }

    pub(crate) fn left_custody_by_abort(&self) -> bool {
        self.reason.load(Ordering::Relaxed) == LEFT_CUSTODY
    }

    /// The generation that has met the task, and not yet parted from it; 0 for none.
    #[inline]
    pub(crate) fn seen_by(&self) -> u32 {
        self.seen_by.load(Ordering::Relaxed)
    }

    /// For the token holder: this generation meets the task, and has been told nothing yet.
    #[inline]
    pub(crate) fn note_met(&self, generation: u32) {
        self.seen_by.store(generation, Ordering::Relaxed);
        self.note_quiescent();
        // What an earlier generation said of it.
        self.take_flag(HAS_SLICE);
    }

    /// For the token holder: nobody is told of this task any more.
    #[inline]
    pub(crate) fn note_parted(&self) {
        self.seen_by.store(0, Ordering::Relaxed);
    }

    /// Whether `generation` knows the task as runnable.
    #[inline]
    pub(crate) fn is_told_runnable(&self, generation: u32) -> bool {
        self.seen_by() == generation && self.flags() & TOLD != 0
    }

    /// For the token holder: the generation that has met the task is told that it is runnable.
    #[inline]
    pub(crate) fn note_told_runnable(&self) {
        self.flags.store(self.flags() | TOLD, Ordering::Relaxed);
    }

    /// For the token holder: the generation that has met the task is told that it is not runnable any more.
    #[inline]
    pub(crate) fn note_quiescent(&self) {
        self.flags.store(self.flags() & !TOLD, Ordering::Relaxed);
    }

    /// What a policy is shown: the one that knows the task as runnable.
    #[inline]
    pub(crate) fn view(&self) -> TaskView<'static> {
        match self.flags() & (HAS_DEADLINE | HAS_WAKE) {
            0 => self.plain_view(),
            _ => self.with_cold(self.plain_view()),
        }
    }

    #[inline]
    fn plain_view(&self) -> TaskView<'static> {
        let (worker, reason) = (self.last_worker(), self.reason());
        TaskView::new(self.id(), self.attributes(), worker, reason)
            .with_tag(self.tag.load(Ordering::Relaxed))
    }

    /// What few tasks have.
    #[cold]
    fn with_cold(&self, mut view: TaskView<'static>) -> TaskView<'static> {
        let deadline = self.deadline();
        if deadline != 0 {
            view = view.with_deadline(Duration::from_nanos(deadline));
        }
        match self.cold() {
            Some(cold) if self.flags() & HAS_WAKE != 0 => cold.show_wake(view, self.seen_by()),
            _ => view,
        }
    }
}
