//! However a task ends, what was kept for it is dropped once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use polity::{ExitKind, Host, InitError, Policy, TaskView};
use polity_policies::Priority;
use polity_tests::{check, wait_for, wait_until, within};

use super::{STRETCH, diarist, diary_of, waiting_task};
use crate::panics::load_while_busy;
use crate::support::settle;
use crate::workload::{Held, Recorder, exit_of, expect_ordered_panics, tagged};

#[test]
fn a_task_that_is_aborted_while_it_waits_is_parted_from() {
    check(1, |runtime| {
        let (policy, archive, closed) = diarist();
        load_while_busy(&runtime, policy);
        let (task, _word) = waiting_task(&runtime, 1);
        task.abort();
        wait_for("the task", task).unwrap_err();
        let expected = [&STRETCH[..], &["exit_task"]].concat();
        assert_eq!(diary_of(&closed, 1), expected, "nothing but the end");
        settle(&runtime);
        wait_until("it is dropped", || archive.dropped() == archive.made());
    });
}

#[test]
fn a_task_that_is_aborted_in_a_bypass_is_parted_from() {
    check(1, |runtime| {
        let (policy, archive, closed) = diarist();
        load_while_busy(&runtime, policy);
        let (task, _word) = waiting_task(&runtime, 1);
        let _bypass = runtime.bypass();
        task.abort();
        wait_for("the task", task).unwrap_err();
        let expected = [&STRETCH[..], &["exit_task"]].concat();
        assert_eq!(diary_of(&closed, 1), expected);
        settle(&runtime);
        wait_until("it is dropped", || archive.dropped() == archive.made());
    });
}

#[test]
fn a_task_that_panics_is_parted_from() {
    expect_ordered_panics();
    check(1, |runtime| {
        let (policy, archive, closed) = diarist();
        load_while_busy(&runtime, policy);
        let task = tagged(&runtime, 1, async { panic!("as ordered") });
        assert!(wait_for("the task", task).unwrap_err().is_panic());
        let expected = [&STRETCH[..], &["exit_task"]].concat();
        assert_eq!(diary_of(&closed, 1), expected);
        settle(&runtime);
        wait_until("it is dropped", || archive.dropped() == archive.made());
    });
}

#[test]
fn a_task_that_is_aborted_in_custody_leaves_it_becomes_quiescent_and_is_parted_from() {
    check(1, |runtime| {
        let (policy, record) = Recorder::new(crate::support::Hoarder, 1);
        load_while_busy(&runtime, policy);
        let task = runtime.spawn(async {});
        wait_until("it is kept", || record.kept.load(Ordering::SeqCst) == 1);
        task.abort();
        wait_for("the task", task).unwrap_err();
        wait_until("it is parted from", || {
            record.parted.load(Ordering::SeqCst) == 1
        });
        assert_eq!(record.cancelled.load(Ordering::SeqCst), 1);
        assert_eq!(record.quiescents.load(Ordering::SeqCst), 1);
        record.check();
        record.check_nothing_is_kept();
    });
}

#[test]
fn a_task_that_is_aborted_before_the_policy_has_met_it_is_never_heard_of() {
    check(1, |runtime| {
        let (policy, archive, closed) = diarist();
        load_while_busy(&runtime, policy);
        settle(&runtime);
        let held = Held::new(&runtime);
        let task = tagged(&runtime, 1, async {});
        task.abort();
        held.end();
        wait_for("the task", task).unwrap_err();
        settle(&runtime);
        wait_until("all are parted from", || archive.parted() == archive.made());
        assert!(closed.try_iter().all(|(tag, _)| tag != 1));
    });
}

#[test]
fn what_is_kept_for_tasks_that_outlive_their_runtime_is_dropped_with_the_policy() {
    within(|| {
        let runtime = polity_tests::runtime(1);
        let (policy, archive, _closed) = diarist();
        load_while_busy(&runtime, policy);
        let tasks = [1, 2, 3].map(|tag| waiting_task(&runtime, tag));
        drop(runtime);
        wait_until("all is dropped", || archive.dropped() == archive.made());
        for (task, _word) in tasks {
            assert!(task.is_finished());
        }
    });
}

/// A value whose drop panics if it is told to, and counts either way.
#[derive(Default)]
struct Bomb {
    drops: Arc<AtomicUsize>,
    armed: Arc<AtomicBool>,
}

