//! What each thread is in, and since when.
//!
//! **Hogs.** A poll that goes on for longer than the threshold, and has run for half of that or is blocked, is named, once. It
//! is nobody's fault but the task's. Time in which the thread had said that it blocks does not count. A poll whose thread was
//! kept from running is no hog: a machine with too much to do has none.
//!
//! **Stuck callbacks.** A callback that has not returned at several ticks may be slow, or its thread may not have been given a
//! processor, or it may wait for a lock whose holder was not. So it is convicted only when the thread's own processor clock
//! says that it *ran* for [`RAN_NS`] inside this one callback (`ran.rs`), or when it is blocked in a system call and cannot be
//! waiting for another thread: one that is inside the same policy and not blocked, or one that was kept from running
//! (`blocked.rs`). A thread that waits for a page that is not in memory is blocked by the kernel, and that counts only after
//! [`PAGE_NS`]. A machine that cannot tell counts as one where the thread ran. What a hypervisor took from the processors
//! meanwhile counts for nobody.

use std::sync::Arc;

use polity_policy::{ExitInfo, ExitKind, TaskId, WorkerId};

use crate::callback::Callback;
use crate::core::Core;
use crate::hosting::Generation;
use crate::machine::{Machine, ThreadState};
use crate::seat::{Place, SeatId};
use crate::task::slab;
use crate::watchdog::blocked::Blocked;
use crate::watchdog::ran::Ran;
use crate::watchdog::{Finding, Hog};

/// Processor time in one callback after which it is stuck: what five samples see of one that spins.
const RAN_NS: u64 = 9_000_000;
/// How often the time is noted that a hypervisor has taken.
const STOLEN_EVERY_NS: u64 = 100_000_000;
/// No page takes so long, but that of a disk that is gone.
const PAGE_NS: u64 = 1_000_000_000;
/// A call that was seen at the tick before is looked at more closely after this.
const SUSPICIOUS_NS: u64 = 4_000_000;

/// What a thread was in at the last tick, and since when: in alive time.
#[derive(Clone, Debug, Default)]
struct Seen {
    polls: u64,
    poll_since: u64,
    /// The thread has said that it blocks, inside its poll.
    in_place: bool,
    /// The poll has been reported.
    reported: bool,
    /// The thread's processor clock at the second tick that saw the poll.
    poll_processor: Option<u64>,
    /// The number of the call that it is in; 0 for none.
    call: u64,
    /// The task that the call is about. One call offers many, and each is a callback of its own.
    about: Option<TaskId>,
    call_since: u64,
    /// How long the thread has run in the call.
    ran: Ran,
    /// It is blocked in the call.
    blocked: Option<Blocked>,
    parked: bool,
    parked_before: bool,
    /// Something has changed since the last tick.
    moved: bool,
}

impl Seen {
    /// Whether the thread in this seat is in the call that was seen last.
    fn call_goes_on<M: Machine>(&self, core: &Core<M>, index: usize) -> bool {
        let activity = &core.seats[index].activity;
        activity.call.in_flight() == Some(self.call) && activity.task() == self.about
    }

