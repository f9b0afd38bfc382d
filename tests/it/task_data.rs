//! What a policy keeps for each task: made when the policy meets the task, found again in each callback about it, dropped
//! with the task or with the generation, and seen by nobody else.

mod ends;
mod zombies;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{
    Attributes, BoxPolicy, DequeueReason, DsqId, ExitKind, Generation, Host, InitError, JoinHandle,
    Policy, Position, Runtime, Stopped, TaskId, TaskView, WorkerId,
};
use polity_policies::{Fault, Faulty, Priority};
use polity_tests::{check, now, receive, wait_for, wait_until};
use tokio::sync::oneshot;

use crate::panics::load_while_busy;
use crate::support::settle;
use crate::workload::{GiveBack, Keeper, Mixed, Recorder, exit_of, lock, tagged};

/// What one load of a [`Diarist`] has seen, from outside.
#[derive(Default)]
struct Archive {
    made: AtomicUsize,
    dropped: AtomicUsize,
    parted: AtomicUsize,
}

impl Archive {
    fn made(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }

    fn parted(&self) -> usize {
        self.parted.load(Ordering::SeqCst)
    }
}

/// The data of one task: which callbacks have been about it.
#[derive(Default)]
struct Diary {
    task: Option<TaskId>,
    archive: Arc<Archive>,
    entries: Mutex<Vec<&'static str>>,
}

