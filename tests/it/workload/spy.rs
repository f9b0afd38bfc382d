//! A host that passes every call on, and remembers where the task at hand went.

use std::cell::Cell;
use std::time::Duration;

use polity::{DsqError, DsqId, Host, HostApi, Position, Slice, TaskId, TaskView, WorkerId};

/// Notes the verdict on the task at hand.
pub(super) struct Spy<'a> {
    pub(super) host: Host<'a>,
    pub(super) verdict: Cell<Option<DsqId>>,
}

impl HostApi for Spy<'_> {
    fn insert(&self, task: TaskId, dsq: DsqId, at: Position) -> bool {
        let done = self.host.insert(task, dsq, at);
        if done {
            self.verdict.set(Some(dsq));
        }
        done
    }
    fn insert_vtime(&self, task: TaskId, dsq: DsqId, vtime: u64) -> bool {
        let done = self.host.insert_vtime(task, dsq, vtime);
        if done {
            self.verdict.set(Some(dsq));
        }
        done
    }
    fn move_to_local(&self, from: DsqId, at_most: usize) -> usize {
        self.host.move_to_local(from, at_most)
    }
    fn kick(&self, worker: WorkerId) {
        self.host.kick(worker);
    }
    fn set_slice(&self, task: TaskId, slice: Slice) {
        self.host.set_slice(task, slice);
    }
    fn kick_at(&self, worker: WorkerId, at: Duration) {
        self.host.kick_at(worker, at);
    }
    fn worker_count(&self) -> usize {
        self.host.worker_count()
    }
    fn worker(&self) -> Option<WorkerId> {
        self.host.worker()
    }
    fn is_idle(&self, worker: WorkerId) -> bool {
        self.host.is_idle(worker)
    }
    fn claim_idle(&self, worker: WorkerId) -> bool {
        self.host.claim_idle(worker)
    }
    fn claim_idle_worker(&self, task: &TaskView<'_>) -> Option<WorkerId> {
        self.host.claim_idle_worker(task)
    }
    fn create_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.host.create_dsq(number)
    }
    fn create_vtime_dsq(&self, number: u32) -> Result<DsqId, DsqError> {
        self.host.create_vtime_dsq(number)
    }
    fn destroy_dsq(&self, dsq: DsqId) -> Result<(), DsqError> {
        self.host.destroy_dsq(dsq)
    }
    fn dsq_len(&self, dsq: DsqId) -> Option<usize> {
        self.host.dsq_len(dsq)
    }
    fn first_vtime(&self, dsq: DsqId) -> Option<u64> {
        self.host.first_vtime(dsq)
    }
    fn batch_hint(&self) -> usize {
        self.host.batch_hint()
    }
    fn now(&self) -> Duration {
        self.host.now()
    }
    fn error(&self, message: &str) {
        self.host.error(message);
    }
    fn exit(&self, code: u64, message: &str) {
        self.host.exit(code, message);
    }
}
