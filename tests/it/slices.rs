//! Slices: how long a task goes on before its policy is asked for another one.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use polity::{Attributes, DsqId, Host, Policy, Position, Slice, TaskView, yield_if_due, yield_now};
use polity_tests::{burn, check, now, wait_for, wait_until};

use crate::support::yield_until;
use crate::workload::exit_of;

/// Longer than any test lasts.
const LONG: Slice = Slice::new(Duration::from_secs(3600));

/// One queue, a slice, and how often each task was enqueued and polled, by tag.
struct Sliced {
    slice: Slice,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    enqueued: [AtomicUsize; 4],
    polls: [AtomicUsize; 4],
    /// The tags of the tasks that were polled.
    order: Mutex<Vec<u64>>,
}

impl Counts {
    fn enqueued(&self, tag: usize) -> usize {
        self.enqueued[tag].load(Ordering::Relaxed)
    }

    fn polls(&self, tag: usize) -> usize {
        self.polls[tag].load(Ordering::Relaxed)
    }
}

fn sliced(slice: Slice) -> (Sliced, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    let policy = Sliced {
        slice,
        counts: Arc::clone(&counts),
    };
    (policy, counts)
}

impl Policy for Sliced {
    type Task = ();

    fn name(&self) -> &str {
        "sliced"
    }

    fn slice(&self) -> Slice {
        self.slice
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        self.counts.enqueued[task.tag() as usize].fetch_add(1, Ordering::Relaxed);
        host.insert(task.id(), DsqId::Local, Position::Tail);
    }

    fn running(&self, _host: &Host<'_>, task: &TaskView<'_>) {
        self.counts.polls[task.tag() as usize].fetch_add(1, Ordering::Relaxed);
        self.counts.order.lock().unwrap().push(task.tag());
    }
}

