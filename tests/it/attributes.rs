//! What tasks are given: set, inherited, or by scope.

#![expect(
    clippy::async_yields_async,
    reason = "a task that answers with the handle of its child is the subject"
)]

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{
    Attributes, Handle, Host, JoinHandle, Policy, SpawnError, TaskId, TaskView, WorkerId,
    WorkerMask,
};
use polity_tests::{check, now, wait_for};

/// What a policy saw of a task when it was about to be polled first.
#[derive(Clone, PartialEq, Debug)]
struct Seen {
    name: Option<String>,
    weight: u32,
    group: u32,
    tag: u64,
    deadline: Option<Duration>,
    mask: Option<WorkerMask>,
}

#[derive(Clone, Default)]
struct Notes(Arc<Mutex<HashMap<TaskId, Seen>>>);

impl Policy for Notes {
    type Task = ();

    fn name(&self) -> &str {
        "notes"
    }
    fn running(&self, _host: &Host<'_>, task: &TaskView<'_>) {
        let seen = Seen {
            name: task.name().map(str::to_owned),
            weight: task.weight(),
            group: task.group(),
            tag: task.tag(),
            deadline: task.deadline(),
            mask: task.attributes().get_affinity().cloned(),
        };
        self.0.lock().unwrap().entry(task.id()).or_insert(seen);
    }
}

impl Notes {
    fn of(&self, task: TaskId) -> Seen {
        self.0.lock().unwrap()[&task].clone()
    }

    /// Runs the task to its end.
    fn after(&self, task: JoinHandle<()>) -> Seen {
        let id = task.id();
        wait_for("a task", task).unwrap();
        self.of(id)
    }
}

fn plain() -> Seen {
    Seen {
        name: None,
        weight: 100,
        group: 0,
        tag: 0,
        deadline: None,
        mask: None,
    }
}

fn only(workers: &[u16]) -> WorkerMask {
    workers.iter().copied().map(WorkerId::new).collect()
}

/// Under [`Notes`], with so many workers.
fn noted(workers: usize, body: impl FnOnce(&Handle, &Notes) + Send + 'static) {
    check(workers, |runtime| {
        let notes = Notes::default();
        runtime.load(notes.clone()).unwrap();
        body(&runtime, &notes);
    });
}

/// Runs `body` in a task with `attributes` and returns what it returns: the children that it spawned.
fn children<T: Send + 'static>(
    runtime: &Handle,
    attributes: Attributes,
    body: impl Future<Output = T> + Send + 'static,
) -> T {
    let parent = runtime.spawn_with(attributes, body).unwrap();
    wait_for("the parent", parent).unwrap()
}

fn request() -> Attributes {
    Attributes::new()
        .name("request")
        .weight(300)
        .group(7)
        .tag(42)
        .affinity(only(&[1]))
}

fn seen_request() -> Seen {
    Seen {
        name: Some("request".to_owned()),
        weight: 300,
        group: 7,
        tag: 42,
        mask: Some(only(&[1])),
        ..plain()
    }
}

#[test]
fn a_policy_sees_what_the_author_has_set() {
    noted(2, |runtime, notes| {
        let task = runtime.spawn_with(request(), async {}).unwrap();
        assert_eq!(notes.after(task), seen_request());
        assert_eq!(notes.after(runtime.spawn(async {})), plain());
    });
}

#[test]
fn a_deadline_is_shown_on_the_clock_of_the_host() {
    type Seen = Vec<(Option<Duration>, Duration)>;

    struct Clock(Arc<Mutex<Seen>>);
    impl Policy for Clock {
        type Task = ();

        fn name(&self) -> &str {
            "clock"
        }
        fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
            self.0.lock().unwrap().push((task.deadline(), host.now()));
        }
    }
    check(1, |runtime| {
        let seen = Arc::default();
        runtime.load(Clock(Arc::clone(&seen))).unwrap();
        let before = now();
        let deadline = before + Duration::from_secs(100);
        let attributes = Attributes::new().deadline(deadline);
        let task = runtime.spawn_with(attributes, async {}).unwrap();
        wait_for("the task", task).unwrap();
        let past = now() - before;
        let seen = seen.lock().unwrap();
        let (Some(deadline), at) = seen[0] else {
            panic!("no deadline: {seen:?}");
        };
        // The host's clock is read every few polls, so it may be a little behind.
        let left = deadline - at;
        let about = Duration::from_secs(100);
        assert!(left >= about - past, "{left:?}");
        assert!(left <= about + Duration::from_secs(1), "{left:?}");
    });
}

#[test]
fn a_task_inherits_what_its_parent_has_and_so_do_its_children() {
    noted(2, |runtime, notes| {
        let child = children(runtime, request(), async {
            polity::spawn(async { polity::spawn(async {}) })
        });
        let child_id = child.id();
        let grandchild = wait_for("the child", child).unwrap();
        assert_eq!(notes.of(child_id), seen_request());
        assert_eq!(notes.after(grandchild), seen_request());
    });
}

