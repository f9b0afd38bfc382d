//! The records.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use polity_policy::{TaskId, WorkerId};

use super::call_word::CallWord;
use crate::callback::Callback;
use crate::queue::{Fifo, Ingress, Thief};
use crate::stats;

/// A place for one thread that runs tasks. Counted from 0: first the workers' own, then the spares'.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SeatId(u16);

impl SeatId {
    /// The `index`-th seat.
    pub const fn new(index: u16) -> Self {
        SeatId(index)
    }

    /// Its index.
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for SeatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Where a thread is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// In core, or in the machine.
    Between,
    /// In a task's poll, or in the drop of its future.
    Poll,
    /// In a poll that has said that it is about to block: another thread does the rest.
    Blocked,
    /// Parked in the driver, or driving it.
    Driver,
    /// In a policy's callback, which has done something wrong: in core, which makes a report of that.
    Reporting,
    /// In a policy.
    Callback(Callback),
}

impl Place {
    #[inline]
    fn to_bits(self) -> u8 {
        match self {
            Place::Between => 0,
            Place::Poll => 1,
            Place::Driver => 2,
            Place::Blocked => 3,
            Place::Reporting => 4,
            Place::Callback(callback) => 16 + callback as u8,
        }
    }

    #[inline]
    fn from_bits(bits: u8) -> Self {
        match bits {
            0 => Place::Between,
            1 => Place::Poll,
            2 => Place::Driver,
            3 => Place::Blocked,
            4 => Place::Reporting,
            bits => Callback::ALL
                .get(usize::from(bits.wrapping_sub(16)))
                .map_or(Place::Between, |callback| Place::Callback(*callback)),
        }
    }
}

#[inline]
fn task_from(bits: u64) -> Option<TaskId> {
    (bits != 0).then(|| TaskId::from_parts(bits as u32, (bits >> 32) as u32))
}

#[inline]
fn task_bits(task: Option<TaskId>) -> u64 {
    task.map_or(0, |task| {
        u64::from(task.tenant()) << 32 | u64::from(task.slot())
    })
}

