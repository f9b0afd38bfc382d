//! A policy that checks every call it gets.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use polity::{
    Accounting, DequeueReason, DsqId, EnqueueReason, ExitInfo, Host, InitError, Policy, Slice,
    Stopped, TaskId, TaskView, Wakes, WorkerId,
};

use super::lock;
use super::record::{Kept, Record};
use super::spy::Spy;

/// Passes every call on to another policy, and checks that calls come in the order that the contract promises.
pub(crate) struct Recorder<P> {
    inner: P,
    record: Arc<Record>,
}

impl<P: Policy> Recorder<P> {
    pub(crate) fn new(inner: P, workers: usize) -> (Recorder<P>, Arc<Record>) {
        let record = Arc::new(Record::new(workers));
        let recorder = Recorder {
            inner,
            record: Arc::clone(&record),
        };
        (recorder, record)
    }

    /// What the policy inside is shown. It must be this load's, and of this task.
    fn inside<'a>(&self, task: &TaskView<'a, Kept<P::Task>>) -> TaskView<'a, P::Task> {
        let kept = task.data();
        match &kept.of {
            Some((id, record)) if *id == task.id() && Arc::ptr_eq(record, &self.record) => {}
            Some((id, _)) => self.record.violation(format_args!(
                "{} was shown what is kept for {id}",
                task.id()
            )),
            None => self
                .record
                .violation(format_args!("{} was shown a default", task.id())),
        }
        task.with_data(&kept.inner)
    }

    /// The verdict has been given: the task is in custody, unless it went to a local or the global DSQ.
    fn judged(&self, task: TaskId, verdict: Option<DsqId>) {
        if matches!(verdict, None | Some(DsqId::Custom(_))) {
            self.record.kept.fetch_add(1, Ordering::Relaxed);
            self.record.with(task, "keeping", |known| {
                !std::mem::replace(&mut known.custody, true)
            });
        }
    }
}

impl<P: Policy> Policy for Recorder<P> {
    type Task = Kept<P::Task>;

    fn name(&self) -> &str {
        self.inner.name()
    }

    fn stall_timeout(&self) -> Option<Duration> {
        self.inner.stall_timeout()
    }

    fn slice(&self) -> Slice {
        self.inner.slice()
    }

    fn accounting(&self) -> Accounting {
        self.inner.accounting()
    }

    fn wakes(&self) -> Wakes {
        self.inner.wakes()
    }

    fn timer(&self, host: &Host<'_>, worker: WorkerId) {
        self.inner.timer(host, worker);
    }

    fn set_weight(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.inner.set_weight(host, task);
    }

    fn set_affinity(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.inner.set_affinity(host, task);
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        self.inner.init(host)
    }

    fn exit(&self, info: &ExitInfo) {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        *lock(&self.record.exit_thread) = name;
        if self.record.exits.fetch_add(1, Ordering::SeqCst) > 0 {
            self.record.violation("exit twice");
        }
        self.inner.exit(info);
    }

    fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<Self::Task, InitError> {
        let _inside = self.record.enter(host);
        self.record.met.fetch_add(1, Ordering::SeqCst);
        self.record.with(task.id(), "init_task", |known| {
            !std::mem::replace(&mut known.met, true)
        });
        let inner = self.inner.init_task(host, task)?;
        self.record.kept_values.fetch_add(1, Ordering::SeqCst);
        let of = Some((task.id(), Arc::clone(&self.record)));
        Ok(Kept { of, inner })
    }

    fn exit_task(&self, host: &Host<'_>, task: &TaskView<'_, Self::Task>) {
        let _inside = self.record.enter(host);
        self.record.parted.fetch_add(1, Ordering::SeqCst);
        self.record.with(task.id(), "exit_task", |known| {
            known.parted = true;
            !known.runnable && !known.running && !known.custody
        });
        self.inner.exit_task(host, &self.inside(task));
    }

