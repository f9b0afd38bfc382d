//! What a policy may say during a call, each value checked.
//!
//! **Invariant.** A wrong value never reaches a queue: it ends the policy with a message that names the callback and the
//! value, and the task concerned stays where it was.

use std::any::TypeId;
use std::backtrace::Backtrace;
use std::sync::Arc;
use std::time::Duration;

use polity_policy::{
    DsqError, DsqId, ExitInfo, ExitKind, HostApi, Optional, Position, Slice, TaskId, TaskView,
    WorkerId,
};

use crate::callback::Callback;
use crate::core::Core;
use crate::hosting::Generation;
use crate::hosting::batch::Notes;
use crate::machine::Machine;
use crate::queue::{Dsq, Order, Rank, Taking};
use crate::seat::Place;
use crate::task::header::Header;
use crate::worker::Local;

/// Tasks that one `move_to_local` moves, so that the lock is not held, and the callback does not take, for long.
const MOST_MOVED: usize = 1024;

/// One worker's way through the door: the host that its callbacks see.
pub(crate) struct HostCall<'a, M: Machine> {
    pub(crate) core: &'static Core<M>,
    pub(crate) local: &'a Local,
    pub(crate) generation: &'a Arc<Generation>,
    pub(crate) notes: &'a Notes,
}

impl<M: Machine> HostCall<'_, M> {
    fn callback(&self) -> Callback {
        match self.local.place() {
            Place::Callback(callback) => callback,
            _ => Callback::Dispatch,
        }
    }

    fn task_at_hand(&self) -> Option<TaskId> {
        match self.callback() {
            Callback::InitTask
            | Callback::ExitTask
            | Callback::Runnable
            | Callback::SelectWorker
            | Callback::Enqueue
            | Callback::Running
            | Callback::Stopping
            | Callback::Quiescent
            | Callback::SetWeight
            | Callback::SetAffinity => self.local.current_task(),
            _ => None,
        }
    }

    /// Ends the policy, if nothing has ended it before.
    #[cold]
    pub(crate) fn end(&self, kind: ExitKind, code: u64, message: &str) {
        let has_backtrace = matches!(kind, ExitKind::Error | ExitKind::PolicyError);
        let backtrace = has_backtrace.then(|| self.backtrace());
        self.end_with(kind, code, message, backtrace);
    }

    /// The stack still shows where in the policy we are. Without symbols, which are looked up when it is printed.
    ///
    /// One thread of the process at a time may do that, and one that prints a backtrace takes as long as it takes: so this thread
    /// says that it is not the policy's loop that it is in.
    fn backtrace(&self) -> Backtrace {
        let place = self.local.place();
        self.local.set_place(Place::Reporting);
        let backtrace = Backtrace::force_capture();
        self.local.set_place(place);
        backtrace
    }

    #[cold]
    pub(crate) fn end_with(
        &self,
        kind: ExitKind,
        code: u64,
        message: &str,
        backtrace: Option<Backtrace>,
    ) {
        if self.generation.has_ended() {
            return;
        }
        let callback = self.callback();
        let message = match kind {
            ExitKind::PolicyExit => message.to_owned(),
            _ => format!("{callback}: {message}"),
        };
        let mut info = ExitInfo::new(kind, &self.generation.name, self.generation.number)
            .with_message(message);
        info.code = code;
        info.worker = Some(self.local.id);
        info.task = self.task_at_hand();
        info.backtrace = backtrace.map(Arc::new);
        self.core.end_policy(self.generation, info);
    }

    #[cold]
    fn wrong(&self, message: &str) {
        self.end(ExitKind::Error, 0, message);
    }

    fn check_worker(&self, worker: WorkerId) -> bool {
        let known = worker.index() < self.core.worker_count();
        if !known {
            let count = self.core.worker_count();
            self.wrong(&format!(
                "worker {worker} is out of range: there are {count} workers, counted from 0"
            ));
        }
        known
    }

    /// Whether the task may be put there.
    #[inline]
    pub(super) fn check_dsq(&self, task: TaskId, dsq: DsqId, rank: Rank) -> bool {
        let always_there = matches!(dsq, DsqId::Local | DsqId::Global);
        (always_there && matches!(rank, Rank::End(_))) || self.check_dsq_further(task, dsq, rank)
    }

    /// The same for what may be wrong.
    fn check_dsq_further(&self, task: TaskId, dsq: DsqId, rank: Rank) -> bool {
        let order = match dsq {
            DsqId::LocalOn(worker) if !self.check_worker(worker) => return false,
            DsqId::Custom(number) => self.generation.dsqs.get(number).map(Dsq::order),
            _ => Some(Order::Fifo),
        };
        match (rank, order) {
            (Rank::End(_), Some(Order::Fifo)) | (Rank::Vtime(_), Some(Order::Vtime)) => return true,
            (_, None) => self.wrong(&format!("insert into DSQ {dsq}, which does not exist")),
            (Rank::End(_), _) => self.wrong(&format!(
                "insert of task {task} into DSQ {dsq}, which is ordered by vtime: use insert_vtime"
            )),
            (Rank::Vtime(_), _) => self.wrong(&format!(
                "insert_vtime of task {task} into DSQ {dsq}, which is a FIFO: use insert, or a DSQ made by create_vtime_dsq"
            )),
        }
        false
    }

    #[inline]
    fn insert_ranked(&self, task: TaskId, dsq: DsqId, rank: Rank) -> bool {
        match self.callback() {
            Callback::SelectWorker | Callback::Enqueue => self.record_verdict(task, dsq, rank),
            Callback::Dispatch => self.claim(task, dsq, rank),
            _ => {
                self.wrong(&format!(
                    "insert of task {task} into DSQ {dsq}: not allowed in this callback"
                ));
                false
            }
        }
    }

    #[inline]
    fn record_verdict(&self, task: TaskId, dsq: DsqId, rank: Rank) -> bool {
        let Some(offered) = self.notes.batch.get(self.notes.at_hand.get()) else {
            return false;
        };
        let at_hand = offered.view.id();
        if task != at_hand {
            self.wrong(&format!(
                "insert of task {task}, but the task at hand is {at_hand}"
            ));
            return false;
        }
        if let Some((before, _)) = offered.verdict.get() {
            self.wrong(&format!(
                "task {task} inserted twice: into {before} and into {dsq}"
            ));
            return false;
        }
        if !self.check_dsq(task, dsq, rank) {
            return false;
        }
        self.notes.record(offered, dsq, rank);
        true
    }

    /// The worker itself, or one that the task's affinity allows.
    pub(crate) fn allowed_worker(&self, header: &Header, worker: WorkerId) -> WorkerId {
        if header.allows(worker) {
            return worker;
        }
        self.notes.redirected.set(self.notes.redirected.get() + 1);
        self.core.eligible_worker(header)
    }

    /// Whose local DSQ `DsqId::Local` is, here and now.
    fn meaning_of_local(&self) -> WorkerId {
        match self.callback() {
            Callback::SelectWorker | Callback::Enqueue => {
                let offered = self.notes.batch.get(self.notes.at_hand.get());
                offered.map_or(self.local.id, |offered| offered.selected.get())
            }
            _ => self.local.id,
        }
    }
}