impl Drop for Bomb {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
        let defused = !self.armed.load(Ordering::SeqCst) || std::thread::panicking();
        assert!(defused, "a value goes off, as ordered");
    }
}

#[derive(Default)]
struct Bomber {
    made: Arc<AtomicUsize>,
    drops: Arc<AtomicUsize>,
    armed: Arc<AtomicBool>,
}

impl Policy for Bomber {
    type Task = Bomb;

    fn name(&self) -> &str {
        "bomber"
    }

    fn init_task(&self, _host: &Host<'_>, _task: &TaskView<'_>) -> Result<Bomb, InitError> {
        self.made.fetch_add(1, Ordering::SeqCst);
        Ok(Bomb {
            drops: Arc::clone(&self.drops),
            armed: Arc::clone(&self.armed),
        })
    }
}

#[test]
fn a_value_whose_drop_panics_ejects_and_is_dropped_once() {
    expect_ordered_panics();
    check(1, |runtime| {
        let bomber = Bomber::default();
        let (made, drops) = (Arc::clone(&bomber.made), Arc::clone(&bomber.drops));
        bomber.armed.store(true, Ordering::SeqCst);
        let generation = load_while_busy(&runtime, bomber);
        let others = [(); 5].map(|()| runtime.spawn(std::future::pending::<()>()));
        wait_until("it has met them", || made.load(Ordering::SeqCst) == 5);
        let task = runtime.spawn(async {});
        let id = task.id();
        wait_for("the task", task).unwrap();
        let info = exit_of(&runtime, generation);
        assert_eq!(info.kind, ExitKind::Panic);
        assert!(
            info.message.starts_with("exit_task: a value goes off"),
            "{}",
            info.message
        );
        assert_eq!(info.task, Some(id));
        for other in others {
            other.abort();
            wait_for("another task", other).unwrap_err();
        }
        // Those that went with the generation have gone off too, each by itself.
        wait_until("all are dropped", || {
            drops.load(Ordering::SeqCst) == made.load(Ordering::SeqCst)
        });
        crate::panics::policies::check_another_can_be_loaded(&runtime);
        assert_eq!(drops.load(Ordering::SeqCst), made.load(Ordering::SeqCst));
    });
}

#[test]
fn values_whose_drops_panic_at_the_end_of_a_generation_cost_nobody_anything() {
    expect_ordered_panics();
    check(2, |runtime| {
        let bomber = Bomber::default();
        let (made, drops) = (Arc::clone(&bomber.made), Arc::clone(&bomber.drops));
        let armed = Arc::clone(&bomber.armed);
        load_while_busy(&runtime, bomber);
        let tasks: Vec<_> = (0..50)
            .map(|_| runtime.spawn(std::future::pending::<()>()))
            .collect();
        wait_until("it has met them", || made.load(Ordering::SeqCst) == 50);
        armed.store(true, Ordering::SeqCst);
        runtime.load(Priority::new()).unwrap();
        wait_until("all are dropped", || drops.load(Ordering::SeqCst) == 50);
        for task in tasks {
            task.abort();
            wait_for("a task", task).unwrap_err();
        }
        crate::panics::policies::check_another_can_be_loaded(&runtime);
        assert_eq!(drops.load(Ordering::SeqCst), 50);
    });
}

/// Writes nothing but what it keeps.
struct Keeps(Arc<AtomicUsize>);

/// Counts when it is dropped.
#[derive(Default)]
struct Kept(Option<Arc<AtomicUsize>>);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(dropped) = &self.0 {
            dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Policy for Keeps {
    type Task = Kept;

    fn name(&self) -> &str {
        "keeps"
    }

    fn init_task(&self, _host: &Host<'_>, _task: &TaskView<'_>) -> Result<Kept, InitError> {
        Ok(Kept(Some(Arc::clone(&self.0))))
    }
}

/// The first task says that `exit_task` is not written; the others count on being parted from all the same.
#[test]
fn what_is_kept_is_dropped_with_the_task_also_by_a_policy_that_writes_no_notifier() {
    check(1, |runtime| {
        let dropped = Arc::new(AtomicUsize::new(0));
        runtime.load(Keeps(Arc::clone(&dropped))).unwrap();
        for ended in 1..=10 {
            wait_for("a task", runtime.spawn(async {})).unwrap();
            wait_until("it is dropped", || dropped.load(Ordering::SeqCst) == ended);
        }
    });
}
