//! The cycle of a worker. A thread calls [`Worker::pass`] in a loop; a simulation calls it in an order of its own.
//!
//! Not a thread: `pass` does one thing (polls one task, or looks once more and answers "park") and returns. Policy
//! code runs inside it, through `hosting/call.rs` only.
//!
//! | file | what it holds |
//! |---|---|
//! | `local.rs` | what wakes on this thread need to find |
//! | `find.rs` | the order in which a worker looks for a task |
//! | `gather.rs` | which tasks are offered next |
//! | `offer.rs` | ingress to the policy, verdicts to queues |
//! | `custom.rs` | verdicts to custom DSQs |
//! | `dispatch.rs` | the bounded dispatch loop |
//! | `steal.rs` | other workers' tasks; who is in one long poll |
//! | `slice.rs` | how long a task goes on |
//! | `run.rs` | one poll, and the notifiers around it |
//! | `watch.rs` | clock, backlog, sentinel: what happens now and then |

mod custom;
mod dispatch;
mod find;
mod gather;
mod lifo;
mod local;
mod offer;
mod run;
pub(crate) mod slice;
mod steal;
mod watch;

use std::rc::Rc;
use std::sync::{Arc, PoisonError};

pub use local::Local;

use crate::core::Core;
use crate::hosting::Generation;
use crate::hosting::batch::Notes;
use crate::hosting::host::HostCall;
use crate::machine::Machine;
use crate::seat::{Place, Placed, Seat, SeatId};
use crate::stats::Metrics;
use find::Found;
use steal::Sightings;
use watch::{Pace, Watch};

/// What the thread should do after a pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pass {
    /// A task was polled: pass again.
    Ran,
    /// Nothing to run although the policy is busy: serve the driver and control, then pass again.
    Drive,
    /// Nothing to run: park, then call [`Worker::unparked`].
    Park(Park),
    /// The runtime is closing: call [`Worker::leave`].
    Stop,
    /// The thread was a stand-in and is not needed any more: call [`Worker::leave`].
    Dismissed,
    /// The thread was inside a policy for so long that another one has taken over: call [`Worker::give_up`].
    Revoked,
}

/// How to park.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Park {
    /// Come back after so many nanoseconds, to look for forgotten work. A little late does no harm.
    pub watch_ns: Option<u64>,
    /// Come back after so many nanoseconds, because a policy wants to be called. Exactly.
    pub timer_ns: Option<u64>,
}

/// A worker: what its thread owns. Its thread calls [`Worker::pass`] in a loop.
pub struct Worker<M: Machine> {
    core: &'static Core<M>,
    local: Rc<Local>,
    seat: &'static Seat,
    placed: &'static Placed,
    /// The generation that was current at `epoch`. Holding it keeps the policy from being dropped under a call.
    generation: Option<Arc<Generation>>,
    epoch: u64,
    /// The number of the newest generation that was followed: those before it have ended.
    newest: u32,
    /// The generation is told of polls, and gets no tasks.
    bypassed: bool,
    phase: Phase,
    notes: Notes,
    stats: Metrics,
    passes: u64,
    /// The count of changes of affinity when this look for work began.
    affinities: u64,
    turns: find::Turns,
    /// When the batch at hand was gathered.
    gathered_at: u64,
    pace: Pace,
    watch: Watch,
    sightings: Sightings,
    /// The role of searcher is ours.
    searcher: bool,
    lifo: lifo::Lifo,
    loop_cuts: dispatch::LoopCuts,
    /// The task in `prev` has time left in its slice.
    goes_on: bool,
    /// The task that was found is core's choice and not the policy's: it overtakes nobody.
    out_of_turn: bool,
    random: u64,
}

impl<M: Machine> Worker<M> {
    /// Takes a seat: a worker's own, or one that [`Watchdog::seat`](crate::Watchdog::seat) has prepared.
    ///
    /// # Panics
    /// If there is no such seat, or it is taken.
    pub fn new(core: &'static Core<M>, id: SeatId) -> Self {
        let seat: &'static Seat = &core.seats[id.index()];
        let ingress = seat
            .unclaimed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let ingress = ingress.unwrap_or_else(|| panic!("seat {id} is taken already"));
        core.sit_down(seat);
        let now = core.machine.now();
        Worker {
            core,
            local: Rc::new(Local::new(core.id, id, seat, ingress, now)),
            seat,
            placed: core.placed(seat.home()),
            generation: None,
            epoch: 0,
            newest: 0,
            bypassed: false,
            phase: Phase::Open,
            notes: Notes::default(),
            stats: Metrics::default(),
            passes: 0,
            affinities: 0,
            gathered_at: now,
            pace: Pace::new(now),
            watch: Watch::default(),
            sightings: Sightings::new(core.seats.len()),
            searcher: false,
            lifo: lifo::Lifo::new(now),
            loop_cuts: dispatch::LoopCuts::default(),
            turns: find::Turns::new(now),
            goes_on: false,
            out_of_turn: false,
            random: 0x9e37_79b9_7f4a_7c15 ^ (id.index() as u64 + 1),
        }
    }

    /// What the machine lends to wakes on this thread ([`Machine::with_local`]).
    pub fn local(&self) -> &Rc<Local> {
        &self.local
    }

    /// One pass of the cycle.
    pub fn pass(&mut self) -> Pass {
        self.passes = self.passes.wrapping_add(1);
        if let Some(end) = self.refresh().end() {
            return end;
        }
        if self.pace.is_due() {
            let now = self.look_at_the_clock();
            self.mind_the_watch(now);
            self.look_behind_long_polls(now);
        }
        match self.find(Look::First) {
            Found::Task(token) => {
                if self.is_watching() {
                    self.hand_over_the_watch();
                }
                self.share_backlog();
                self.run(token);
                Pass::Ran
            }
            Found::LoopCut => Pass::Drive,
            Found::Nothing => self.look_once_more(),
        }
    }