    fn sample_call<M: Machine>(&mut self, core: &Core<M>) {
        if self.ran.sample(&core.machine) {
            // It has run, so this is another wait: perhaps for the same lock, which somebody else was faster to take.
            self.blocked = None;
        }
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Threads {
    now: u64,
    seen: Vec<Seen>,
    /// Time that a hypervisor had taken by two moments, the later one first.
    stolen: [Stolen; 2],
}

#[derive(Clone, Copy, Debug, Default)]
struct Stolen {
    at: u64,
    ns: u64,
}

impl Threads {
    pub(super) fn new(seats: usize) -> Self {
        Threads {
            now: 0,
            seen: vec![Seen::default(); seats],
            stolen: [Stolen::default(); 2],
        }
    }

    /// Another thread is going to sit there.
    pub(super) fn forget(&mut self, seat: SeatId) {
        self.seen[seat.index()] = Seen {
            moved: true,
            ..Seen::default()
        };
    }

    /// Notes what every thread is in at this tick.
    pub(super) fn look<M: Machine>(&mut self, core: &Core<M>, now: u64) {
        self.now = now;
        if now - self.stolen[0].at >= STOLEN_EVERY_NS {
            let ns = core.machine.stolen_time();
            self.stolen = [Stolen { at: now, ns }, self.stolen[0]];
        }
        for index in 0..core.seats_in_use() {
            let activity = &core.seats[index].activity;
            let seen = &mut self.seen[index];
            let polls = activity.polls();
            let call = activity.call.in_flight().unwrap_or(0);
            let about = activity.task();
            seen.parked_before = seen.parked;
            // Announced, and not in its last look, which asks the policy.
            seen.parked = call == 0 && core.sleepers.is_parked(index);
            seen.moved = polls != seen.polls || call != seen.call || seen.parked;
            if polls != seen.polls || call != seen.call {
                let call = (call != 0).then_some(call);
                activity.note_seen(polls, call, core.machine.now());
            }
            if polls != seen.polls {
                seen.polls = polls;
                seen.poll_since = now;
                seen.reported = false;
                seen.poll_processor = None;
            } else if polls % 2 == 1 && seen.poll_processor.is_none() {
                let thread = core.machine.thread_in(SeatId::new(index as u16));
                seen.poll_processor = thread.and_then(|thread| core.machine.processor_time(thread));
            }
            seen.in_place = activity.place() == Place::Blocked;
            if seen.in_place {
                // It was announced, so it makes the poll no hog: that is as old as what comes after.
                seen.poll_since = now;
                seen.poll_processor = None;
            }
            if call != seen.call || (call != 0 && about != seen.about) {
                seen.call = call;
                seen.about = about;
                seen.call_since = now;
                seen.blocked = None;
                if call != 0 {
                    seen.ran = Ran::begin(&core.machine, SeatId::new(index as u16));
                }
            } else if call != 0 && !activity.call.is_revoked(call) {
                seen.sample_call(core);
            }
        }
    }

    /// Between two ticks: samples the calls that go on since the last one. Whether one of them may be stuck.
    pub(super) fn look_closer<M: Machine>(&mut self, core: &Core<M>) -> bool {
        let mut may_be_stuck = false;
        for (index, seen) in self.seen.iter_mut().enumerate() {
            if seen.call != 0 && seen.call_goes_on(core, index) {
                seen.sample_call(core);
                may_be_stuck |= seen.ran.ns() >= RAN_NS;
            }
        }
        may_be_stuck
    }

    /// Whether a call that the last tick saw still goes on, and is not known to be stuck.
    pub(super) fn any_call_goes_on<M: Machine>(&self, core: &Core<M>) -> bool {
        self.seen.iter().enumerate().any(|(index, seen)| {
            seen.call != 0
                && seen.call_goes_on(core, index)
                && !core.seats[index].activity.call.is_revoked(seen.call)
        })
    }

    /// Whether the thread has said, and not taken back, that it blocks inside its poll.
    pub(super) fn is_in_place(&self, seat: SeatId) -> bool {
        self.seen[seat.index()].in_place
    }

    /// The count of polls at this tick.
    pub(super) fn polls(&self, seat: SeatId) -> u64 {
        self.seen[seat.index()].polls
    }

    /// For how long this thread has been seen in one poll; 0 if it is in none.
    pub(super) fn in_poll_for(&self, seat: SeatId) -> u64 {
        let seen = &self.seen[seat.index()];
        if seen.polls % 2 == 1 {
            self.now - seen.poll_since
        } else {
            0
        }
    }

    /// Whether some thread is in the same poll as at the tick before.
    pub(super) fn any_poll_goes_on(&self) -> bool {
        (0..self.seen.len()).any(|index| self.in_poll_for(SeatId::new(index as u16)) > 0)
    }

    /// Whether the thread was parked at this tick and at the one before.
    pub(super) fn sat_idle(&self, seat: SeatId) -> bool {
        let seen = &self.seen[seat.index()];
        seen.parked && seen.parked_before
    }

    pub(super) fn is_parked(&self, seat: SeatId) -> bool {
        self.seen[seat.index()].parked
    }

    /// Whether the thread has done something since the last tick, or is free to.
    pub(super) fn has_moved(&self, seat: SeatId) -> bool {
        self.seen[seat.index()].moved
    }

    /// Whether the thread is in the same call as at the tick before.
    pub(super) fn lingers_in_call(&self, seat: SeatId) -> bool {
        let seen = &self.seen[seat.index()];
        seen.call != 0 && seen.call_since < self.now
    }

    pub(super) fn find_hogs<M: Machine>(
        &mut self,
        core: &Core<M>,
        after_ns: u64,
        findings: &mut Vec<Finding>,
    ) {
        for index in 0..core.seats_in_use() {
            let seat = SeatId::new(index as u16);
            let for_ns = self.in_poll_for(seat);
            if for_ns < after_ns || self.seen[index].reported {
                continue;
            }
            let Some(ran_ns) = self.ran_or_blocked(core, seat, after_ns) else {
                continue;
            };
            let activity = &core.seats[index].activity;
            let Some(task) = activity.task() else {
                continue;
            };
            let Some(header) = slab::get(task.slot()) else {
                continue;
            };
            let name = header.attributes().get_name().map(str::to_owned);
            let spawned_at = slab::spawn_site(task.slot()).and_then(|site| site.get());
            // Read before: had the poll ended meanwhile, this might be said of the slot's next tenant.
            if activity.polls() != self.seen[index].polls {
                continue;
            }
            self.seen[index].reported = true;
            findings.push(Finding::Hog(Hog {
                worker: core.seats[index].home(),
                task,
                name,
                spawned_at,
                for_ns,
                ran_ns,
            }));
        }
    }

    /// How long the thread has run in its present poll; `None` if it was mostly kept from running, which is the fault of
    /// whoever else wants the processors.
    fn ran_or_blocked<M: Machine>(&self, core: &Core<M>, seat: SeatId, of_ns: u64) -> Option<u64> {
        let in_poll_for = self.in_poll_for(seat);
        let thread = core.machine.thread_in(seat);
        let ran = self.seen[seat.index()]
            .poll_processor
            .zip(thread.and_then(|thread| core.machine.processor_time(thread)))
            .map_or(in_poll_for, |(then, now)| now.saturating_sub(then));
        let is_blocked = matches!(
            state_of(core, seat),
            Some(ThreadState::Blocked | ThreadState::PageFault)
        );
        let is_its_own = ran >= of_ns / 2 || is_blocked;
        is_its_own.then_some(ran)
    }

    /// Ejects policies whose callbacks do not return, and convicts the threads inside. Returns whose.
    pub(super) fn convict_stuck<M: Machine>(
        &mut self,
        core: &'static Core<M>,
    ) -> Vec<(SeatId, WorkerId)> {
        let mut convicted = Vec::new();
        for index in 0..core.seats_in_use() {
            let seat = SeatId::new(index as u16);
            let call = self.seen[index].call;
            if call == 0 || self.now - self.seen[index].call_since < SUSPICIOUS_NS {
                continue;
            }
            let activity = &core.seats[index].activity;
            let Some(generation) = core.generation(activity.follows()) else {
                continue;
            };
            if activity.call.is_revoked(call)
                || activity.place() == Place::Reporting
                || !self.is_stuck(core, seat)
            {
                continue;
            }
            let worker = core.seats[index].home();
            core.end_policy(&generation, self.indictment(core, seat, &generation));
            if core.convict(seat, call, &generation) {
                convicted.push((seat, worker));
            }
        }
        convicted
    }

    fn is_stuck<M: Machine>(&mut self, core: &Core<M>, seat: SeatId) -> bool {
        let seen = &self.seen[seat.index()];
        if seen.ran.ns() >= RAN_NS {
            return seen
                .ran
                .ns()
                .saturating_sub(self.stolen_since(core, seen.call_since))
                >= RAN_NS;
        }
        let is_blocked = match state_of(core, seat) {
            Some(ThreadState::Blocked) => true,
            Some(ThreadState::PageFault) => self.now - seen.call_since >= PAGE_NS,
            Some(ThreadState::Runnable) | None => false,
        };
        if !is_blocked || self.somebody_is_inside(core, seat) {
            self.seen[seat.index()].blocked = None;
            return false;
        }
        let now = self.now;
        let seen = &mut self.seen[seat.index()];
        let Some(blocked) = &mut seen.blocked else {
            seen.blocked = Some(Blocked::begin(core, seat, now));
            return false;
        };
        // Last of all whether it has been woken meanwhile.
        blocked.goes_on(core, seat, now) && !seen.ran.has_moved(&core.machine)
    }

    /// How much a hypervisor has taken since then, at most.
    fn stolen_since<M: Machine>(&self, core: &Core<M>, since: u64) -> u64 {
        let before = self.stolen.iter().find(|stolen| stolen.at <= since);
        let before = before.unwrap_or(&self.stolen[1]).ns;
        core.machine.stolen_time().saturating_sub(before)
    }

    /// Whether another thread that is not blocked is inside the same policy: its lock may be what this one waits for. Also one
    /// that seems parked: it announces itself before it looks once more, and before it hands out what the driver has for it.
    fn somebody_is_inside<M: Machine>(&self, core: &Core<M>, seat: SeatId) -> bool {
        let follows = core.seat(seat).activity.follows();
        let others = (0..core.seats_in_use()).map(|index| SeatId::new(index as u16));
        let mut others = others.filter(|other| {
            *other != seat && !core.is_vacant(*other) && !core.is_convicted(*other)
        });
        others.any(|other| {
            let activity = &core.seat(other).activity;
            let inside = activity.call.in_flight().is_some() && activity.follows() == follows;
            inside
                && matches!(
                    state_of(core, other),
                    Some(ThreadState::Runnable | ThreadState::PageFault)
                )
        })
    }

    fn indictment<M: Machine>(
        &self,
        core: &Core<M>,
        seat: SeatId,
        generation: &Arc<Generation>,
    ) -> ExitInfo {
        let activity = &core.seat(seat).activity;
        let callback = match activity.place() {
            Place::Callback(callback) => callback,
            _ => Callback::Dispatch,
        };
        let worker = core.seat(seat).home();
        let for_ms = (self.now - self.seen[seat.index()].call_since) / 1_000_000;
        let how = match state_of(core, seat) {
            Some(ThreadState::Blocked) => "blocked in a system call",
            Some(ThreadState::PageFault) => "waiting for a page that is not in memory",
            Some(ThreadState::Runnable) | None => "running",
        };
        let message =
            format!("{callback} on worker {worker} has not returned for {for_ms} ms, {how}");
        let mut info = ExitInfo::new(ExitKind::StuckCallback, &generation.name, generation.number)
            .with_message(message);
        info.worker = Some(worker);
        info.task = activity.task();
        info
    }
}

fn state_of<M: Machine>(core: &Core<M>, seat: SeatId) -> Option<ThreadState> {
    core.machine.thread_state(core.machine.thread_in(seat)?)
}
