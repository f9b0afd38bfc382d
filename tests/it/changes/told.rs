//! What policies hear of changes.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use polity::{AbortHandle, DsqId, ExitKind, Host, Position, TaskId, TaskView};
use polity_tests::{check_without_spares as check, receive, wait_for, wait_until};
use tokio::sync::Notify;

use super::{only, waiting};
use crate::affinity::workers_of;
use crate::support::{Threads, settle, yield_until};
use crate::workload::{Script, exit_of, expect_ordered_panics, lock, tagged};

type Heard = Arc<Mutex<Vec<(TaskId, u32, ThreadId)>>>;

/// Notes weights: those of `set_weight`, and those at `running`.
fn listener(told: &Heard, ran: &Heard) -> Script {
    let note = |heard: &Heard| {
        let heard = Arc::clone(heard);
        move |_: &Host<'_>, task: &TaskView<'_>| {
            lock(&heard).push((task.id(), task.weight(), thread::current().id()));
        }
    };
    Script::new("listener")
        .set_weight(note(told))
        .running(note(ran))
}

#[test]
fn a_policy_is_told_of_a_new_weight_by_a_worker_and_sees_it_from_then_on() {
    check(1, |runtime| {
        let (told, ran) = (Heard::default(), Heard::default());
        runtime.load(listener(&told, &ran)).unwrap();
        let worker = workers_of(&runtime)[0];
        let stop = Arc::new(AtomicBool::new(false));
        let task = runtime.spawn(yield_until(&stop));
        // Before, the first `runnable` would show it.
        let id = task.id();
        wait_until("it has run", || lock(&ran).iter().any(|it| it.0 == id));
        task.set_weight(700).unwrap();
        wait_until("it was told", || !lock(&told).is_empty());
        assert_eq!(*lock(&told), [(task.id(), 700, worker)]);
        let seen = lock(&ran).len();
        wait_until("it has run again", || lock(&ran).len() > seen + 1);
        assert_eq!(lock(&ran).last().map(|(_, weight, _)| *weight), Some(700));
        stop.store(true, Ordering::Relaxed);
        wait_for("the task", task).unwrap();
    });
}

#[test]
fn changes_of_a_runnable_task_merge_and_those_of_a_waiting_one_are_not_told() {
    check(1, |runtime| {
        let (told, ran) = (Heard::default(), Heard::default());
        runtime.load(listener(&told, &ran)).unwrap();
        let notify = Arc::default();
        let waits = waiting(&runtime, &notify, &Threads::default());
        let waits_id = waits.id();
        // Offered, and then passed over by a long poll.
        let (begun, has_begun) = channel();
        let (release, released) = channel::<()>();
        let runnable = runtime.spawn(async move {
            begun.send(()).unwrap();
            let _ = released.recv();
            polity::yield_now().await;
        });
        receive("the long poll", &has_begun);
        for weight in [300, 400, 500] {
            waits.set_weight(weight + 1).unwrap();
            runnable.set_weight(weight).unwrap();
        }
        assert!(lock(&told).is_empty(), "policy code on the caller's thread");
        drop(release);
        let id = runnable.id();
        wait_for("the runnable task", runnable).unwrap();
        let heard: Vec<_> = lock(&told).iter().map(|it| (it.0, it.1)).collect();
        assert_eq!(heard, [(id, 500)]);
        notify.notify_one();
        wait_for("the waiting task", waits).unwrap();
        let ran: Vec<_> = lock(&ran).iter().map(|it| (it.0, it.1)).collect();
        assert_eq!(ran.last(), Some(&(waits_id, 501)));
    });
}

/// More than one call tells of, and nothing else to do.
#[test]
fn a_policy_is_told_of_every_task_before_its_worker_parks() {
    check(1, |runtime| {
        const TASKS: usize = 200;
        let told = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&told);
        let kept: Arc<Mutex<Vec<TaskId>>> = Arc::default();
        let keep = Arc::clone(&kept);
        let policy = Script::new("keeps")
            .enqueue(move |_, task| lock(&keep).push(task.id()))
            .set_weight(move |_, task| {
                assert_eq!(task.weight(), 9);
                count.fetch_add(1, Ordering::Relaxed);
            });
        runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..TASKS).map(|_| runtime.spawn(async {})).collect();
        wait_until("the policy has all", || lock(&kept).len() == TASKS);
        tasks.iter().for_each(|task| task.set_weight(9).unwrap());
        wait_until("all were told", || told.load(Ordering::Relaxed) >= TASKS);
        assert_eq!(told.load(Ordering::Relaxed), TASKS);
        runtime.unload();
        for task in tasks {
            wait_for("a task", task).unwrap();
        }
    });
}

