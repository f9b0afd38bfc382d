//! A callback that did not return in time, and whose policy was ejected for it, may still touch what it was shown.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use polity::{DsqId, ExitKind, Host, InitError, Policy, Position, TaskView};
use polity_tests::{check, receive, wait_for, wait_until};

use crate::panics::load_while_busy;
use crate::workload::{Mixed, exit_of, lock, tagged};

/// Where the call about the task with tag 1 stays until it is let go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stuck {
    InitTask,
    Enqueue,
    Running,
    ExitTask,
}

/// A value on the heap, which a reader after its drop would find changed.
#[derive(Default)]
struct Testament {
    text: Box<str>,
    dropped: Arc<AtomicUsize>,
}

impl Drop for Testament {
    fn drop(&mut self) {
        self.text = "gone".into();
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

struct Undead {
    stuck: Stuck,
    made: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    begun: Sender<()>,
    let_go: Mutex<Receiver<()>>,
    /// What the stuck call reads when it is let go.
    read: Sender<String>,
    /// Its callbacks are not called any more.
    over: Arc<AtomicBool>,
}

impl Undead {
    fn stay(&self, at: Stuck, task: &TaskView<'_, Testament>) {
        if task.tag() == 1 && at == self.stuck {
            self.wait();
            self.read.send(task.data().text.to_string()).unwrap();
        } else {
            assert!(!self.over.load(Ordering::SeqCst), "called after the end");
        }
    }

    fn wait(&self) {
        self.begun.send(()).unwrap();
        let _ = lock(&self.let_go).recv();
    }
}

impl Policy for Undead {
    type Task = Testament;

    fn name(&self) -> &str {
        "undead"
    }

    fn init_task(&self, _host: &Host<'_>, task: &TaskView<'_>) -> Result<Testament, InitError> {
        if task.tag() == 1 && self.stuck == Stuck::InitTask {
            self.wait();
            self.read.send(format!("of {}", task.id())).unwrap();
        }
        self.made.fetch_add(1, Ordering::SeqCst);
        Ok(Testament {
            text: format!("of {}", task.id()).into(),
            dropped: Arc::clone(&self.dropped),
        })
    }

    fn exit_task(&self, _host: &Host<'_>, task: &TaskView<'_, Testament>) {
        self.stay(Stuck::ExitTask, task);
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_, Testament>) {
        self.stay(Stuck::Enqueue, task);
        host.insert(task.id(), DsqId::Global, Position::Tail);
    }

    fn running(&self, _host: &Host<'_>, task: &TaskView<'_, Testament>) {
        self.stay(Stuck::Running, task);
    }
}

/// Whose task has ended long ago, whose slot has other tenants, and whose policy has been loaded anew.
fn check_zombie(stuck: Stuck) {
    check(2, move |runtime| {
        let (made, dropped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
        let (begun, has_begun) = channel();
        let (release, let_go) = channel::<()>();
        let (read, was_read) = channel();
        let over = Arc::<AtomicBool>::default();
        let undead = Undead {
            stuck,
            made: Arc::clone(&made),
            dropped: Arc::clone(&dropped),
            begun,
            let_go: Mutex::new(let_go),
            read,
            over: Arc::clone(&over),
        };
        let generation = load_while_busy(&runtime, undead);
        let others: Vec<_> = (0..10)
            .map(|_| runtime.spawn(std::future::pending::<()>()))
            .collect();
        wait_until("it has met the others", || count(&made) >= 10);
        let task = tagged(&runtime, 1, async {});
        let id = task.id();
        receive("the call that stays", &has_begun);
        let info = exit_of(&runtime, generation);
        assert_eq!(info.kind, ExitKind::StuckCallback, "{info}");
        wait_until("it is convicted", || runtime.abandoned_threads() == 1);
        over.store(true, Ordering::SeqCst);
        wait_for("its task", task).unwrap();
        for other in others {
            other.abort();
            wait_for("another task", other).unwrap_err();
        }
        // Other tenants for its slot, under another load.
        let (next, archive, _closed) = super::diarist();
        load_while_busy(&runtime, next);
        let spawner = runtime.spawn(async move {
            let mut tenants = 0;
            for _ in 0..2_000 {
                let tenant = polity::spawn(async {});
                tenants += usize::from(tenant.id().slot() == id.slot());
                tenant.await.unwrap();
            }
            tenants
        });
        let tenants = wait_for("a task that spawns others", spawner).unwrap();
        Mixed::start(&runtime, 2).finish();
        println!("{stuck:?}: {tenants} later tenants of its slot");
        assert!(archive.made() >= 2_000);
        assert_eq!(count(&dropped), 0, "while a call is inside nothing goes");
        drop(release);
        let text = receive("what it reads", &was_read);
        assert_eq!(text, format!("of {id}"));
        wait_until("it is back", || runtime.abandoned_threads() == 0);
        wait_until("all is dropped", || count(&dropped) == count(&made));
        let expected = 11;
        assert_eq!(count(&made), expected);
        Mixed::start(&runtime, 2).finish();
        assert_eq!(count(&dropped), expected, "once");
    });
}

#[test]
fn a_call_that_comes_back_from_enqueue_finds_its_value_as_it_was() {
    check_zombie(Stuck::Enqueue);
}

#[test]
fn a_call_that_comes_back_from_running_finds_its_value_as_it_was() {
    check_zombie(Stuck::Running);
}

#[test]
fn a_call_that_comes_back_from_exit_task_finds_its_value_as_it_was() {
    check_zombie(Stuck::ExitTask);
}

#[test]
fn what_a_call_that_comes_back_from_init_task_has_made_is_dropped_with_the_generation() {
    check_zombie(Stuck::InitTask);
}
