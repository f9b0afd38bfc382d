//! Callbacks that a policy does not write: called until core knows it, and not any more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use polity_policy::{BoxPolicy, Host, Policy, Stopped, TaskView, WorkerId};

use crate::scripted::world::{World, lock};
use crate::seat::SeatId;

const YIELDS: usize = 10;

/// Notes how many calls there were until each `dispatch`: one comes after each poll.
struct Plain {
    world: World,
    calls: Arc<Mutex<Vec<u64>>>,
}

impl Policy for Plain {
    type Task = ();

    fn name(&self) -> &str {
        "plain"
    }

    fn dispatch(&self, _host: &Host<'_>, _worker: WorkerId, _prev: Option<&TaskView<'_>>) {
        let activity = &self.world.core.seat(SeatId::new(0)).activity;
        // Each counts for two: one when it begins, one when it ends.
        let calls = activity.call.in_flight().unwrap() / 2;
        lock(&self.calls).push(calls);
    }
}

/// Hears of polls, and passes everything on to a policy that does not.
struct Around {
    inside: Plain,
    told: Arc<AtomicUsize>,
}

impl Policy for Around {
    type Task = ();

    fn name(&self) -> &str {
        "around"
    }

    fn dispatch(&self, host: &Host<'_>, worker: WorkerId, prev: Option<&TaskView<'_>>) {
        self.inside.dispatch(host, worker, prev);
    }

    fn runnable(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.told.fetch_add(1, Ordering::Relaxed);
        self.inside.runnable(host, task);
    }

    fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.told.fetch_add(1, Ordering::Relaxed);
        self.inside.running(host, task);
    }

    fn stopping(&self, host: &Host<'_>, task: &TaskView<'_>, stopped: Stopped) {
        self.told.fetch_add(1, Ordering::Relaxed);
        self.inside.stopping(host, task, stopped);
    }

    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.told.fetch_add(1, Ordering::Relaxed);
        self.inside.quiescent(host, task);
    }

    fn exit_task(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.told.fetch_add(1, Ordering::Relaxed);
        self.inside.exit_task(host, task);
    }
}

/// The calls from one `dispatch` to the next, itself included, of a task that yields, under the policy that `make` makes.
fn calls_between<P: Policy>(make: impl FnOnce(Plain) -> P) -> Vec<u64> {
    let world = World::new(1);
    let calls = Arc::default();
    let plain = Plain {
        world,
        calls: Arc::clone(&calls),
    };
    let policy = world.load(make(plain));
    let task = world.spawn(0, async {
        let mut left = YIELDS;
        std::future::poll_fn(|context| {
            left -= 1;
            context.waker().wake_by_ref();
            if left == 0 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    });
    world.run(0);
    assert!(task.is_finished());
    assert!(policy.exit_info().is_none());
    let calls = lock(&calls);
    // The last one comes when there is nothing left, before the worker parks.
    let polls = &calls[..YIELDS - 1];
    polls.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[test]
fn a_callback_that_the_policy_does_not_write_is_called_once() {
    // Before the first `dispatch`.
    let none_between = vec![1; YIELDS - 2];
    assert_eq!(calls_between(|plain| plain), none_between);
    assert_eq!(calls_between(BoxPolicy::new), none_between, "in a box");
}

#[test]
fn what_a_policy_does_not_write_says_nothing_about_the_policy_around_it() {
    let told = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&told);
    let running_and_stopping = vec![1 + 2; YIELDS - 2];
    let calls = calls_between(|inside| Around { inside, told });
    assert_eq!(calls, running_and_stopping);
    // Around each poll, and `runnable`, `quiescent` and `exit_task`.
    assert_eq!(count.load(Ordering::Relaxed), 2 * YIELDS + 3);
}
