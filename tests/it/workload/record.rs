//! What came in the calls to a policy, and whether it may come.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use polity::{Host, TaskId};
use polity_tests::wait_until;

use super::lock;

/// What the policy of a [`Recorder`](super::Recorder) knows of a task, by the calls so far.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Known {
    pub(super) met: bool,
    pub(super) parted: bool,
    pub(super) runnable: bool,
    pub(super) running: bool,
    /// `stopping` said that it waits or is done: `quiescent` is due.
    pub(super) stopped: bool,
    pub(super) finished: bool,
    pub(super) custody: bool,
    pub(super) polled: bool,
}

/// How often each callback came, and what was wrong with the calls.
#[derive(Default)]
pub(crate) struct Record {
    /// No hash map: when one of fifty thousand tasks grows, in a callback of a debug build, that takes ten milliseconds, and the watchdog
    /// is right to end it.
    tasks: Vec<Mutex<BTreeMap<TaskId, Known>>>,
    inside: Vec<AtomicBool>,
    violations: Mutex<Vec<String>>,
    pub(super) exits: AtomicUsize,
    pub(super) exit_thread: Mutex<String>,
    pub(crate) enqueues: AtomicUsize,
    pub(crate) kept: AtomicUsize,
    pub(crate) dequeues: AtomicUsize,
    pub(crate) cancelled: AtomicUsize,
    pub(crate) runs: AtomicUsize,
    pub(crate) quiescents: AtomicUsize,
    pub(crate) finished: AtomicUsize,
    pub(crate) met: AtomicUsize,
    pub(crate) parted: AtomicUsize,
    pub(super) kept_values: AtomicUsize,
    dropped_values: AtomicUsize,
}

/// What a [`Recorder`](super::Recorder) keeps for a task: whose it is, by the record of which load, and what its policy
/// keeps.
#[derive(Default)]
pub(crate) struct Kept<T> {
    pub(super) of: Option<(TaskId, Arc<Record>)>,
    pub(super) inner: T,
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if let Some((_, record)) = &self.of {
            record.dropped_values.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Record {
    pub(super) fn new(workers: usize) -> Record {
        Record {
            tasks: (0..64).map(|_| Mutex::default()).collect(),
            inside: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            ..Record::default()
        }
    }

    /// Every value that was kept for a task has been dropped, once: the task has ended, or the generation.
    #[track_caller]
    pub(crate) fn check_nothing_is_kept(&self) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        wait_until("what was kept is dropped", || {
            count(&self.dropped_values) >= count(&self.kept_values)
        });
        assert_eq!(count(&self.dropped_values), count(&self.kept_values));
    }

    pub(super) fn violation(&self, text: impl fmt::Display) {
        let mut violations = lock(&self.violations);
        if violations.len() < 20 {
            violations.push(text.to_string());
        }
    }

    /// Panics if a call came that should not have come.
    #[track_caller]
    pub(crate) fn check(&self) {
        let violations = lock(&self.violations);
        assert!(violations.is_empty(), "{violations:#?}");
    }

    pub(crate) fn exits(&self) -> usize {
        self.exits.load(Ordering::SeqCst)
    }

    pub(crate) fn exit_thread(&self) -> String {
        lock(&self.exit_thread).clone()
    }

    /// Tasks that the policy has been told are runnable, and not yet otherwise.
    pub(crate) fn known_runnable(&self) -> usize {
        let runnable = |tasks: &Mutex<BTreeMap<TaskId, Known>>| {
            lock(tasks).values().filter(|task| task.runnable).count()
        };
        self.tasks.iter().map(runnable).sum()
    }

    pub(super) fn with(&self, task: TaskId, callback: &str, body: impl FnOnce(&mut Known) -> bool) {
        let mut tasks = lock(&self.tasks[task.slot() as usize % self.tasks.len()]);
        let known = tasks.entry(task).or_default();
        let before = *known;
        let ended = self.exits() > 0;
        if !body(known) || !known.met || before.parted || ended {
            let ended = if ended { ", after exit" } else { "" };
            self.violation(format_args!("{callback} of {task}{ended}: {before:?}"));
        }
    }

    /// Calls for one worker must not overlap.
    pub(super) fn enter(&self, host: &Host<'_>) -> Inside<'_> {
        let Some(worker) = host.worker() else {
            self.violation("a callback without a worker");
            return Inside(None);
        };
        let inside = &self.inside[worker.index()];
        if inside.swap(true, Ordering::SeqCst) {
            self.violation(format_args!("calls for worker {worker} overlap"));
        }
        Inside(Some(inside))
    }
}

pub(super) struct Inside<'a>(Option<&'a AtomicBool>);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some(inside) = self.0 {
            inside.store(false, Ordering::SeqCst);
        }
    }
}