    /// Announces the park and looks again: whoever pushes after this look sees the announcement (`idle/README.md`).
    fn look_once_more(&mut self) -> Pass {
        self.end_search();
        self.core.sleepers.announce(self.local.seat_id.index());
        if let Some(end) = self.refresh().end() {
            self.take_back_announcement();
            return end;
        }
        match self.find(Look::Last) {
            Found::Task(token) => {
                self.take_back_announcement();
                self.hand_over_the_watch();
                self.run(token);
                Pass::Ran
            }
            Found::LoopCut => {
                self.take_back_announcement();
                Pass::Drive
            }
            Found::Nothing if self.phase == Phase::Revoked => {
                self.take_back_announcement();
                Pass::Revoked
            }
            // A callback of this look woke a task on this thread: such a push looks at nobody's announcement.
            Found::Nothing if !self.local.ingress.is_empty() => {
                self.take_back_announcement();
                Pass::Drive
            }
            Found::Nothing => {
                self.loop_cuts.forget();
                Pass::Park(self.prepare_park())
            }
        }
    }

    fn take_back_announcement(&mut self) {
        // If somebody was faster, it may have made us the searcher: then the search ends with the next poll.
        self.searcher |= !self.core.sleepers.retract(self.local.seat_id.index());
        self.core.wake_the_watchdog();
    }

    /// Follows the current generation. The only place where the cached one changes, and never inside a callback.
    #[inline]
    fn refresh(&mut self) -> Phase {
        if self.core.published.epoch() != self.epoch {
            self.follow();
        }
        self.phase
    }

    #[cold]
    fn follow(&mut self) {
        // That is final: somebody else does this worker's work.
        if self.phase == Phase::Revoked {
            return;
        }
        // While a publication is on its way, the previous generation is followed; it has ended by then.
        let Some((epoch, generation, bypassed)) = self.core.published.follow() else {
            return;
        };
        self.epoch = epoch;
        self.generation = generation;
        let number = self.generation.as_ref().map(|it| it.number.number());
        self.seat.activity.set_follows(number.unwrap_or(0));
        self.newest = self.newest.max(number.unwrap_or(0));
        self.bypassed = bypassed;
        self.local
            .built_in
            .set(self.generation.is_none() || bypassed);
        self.loop_cuts.forget();
        self.goes_on = false;
        self.turns.heads = false;
        self.local.slice.set_default();
        self.put_aside();
        if !self.core.is_open() {
            self.phase = Phase::Closing;
        } else if self.seat.is_dismissed() {
            self.phase = Phase::Dismissed;
        }
    }

    /// Puts what lies in the LIFO slot and in `prev` back into the ingress.
    fn put_aside(&mut self) {
        for slot in [&self.seat.prev, &self.seat.lifo] {
            if let Some(entry) = local::take(slot) {
                self.local.ingress.push(entry);
            }
        }
    }

    /// The way through the door to `generation`.
    fn host_call<'a>(&'a self, generation: &'a Arc<Generation>) -> HostCall<'a, M> {
        HostCall {
            core: self.core,
            local: &self.local,
            generation,
            notes: &self.notes,
        }
    }

    /// The thread is about to park in the driver: wakes on it must end the park.
    pub fn enter_driver(&self) {
        self.local.set_place(Place::Driver);
    }

    /// The thread is back from the driver.
    pub fn leave_driver(&mut self) {
        self.local.set_place(Place::Between);
        self.pace.driven(self.local.now.get());
    }

    /// Leaves the seat, after [`Pass::Stop`] or [`Pass::Dismissed`]. What is returned belongs to
    /// [`Core::clear_seat`](crate::Core::clear_seat). The last thread to leave a runtime that closes drops
    /// every task that is left, so the thread's contexts must still be entered, and [`Machine::with_local`] must still
    /// find this worker's [`Local`].
    pub fn leave(mut self) -> Rc<Local> {
        self.vacate();
        if self.core.stand_up() && self.core.is_closing() {
            self.core.drop_all(&self.local);
        }
        self.local
    }

    /// Leaves the seat after [`Pass::Revoked`]: somebody else does this worker's work already.
    pub fn give_up(mut self) -> Rc<Local> {
        self.vacate();
        self.local
    }

    fn vacate(&mut self) {
        self.end_search();
        self.leave_the_watch();
        self.generation = None;
        self.seat.activity.set_follows(0);
        self.put_aside();
        let mut left_something = false;
        while let Some(entry) = self.local.ingress.pop() {
            self.core.injector.push_woken(entry);
            left_something = true;
        }
        if left_something {
            self.core.notify(self.local.id);
        }
        self.seat.stats.publish(&self.stats);
    }
}

/// Which look for work it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Look {
    /// Stealing needs the role of searcher.
    First,
    /// Announced: takes no role, since whoever pushes now may count on a searcher to look again.
    Last,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Open,
    Closing,
    Dismissed,
    Revoked,
}

impl Phase {
    /// What the thread is told, unless it is to go on.
    #[inline]
    fn end(self) -> Option<Pass> {
        match self {
            Phase::Open => None,
            Phase::Closing => Some(Pass::Stop),
            Phase::Dismissed => Some(Pass::Dismissed),
            Phase::Revoked => Some(Pass::Revoked),
        }
    }
}
