//! A runtime's shared state, and what any thread may do with it: spawn, wake, load, sweep, close.
//!
//! A core is never freed. A waker on any thread may be between winning a task's token and pushing it while the
//! runtime shuts down, and a reference count for each wake or task would cost more than everything else in a wake.
//! What it leaks, once closed, is about 1 KiB and 0.5 KiB per worker; queues are emptied.
//!
//! | file | what it holds |
//! |---|---|
//! | `attributes.rs` | what a task is given: set, or inherited |
//! | `change.rs` | weight and affinity of a task that exists |
//! | `spawn.rs` | from a future to a token in a queue |
//! | `wake.rs` | from a token to a queue and an unparked worker |
//! | `load.rs` | load, swap, unload, sweep |
//! | `seats.rs` | who sits where: stand-ins, convictions, and what a convicted thread had in its hands |
//! | `in_place.rs` | a thread says that it is about to block inside its poll |
//! | `close.rs` | the end: every task is dropped on a worker |

mod attributes;
mod change;
mod close;
mod in_place;
mod load;
mod seats;
mod spawn;
mod wake;

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crossbeam_utils::CachePadded;
use polity_policy::WorkerId;

pub use attributes::{Scope, SpawnError};
pub(crate) use change::Changed;
pub use load::{LoadRefused, PendingLoad, Retired, STALL_TIMEOUTS};
pub use seats::Cause;
pub(crate) use seats::Instead;

use crate::hosting::published::Published;
use crate::hosting::{Generation, LoadedPolicy, Tags};
use crate::idle::Sleepers;
use crate::machine::Machine;
use crate::queue::{Fifo, Injector};
use crate::seat::{Placed, Seat, SeatId};
use crate::stats::{self, Metrics};
use crate::task::header::{Header, Owner};
use crate::task::slab::SlotCache;

/// How a core is built.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CoreConfig {
    /// Number of workers, 1 to 1024.
    pub workers: usize,
    /// Number of seats for spares, which take over from workers that are stuck.
    pub spares: usize,
    /// The size of a dump, at most, in bytes.
    pub dump_limit: usize,
    /// How long a worker may go on exhausting the dispatch loop before the policy is ejected, in nanoseconds.
    pub stall_after_ns: u64,
}

impl CoreConfig {
    /// So many workers, one spare, and a stall timeout of 5 s.
    ///
    /// # Panics
    /// If `workers` is 0 or above 1024.
    pub fn new(workers: usize) -> Self {
        assert!(
            (1..=1024).contains(&workers),
            "a core has 1 to 1024 workers, not {workers}"
        );
        CoreConfig {
            workers,
            spares: 1,
            dump_limit: 32 * 1024,
            stall_after_ns: 5_000_000_000,
        }
    }
}

const OPEN: u8 = 0;
const CLOSING: u8 = 1;
/// Every task has been dropped.
const OVER: u8 = 2;

/// A runtime's shared state: what any thread may use. It is never freed; the head of the file says why.
pub struct Core<M: Machine> {
    pub(crate) machine: M,
    pub(crate) config: CoreConfig,
    /// Unique in the process: says whether a thread's [`Local`](crate::Local) is one of ours.
    pub(crate) id: u64,
    pub(crate) seats: Box<[CachePadded<Seat>]>,
    /// One for each worker.
    pub(crate) placed: Box<[CachePadded<Placed>]>,
    pub(crate) injector: Injector,
    pub(crate) global: Fifo,
    pub(crate) sleepers: CachePadded<Sleepers>,
    pub(crate) published: CachePadded<Published<Generation>>,
    /// The number of the generation for which wakes are recorded; 0 for none. Of a line that is seldom written: each wake reads
    /// it.
    pub(crate) recording: CachePadded<AtomicU32>,
    /// Changes of attributes that the policy is to be told.
    pub(crate) changes: CachePadded<change::Changes>,
    /// The coarse clock of the worker that read it last, for stamps by other threads.
    pub(crate) clock: CachePadded<AtomicU64>,
    /// The watchdog sleeps: whoever leaves a park wakes it.
    pub(crate) watchdog_sleeps: AtomicBool,
    /// When a poll was last seen to be long; 0 for never.
    pub(crate) long_poll_at: CachePadded<AtomicU64>,
    /// What the watchdog counts.
    pub(crate) watched: stats::Published,
    /// The time of the watchdog's last tick, for stamps after a long poll. Of its own line, which is seldom written.
    pub(crate) tick: CachePadded<AtomicU64>,
    tags: Tags,
    last_generation: AtomicU32,
    retiring: Mutex<Vec<Arc<Generation>>>,
    /// Every generation that was published and is not dead.
    generations: Mutex<Vec<Arc<Generation>>>,
    /// Held while somebody changes who sits where.
    seating: Mutex<()>,
    phase: AtomicU8,
    /// Threads that pass through the cycle, or should: one that was convicted leaves its place to its heir.
    seated: AtomicUsize,
    /// Seats beyond this one are empty.
    in_use: AtomicUsize,
    slots: Box<[CachePadded<Mutex<SlotCache>>]>,
    as_owner: OnceLock<&'static &'static dyn Owner>,
}

