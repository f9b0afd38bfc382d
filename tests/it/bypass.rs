//! Bypass: core runs every task, past the policy, which stays loaded and is told of polls.

mod custody;
mod guards;
mod life;
mod polls;
mod stress;

use std::fmt;
use std::sync::{Arc, Mutex};

use polity::{
    Attributes, Bypass, DsqId, InitError, JoinHandle, Policy, Position, Runtime, TaskView,
    WorkerId, WorkerMask,
};
use polity_tests::{wait_for, wait_until};

use crate::support::Blocker;
use crate::workload::{Record, Recorder, Script, lock, tagged};

/// From this tag on [`holding`] runs a task like any other, and notes the calls for it.
const RUNS: u64 = 100;

/// What a policy was told, in this order.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<(u64, String)>>>);

impl Calls {
    fn note(&self, task: &TaskView<'_>, call: impl fmt::Display) {
        if task.tag() != 0 {
            lock(&self.0).push((task.tag(), call.to_string()));
        }
    }

    /// About tasks with this tag.
    fn of(&self, tag: u64) -> Vec<String> {
        let calls = lock(&self.0);
        let mine = calls.iter().filter(|(about, _)| *about == tag);
        mine.map(|(_, call)| call.clone()).collect()
    }

    /// How often this call came, whatever its reason.
    fn count(&self, tag: u64, call: &str) -> usize {
        let made = self.of(tag);
        made.iter().filter(|made| made.starts_with(call)).count()
    }

    /// Each custody of a task with this tag has been ended by a bypass.
    fn all_bypassed(&self, tag: u64) -> bool {
        self.count(tag, "enqueue") == self.count(tag, "dequeue Bypass")
    }

    /// These calls, and after them no other by the time at which every worker has been through a poll.
    #[track_caller]
    fn expect(&self, runtime: &Runtime, tag: u64, expected: &[&str]) {
        wait_until("the policy has been told", || {
            self.of(tag).len() >= expected.len()
        });
        pass_each_worker(runtime);
        assert_eq!(self.of(tag), expected, "about tasks tagged {tag}");
    }
}

/// Runs tasks tagged 0, and from [`RUNS`] on. All others it has in its custody for ever, those with an even tag in a
/// custom DSQ. It notes every call for a task but those tagged 0.
fn holding(calls: &Calls) -> Script {
    let note = |call: &'static str| {
        let calls = calls.clone();
        move |_: &polity::Host<'_>, task: &TaskView<'_>| calls.note(task, call)
    };
    let (enqueued, dequeued, stopped) = (calls.clone(), calls.clone(), calls.clone());
    Script::new("holding")
        .init(|host| -> Result<(), InitError> {
            host.create_dsq(0)?;
            Ok(())
        })
        .enqueue(move |host, task| {
            enqueued.note(task, format_args!("enqueue {:?}", task.reason()));
            if task.tag() == 0 || task.tag() >= RUNS {
                host.insert(task.id(), DsqId::Global, Position::Tail);
            } else if task.tag().is_multiple_of(2) {
                host.insert(task.id(), DsqId::Custom(0), Position::Tail);
            }
        })
        .dequeue(move |_, task, reason| dequeued.note(task, format_args!("dequeue {reason:?}")))
        .runnable(note("runnable"))
        .running(note("running"))
        .quiescent(note("quiescent"))
        .stopping(move |_, task, how| stopped.note(task, format_args!("stopping {how:?}")))
}

/// Loads a policy with a check on all its calls. Returns when each worker follows it.
fn load(runtime: &Runtime, policy: impl Policy) -> Arc<Record> {
    let (policy, record) = Recorder::new(policy, runtime.worker_count());
    runtime.load(policy).unwrap();
    pass_each_worker(runtime);
    record
}

/// Loads [`holding`].
fn load_holding(runtime: &Runtime) -> (Calls, Arc<Record>) {
    let calls = Calls::default();
    let record = load(runtime, holding(&calls));
    (calls, record)
}

/// A task that may run on this worker alone.
fn only_on(worker: usize) -> Attributes {
    Attributes::new().affinity(WorkerMask::from_iter([WorkerId::new(worker as u16)]))
}

/// Returns when each worker has been through a poll, and so through the end of what it did before.
#[track_caller]
fn pass_each_worker(runtime: &Runtime) {
    for worker in 0..runtime.worker_count() {
        let pass = runtime.spawn_with(only_on(worker), async {}).unwrap();
        wait_for("a poll on each worker", pass).unwrap();
    }
}

/// A bypass that begins while every worker is in a poll. One in the middle of a pass may offer what was just taken from
/// the policy once more, and then take it back: good for the task, but not for a test that counts.
fn bypass_between_passes(runtime: &Runtime) -> Bypass {
    let blocked: Vec<_> = (0..runtime.worker_count())
        .map(|worker| Blocker::with(|body| runtime.spawn_with(only_on(worker), body).unwrap()))
        .collect();
    let guard = runtime.bypass();
    blocked.into_iter().for_each(Blocker::end);
    guard
}

/// A task in the custody of [`holding`], for all that the workers know.
#[track_caller]
fn held(runtime: &Runtime, record: &Record, tag: u64) -> JoinHandle<()> {
    // One that has not seen the end of a bypass yet would run it.
    pass_each_worker(runtime);
    let before = kept(record);
    let task = tagged(runtime, tag, async {});
    wait_until("the policy has the task", || kept(record) > before);
    pass_each_worker(runtime);
    task
}

fn kept(record: &Record) -> usize {
    record.kept.load(std::sync::atomic::Ordering::Relaxed)
}