/// What the seat's thread is in: written by it with plain stores, read by samplers.
// Ordering, for all fields but `call`: Relaxed. Each is a sample; what a conviction needs is ordered by `call`.
#[derive(Debug)]
pub(crate) struct Activity {
    /// Counts poll starts and ends: odd while a poll goes on.
    polls: AtomicU64,
    pub(crate) call: CallWord,
    /// The task that is polled, or that a callback before or after its poll is about; 0 for none.
    task: AtomicU64,
    place: AtomicU8,
    /// The number of the generation that the thread follows; 0 for none.
    follows: AtomicU32,
    /// The number of the panic that unwinds in this thread's callback, in the order of their beginnings; 0 for none.
    panic: AtomicU64,
    /// Another thread calls policies for the same worker: they take turns.
    takes_turns: AtomicBool,
    /// The stamp of the youngest task whose poll the thread has begun under a policy, and which it was: who overtook whom.
    youngest: AtomicU64,
    youngest_task: AtomicU64,
    /// When the thread asked its policy for work last and got none.
    went_without: AtomicU64,
    /// Since when the watchdog has seen the thread in its present poll or call. Written by the watchdog.
    since: AtomicU64,
    seen_polls: AtomicU64,
    seen_call: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Activity {
            polls: AtomicU64::new(0),
            call: CallWord::new(),
            task: AtomicU64::new(0),
            place: AtomicU8::new(0),
            follows: AtomicU32::new(0),
            panic: AtomicU64::new(0),
            takes_turns: AtomicBool::new(false),
            youngest: AtomicU64::new(0),
            youngest_task: AtomicU64::new(0),
            since: AtomicU64::new(0),
            seen_polls: AtomicU64::new(0),
            seen_call: AtomicU64::new(0),
            went_without: AtomicU64::new(0),
        }
    }

    #[inline]
    pub(crate) fn polls(&self) -> u64 {
        self.polls.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn begin_poll(&self) {
        self.place.store(Place::Poll.to_bits(), Ordering::Relaxed);
        self.polls.store(self.polls() + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn end_poll(&self) {
        self.place
            .store(Place::Between.to_bits(), Ordering::Relaxed);
        self.polls.store(self.polls() + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn place(&self) -> Place {
        Place::from_bits(self.place.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn set_place(&self, place: Place) {
        self.place.store(place.to_bits(), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn task(&self) -> Option<TaskId> {
        task_from(self.task.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn set_task(&self, task: Option<TaskId>) {
        self.task.store(task_bits(task), Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn panic(&self) -> u64 {
        // Ordering: Acquire pairs with the Release in `set_panic`: whoever does not see the panic of another callback any
        // more finds the policy ended by it.
        self.panic.load(Ordering::Acquire)
    }

    pub(crate) fn set_panic(&self, number: u64) {
        // Ordering: Release; see `panic`.
        self.panic.store(number, Ordering::Release);
    }

    #[inline]
    pub(crate) fn takes_turns(&self) -> bool {
        self.takes_turns.load(Ordering::Relaxed)
    }

    pub(crate) fn set_takes_turns(&self, takes_turns: bool) {
        self.takes_turns.store(takes_turns, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn follows(&self) -> u32 {
        self.follows.load(Ordering::Relaxed)
    }

    pub(crate) fn set_follows(&self, generation: u32) {
        self.follows.store(generation, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn youngest(&self) -> u64 {
        self.youngest.load(Ordering::Relaxed)
    }

    /// The task that [`youngest`](Activity::youngest) is about.
    pub(crate) fn youngest_task(&self) -> Option<TaskId> {
        task_from(self.youngest_task.load(Ordering::Relaxed))
    }

    /// A task with this stamp is about to be polled.
    #[inline]
    pub(crate) fn note_begun(&self, task: TaskId, runnable_at: u64) {
        if runnable_at > self.youngest() {
            self.youngest.store(runnable_at, Ordering::Relaxed);
            self.youngest_task
                .store(task_bits(Some(task)), Ordering::Relaxed);
        }
    }

    pub(crate) fn since(&self) -> u64 {
        self.since.load(Ordering::Relaxed)
    }

    /// For the watchdog: the thread is in this poll or call, at the latest since then.
    pub(crate) fn note_seen(&self, polls: u64, call: Option<u64>, since: u64) {
        self.since.store(since, Ordering::Relaxed);
        self.seen_polls.store(polls, Ordering::Relaxed);
        self.seen_call.store(call.unwrap_or(0), Ordering::Relaxed);
    }

    /// The poll and the call that [`since`](Activity::since) is about.
    pub(crate) fn seen(&self) -> (u64, Option<u64>) {
        let call = self.seen_call.load(Ordering::Relaxed);
        let polls = self.seen_polls.load(Ordering::Relaxed);
        (polls, (call != 0).then_some(call))
    }

    pub(crate) fn went_without(&self) -> u64 {
        self.went_without.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn note_went_without(&self, now: u64) {
        self.went_without.store(now, Ordering::Relaxed);
    }
}

/// What others may reach of a thread. Everything that it holds lies here or in [`Placed`].
pub(crate) struct Seat {
    pub(crate) ingress: Thief,
    /// The owner's end of the ingress, while no thread sits here.
    pub(crate) unclaimed: Mutex<Option<Ingress>>,
    /// Built-in FIFO only: the task woken last by the running one. Zero is empty.
    pub(crate) lifo: AtomicU64,
    /// The still runnable task that was polled last, while its policy is asked for another. Zero is empty.
    pub(crate) prev: AtomicU64,
    pub(crate) activity: Activity,
    /// Tasks that are being offered: as many of these as `offered` says are in the thread's hands.
    batch: [AtomicU32; BATCH],
    offered: AtomicU32,
    home: AtomicU16,
    /// The thread that sits down here next has been counted already.
    counted: AtomicBool,
    /// A stand-in that is not needed any more.
    dismissed: AtomicBool,
    pub(crate) stats: stats::Published,
}

/// How many tasks are offered to a policy at once.
pub(crate) const BATCH: usize = 32;

impl Seat {
    pub(crate) fn new(home: WorkerId) -> Self {
        let ingress = Ingress::new();
        Seat {
            ingress: ingress.thief(),
            unclaimed: Mutex::new(Some(ingress)),
            lifo: AtomicU64::new(0),
            prev: AtomicU64::new(0),
            activity: Activity::new(),
            batch: [const { AtomicU32::new(0) }; BATCH],
            offered: AtomicU32::new(0),
            home: AtomicU16::new(home.index() as u16),
            counted: AtomicBool::new(false),
            dismissed: AtomicBool::new(false),
            stats: stats::Published::default(),
        }
    }

    /// The worker whose work is done here.
    // Ordering: Relaxed; it changes only while no thread sits here, and the thread that sits down is told by a lock.
    #[inline]
    pub(crate) fn home(&self) -> WorkerId {
        WorkerId::new(self.home.load(Ordering::Relaxed))
    }

    pub(crate) fn set_home(&self, home: WorkerId) {
        self.home.store(home.index() as u16, Ordering::Relaxed);
    }

    // Ordering, for `counted`: Relaxed; written before the thread is told to sit down, which orders.
    pub(crate) fn set_counted(&self) {
        self.counted.store(true, Ordering::Relaxed);
    }

    /// Whether no thread sits here, and none has been told to: of those two, one is visible at any time.
    pub(crate) fn is_vacant(&self) -> bool {
        let told = self.counted.load(Ordering::Relaxed);
        let unclaimed = self.unclaimed.lock();
        !told && unclaimed.unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(crate) fn take_counted(&self) -> bool {
        self.counted.swap(false, Ordering::Relaxed)
    }

    // Ordering, for `dismissed`: Relaxed; the change of the epoch that follows makes the thread look.
    pub(crate) fn is_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_dismissed(&self, dismissed: bool) {
        self.dismissed.store(dismissed, Ordering::Relaxed);
    }

    // Ordering, for `batch` and `offered`: Relaxed; the call word orders them for whoever takes them over.
    /// The `index`-th task of the batch that will be offered.
    #[inline]
    pub(crate) fn note_offered(&self, index: usize, slot: u32) {
        self.batch[index].store(slot, Ordering::Relaxed);
    }

    /// How many of the batch are in the thread's hands. Written before the callbacks and after them.
    #[inline]
    pub(crate) fn set_offered(&self, count: usize) {
        self.offered.store(count as u32, Ordering::Relaxed);
    }

    /// The slots of the tasks that are being offered. For whoever has convicted the thread.
    pub(crate) fn offered(&self) -> impl Iterator<Item = u32> {
        let count = self.offered.load(Ordering::Relaxed) as usize;
        self.batch[..count.min(BATCH)]
            .iter()
            .map(|slot| slot.load(Ordering::Relaxed))
    }
}

/// What has been put on one worker, whoever does its work.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    /// Its local DSQ.
    pub(crate) local: Fifo,
    /// Woken tasks that not every worker may run.
    pub(crate) inbox: Fifo,
    /// The seat where its work is done.
    seat: AtomicU16,
    /// Which of several threads that do its work is inside a policy: its seat's index and one, or 0.
    turn: AtomicU32,
}

impl Placed {
    pub(crate) fn new(seat: SeatId) -> Self {
        Placed {
            seat: AtomicU16::new(seat.0),
            ..Placed::default()
        }
    }

    /// Takes the turn to call policies for this worker, unless another thread has it.
    pub(crate) fn take_turn(&self, seat: SeatId) -> bool {
        // Ordering: Acquire pairs with the Release in `end_turn`: calls for one worker come one after the other.
        self.turn
            .compare_exchange(0, turn_of(seat), Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Ends the turn of the thread in `seat`, if it has it. By that thread, or for one that was convicted: it may have begun
    /// its call when it took no turns, or have it still when it takes none any more.
    pub(crate) fn end_turn(&self, seat: SeatId) {
        // Ordering: Release pairs with the Acquire in `take_turn`. A turn that somebody else has stays as it is.
        let _ = self
            .turn
            .compare_exchange(turn_of(seat), 0, Ordering::Release, Ordering::Relaxed);
    }

    // Ordering: Relaxed. Whoever misses a change kicks a thread that is running or gone; the thread that has taken over
    // looks into every queue before it parks, and its announcement comes after the change (`idle/README.md`).
    #[inline]
    pub(crate) fn seat(&self) -> SeatId {
        SeatId(self.seat.load(Ordering::Relaxed))
    }

    pub(crate) fn set_seat(&self, seat: SeatId) {
        self.seat.store(seat.0, Ordering::Relaxed);
    }
}

fn turn_of(seat: SeatId) -> u32 {
    u32::from(seat.0) + 1
}