#[test]
fn a_policy_that_changes_weights_while_it_is_told_holds_up_no_task() {
    check(1, |runtime| {
        let handle: Arc<Mutex<Option<AbortHandle>>> = Arc::default();
        let changed = Arc::clone(&handle);
        let policy = Script::new("restless").set_weight(move |_, task| {
            if let Some(handle) = &*lock(&changed) {
                let _ = handle.set_weight(task.weight() % 100 + 1);
            }
        });
        runtime.load(policy).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let task = runtime.spawn(yield_until(&stop));
        *lock(&handle) = Some(task.abort_handle());
        task.set_weight(1).unwrap();
        for _ in 0..100 {
            wait_for("another task", runtime.spawn(async {})).unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        wait_for("the task", task).unwrap();
        assert!(runtime.unload().is_some(), "it was not ejected");
    });
}

#[test]
fn a_policy_that_is_wrong_when_it_is_told_is_ejected_by_the_name_of_the_callback() {
    type Callback = fn(&Host<'_>, &TaskView<'_>);
    let inserts: Callback = |host, task| {
        host.insert(task.id(), DsqId::Global, Position::Tail);
    };
    let panics: Callback = |_, _| panic!("as ordered");
    expect_ordered_panics();
    for (body, kind, said) in [
        (inserts, ExitKind::Error, "insert of task"),
        (panics, ExitKind::Panic, "as ordered"),
    ] {
        check(1, move |runtime| {
            for told_by in ["set_weight", "set_affinity"] {
                let met = Arc::new(AtomicBool::new(false));
                let meets = Arc::clone(&met);
                let policy = Script::new("wrong")
                    .running(move |_, task| {
                        meets.fetch_or(task.tag() == 1, Ordering::SeqCst);
                    })
                    .set_weight(body)
                    .set_affinity(body);
                let stop = Arc::new(AtomicBool::new(false));
                let task = tagged(&runtime, 1, yield_until(&stop));
                let generation = runtime.load(policy).unwrap();
                wait_until("it knows the task", || met.load(Ordering::SeqCst));
                match told_by {
                    "set_weight" => task.set_weight(3).unwrap(),
                    _ => task.set_affinity(only([0])).unwrap(),
                }
                let info = exit_of(&runtime, generation);
                let text = &info.message;
                assert_eq!((info.kind, info.task), (kind, Some(task.id())), "{info}");
                assert!(text.starts_with(told_by) && text.contains(said), "{text}");
                stop.store(true, Ordering::Relaxed);
                wait_for("the task", task).unwrap();
            }
        });
    }
}

#[test]
fn children_inherit_what_has_been_changed_and_the_next_tenant_of_a_slot_does_not() {
    check(1, |runtime| {
        let weights: Arc<Mutex<HashMap<TaskId, u32>>> = Arc::default();
        let note = Arc::clone(&weights);
        let policy = Script::new("weights").running(move |_, task| {
            lock(&note).insert(task.id(), task.weight());
        });
        runtime.load(policy).unwrap();
        let notify: Arc<Notify> = Arc::default();
        let may_spawn = Arc::clone(&notify);
        let spawn = || polity::spawn(async {});
        let parent = runtime.spawn(async move {
            let before = spawn();
            may_spawn.notified().await;
            [before, spawn()]
        });
        settle(&runtime);
        parent.set_weight(30).unwrap();
        notify.notify_one();
        let children = wait_for("the parent", parent).unwrap().map(|child| {
            let id = child.id();
            wait_for("a child", child).unwrap();
            lock(&weights)[&id]
        });
        assert_eq!(children, [100, 30]);
        for _ in 0..300 {
            let next = runtime.spawn(async {});
            let id = next.id();
            wait_for("the next tenant", next).unwrap();
            assert_eq!(lock(&weights)[&id], 100);
        }
    });
}