    fn select_worker(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>) -> WorkerId {
        let _inside = self.record.enter(host);
        let fresh = matches!(task.reason(), EnqueueReason::Spawn | EnqueueReason::Wake);
        self.record.with(task.id(), "select_worker", |known| {
            fresh && known.runnable && !known.running && !known.custody
        });
        let spy = Spy {
            host: *host,
            verdict: Cell::new(None),
        };
        let worker = self
            .inner
            .select_worker(&Host::new(&spy), &self.inside(task));
        if let Some(verdict) = spy.verdict.get() {
            self.judged(task.id(), Some(verdict));
        }
        worker
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>) {
        let _inside = self.record.enter(host);
        self.record.enqueues.fetch_add(1, Ordering::Relaxed);
        self.record.with(task.id(), "enqueue", |known| {
            known.runnable && !known.running && !known.custody
        });
        let spy = Spy {
            host: *host,
            verdict: Cell::new(None),
        };
        self.inner.enqueue(&Host::new(&spy), &self.inside(task));
        self.judged(task.id(), spy.verdict.get());
    }

    fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>, reason: DequeueReason) {
        let _inside = self.record.enter(host);
        self.record.dequeues.fetch_add(1, Ordering::Relaxed);
        if reason == DequeueReason::Cancelled {
            self.record.cancelled.fetch_add(1, Ordering::Relaxed);
        }
        self.record.with(task.id(), "dequeue", |known| {
            std::mem::replace(&mut known.custody, false) && known.runnable && !known.running
        });
        self.inner.dequeue(host, &self.inside(task), reason);
    }

    fn dispatch(
        &self,
        host: &Host<'_>,
        worker: WorkerId,
        prev: Option<&TaskView<'_, Kept<P::Task>>>,
    ) {
        let _inside = self.record.enter(host);
        if host.worker() != Some(worker) {
            self.record.violation("dispatch for another worker");
        }
        if let Some(prev) = prev {
            self.record.with(prev.id(), "dispatch with prev", |known| {
                known.runnable && !known.running && !known.custody
            });
        }
        let prev = prev.map(|prev| self.inside(prev));
        self.inner.dispatch(host, worker, prev.as_ref());
    }

    fn runnable(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>) {
        let _inside = self.record.enter(host);
        self.record.with(task.id(), "runnable", |known| {
            let due = !known.runnable && !known.finished && !known.stopped && !known.custody;
            known.runnable = true;
            known.polled = false;
            due
        });
        self.inner.runnable(host, &self.inside(task));
    }

    fn running(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>) {
        let _inside = self.record.enter(host);
        self.record.runs.fetch_add(1, Ordering::Relaxed);
        self.record.with(task.id(), "running", |known| {
            let due = known.runnable && !known.running && !known.stopped && !known.custody;
            known.running = true;
            known.polled = true;
            due
        });
        self.inner.running(host, &self.inside(task));
    }

    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>, stopped: Stopped) {
        let _inside = self.record.enter(host);
        self.record.with(task.id(), "stopping", |known| {
            let due = known.runnable && known.running && !known.custody;
            known.running = false;
            known.stopped = stopped != Stopped::StillRunnable;
            known.finished |= stopped == Stopped::Finished;
            due
        });
        if stopped == Stopped::Finished {
            self.record.finished.fetch_add(1, Ordering::Relaxed);
        }
        self.inner.stopping(host, &self.inside(task), stopped);
    }

    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_, Kept<P::Task>>) {
        let _inside = self.record.enter(host);
        self.record.quiescents.fetch_add(1, Ordering::Relaxed);
        self.record.with(task.id(), "quiescent", |known| {
            // Without `stopping`: it was aborted.
            let due = known.runnable && !known.running && !known.custody;
            known.finished |= !known.stopped;
            known.runnable = false;
            known.stopped = false;
            due
        });
        self.inner.quiescent(host, &self.inside(task));
    }
}