impl Drop for Diary {
    fn drop(&mut self) {
        self.archive.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Has each task in its own hands for a while, and writes each callback into the task's diary. Sends the diaries of those
/// that end.
struct Diarist {
    archive: Arc<Archive>,
    held: Mutex<Vec<TaskId>>,
    closed: Sender<(u64, Vec<&'static str>)>,
}

type Closed = Receiver<(u64, Vec<&'static str>)>;

fn diarist() -> (Diarist, Arc<Archive>, Closed) {
    let archive = Arc::<Archive>::default();
    let (closed, diaries) = channel();
    let diarist = Diarist {
        archive: Arc::clone(&archive),
        held: Mutex::default(),
        closed,
    };
    (diarist, archive, diaries)
}

impl Diarist {
    fn note(&self, task: &TaskView<'_, Diary>, callback: &'static str) {
        let diary = task.data();
        let is_ours = Arc::ptr_eq(&diary.archive, &self.archive) && diary.task == Some(task.id());
        lock(&diary.entries).push(if is_ours { callback } else { "not ours" });
    }
}

impl Policy for Diarist {
    type Task = Diary;

    fn name(&self) -> &str {
        "diarist"
    }

    fn init_task(&self, _host: &Host<'_>, task: &TaskView<'_>) -> Result<Diary, InitError> {
        self.archive.made.fetch_add(1, Ordering::SeqCst);
        Ok(Diary {
            task: Some(task.id()),
            archive: Arc::clone(&self.archive),
            entries: Mutex::default(),
        })
    }

    fn exit_task(&self, _host: &Host<'_>, task: &TaskView<'_, Diary>) {
        self.note(task, "exit_task");
        self.archive.parted.fetch_add(1, Ordering::SeqCst);
        let entries = std::mem::take(&mut *lock(&task.data().entries));
        let _ = self.closed.send((task.tag(), entries));
    }

    fn select_worker(&self, _host: &Host<'_>, task: &TaskView<'_, Diary>) -> WorkerId {
        self.note(task, "select_worker");
        task.last_worker()
    }

    fn enqueue(&self, _host: &Host<'_>, task: &TaskView<'_, Diary>) {
        self.note(task, "enqueue");
        lock(&self.held).push(task.id());
    }

    fn dequeue(&self, _host: &Host<'_>, task: &TaskView<'_, Diary>, reason: DequeueReason) {
        self.note(
            task,
            match reason {
                DequeueReason::Cancelled => "dequeue, cancelled",
                DequeueReason::Bypass => "dequeue, bypass",
                _ => "dequeue",
            },
        );
        lock(&self.held).retain(|held| *held != task.id());
    }

    fn dispatch(&self, host: &Host<'_>, _worker: WorkerId, prev: Option<&TaskView<'_, Diary>>) {
        if let Some(prev) = prev {
            self.note(prev, "prev");
        }
        let held = std::mem::take(&mut *lock(&self.held));
        for task in held {
            host.insert(task, DsqId::Local, Position::Tail);
        }
    }

    fn runnable(&self, _host: &Host<'_>, task: &TaskView<'_, Diary>) {
        self.note(task, "runnable");
    }

    fn running(&self, _host: &Host<'_>, task: &TaskView<'_, Diary>) {
        self.note(task, "running");
    }

    fn stopping(&self, _host: &Host<'_>, task: &TaskView<'_, Diary>, stopped: Stopped) {
        let waits = stopped != Stopped::StillRunnable;
        self.note(task, if waits { "stopping" } else { "pausing" });
    }

    fn quiescent(&self, _host: &Host<'_>, task: &TaskView<'_, Diary>) {
        self.note(task, "quiescent");
    }
}

/// One stretch of being runnable under a [`Diarist`].
const STRETCH: [&str; 7] = [
    "runnable",
    "select_worker",
    "enqueue",
    "dequeue",
    "running",
    "stopping",
    "quiescent",
];

/// A task that waits for its word; it is waiting when this returns.
fn waiting_task(runtime: &Runtime, tag: u64) -> (JoinHandle<()>, oneshot::Sender<()>) {
    let (word, comes) = oneshot::channel();
    let (began, has_begun) = channel();
    let task = tagged(runtime, tag, async move {
        began.send(()).unwrap();
        let _ = comes.await;
    });
    receive("its first poll", &has_begun);
    settle(runtime);
    (task, word)
}

/// The callbacks about the task with this tag, once it has ended.
#[track_caller]
fn diary_of(closed: &Closed, tag: u64) -> Vec<&'static str> {
    loop {
        let (of, entries) = receive("a diary", closed);
        if of == tag {
            return entries;
        }
    }
}

fn check_diary(load: impl FnOnce(&Runtime, Diarist) -> Generation + Send + 'static) {
    check(1, |runtime| {
        let (diarist, archive, closed) = diarist();
        load(&runtime, diarist);
        let (task, word) = waiting_task(&runtime, 1);
        word.send(()).unwrap();
        wait_for("the task", task).unwrap();
        let expected = [&STRETCH[..], &STRETCH[..], &["exit_task"]].concat();
        assert_eq!(diary_of(&closed, 1), expected);
        settle(&runtime);
        // One task is still about to part: the one that `settle` waited for.
        wait_until("all is dropped", || archive.dropped() == archive.made());
        assert!(runtime.policy_status().is_some());
    });
}

#[test]
fn a_value_is_made_before_the_first_callback_found_in_every_one_and_dropped_after_the_last() {
    check_diary(load_while_busy);
}

#[test]
fn a_policy_in_a_box_finds_its_values_too() {
    check_diary(|runtime, diarist| load_while_busy(runtime, BoxPolicy::new(diarist)));
}

#[test]
fn the_task_that_is_polled_still_is_shown_to_dispatch_with_its_value() {
    check(1, |runtime| {
        let (diarist, _, closed) = diarist();
        load_while_busy(&runtime, diarist);
        let task = tagged(&runtime, 1, async { polity::yield_now().await });
        wait_for("the task", task).unwrap();
        let diary = diary_of(&closed, 1);
        let pause = diary.iter().position(|entry| *entry == "pausing").unwrap();
        assert_eq!(diary[pause + 1], "prev", "{diary:?}");
        assert!(!diary.contains(&"not ours"), "{diary:?}");
    });
}

#[test]
fn the_next_task_in_the_same_slot_begins_with_a_value_of_its_own() {
    check(1, |runtime| {
        let (diarist, archive, closed) = diarist();
        load_while_busy(&runtime, diarist);
        settle(&runtime);
        // Spawned by a task, so that the worker's own stock of slots is used.
        let spawner = runtime.spawn(async {
            let mut slots = HashSet::new();
            for _ in 0..200 {
                let task = polity::spawn_with(Attributes::new().tag(1), async {}).unwrap();
                slots.insert(task.id().slot());
                task.await.unwrap();
            }
            slots.len()
        });
        let slots = wait_for("a task that spawns others", spawner).unwrap();
        assert!(slots < 200, "else this proves nothing");
        for _ in 0..200 {
            let expected = [&STRETCH[..], &["exit_task"]].concat();
            assert_eq!(diary_of(&closed, 1), expected);
        }
        settle(&runtime);
        wait_until("all is dropped", || archive.dropped() == archive.made());
    });
}

#[test]
fn a_value_survives_a_bypass_and_a_task_may_be_met_in_one() {
    check(1, |runtime| {
        let (diarist, archive, closed) = diarist();
        load_while_busy(&runtime, diarist);
        let (before, word) = waiting_task(&runtime, 1);
        let bypass = runtime.bypass();
        let (within, second_word) = waiting_task(&runtime, 2);
        word.send(()).unwrap();
        wait_for("a task of before, in the bypass", before).unwrap();
        let told = ["runnable", "running", "stopping", "quiescent"];
        let expected = [&STRETCH[..], &told, &["exit_task"]].concat();
        assert_eq!(diary_of(&closed, 1), expected);
        drop(bypass);
        settle(&runtime);
        second_word.send(()).unwrap();
        wait_for("a task of the bypass, after it", within).unwrap();
        let expected = [&told[..], &STRETCH, &["exit_task"]].concat();
        assert_eq!(diary_of(&closed, 2), expected);
        settle(&runtime);
        wait_until("all is dropped", || archive.dropped() == archive.made());
    });
}

#[test]
fn a_value_in_custody_survives_a_bypass() {
    check(1, |runtime| {
        // Gives nothing back of what it holds, and counts it.
        struct Shelf(Diarist, Arc<AtomicUsize>);
        impl Policy for Shelf {
            type Task = Diary;

            fn name(&self) -> &str {
                "shelf"
            }
            fn init_task(&self, host: &Host<'_>, task: &TaskView<'_>) -> Result<Diary, InitError> {
                self.0.init_task(host, task)
            }
            fn exit_task(&self, host: &Host<'_>, task: &TaskView<'_, Diary>) {
                self.0.exit_task(host, task);
            }
            fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_, Diary>) {
                self.0.note(task, "enqueue");
                if task.tag() == 1 {
                    self.1.fetch_add(1, Ordering::SeqCst);
                } else {
                    host.insert(task.id(), DsqId::Local, Position::Tail);
                }
            }
            fn dequeue(&self, host: &Host<'_>, task: &TaskView<'_, Diary>, reason: DequeueReason) {
                self.0.dequeue(host, task, reason);
            }
        }
        let (diarist, _, closed) = diarist();
        let kept = Arc::<AtomicUsize>::default();
        load_while_busy(&runtime, Shelf(diarist, Arc::clone(&kept)));
        let task = tagged(&runtime, 1, async {});
        wait_until("it is kept", || kept.load(Ordering::SeqCst) == 1);
        let bypass = runtime.bypass();
        wait_for("a task that was in custody", task).unwrap();
        let expected = ["enqueue", "dequeue, bypass", "exit_task"];
        assert_eq!(diary_of(&closed, 1), expected);
        drop(bypass);
    });
}

#[test]
fn a_value_dies_with_its_generation_and_the_next_one_of_the_same_policy_sees_none_of_it() {
    check(1, |runtime| {
        let (first, first_archive, first_closed) = diarist();
        load_while_busy(&runtime, first);
        let tasks: Vec<_> = (1..=20).map(|tag| waiting_task(&runtime, tag)).collect();
        let (second, second_archive, second_closed) = diarist();
        load_while_busy(&runtime, second);
        wait_until("the values of the first are dropped", || {
            first_archive.made() > 0 && first_archive.dropped() == first_archive.made()
        });
        for (task, word) in tasks {
            word.send(()).unwrap();
            wait_for("a task", task).unwrap();
        }
        for tag in 1..=20 {
            let expected = [&STRETCH[..], &["exit_task"]].concat();
            assert_eq!(diary_of(&second_closed, tag), expected, "of the second");
        }
        let parted_from = first_closed.try_iter().filter(|(tag, _)| *tag != 0);
        assert_eq!(parted_from.count(), 0, "the first hears of no end");
        runtime.unload();
        wait_until("the values of the second are dropped", || {
            second_archive.dropped() == second_archive.made()
        });
    });
}

#[test]
fn an_error_from_init_task_ejects_and_names_the_task_which_runs_all_the_same() {
    check(1, |runtime| {
        let generation = load_while_busy(&runtime, Faulty::new(Fault::RefuseTask(3)));
        let tasks: Vec<_> = (0..5)
            .map(|n| {
                let task = runtime.spawn(async move { n });
                wait_until("it has ended", || task.is_finished());
                (task.id(), task)
            })
            .collect();
        let info = exit_of(&runtime, generation);
        assert_eq!(info.kind, ExitKind::PolicyError);
        assert_eq!(
            info.message,
            "init_task: faulty: task 3 refused, as ordered"
        );
        assert_eq!(info.task, Some(tasks[2].0));
        assert!(info.worker.is_some());
        for (n, (_, task)) in tasks.into_iter().enumerate() {
            assert_eq!(wait_for("a task", task).unwrap(), n);
        }
    });
}

/// Bypasses begin and end all the time, so that tasks are met, polled and dropped in the middle of every change.
#[test]
fn each_task_that_is_met_is_parted_from_also_while_bypasses_come_and_go() {
    check(2, |runtime| {
        let (policy, record) = Recorder::new(Priority::new(), 2);
        let generation = load_while_busy(&runtime, policy);
        let work = Mixed::start(&runtime, 5);
        // Each child is known when it is woken for its last poll.
        let stop = Arc::<AtomicBool>::default();
        let parents = [(); 4].map(|()| {
            let stop = Arc::clone(&stop);
            runtime.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let (word, comes) = oneshot::channel();
                    let child = polity::spawn(comes);
                    polity::yield_now().await;
                    word.send(()).unwrap();
                    child.await.unwrap().unwrap();
                }
            })
        });
        // Each looks at all slots of the process: beside other tests those may be many.
        let begun = now();
        for _ in 0..20_000 {
            drop(runtime.bypass());
            if now() - begun > Duration::from_secs(5) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        for parent in parents {
            wait_for("a parent", parent).unwrap();
        }
        work.finish();
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        wait_until("all are parted from", || {
            let all = count(&record.met) == count(&record.parted);
            all || runtime.exit_info(generation).is_some()
        });
        let info = runtime.exit_info(generation);
        assert!(info.is_none(), "{}", info.unwrap());
        record.check();
        record.check_nothing_is_kept();
    });
}

/// A worker that does not know of a load yet may get a task that the new policy has met on another one.
#[test]
fn each_task_that_is_met_is_parted_from_also_when_it_is_met_while_the_policy_is_being_loaded() {
    check(2, |runtime| {
        let storm = Arc::<AtomicBool>::default();
        let over = Arc::clone(&storm);
        let handle = runtime.handle().clone();
        let storm_thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                drop(handle.bypass());
            }
        });
        for _ in 0..200 {
            let work = Mixed::start(&runtime, 1);
            let (policy, record) = Recorder::new(Keeper::new(GiveBack::Elsewhere), 2);
            runtime.load(policy).unwrap();
            work.finish();
            let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
            wait_until("all are parted from", || {
                count(&record.met) == count(&record.parted)
            });
            record.check();
        }
        storm.store(true, Ordering::Relaxed);
        storm_thread.join().unwrap();
    });
}
