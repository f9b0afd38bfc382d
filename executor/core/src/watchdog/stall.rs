//! Whether a late task is the policy's fault.
//!
//! A task that the policy has had for longer than the stall timeout is *late*. That alone proves nothing: if all workers sat
//! in long polls, nobody could have run it. So somebody must have been able to: a worker that may run the task
//!
//! - began a poll of one that the policy got later (it was overtaken), or
//! - asked the policy for work and got none, or
//! - sat idle at two ticks in a row,
//!
//! not just after the policy had got it, but in the later half of the wait. A policy that starves a task does so all the time; a
//! task that was overtaken once, because the thread that brought it was kept from running in the middle of that, is
//! not starved. For a task in a local DSQ only the worker that the policy chose counts: nobody else is meant to
//! take it. Fair queues that are long are therefore not stalls; sched_ext's watchdog (`check_rq_for_timeouts` in
//! `kernel/sched/ext/ext.c`) has no such rule, since there a CPU always could have.
//!
//! While a thread lingers in `dispatch`, the task may be in its hands: the policy has taken the id from its own queue, and the
//! thread is not given a processor to insert it. If it runs, and the call does not return, that is the charge. So a
//! task counts then only when it is twice as late: on a machine with far too much to do somebody always lingers.

use std::cmp::Reverse;
use std::sync::Arc;

use polity_policy::{DsqId, ExitInfo, ExitKind, TaskId, WorkerId};

use crate::callback::Callback;
use crate::core::Core;
use crate::hosting::Generation;
use crate::machine::Machine;
use crate::seat::{Place, SeatId};
use crate::task::custody::{Owner, State};
use crate::task::header::Header;
use crate::task::slab;
use crate::watchdog::{PERIOD_NS, Watchdog};

/// A task may be given the time of the last tick as its stamp, and so be a period younger than it seems.
const STAMP_SLACK_NS: u64 = PERIOD_NS + LATE_TICK_NS;
/// A tick that comes later than this is late. It counts in full if it comes twice as late as it should.
const LATE_TICK_NS: u64 = 1_000_000;
/// Where a tick was late, and a task may have been given the time of the one before.
const STAMP_SLACK_AFTER_LATE_TICKS_NS: u64 = 2 * PERIOD_NS;

/// Why the policy is to blame.
enum Proof {
    Overtaken { by: Option<TaskId>, on: WorkerId },
    AskedForWork(WorkerId),
    SatIdle(WorkerId),
}

/// Late tasks for which there was no proof when all tasks were last looked at. The census forgets a task of that age, since its
/// classes come round again; so do losses of time make a task old before it is late.
#[derive(Debug)]
pub(super) struct Recollection {
    generation: u32,
    /// In alive time.
    look_at: u64,
}

impl<M: Machine> Watchdog<M> {
    /// Ejects the current policy if it lets a task wait for too long.
    pub(super) fn judge_policy(&mut self, now: u64) {
        let core = self.core;
        let Some(generation) = core.published.load() else {
            return;
        };
        if core.published.bypasses() > 0 {
            // What waits in a local DSQ stays there, and is not the policy's for as long as this lasts.
            self.clock.disregard_last_tick();
            return;
        }
        if generation.has_ended() {
            return;
        }
        let number = generation.number.number();
        let wall = self.clock.wall();
        let slack = self.stamp_slack(now, generation.stall_after_ns);
        let timeout = generation.stall_after_ns + slack;
        let Some(late_since) = wall.checked_sub(timeout) else {
            return;
        };
        let is_recollected = self
            .recollection
            .take_if(|it| it.generation != number || it.look_at <= now)
            .is_some_and(|it| it.generation == number);
        // Less than a timeout makes no task too old for the census before it is late.
        let has_lost =
            self.clock.lost_ns().saturating_sub(self.lost_ns) >= generation.stall_after_ns;
        let census = &generation.census;
        if !has_lost && !is_recollected && !census.any_since(late_since, wall) {
            return;
        }
        self.lost_ns = self.clock.lost_ns();
        if census.waiting() == 0 {
            return;
        }
        let tasks = self.oldest_first(core, number);
        let patience = if self.somebody_lingers() {
            2 * generation.stall_after_ns + slack
        } else {
            timeout
        };
        let late = tasks.iter().take_while(|(age, _)| *age >= patience);
        let info = { late }.find_map(|(age, header)| self.accuse(core, &generation, header, *age));
        if let Some(info) = info {
            core.end_policy(&generation, info);
            return;
        }
        if let Some(look_at) = self.next_look(&tasks, &generation, now, timeout) {
            self.recollection = Some(Recollection {
                generation: number,
                look_at,
            });
        }
    }

    /// To be told of each tick: how long after the one before it came, and whether it was expected after a period.
    pub(super) fn note_tick(&mut self, now: u64, passed: u64, was_busy: bool) {
        // Who comes out of a park reads the clock, so that ticks of an idle time do not matter.
        if was_busy && passed > PERIOD_NS + LATE_TICK_NS {
            self.late_tick_at = Some(now);
        }
    }