impl<M: Machine> Core<M> {
    /// Builds a core around `machine`. It lives for ever.
    pub fn new(machine: M, config: CoreConfig) -> &'static Self {
        static IDS: AtomicU64 = AtomicU64::new(1);
        let workers = config.workers;
        let seats = workers + config.spares;
        assert!(
            config.spares <= 1025,
            "a core has at most 1025 spares, not {}",
            config.spares
        );
        let seat = |index: usize| {
            let home = WorkerId::new((index % workers) as u16);
            CachePadded::new(Seat::new(home))
        };
        let placed = |index| CachePadded::new(Placed::new(SeatId::new(index)));
        let core: &'static Self = Box::leak(Box::new(Core {
            machine,
            // Ordering: Relaxed; only uniqueness counts.
            id: IDS.fetch_add(1, Ordering::Relaxed),
            seats: (0..seats).map(seat).collect(),
            placed: (0..workers as u16).map(placed).collect(),
            injector: Injector::new(workers),
            global: Fifo::default(),
            sleepers: CachePadded::new(Sleepers::new(seats)),
            published: CachePadded::new(Published::new()),
            recording: CachePadded::default(),
            changes: CachePadded::default(),
            clock: CachePadded::default(),
            watchdog_sleeps: AtomicBool::new(false),
            long_poll_at: CachePadded::default(),
            watched: stats::Published::default(),
            tick: CachePadded::default(),
            tags: Tags::default(),
            last_generation: AtomicU32::new(0),
            retiring: Mutex::default(),
            generations: Mutex::default(),
            seating: Mutex::default(),
            phase: AtomicU8::new(OPEN),
            seated: AtomicUsize::new(0),
            in_use: AtomicUsize::new(workers),
            slots: (0..4).map(|_| CachePadded::default()).collect(),
            as_owner: OnceLock::new(),
            config,
        }));
        let owner: &'static dyn Owner = core;
        core.as_owner.get_or_init(|| Box::leak(Box::new(owner)));
        core
    }

    /// The machine that the core was built with.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    /// How many workers it has.
    #[inline]
    pub fn worker_count(&self) -> usize {
        self.placed.len()
    }

    /// What has been put on `worker`.
    #[inline]
    pub(crate) fn placed(&self, worker: WorkerId) -> &Placed {
        &self.placed[worker.index()]
    }

    /// Where the work of `worker` is done.
    #[inline]
    pub(crate) fn seat_of(&self, worker: WorkerId) -> SeatId {
        self.placed(worker).seat()
    }

    #[inline]
    pub(crate) fn seat(&self, seat: SeatId) -> &Seat {
        &self.seats[seat.index()]
    }

    /// Counts since the start, summed over the workers; and what is there now.
    pub fn metrics(&self) -> Metrics {
        let mut sum = Metrics {
            foreign_tasks: self.machine.foreign_tasks(),
            ..Metrics::default()
        };
        for seat in &self.seats {
            seat.stats.add_to(&mut sum);
        }
        self.watched.add_to(&mut sum);
        sum
    }

    /// The policy that is current.
    pub fn current_policy(&self) -> Option<LoadedPolicy> {
        self.published.load().map(LoadedPolicy)
    }

    fn as_owner(&self) -> &'static &'static dyn Owner {
        self.as_owner.get().expect("set in `new`")
    }

    /// Whether the task in this slot belongs to this runtime.
    pub(crate) fn owns(&self, header: &Header) -> bool {
        header
            .owner()
            .is_some_and(|owner| std::ptr::addr_eq(owner, self))
    }

    /// Some worker on which the task may run. `spawn_with` has checked that there is one.
    pub(crate) fn eligible_worker(&self, header: &Header) -> WorkerId {
        let last = header.last_worker();
        let all = (0..self.worker_count()).map(|index| WorkerId::new(index as u16));
        std::iter::once(last)
            .chain(all)
            .find(|worker| header.allows(*worker))
            .unwrap_or(last)
    }

    /// How many seats thieves look into: those that are taken, and perhaps some between them.
    // Ordering: Relaxed; a seat has nothing to steal before its thread runs, nor after it has left.
    #[inline]
    pub(crate) fn seats_in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Threads that pass through the cycle.
    pub(crate) fn seated(&self) -> usize {
        // Ordering: Relaxed; a hint. The end of the runtime asks `stand_up`.
        self.seated.load(Ordering::Relaxed)
    }

    /// What has been put on the worker whose work is done in this seat; `None` if another seat does it.
    #[inline]
    pub(crate) fn served_by(&self, seat: usize) -> Option<&Placed> {
        let placed = self.placed(self.seats[seat].home());
        (placed.seat().index() == seat).then_some(placed)
    }

    /// For policies: a hint.
    pub(crate) fn is_idle(&self, worker: WorkerId) -> bool {
        let placed = self.placed.get(worker.index());
        placed.is_some_and(|placed| self.sleepers.is_idle(placed.seat().index()))
    }

    /// For policies, with a worker that exists: takes the hint. Of several callers one gets `true`.
    pub(crate) fn claim_idle(&self, worker: WorkerId) -> bool {
        let placed = self.placed.get(worker.index());
        placed.is_some_and(|placed| self.sleepers.claim_idle(placed.seat().index()))
    }

    /// The generation with this number, if it is not dead.
    pub(crate) fn generation(&self, number: u32) -> Option<Arc<Generation>> {
        let known = self.generations.lock();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        let mut known = known.iter();
        known
            .find(|generation| generation.number.number() == number)
            .cloned()
    }

    fn remember(&self, generation: &Arc<Generation>) {
        let known = self.generations.lock();
        known
            .unwrap_or_else(PoisonError::into_inner)
            .push(Arc::clone(generation));
    }

    /// From now on only those who have it have it.
    fn forget(&self, generation: &Arc<Generation>) {
        let known = self.generations.lock();
        known
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|other| !Arc::ptr_eq(other, generation));
    }

    /// A thread goes to work that was parked, or about to be.
    pub(crate) fn wake_the_watchdog(&self) {
        // Ordering: SeqCst fence, partner of the one in `Watchdog::fall_asleep`. Our bit in the parked mask was cleared
        // before: either the watchdog sees that, or we see it asleep.
        fence(Ordering::SeqCst);
        // Ordering: Relaxed; ordered by the fence. Of several threads one wakes it.
        if self.watchdog_sleeps.load(Ordering::Relaxed)
            && self.watchdog_sleeps.swap(false, Ordering::Relaxed)
        {
            self.machine.work_began();
        }
    }

    /// Whether the shutdown has begun.
    pub fn is_closing(&self) -> bool {
        !self.is_open()
    }

    #[inline]
    pub(crate) fn is_open(&self) -> bool {
        // Ordering: Acquire pairs with the Release in `close`. Spawns that miss it are refused by the closed queues.
        self.phase.load(Ordering::Acquire) == OPEN
    }
}