#[test]
fn a_deadline_is_inherited_also_when_it_has_passed_and_dies_with_the_slot() {
    noted(1, |runtime, notes| {
        let soon = now() + Duration::from_millis(20);
        let attributes = Attributes::new().deadline(soon);
        let child = children(runtime, attributes, async move {
            while now() < soon {
                polity::yield_now().await;
            }
            polity::spawn(async {})
        });
        assert!(notes.after(child).deadline.is_some());
        // Tasks without a deadline in slots of which one has had a deadline.
        for _ in 0..200 {
            assert_eq!(notes.after(runtime.spawn(async {})).deadline, None);
        }
    });
}

#[test]
fn attributes_that_are_set_replace_and_those_that_are_not_are_inherited() {
    noted(2, |runtime, notes| {
        let [lighter, retagged, elsewhere, free] = children(runtime, request(), async {
            let spawn = |attributes| polity::spawn_with(attributes, async {}).unwrap();
            [
                spawn(Attributes::new().weight(100)),
                spawn(Attributes::new().tag(0).group(0)),
                spawn(Attributes::new().affinity(only(&[0]))),
                spawn(Attributes::new().affinity(WorkerMask::all())),
            ]
        });
        let request = seen_request;
        let weight = 100;
        assert_eq!(
            notes.after(lighter),
            Seen {
                weight,
                ..request()
            }
        );
        let (tag, group) = (0, 0);
        assert_eq!(
            notes.after(retagged),
            Seen {
                tag,
                group,
                ..request()
            }
        );
        let mask = Some(only(&[0]));
        assert_eq!(notes.after(elsewhere), Seen { mask, ..request() });
        let mask = None;
        assert_eq!(notes.after(free), Seen { mask, ..request() });
    });
}

#[test]
fn a_detached_task_inherits_nothing_neither_from_its_parent_nor_from_a_scope() {
    noted(2, |runtime, notes| {
        let parent = request().deadline(now() + Duration::from_secs(100));
        let janitor = children(runtime, parent, async {
            let detached = Attributes::detached().name("janitor");
            let spawning = async { polity::spawn_with(detached, async {}).unwrap() };
            polity::with(Attributes::new().weight(7), spawning)
                .unwrap()
                .await
        });
        let name = Some("janitor".to_owned());
        assert_eq!(notes.after(janitor), Seen { name, ..plain() });
    });
}

#[test]
fn nothing_is_inherited_from_outside_or_from_another_runtime() {
    noted(2, |runtime, notes| {
        let elsewhere = polity_tests::runtime(2);
        let here = runtime.clone();
        let spawning = async move {
            polity::with(Attributes::new().weight(5), async { here.spawn(async {}) })
                .unwrap()
                .await
        };
        let task = wait_for(
            "the task of the other runtime",
            elsewhere.spawn_with(request(), spawning).unwrap(),
        )
        .unwrap();
        assert_eq!(notes.after(task), plain());
    });
}

/// What a policy's callback spawns on behalf of a task is not that task's child.
#[test]
fn a_task_that_a_callback_spawns_inherits_nothing() {
    type Children = Arc<Mutex<Vec<JoinHandle<()>>>>;
    struct Spawns(Handle, Notes, Children);
    impl Policy for Spawns {
        type Task = ();

        fn name(&self) -> &str {
            "spawns"
        }
        fn running(&self, host: &Host<'_>, task: &TaskView<'_>) {
            self.1.running(host, task);
            if task.tag() == 42 {
                self.2.lock().unwrap().push(self.0.spawn(async {}));
            }
        }
    }
    check(2, |runtime| {
        let (notes, spawned) = (Notes::default(), Children::default());
        let policy = Spawns(
            runtime.handle().clone(),
            notes.clone(),
            Arc::clone(&spawned),
        );
        runtime.load(policy).unwrap();
        let task = runtime.spawn_with(request(), async {}).unwrap();
        assert_eq!(notes.after(task), seen_request());
        for task in std::mem::take(&mut *spawned.lock().unwrap()) {
            assert_eq!(notes.after(task), plain());
        }
        // The policy keeps a handle to the runtime.
        runtime.unload();
    });
}

#[test]
fn a_scope_gives_its_attributes_to_all_that_is_spawned_inside() {
    noted(2, |runtime, notes| {
        // On the thread of `block_on`, which is no worker.
        let tasks = runtime.block_on(async {
            let before = polity::spawn(async {});
            let inside = polity::with(request(), async {
                let first = polity::spawn(async {});
                tokio::task::yield_now().await;
                [first, polity::spawn(async {})]
            });
            let [first, second] = inside.unwrap().await;
            [before, first, second, polity::spawn(async {})]
        });
        let seen = tasks.map(|task| notes.after(task));
        assert_eq!(seen, [plain(), seen_request(), seen_request(), plain()]);
    });
}

