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

/// Why the policy is to blame.
enum Proof {
    Overtaken { by: Option<TaskId>, on: WorkerId },
    AskedForWork(WorkerId),
    SatIdle(WorkerId),
}

impl<M: Machine> Watchdog<M> {
    /// Ejects the current policy if it lets a task wait for too long.
    pub(super) fn judge_policy(&mut self) {
        let core = self.core;
        let Some(generation) = core.published.load() else {
            return;
        };
        if core.published.bypasses() > 0 || generation.has_ended() {
            return;
        }
        let wall = self.clock.wall();
        // A stamp may be a period old already when it is given.
        let patience = if self.somebody_lingers() {
            2 * generation.stall_after_ns + PERIOD_NS
        } else {
            generation.stall_after_ns + PERIOD_NS
        };
        let Some(late_since) = wall.checked_sub(patience) else {
            return;
        };
        if !generation.census.any_since(late_since, wall) {
            return;
        }
        if let Some(info) = self.find_stalled(core, &generation, patience) {
            core.end_policy(&generation, info);
        }
    }

    fn somebody_lingers(&self) -> bool {
        (0..self.core.seats_in_use()).any(|index| {
            let place = self.core.seats[index].activity.place();
            place == Place::Callback(Callback::Dispatch)
                && self.threads.lingers_in_call(SeatId::new(index as u16))
        })
    }

    /// The oldest task for which there is proof.
    fn find_stalled(
        &self,
        core: &Core<M>,
        generation: &Arc<Generation>,
        patience: u64,
    ) -> Option<ExitInfo> {
        let number = generation.number.number();
        let mut late: Vec<(u64, &'static Header)> = slab::all()
            .filter(|header| header.is_counted() && header.seen_by() == number)
            .filter(|header| core.owns(header))
            .map(|header| (self.clock.age(header.runnable_at()), header))
            .filter(|(age, _)| *age >= patience)
            .collect();
        late.sort_by_key(|(age, _)| std::cmp::Reverse(*age));
        late.into_iter()
            .find_map(|(age, header)| self.accuse(core, generation, header, age))
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