/// Pending once, and woken at once: what a channel does that is not empty.
async fn wake_myself() {
    let mut woken = false;
    poll_fn(|context| {
        if std::mem::replace(&mut woken, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn wake_myself_times(times: usize) {
    for _ in 0..times {
        wake_myself().await;
    }
}

#[test]
fn by_default_the_policy_is_asked_after_each_poll() {
    check(1, |runtime| {
        let (policy, counts) = sliced(Slice::POLL);
        runtime.load(policy).unwrap();
        // Another one, so that there is something else to run.
        let over = Arc::new(AtomicBool::new(false));
        let other = runtime.spawn_with(Attributes::new().tag(2), yield_until(&over));
        let task = runtime.spawn_with(Attributes::new().tag(1), wake_myself_times(50));
        wait_for("the task", task.unwrap()).unwrap();
        over.store(true, Ordering::Relaxed);
        wait_for("the other", other.unwrap()).unwrap();
        assert_eq!(counts.polls(1), 51);
        // Not each time: while the other one was not there yet it went on without.
        assert!(counts.enqueued(1) > 10, "{}", counts.enqueued(1));
    });
}

#[test]
fn a_task_with_time_left_goes_on_before_what_waits_behind_it() {
    check(1, |runtime| {
        let (policy, counts) = sliced(LONG);
        runtime.load(policy).unwrap();
        let handle = runtime.handle().clone();
        let first = runtime.spawn_with(Attributes::new().tag(1), async move {
            let behind = handle.spawn_with(Attributes::new().tag(2), async {});
            wake_myself_times(40).await;
            (behind.unwrap(),)
        });
        let (behind,) = wait_for("the first", first.unwrap()).unwrap();
        wait_for("the one behind", behind).unwrap();
        let order = counts.order.lock().unwrap().clone();
        let (last, before) = order.split_last().unwrap();
        assert_eq!((*last, before), (2, &[1; 41][..]));
        assert_eq!(counts.enqueued(1), 1);
    });
}

#[test]
fn a_yield_ends_the_slice() {
    check(1, |runtime| {
        let (policy, counts) = sliced(Slice::INFINITE);
        runtime.load(policy).unwrap();
        let handle = runtime.handle().clone();
        let first = runtime.spawn_with(Attributes::new().tag(1), async move {
            let behind = handle.spawn_with(Attributes::new().tag(2), async {});
            wake_myself_times(3).await;
            yield_now().await;
            wake_myself_times(3).await;
            (behind.unwrap(),)
        });
        let (behind,) = wait_for("the first", first.unwrap()).unwrap();
        wait_for("the one behind", behind).unwrap();
        let order = counts.order.lock().unwrap().clone();
        assert_eq!(order, [1, 1, 1, 1, 2, 1, 1, 1, 1]);
        assert_eq!(counts.enqueued(1), 2);
    });
}

#[test]
fn a_slice_that_is_used_up_ends() {
    check(1, |runtime| {
        let slice = Duration::from_millis(2);
        let (policy, counts) = sliced(Slice::new(slice));
        runtime.load(policy).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let tasks = [1, 2].map(|tag| {
            let over = Arc::clone(&over);
            let spawned = runtime.spawn_with(Attributes::new().tag(tag), async move {
                while !over.load(Ordering::Relaxed) {
                    burn(Duration::from_micros(100));
                    wake_myself().await;
                }
            });
            spawned.unwrap()
        });
        wait_until("both have had ten slices", || {
            counts.enqueued(1) > 10 && counts.enqueued(2) > 10
        });
        over.store(true, Ordering::Relaxed);
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
        // A slice holds up to twenty polls; fewer if the machine is slow.
        let polls = counts.polls(1) + counts.polls(2);
        let slices = counts.enqueued(1) + counts.enqueued(2);
        assert!(polls >= 2 * slices, "{polls} polls, {slices} slices");
        assert!(polls <= 21 * (slices + 2), "{polls} polls, {slices} slices");
    });
}

#[test]
fn a_poll_that_is_longer_than_the_slice_is_counted() {
    check(1, |runtime| {
        let (policy, _) = sliced(Slice::new(Duration::from_millis(1)));
        runtime.load(policy).unwrap();
        let long = runtime.spawn(async { burn(Duration::from_millis(5)) });
        wait_for("it", long).unwrap();
        wait_until("it is counted", || runtime.metrics().slice_overruns == 1);
        let over = Duration::from_nanos(runtime.metrics().slice_overrun_ns);
        assert!(over >= Duration::from_millis(4), "{over:?}");
    });
}

/// It would have its worker for ever, and the one behind it is in that worker's local DSQ.
#[test]
fn a_policy_whose_infinite_slices_starve_a_task_is_ejected() {
    check(1, |runtime| {
        struct Hasty(Sliced);

        impl Policy for Hasty {
            type Task = ();

            fn name(&self) -> &str {
                "hasty"
            }
            fn stall_timeout(&self) -> Option<Duration> {
                Some(Duration::from_millis(50))
            }
            fn slice(&self) -> Slice {
                Slice::INFINITE
            }
            fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
                self.0.enqueue(host, task);
            }
        }

        let (policy, _) = sliced(LONG);
        let generation = runtime.load(Hasty(policy)).unwrap();
        let [over, started] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (until, starts) = (Arc::clone(&over), Arc::clone(&started));
        let greedy = runtime.spawn(async move {
            starts.store(true, Ordering::Relaxed);
            while !until.load(Ordering::Relaxed) {
                wake_myself().await;
            }
        });
        wait_until("it has the worker", || started.load(Ordering::Relaxed));
        let starved = runtime.spawn(async {});
        let id = starved.id();
        wait_for("it", starved).unwrap();
        over.store(true, Ordering::Relaxed);
        wait_for("the greedy one", greedy).unwrap();
        let info = exit_of(&runtime, generation);
        assert_eq!((info.kind, info.task), (polity::ExitKind::Stall, Some(id)));
    });
}

#[test]
fn a_task_that_asks_is_told_when_its_slice_is_over() {
    for slice in [None, Some(Duration::from_millis(3))] {
        check(1, move |runtime| {
            if let Some(slice) = slice {
                runtime.load(sliced(Slice::new(slice)).0).unwrap();
            }
            let slice = slice.unwrap_or(Duration::from_millis(1));
            let polls = Arc::new(AtomicUsize::new(0));
            let counted = Arc::clone(&polls);
            let task = runtime.spawn(async move {
                let start = now();
                let asks = async {
                    for _ in 0..10 {
                        burn(slice / 2);
                        yield_if_due().await;
                    }
                };
                let mut asks = std::pin::pin!(asks);
                poll_fn(|context| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    asks.as_mut().poll(context)
                })
                .await;
                now() - start
            });
            let took = wait_for("the task", task).unwrap();
            let polls = polls.load(Ordering::Relaxed);
            // Five slices in half slices; on a slow machine each half may be a whole one.
            assert!((4..=11).contains(&polls), "{polls} polls in {took:?}");
        });
    }
}

#[test]
fn a_task_that_asks_too_early_goes_on() {
    check(1, |runtime| {
        runtime.load(sliced(Slice::INFINITE).0).unwrap();
        let asked = runtime.spawn(async {
            let mut pending = 0;
            for _ in 0..100_000 {
                let mut asks = std::pin::pin!(yield_if_due());
                poll_fn(|context| {
                    let poll = asks.as_mut().poll(context);
                    pending += usize::from(poll.is_pending());
                    Poll::Ready(())
                })
                .await;
            }
            pending
        });
        assert_eq!(wait_for("the task", asked).unwrap(), 0);
    });
}

#[test]
fn outside_a_task_nothing_is_ever_due() {
    check(1, |runtime| {
        runtime.block_on(async {
            burn(Duration::from_millis(3));
            yield_if_due().await;
        });
    });
}

#[test]
fn a_task_goes_on_where_it_is() {
    check(2, |runtime| {
        runtime.load(sliced(LONG).0).unwrap();
        let task = runtime.spawn(async {
            let mut threads = std::collections::HashSet::new();
            for _ in 0..100 {
                wake_myself().await;
                threads.insert(std::thread::current().id());
            }
            threads.len()
        });
        assert_eq!(wait_for("the task", task).unwrap(), 1);
    });
}

/// One queue in order; the tag of a task says what is said of its slice, and where.
struct Each;

const BY_ENQUEUE: u64 = 1;
const BY_RUNNING: u64 = 2;
const OF_ANOTHER: u64 = 3;
const TOO_LATE: u64 = 4;

impl Policy for Each {
    type Task = ();

    fn name(&self) -> &str {
        "each"
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
        match task.tag() {
            BY_ENQUEUE => host.set_slice(task.id(), Slice::INFINITE),
            OF_ANOTHER => host.set_slice(polity::TaskId::from_parts(u32::MAX, 1), LONG),
            _ => {}
        }
        host.insert(task.id(), DsqId::Local, Position::Tail);
    }

    fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if task.tag() == BY_RUNNING {
            host.set_slice(task.id(), LONG);
        }
    }

    fn quiescent(&self, host: &Host<'_>, task: &TaskView<'_>) {
        if task.tag() == TOO_LATE {
            host.set_slice(task.id(), LONG);
        }
    }
}

/// How many polls of a task come before that of one which it spawns, of so many that it needs.
fn polls_before_another(runtime: &polity::Handle, tag: u64) -> usize {
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let handle = runtime.clone();
    let task = runtime.spawn_with(Attributes::new().tag(tag), async move {
        let seen = Arc::clone(&counted);
        let another = Attributes::detached();
        let another = handle.spawn_with(another, async move { seen.load(Ordering::Relaxed) });
        for _ in 0..40 {
            counted.fetch_add(1, Ordering::Relaxed);
            wake_myself().await;
        }
        (another.unwrap(),)
    });
    let (another,) = wait_for("the task", task.unwrap()).unwrap();
    wait_for("the other", another).unwrap()
}

#[test]
fn a_slice_may_be_given_with_an_insert_or_when_the_task_begins_to_run() {
    check(1, |runtime| {
        let generation = runtime.load(Each).unwrap();
        for tag in [BY_ENQUEUE, BY_RUNNING] {
            assert_eq!(polls_before_another(&runtime, tag), 40);
        }
        // Nobody says anything: a poll each.
        assert!(polls_before_another(&runtime, 0) < 40);
        assert!(runtime.exit_info(generation).is_none());
    });
}

#[test]
fn a_slice_counts_for_one_insert() {
    struct Once(AtomicBool);

    impl Policy for Once {
        type Task = ();

        fn name(&self) -> &str {
            "once"
        }

        fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
            if task.tag() == BY_ENQUEUE && !self.0.swap(true, Ordering::Relaxed) {
                host.set_slice(task.id(), Slice::new(Duration::from_nanos(1)));
            }
            host.insert(task.id(), DsqId::Local, Position::Tail);
        }
    }

    check(1, |runtime| {
        runtime.load(Once(AtomicBool::new(false))).unwrap();
        let task = runtime.spawn_with(Attributes::new().tag(BY_ENQUEUE), async {
            for _ in 0..20 {
                burn(Duration::from_micros(10));
                yield_now().await;
            }
        });
        wait_for("the task", task.unwrap()).unwrap();
        wait_until("the overrun is counted", || {
            runtime.metrics().slice_overruns == 1
        });
    });
}

#[test]
fn a_slice_of_another_task_or_at_another_time_is_an_error() {
    for (tag, message) in [
        (OF_ANOTHER, "enqueue: set_slice of task "),
        (TOO_LATE, "quiescent: set_slice of task "),
    ] {
        check(1, move |runtime| {
            let generation = runtime.load(Each).unwrap();
            let task = runtime.spawn_with(Attributes::new().tag(tag), async {});
            wait_for("the task", task.unwrap()).unwrap();
            let info = exit_of(&runtime, generation);
            assert_eq!(info.kind, polity::ExitKind::Error);
            assert!(info.message.starts_with(message), "{info}");
        });
    }
}
