//! Who woke a task, as policies see it that ask.

#![expect(
    clippy::async_yields_async,
    reason = "a task that answers with the handle of its child is the subject"
)]

use std::future::Future;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{Host, JoinHandle, Policy, Runtime, TaskId, TaskView, WakeSource, Wakes};
use polity_tests::{check, receive, wait_for, wait_until};
use tokio::sync::Notify;

type Seen = (TaskId, Option<WakeSource>, Option<TaskId>, Option<Duration>);

/// Writes down the wake of each task that it is offered.
#[derive(Clone)]
struct Notes {
    wakes: Wakes,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Notes {
    fn new(wakes: Wakes) -> Notes {
        let seen = Arc::default();
        Notes { wakes, seen }
    }

    /// The wakes of one task, in their order.
    fn of(&self, task: TaskId) -> Vec<(Option<WakeSource>, Option<TaskId>)> {
        let seen = self.seen.lock().unwrap();
        let its = seen.iter().filter(|(id, ..)| *id == task);
        its.map(|(_, source, by, _)| (*source, *by)).collect()
    }
}

impl Policy for Notes {
    type Task = ();

    fn name(&self) -> &str {
        "notes"
    }
    fn wakes(&self) -> Wakes {
        self.wakes
    }
    fn runnable(&self, _host: &Host<'_>, task: &TaskView<'_>) {
        let seen = (
            task.id(),
            task.wake_source(),
            task.woken_by(),
            task.woken_at(),
        );
        self.seen.lock().unwrap().push(seen);
    }
}

/// A task that waits for `notify` and has begun to.
fn waiting(runtime: &Runtime, notify: &Arc<Notify>) -> JoinHandle<()> {
    let (begun, has_begun): (_, Receiver<()>) = channel();
    let notify = Arc::clone(notify);
    let task = runtime.spawn(async move {
        let mut notified = std::pin::pin!(notify.notified());
        notified.as_mut().enable();
        begun.send(()).unwrap();
        notified.await;
    });
    receive("the first poll", &has_begun);
    settled(runtime);
    task
}

/// Waits until the only worker has been through another poll: then the one before is over.
fn settled(runtime: &Runtime) {
    crate::support::settle(runtime);
}

fn run<T>(runtime: &Runtime, body: impl Future<Output = T> + Send + 'static) -> (TaskId, T)
where
    T: Send + 'static,
{
    let task = runtime.spawn(body);
    (task.id(), wait_for("a task", task).unwrap())
}

#[test]
fn a_new_task_was_woken_by_the_task_that_spawned_it_or_by_none() {
    check(1, |runtime| {
        let notes = Notes::new(Wakes::Recorded);
        runtime.load(notes.clone()).unwrap();
        let (parent, child) = run(&runtime, async { polity::spawn(async {}) });
        let child_id = child.id();
        wait_for("the child", child).unwrap();
        let spawn = Some(WakeSource::Spawn);
        assert_eq!(notes.of(parent), [(spawn, None)]);
        assert_eq!(notes.of(child_id), [(spawn, Some(parent))]);
    });
}

#[test]
fn a_task_that_another_one_wakes_knows_it_and_when() {
    check(1, |runtime| {
        let notes = Notes::new(Wakes::Recorded);
        runtime.load(notes.clone()).unwrap();
        let notify = Arc::default();
        let woken = waiting(&runtime, &notify);
        let id = woken.id();
        let (waker, ()) = run(&runtime, async move { notify.notify_one() });
        wait_for("the woken task", woken).unwrap();
        assert_eq!(notes.of(id)[1..], [(Some(WakeSource::Task), Some(waker))]);
        let seen = notes.seen.lock().unwrap();
        assert!(seen.iter().all(|(.., at)| at.is_some()), "{seen:?}");
    });
}

#[test]
fn the_end_of_a_task_wakes_its_joiner_in_its_name() {
    check(1, |runtime| {
        let notes = Notes::new(Wakes::Recorded);
        runtime.load(notes.clone()).unwrap();
        let notify: Arc<Notify> = Arc::default();
        let joined = waiting(&runtime, &notify);
        let joined_id = joined.id();
        let joiner = runtime.spawn(joined);
        let joiner_id = joiner.id();
        settled(&runtime);
        notify.notify_one();
        wait_for("the joiner", joiner).unwrap().unwrap();
        let by_its_end = (Some(WakeSource::Task), Some(joined_id));
        assert_eq!(notes.of(joiner_id)[1..], [by_its_end]);
    });
}

#[test]
fn a_timer_and_a_thread_wake_in_the_name_of_no_task() {
    check(1, |runtime| {
        let notes = Notes::new(Wakes::Recorded);
        runtime.load(notes.clone()).unwrap();
        let (timed, ()) = run(&runtime, async {
            // A wake by the driver is the subject.
            tokio::time::sleep(Duration::from_millis(2)).await
        });
        assert_eq!(notes.of(timed)[1..], [(Some(WakeSource::Driver), None)]);
        let notify = Arc::default();
        let woken = waiting(&runtime, &notify);
        let id = woken.id();
        notify.notify_one();
        wait_for("the woken task", woken).unwrap();
        assert_eq!(notes.of(id)[1..], [(Some(WakeSource::Outside), None)]);
    });
}

#[test]
fn a_policy_that_does_not_ask_sees_no_wakes_also_after_one_that_did() {
    check(1, |runtime| {
        let asks = Notes::new(Wakes::Recorded);
        runtime.load(asks.clone()).unwrap();
        let notify = Arc::default();
        let first = waiting(&runtime, &notify);
        let id = first.id();
        assert_eq!(asks.of(id).len(), 1);
        let asks_not = Notes::new(Wakes::Ignored);
        runtime.load(asks_not.clone()).unwrap();
        settled(&runtime);
        notify.notify_one();
        wait_for("the woken task", first).unwrap();
        assert_eq!(asks_not.of(id), [(None, None)]);
        let seen = asks_not.seen.lock().unwrap();
        assert!(seen.iter().all(|(.., at)| at.is_none()), "{seen:?}");
    });
}

/// A wake that came before the load is nobody's, neither the one recorded for the last policy nor one that was not recorded.
#[test]
fn a_task_that_was_runnable_before_the_load_has_no_known_waker() {
    check(1, |runtime| {
        let first = Notes::new(Wakes::Recorded);
        runtime.load(first.clone()).unwrap();
        let blocker = crate::support::Blocker::new(&runtime);
        let task = runtime.spawn(async {});
        let id = task.id();
        let second = Notes::new(Wakes::Recorded);
        runtime.load(second.clone()).unwrap();
        blocker.end();
        wait_for("the task", task).unwrap();
        wait_until("it was seen", || !second.of(id).is_empty());
        assert_eq!(second.of(id), [(None, None)]);
        // From then on its wakes are known.
        let (next, ()) = run(&runtime, async {});
        assert_eq!(second.of(next), [(Some(WakeSource::Spawn), None)]);
    });
}