    /// By how much a stamp may be too old, of a task that has waited for the timeout.
    fn stamp_slack(&self, now: u64, timeout: u64) -> u64 {
        match self.late_tick_at {
            Some(late) if now - late <= timeout + 4 * PERIOD_NS => STAMP_SLACK_AFTER_LATE_TICKS_NS,
            _ => STAMP_SLACK_NS,
        }
    }

    /// When to look at all tasks again even if the census has none that is old enough.
    fn next_look(
        &self,
        tasks: &[(u64, &'static Header)],
        generation: &Generation,
        now: u64,
        timeout: u64,
    ) -> Option<u64> {
        let (oldest, _) = tasks.first()?;
        if *oldest >= timeout {
            return Some(now);
        }
        let is_late_in = timeout - oldest;
        let forgotten_by_then = tasks.iter().any(|(_, header)| {
            let stamp = header.runnable_at();
            let then = self.clock.wall() + is_late_in;
            generation.census.forgets(stamp, then)
        });
        forgotten_by_then.then_some(now + is_late_in)
    }

    fn somebody_lingers(&self) -> bool {
        (0..self.core.seats_in_use()).any(|index| {
            let place = self.core.seats[index].activity.place();
            place == Place::Callback(Callback::Dispatch)
                && self.threads.lingers_in_call(SeatId::new(index as u16))
        })
    }

    /// All tasks that the generation has, with their ages.
    fn oldest_first(&self, core: &Core<M>, generation: u32) -> Vec<(u64, &'static Header)> {
        let mut tasks: Vec<(u64, &'static Header)> = slab::all()
            .filter(|header| header.is_counted() && header.seen_by() == generation)
            .filter(|header| core.owns(header))
            .map(|header| (self.clock.age(header.runnable_at()), header))
            .collect();
        tasks.sort_by_key(|(age, _)| Reverse(*age));
        tasks
    }

    fn accuse(
        &self,
        core: &Core<M>,
        generation: &Arc<Generation>,
        header: &'static Header,
        age: u64,
    ) -> Option<ExitInfo> {
        let task = header.id();
        let seen = header.custody.load();
        let proof = self.proof(core, generation, header, seen, age)?;
        let name = match header.attributes().get_name() {
            Some(name) => format!(" {name:?}"),
            None => String::new(),
        };
        let site = match slab::spawn_site(task.slot()).and_then(|site| site.get()) {
            Some(site) => format!(" (spawned at {site})"),
            None => String::new(),
        };
        // Read last: if the slot has another tenant by now, or the task has moved, nothing of this is true.
        if header.custody.load() != seen || !header.lifecycle.is(task.tenant()) {
            return None;
        }
        let waited = age / 1_000_000;
        let instead = match proof {
            Proof::Overtaken { by: Some(by), on } => {
                format!("worker {on} polled task {by} instead, which it got later")
            }
            Proof::Overtaken { by: None, on } => {
                format!("worker {on} polled one instead that it got later")
            }
            Proof::AskedForWork(worker) => format!("worker {worker} asked for work and got none"),
            Proof::SatIdle(worker) => format!("worker {worker} sat idle"),
        };
        let place = place(seen);
        let message =
            format!("task {task}{name}{site} has waited for {waited} ms {place}; {instead}");
        let mut info = ExitInfo::new(ExitKind::Stall, &generation.name, generation.number)
            .with_message(message);
        info.task = Some(task);
        Some(info)
    }

    fn proof(
        &self,
        core: &Core<M>,
        generation: &Generation,
        header: &Header,
        seen: Owner,
        age: u64,
    ) -> Option<Proof> {
        let is_late_proof = |stamp: u64| stamp > 0 && self.clock.age(stamp) < age / 2;
        let only = match seen.state() {
            State::Held | State::Queued if seen.tag() == generation.tag => None,
            State::Global => None,
            State::Local => Some(WorkerId::new(seen.index())),
            // On its way, or in the hands of a thread: not the policy's.
            _ => return None,
        };
        (0..core.seats_in_use()).find_map(|index| {
            let seat = SeatId::new(index as u16);
            let worker = core.seats[index].home();
            if core.is_vacant(seat)
                || !header.allows(worker)
                || only.is_some_and(|only| only != worker)
            {
                return None;
            }
            let activity = &core.seats[index].activity;
            if is_late_proof(activity.youngest()) {
                let by = activity.youngest_task();
                Some(Proof::Overtaken { by, on: worker })
            } else if is_late_proof(activity.went_without()) {
                Some(Proof::AskedForWork(worker))
            } else if self.threads.sat_idle(seat) {
                Some(Proof::SatIdle(worker))
            } else {
                None
            }
        })
    }
}

fn place(seen: Owner) -> String {
    match seen.state() {
        State::Queued => format!("in DSQ {}", DsqId::Custom(seen.index().into())),
        State::Local => format!("in the local DSQ of worker {}", seen.index()),
        State::Global => "in the global DSQ".to_owned(),
        _ => "in its custody".to_owned(),
    }
}
