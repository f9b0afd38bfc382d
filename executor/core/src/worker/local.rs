//! What wakes, spawns and checks on a worker's thread need to find of that worker.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use polity_policy::{TaskId, WorkerId};

use crate::callback::Callback;
use crate::queue::Ingress;
use crate::seat::{Place, Seat, SeatId};
use crate::task::attributes::Given;
use crate::task::entry::Entry;
use crate::task::header::Header;
use crate::task::slab::SlotCache;
use crate::worker::slice::Slice;

/// The part of a worker that its thread shares with the wakes that happen on it. Lent by
/// [`Machine::with_local`](crate::Machine::with_local).
pub struct Local {
    pub(crate) core: u64,
    /// The worker whose work this thread does.
    pub(crate) id: WorkerId,
    pub(crate) seat_id: SeatId,
    pub(crate) seat: &'static Seat,
    pub(crate) ingress: Ingress,
    pub(crate) slots: RefCell<SlotCache>,
    /// The task that is being polled, while `place` says so; else the one that was.
    pub(super) polled: Cell<Option<&'static Header>>,
    /// The task that was polled last had woken itself, in the way that only this thread knows of.
    pub(super) self_woken: Cell<bool>,
    /// The clock, as it was read last.
    pub(crate) now: Cell<u64>,
    /// How many passes fit between two readings of the clock, of late.
    pub(crate) polls_in_a_while: Cell<u32>,
    /// Something was put into the ingress that has been woken, or is new.
    pub(crate) has_news: Cell<bool>,
    /// No policy is current: the ingress is the run queue, and the LIFO slot is in use.
    pub(crate) built_in: Cell<bool>,
    pub(crate) slice: Slice,
    /// Since when the thread has said that it blocks; and for how long it had, in the present poll, in nanoseconds.
    pub(crate) blocks_since: Cell<u64>,
    pub(crate) blocked_ns: Cell<u64>,
    /// Entries on their way from one queue to another; empty between uses.
    pub(crate) scratch: RefCell<Vec<Entry>>,
}

impl Local {
    pub(super) fn new(
        core: u64,
        seat_id: SeatId,
        seat: &'static Seat,
        ingress: Ingress,
        now: u64,
    ) -> Self {
        Local {
            core,
            id: seat.home(),
            seat_id,
            seat,
            ingress,
            slots: RefCell::default(),
            polled: Cell::new(None),
            self_woken: Cell::new(false),
            now: Cell::new(now),
            polls_in_a_while: Cell::new(1),
            has_news: Cell::new(false),
            built_in: Cell::new(true),
            slice: Slice::default(),
            blocks_since: Cell::new(0),
            blocked_ns: Cell::new(0),
            scratch: RefCell::default(),
        }
    }

    /// The worker whose work this thread does.
    pub fn id(&self) -> WorkerId {
        self.id
    }

    /// Where the thread sits.
    pub fn seat(&self) -> SeatId {
        self.seat_id
    }

    /// A policy's callback on this thread begins to panic. To be called by the panic hook, before anything unwinds: what
    /// the callback holds is let go then, and others panic over it.
    pub fn note_panic(&self) {
        static PANICS: AtomicU64 = AtomicU64::new(1);
        // Ordering: Relaxed. A panic that follows from this one is seen by its thread only after that thread has taken
        // what this one let go, so the order of the numbers is theirs.
        let number = PANICS.fetch_add(1, Ordering::Relaxed);
        self.seat.activity.set_panic(number);
    }

    #[inline]
    pub(crate) fn place(&self) -> Place {
        self.seat.activity.place()
    }

    #[inline]
    pub(crate) fn set_place(&self, place: Place) {
        self.seat.activity.set_place(place);
    }

    /// Whether the thread has said that it blocks inside its poll ([`Core::begin_in_place`](crate::Core::begin_in_place)).
    pub fn is_in_place(&self) -> bool {
        self.place() == Place::Blocked
    }

    /// What a task that is spawned here and now inherits: from the task that is being polled, or dropped.
    #[inline]
    pub(crate) fn to_inherit(&self) -> Given {
        match (self.place(), self.polled.get()) {
            (Place::Poll | Place::Blocked, Some(header)) => header.to_inherit(),
            // What a policy's callback spawns is not the child of the task that the callback is about.
            _ => Given::default(),
        }
    }

    /// The callback that the thread is in, if it is in one.
    pub fn callback(&self) -> Option<Callback> {
        match self.place() {
            Place::Callback(callback) => Some(callback),
            _ => None,
        }
    }

    /// The task that is being polled wants others to have a turn, or has used its slice up: that ends with this poll.
    #[inline]
    pub fn note_yielded(&self) {
        self.slice.note_yielded();
    }

    /// Whether it is too early to ask whether the present slice is over. About 1 ns.
    #[inline]
    pub fn counts_down(&self) -> bool {
        self.slice.counts_down(self.seat)
    }

    /// The task that is being polled on this thread, or told of to a policy.
    pub fn current_task(&self) -> Option<TaskId> {
        self.seat.activity.task()
    }

    /// The task whose future, or what is left of it, is polled or dropped on this thread. For the code of tasks: a policy's
    /// callback is given its tasks.
    pub fn running_task(&self) -> Option<TaskId> {
        match self.callback() {
            Some(_) => None,
            None => self.current_task(),
        }
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Local")
            .field("id", &self.id)
            .field("place", &self.place())
            .finish_non_exhaustive()
    }
}

/// Empties a one-entry slot of a seat. Cheap when it is empty.
#[inline]
pub(super) fn take(slot: &AtomicU64) -> Option<Entry> {
    // Ordering: Relaxed; only the seat's worker fills the slot, so it cannot miss an entry of its own.
    if slot.load(Ordering::Relaxed) == 0 {
        return None;
    }
    // Ordering: AcqRel; of owner and thief one gets the entry. Acquire pairs with the Release of whoever filled it.
    Entry::from_bits(slot.swap(0, Ordering::AcqRel))
}