impl<M: Machine> HostApi for HostCall<'_, M> {
    fn insert(&self, task: TaskId, dsq: DsqId, at: Position) -> bool {
        self.insert_ranked(task, dsq, Rank::End(at))
    }

    fn insert_vtime(&self, task: TaskId, dsq: DsqId, vtime: u64) -> bool {
        self.insert_ranked(task, dsq, Rank::Vtime(vtime))
    }

    fn move_to_local(&self, from: DsqId, at_most: usize) -> usize {
        if self.generation.has_ended() {
            return 0;
        }
        if self.callback() != Callback::Dispatch {
            self.wrong(&format!(
                "move_to_local from DSQ {from}: allowed in dispatch only"
            ));
            return 0;
        }
        let DsqId::Custom(number) = from else {
            self.wrong(&format!(
                "move_to_local from DSQ {from}: workers empty the built-in ones by themselves"
            ));
            return 0;
        };
        let Some(queue) = self.generation.dsqs.get_for_taking(number) else {
            self.wrong(&format!(
                "move_to_local from DSQ {from}, which does not exist"
            ));
            return 0;
        };
        // Not more than this worker's share: the others are about to ask too.
        let share = queue.len().div_ceil(self.core.worker_count());
        let at_most = at_most.min(share).min(MOST_MOVED);
        if at_most == 0 {
            return 0;
        }
        let (tag, worker) = (self.generation.tag, self.local.id);
        let mut moved = 0;
        queue.take_for(worker, |entry| {
            // An entry whose task was aborted or swept goes.
            if let Some(token) = entry.claim_in_hand(tag, self.seat()) {
                if self.is_revoked() {
                    self.give_back(token.header());
                } else {
                    moved += 1;
                    self.note_claimed(token, DsqId::LocalOn(worker), Position::Tail);
                }
            }
            if moved == at_most {
                Taking::Enough
            } else {
                Taking::More
            }
        });
        if moved > 0 {
            self.notes.progress.set(true);
        }
        moved
    }

    fn set_slice(&self, task: TaskId, slice: Slice) {
        let (at_hand, note) = match self.callback() {
            Callback::SelectWorker | Callback::Enqueue => {
                let Some(offered) = self.notes.batch.get(self.notes.at_hand.get()) else {
                    return;
                };
                (Some(offered.view.id()), &offered.slice)
            }
            Callback::Running => (self.local.current_task(), &self.notes.slice),
            _ => {
                return self.wrong(&format!(
                    "set_slice of task {task}: not allowed in this callback"
                ));
            }
        };
        match at_hand {
            Some(at_hand) if at_hand != task => self.wrong(&format!(
                "set_slice of task {task}, but the task at hand is {at_hand}"
            )),
            // Carried out after the callback, as a verdict is.
            _ => note.set(Some(slice)),
        }
    }

    fn kick(&self, worker: WorkerId) {
        if self.check_worker(worker) {
            self.core.kick(worker);
        }
    }

    fn kick_at(&self, worker: WorkerId, at: Duration) {
        if self.check_worker(worker) {
            self.generation.timers.set(worker, nanos(at));
            // So that it parks for a shorter time. This one is going to compute that anyway.
            if worker != self.local.id {
                self.core.kick(worker);
            }
        }
    }

    fn worker_count(&self) -> usize {
        self.core.worker_count()
    }

    fn worker(&self) -> Option<WorkerId> {
        Some(self.local.id)
    }

    fn is_idle(&self, worker: WorkerId) -> bool {
        self.core.is_idle(worker)
    }

    fn claim_idle(&self, worker: WorkerId) -> bool {
        let claimed = self.check_worker(worker) && self.core.claim_idle(worker);
        if claimed {
            self.core.kick(worker);
        }
        claimed
    }

    fn claim_idle_worker(&self, task: &TaskView<'_>) -> Option<WorkerId> {
        if !self.core.sleepers.any_parked() {
            return None;
        }
        let last = task.last_worker();
        let all = (0..self.core.worker_count()).map(|index| WorkerId::new(index as u16));
        std::iter::once(last)
            .chain(all)
            .find(|worker| task.allows(*worker) && self.core.claim_idle(*worker))
            .inspect(|worker| self.core.kick(*worker))
    }

    fn create_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.generation.dsqs.create(number, Order::Fifo)
    }

    fn create_vtime_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.generation.dsqs.create(number, Order::Vtime)
    }

    fn destroy_dsq(&self, dsq: DsqId) -> Result<(), DsqError> {
        self.generation.dsqs.destroy(dsq)
    }

    fn dsq_len(&self, dsq: DsqId) -> Option<usize> {
        let local_of = match dsq {
            DsqId::Custom(number) => return self.generation.dsqs.get(number).map(Dsq::len),
            DsqId::Global => return Some(self.core.global.len()),
            DsqId::LocalOn(worker) => worker,
            _ => self.meaning_of_local(),
        };
        let len = self.core.placed.get(local_of.index())?.local.len();
        let to_come = match self.callback() {
            Callback::SelectWorker | Callback::Enqueue => self.notes.bound_for(local_of),
            Callback::Dispatch if local_of == self.local.id => self.claimed_for_own_local(),
            _ => 0,
        };
        Some(len + to_come)
    }

    fn first_vtime(&self, dsq: DsqId) -> Option<u64> {
        self.generation.dsqs.first_vtime(dsq)
    }

    fn batch_hint(&self) -> usize {
        self.local.polls_in_a_while.get() as usize
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.local.now.get())
    }

    fn error(&self, message: &str) {
        self.end(ExitKind::PolicyError, 0, message);
    }

    fn exit(&self, code: u64, message: &str) {
        self.end(ExitKind::PolicyExit, code, message);
    }

    fn not_written(&self, notifier: Optional, by: TypeId) {
        self.generation.unwritten.note(notifier, by);
    }
}

/// What does not fit never comes: it is centuries away.
pub(super) fn nanos(at: Duration) -> u64 {
    u64::try_from(at.as_nanos()).unwrap_or(u64::MAX)
}