#[test]
fn scopes_nest_and_lie_over_what_the_task_has() {
    noted(2, |runtime, notes| {
        let parent = Attributes::new().name("parent").weight(10).tag(1);
        let tasks = children(runtime, parent, async {
            let outer = Attributes::new().weight(20).group(2);
            let inner = Attributes::new().weight(30);
            let both = polity::with(outer, async {
                let nested = polity::with(inner, async {
                    polity::yield_now().await;
                    let own = Attributes::new().weight(40);
                    [
                        polity::spawn(async {}),
                        polity::spawn_with(own, async {}).unwrap(),
                    ]
                });
                let [inner, own] = nested.unwrap().await;
                [inner, own, polity::spawn(async {})]
            });
            let [inner, own, outer] = both.unwrap().await;
            [inner, own, outer, polity::spawn(async {})]
        });
        let seen = tasks.map(|task| {
            let seen = notes.after(task);
            assert_eq!((seen.name.as_deref(), seen.tag), (Some("parent"), 1));
            (seen.weight, seen.group)
        });
        assert_eq!(seen, [(30, 2), (40, 2), (20, 2), (10, 0)]);
    });
}

/// The scope is the future's and not the thread's: what the worker polls in between is outside of it.
#[test]
fn a_scope_is_closed_while_its_future_waits_and_after_its_panic() {
    noted(1, |runtime, notes| {
        let (go_on, may_go_on) = tokio::sync::oneshot::channel::<()>();
        let scoped = runtime.spawn(
            polity::with(Attributes::new().weight(7), async move {
                may_go_on.await.unwrap();
                polity::spawn(async {})
            })
            .unwrap(),
        );
        let between = children(runtime, Attributes::new(), async {
            polity::spawn(async {})
        });
        assert_eq!(notes.after(between), plain());
        go_on.send(()).unwrap();
        let inside = wait_for("the scope", scoped).unwrap();
        assert_eq!(
            notes.after(inside),
            Seen {
                weight: 7,
                ..plain()
            }
        );

        let panics =
            polity::with(Attributes::new().weight(7), async { panic!("as ordered") }).unwrap();
        wait_for("the panic", runtime.spawn(panics)).unwrap_err();
        let after = children(runtime, Attributes::new(), async {
            polity::spawn(async {})
        });
        assert_eq!(notes.after(after), plain());
    });
}

#[test]
fn a_scope_moves_with_its_future_from_one_task_to_another() {
    noted(1, |runtime, notes| {
        let (spawned, is_spawned) = std::sync::mpsc::channel();
        let mut scope = Box::pin(
            polity::with(Attributes::new().weight(5), async move {
                loop {
                    spawned.send(polity::spawn(async {})).unwrap();
                    polity::yield_now().await;
                }
            })
            .unwrap(),
        );
        for group in 1..4 {
            let attributes = Attributes::new().group(group);
            scope = children(runtime, attributes, async move {
                assert!(futures::poll!(&mut scope).is_pending());
                scope
            });
            let task = is_spawned.recv().unwrap();
            assert_eq!(
                notes.after(task),
                Seen {
                    group,
                    weight: 5,
                    ..plain()
                }
            );
        }
    });
}

#[test]
fn a_scope_is_refused_for_the_reasons_for_which_a_spawn_is() {
    check(2, |runtime| {
        let nowhere = only(&[2, 9]);
        let bad = [
            (Attributes::new().weight(0), "weight is 0,"),
            (Attributes::new().weight(10_001), "weight is 10001,"),
            (Attributes::new().affinity(only(&[])), "affinity is {},"),
            (
                Attributes::new().affinity(nowhere.clone()),
                "affinity is {2, 9},",
            ),
            (Attributes::new().deadline(now()), "deadline is "),
        ];
        for (attributes, expected) in bad {
            let _entered = runtime.enter();
            let text = |error: SpawnError| error.to_string();
            let spawn = text(
                runtime
                    .spawn_with(attributes.clone(), async {})
                    .unwrap_err(),
            );
            let scope = text(polity::with(attributes, async {}).unwrap_err());
            assert!(spawn.contains(expected), "{spawn}");
            assert!(scope.contains(expected), "{scope}");
        }
        // Outside of a runtime, what can be known is checked.
        let weight = polity::with(Attributes::new().weight(0), async {}).unwrap_err();
        assert_eq!(weight, SpawnError::Weight(0));
        let late = polity::with(Attributes::new().deadline(now()), async {}).unwrap_err();
        assert!(matches!(late, SpawnError::Deadline { .. }), "{late}");
        // And a mask of workers that another runtime has does no harm here.
        let scope = polity::with(Attributes::new().affinity(nowhere), async {
            polity::spawn(async {}).await
        });
        wait_for("a task", runtime.spawn(scope.unwrap()))
            .unwrap()
            .unwrap();
    });
}
