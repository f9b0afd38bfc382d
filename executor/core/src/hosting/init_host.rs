//! What a policy may say in `init`: there is no worker, and nothing to insert.

use std::sync::Arc;
use std::time::Duration;

use polity_policy::{
    DsqError, DsqId, ExitInfo, ExitKind, HostApi, Position, Slice, TaskId, TaskView, WorkerId,
};

use crate::callback::Callback;
use crate::core::Core;
use crate::hosting::Generation;
use crate::hosting::host::nanos;
use crate::machine::Machine;
use crate::queue::{Dsq, Order};

/// The host that `init` sees: there is no worker, and nothing to insert.
pub(crate) struct InitHost<'a, M: Machine> {
    pub(crate) core: &'static Core<M>,
    pub(crate) generation: &'a Arc<Generation>,
}

impl<M: Machine> InitHost<'_, M> {
    fn end(&self, kind: ExitKind, code: u64, message: String) {
        let info = ExitInfo::new(kind, &self.generation.name, self.generation.number);
        let mut info = info.with_message(message);
        info.code = code;
        self.generation.claim_exit(info);
    }

    fn refuse(&self, what: &str) {
        self.end(
            ExitKind::Error,
            0,
            format!("{}: {what}: not allowed in this callback", Callback::Init),
        );
    }
}

impl<M: Machine> HostApi for InitHost<'_, M> {
    fn insert(&self, task: TaskId, dsq: DsqId, _at: Position) -> bool {
        self.refuse(&format!("insert of task {task} into DSQ {dsq}"));
        false
    }

    fn insert_vtime(&self, task: TaskId, dsq: DsqId, _vtime: u64) -> bool {
        self.refuse(&format!("insert_vtime of task {task} into DSQ {dsq}"));
        false
    }

    fn move_to_local(&self, from: DsqId, _at_most: usize) -> usize {
        self.refuse(&format!("move_to_local from DSQ {from}"));
        0
    }

    fn set_slice(&self, task: TaskId, _slice: Slice) {
        self.refuse(&format!("set_slice of task {task}"));
    }

    fn kick(&self, worker: WorkerId) {
        if worker.index() < self.core.worker_count() {
            self.core.kick(worker);
        } else {
            self.refuse(&format!("kick of worker {worker}, which is out of range"));
        }
    }

    fn kick_at(&self, worker: WorkerId, at: Duration) {
        // All workers are kicked when the policy is published.
        if worker.index() < self.core.worker_count() {
            self.generation.timers.set(worker, nanos(at));
        } else {
            self.refuse(&format!(
                "kick_at of worker {worker}, which is out of range"
            ));
        }
    }

    fn worker_count(&self) -> usize {
        self.core.worker_count()
    }

    fn worker(&self) -> Option<WorkerId> {
        None
    }

    fn is_idle(&self, worker: WorkerId) -> bool {
        self.core.is_idle(worker)
    }

    fn claim_idle(&self, _worker: WorkerId) -> bool {
        false
    }

    fn claim_idle_worker(&self, _task: &TaskView<'_>) -> Option<WorkerId> {
        None
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
        match dsq {
            DsqId::Custom(number) => self.generation.dsqs.get(number).map(Dsq::len),
            _ => Some(0),
        }
    }

    fn first_vtime(&self, dsq: DsqId) -> Option<u64> {
        self.generation.dsqs.first_vtime(dsq)
    }

    fn batch_hint(&self) -> usize {
        1
    }

    fn now(&self) -> Duration {
        Duration::from_nanos(self.core.machine.now())
    }

    fn error(&self, message: &str) {
        self.end(
            ExitKind::PolicyError,
            0,
            format!("{}: {message}", Callback::Init),
        );
    }

    fn exit(&self, code: u64, message: &str) {
        self.end(ExitKind::PolicyExit, code, message.to_owned());
    }
}
