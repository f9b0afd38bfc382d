//! Load, swap, unload, eject: what ends a policy, who is told, and that its tasks go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use polity::{
    Attributes, Callback as CoreCallback, DsqId, EnqueueReason, ExitInfo, ExitKind, Handle, Host,
    InitError, LoadError, LoadRefused, Policy, Position, TaskView, WorkerId, WorkerMask, yield_now,
};
use polity_policies::{Callback, Fault, Faulty, Fifo, Priority};
use polity_tests::{DEADLINE, check, now, receive, wait_for, wait_until, within};

use crate::support::{ON_WORKERS, Yielding};
use crate::workload::{Mixed, Recorder, Script, exit_of, expect_ordered_panics, lock, tagged};

/// Runs only tasks tagged 0. Has all others in its custody, every second one in a custom DSQ, and gives none back.
fn holds_back(name: &str, offered: Sender<(u64, EnqueueReason)>) -> Script {
    Script::new(name)
        .init(|host| {
            host.create_dsq(0)?;
            Ok(())
        })
        .enqueue(move |host, task| {
            if task.tag() == 0 {
                host.insert(task.id(), DsqId::Global, Position::Tail);
                return;
            }
            if task.tag().is_multiple_of(2) {
                host.insert(task.id(), DsqId::Custom(0), Position::Tail);
            }
            let _ = offered.send((task.tag(), task.reason()));
        })
}

#[test]
fn generations_count_up_and_status_names_the_loaded_one() {
    check(1, |runtime| {
        assert!(runtime.policy_status().is_none());
        assert!(runtime.unload().is_none());
        assert!(runtime.eject("nobody there").is_none());
        let first = runtime.load(Fifo::new()).unwrap();
        let status = runtime.policy_status().unwrap();
        assert_eq!((status.name.as_str(), status.generation), ("fifo", first));
        let second = runtime.load(Priority::new()).unwrap();
        assert!(second > first);
        assert_eq!(runtime.policy_status().unwrap().generation, second);
        assert!(runtime.exit_info(second).is_none());
        assert!(
            runtime
                .wait_exit(second, Duration::from_millis(1))
                .is_none()
        );
        let info = exit_of(&runtime, first);
        assert_eq!((info.kind, info.kind.number()), (ExitKind::Swap, 68));
        assert_eq!(
            info.message,
            format!("by policy \"priority\" (generation {second})")
        );
    });
}

#[test]
fn what_ended_a_policy_is_said_in_its_exit_info() {
    check(2, |runtime| {
        let end = |how: &dyn Fn(&Handle)| {
            let generation = runtime.load(Fifo::new()).unwrap();
            how(&runtime);
            let info = exit_of(&runtime, generation);
            assert_eq!((info.policy.as_str(), info.code), ("fifo", 0));
            assert_eq!((info.worker, info.task), (None, None));
            (info.kind, info.message.clone())
        };
        let unloaded = end(&|runtime| drop(runtime.unload()));
        assert_eq!(unloaded, (ExitKind::Unload, String::new()));
        let ejected = end(&|runtime| drop(runtime.eject("too slow for us")));
        assert_eq!(ejected, (ExitKind::Ejected, "too slow for us".to_owned()));
    });
}

#[test]
fn dropping_the_runtime_ends_the_policy_with_kind_shutdown() {
    within(|| {
        let (exited, exit) = channel();
        let runtime = polity_tests::runtime(2);
        let policy = Script::new("until_the_end").exit(move |info| exited.send(info.kind).unwrap());
        runtime.load(policy).unwrap();
        drop(runtime);
        assert_eq!(receive("exit", &exit), ExitKind::Shutdown);
    });
}

#[test]
fn exit_is_called_once_and_last_on_a_thread_of_its_own_and_so_is_drop() {
    for _ in 0..20 {
        check(2, |runtime| {
            let (dropped, drop_of) = channel();
            let inner = Script::new("ends").dropped(move || {
                let thread = thread::current().name().unwrap_or_default().to_owned();
                dropped.send(thread).unwrap();
            });
            let (policy, record) = Recorder::new(inner, 2);
            let generation = runtime.load(policy).unwrap();
            let load = Mixed::start(&runtime, 3);
            let polls = runtime.metrics().polls + 20;
            wait_until("it has run a little", || runtime.metrics().polls >= polls);
            let info = runtime.unload().unwrap();
            assert_eq!(exit_of(&runtime, generation).to_string(), info.to_string());
            assert_eq!(receive("the drop of the policy", &drop_of), "polity-exit");
            assert_eq!(record.exits(), 1, "exit comes before drop");
            assert_eq!(record.exit_thread(), "polity-exit");
            load.finish();
            record.check();
        });
    }
}

/// An ejection from inside a callback: the worker that finds the fault must not run the policy's drop either.
#[test]
fn a_policy_that_ends_itself_is_not_dropped_on_the_worker_that_it_ended_on() {
    check(1, |runtime| {
        let (dropped, drop_of) = channel();
        let policy = Script::new("ends_itself")
            .enqueue(|host, _| host.exit(7, "enough"))
            .dropped(move || {
                let thread = thread::current().name().unwrap_or_default().to_owned();
                dropped.send(thread).unwrap();
            });
        let generation = runtime.load(policy).unwrap();
        wait_for("the task", runtime.spawn(async {})).unwrap();
        assert_eq!(exit_of(&runtime, generation).kind, ExitKind::PolicyExit);
        assert_eq!(receive("the drop of the policy", &drop_of), "polity-exit");
    });
}

/// Loads `bad` over a running policy, expects `Err`, and that the old one goes on.
fn check_refused(bad: impl Policy, expected: impl FnOnce(&LoadError) -> bool + Send + 'static) {
    expect_ordered_panics();
    check(2, |runtime| {
        let enqueues = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&enqueues);
        let old = Script::new("old").enqueue(move |host, task| {
            counted.fetch_add(1, Ordering::Relaxed);
            host.insert(task.id(), DsqId::Global, Position::Tail);
        });
        let generation = runtime.load(old).unwrap();
        let error = runtime.load(bad).unwrap_err();
        assert!(expected(&error), "{error:?}: {error}");
        assert_eq!(runtime.policy_status().unwrap().generation, generation);
        let before = enqueues.load(Ordering::Relaxed);
        wait_for("a task", runtime.spawn(async {})).unwrap();
        assert!(
            enqueues.load(Ordering::Relaxed) > before,
            "the old one ran on"
        );
        assert!(runtime.exit_info(generation).is_none());
    });
}

#[test]
fn an_init_that_fails_leaves_the_old_policy_running_and_tells_the_caller() {
    check_refused(Faulty::new(Fault::RefuseInit), |error| {
        *error
            == LoadError::Refused(LoadRefused::Init(
                "faulty: init refuses, as ordered".to_owned(),
            ))
    });
    let panics = Fault::Panic {
        callback: Callback::Init,
        call: 1,
    };
    check_refused(Faulty::new(panics), |error| {
        let message = "faulty: panic in init, call 1, as ordered".to_owned();
        *error
            == LoadError::Refused(LoadRefused::Panicked {
                callback: CoreCallback::Init,
                message,
            })
    });
}

#[test]
fn an_init_that_ends_the_policy_through_the_host_is_refused() {
    let exits = Script::new("exits").init(|host| {
        host.exit(3, "not today");
        Ok(())
    });
    check_refused(exits, |error| error.to_string().contains("not today"));
    let fails = Script::new("fails").init(|host| {
        host.error("no such class");
        Ok(())
    });
    check_refused(fails, |error| error.to_string().contains("no such class"));
    let inserts = Script::new("inserts").init(|host| {
        host.insert(
            polity::TaskId::from_parts(1, 1),
            DsqId::Global,
            Position::Tail,
        );
        Ok(())
    });
    check_refused(inserts, |error| {
        error
            .to_string()
            .contains("init: insert of task 1.1 into DSQ global")
    });
}

/// For a policy whose `init` was called, that nothing else is.
#[test]
fn a_policy_that_was_refused_gets_neither_exit_nor_tasks_and_is_dropped() {
    check(2, |runtime| {
        let (dropped, drop_of) = channel();
        let called = Arc::new(AtomicUsize::new(0));
        let (enqueued, exited) = (Arc::clone(&called), Arc::clone(&called));
        let policy = Script::new("refused")
            .init(|_| Err("no".into()))
            .enqueue(move |_, _| {
                enqueued.fetch_add(1, Ordering::SeqCst);
            })
            .exit(move |_| {
                exited.fetch_add(1, Ordering::SeqCst);
            })
            .dropped(move || {
                dropped
                    .send(thread::current().name().map(str::to_owned))
                    .unwrap()
            });
        runtime.load(policy).unwrap_err();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        let thread = receive("the drop of the policy", &drop_of);
        assert_ne!(thread.as_deref(), Some("polity-worker"));
        assert_ne!(thread.as_deref(), Some("polity-control"));
        assert_eq!(called.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn an_init_that_hangs_is_given_up_after_its_deadline_and_another_load_works() {
    check(1, |runtime| {
        let (release, released) = channel::<()>();
        let (dropped, drop_of) = channel();
        let released = Mutex::new(released);
        let hangs = Script::new("hangs")
            .init(move |_| {
                let _ = lock(&released).recv();
                Ok(())
            })
            .dropped(move || dropped.send(()).unwrap());
        let old = runtime.load(Fifo::new()).unwrap();
        let begun = now();
        let error = runtime.load(hangs).unwrap_err();
        let took = now() - begun;
        let after = Duration::from_secs(5);
        assert_eq!(error, LoadError::InitTimedOut { after });
        assert!(took >= after, "{took:?}");
        assert_eq!(runtime.policy_status().unwrap().generation, old);
        // It still hangs.
        let next = runtime.load(Priority::new()).unwrap();
        assert_eq!(exit_of(&runtime, old).kind, ExitKind::Swap);
        wait_for("a task", runtime.spawn(async {})).unwrap();
        // Its late answer is dropped, and so is the policy.
        drop(release);
        receive("the drop of the late policy", &drop_of);
        assert_eq!(runtime.policy_status().unwrap().generation, next);
    });
}

#[test]
fn a_load_from_inside_a_callback_is_refused() {
    check(1, |runtime| {
        let (said, says) = channel();
        let in_init = said.clone();
        let (handle, handle_in_init) = (runtime.handle().clone(), runtime.handle().clone());
        let policy = Script::new("recursive")
            .init(move |_| {
                in_init.send(handle_in_init.load(Fifo::new())).unwrap();
                Ok(())
            })
            .enqueue(move |host, task| {
                said.send(handle.load(Fifo::new())).unwrap();
                host.insert(task.id(), DsqId::Global, Position::Tail);
            });
        let generation = runtime.load(policy).unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        for place in ["init", "enqueue"] {
            assert_eq!(
                receive("what load says", &says),
                Err(LoadError::InCallback),
                "{place}"
            );
        }
        assert_eq!(runtime.policy_status().unwrap().generation, generation);
    });
}

#[test]
fn what_a_policy_held_is_offered_to_its_successor_as_inherited() {
    check(2, |runtime| {
        let (to_a, a) = channel();
        let (to_b, b) = channel();
        runtime.load(holds_back("a", to_a)).unwrap();
        let tasks: Vec<_> = (1..=20)
            .map(|tag| tagged(&runtime, tag, async {}))
            .collect();
        for _ in 0..20 {
            assert_eq!(receive("an offer to a", &a).1, EnqueueReason::Spawn);
        }
        // Each worker has been through a poll since: what `a` said has been carried out.
        for worker in [0, 1].map(WorkerId::new) {
            let here = Attributes::new().affinity(WorkerMask::from_iter([worker]));
            wait_for("a poll", runtime.spawn_with(here, async {}).unwrap()).unwrap();
        }
        let (policy, record) = Recorder::new(holds_back("b", to_b), 2);
        runtime.load(policy).unwrap();
        let mut inherited: Vec<u64> = (0..20)
            .map(|_| {
                let (tag, reason) = receive("an offer to b", &b);
                assert_eq!(reason, EnqueueReason::Inherited);
                tag
            })
            .collect();
        inherited.sort_unstable();
        assert!(inherited.into_iter().eq(1..=20));
        record.check();
        runtime.unload();
        for task in tasks {
            wait_for("a task that was held", task).unwrap();
        }
    });
}

#[test]
fn what_a_policy_held_runs_when_it_is_unloaded_or_ejected() {
    let unload: fn(&Handle) = |runtime| drop(runtime.unload());
    let eject: fn(&Handle) = |runtime| drop(runtime.eject("as ordered"));
    let by_itself: fn(&Handle) =
        |runtime| wait_for("the last task", tagged(runtime, 99, async {})).unwrap();
    for end in [unload, eject, by_itself] {
        check(2, move |runtime| {
            let (to_policy, offers) = channel();
            let policy = holds_back("hoarder", to_policy).runnable(|host, task| {
                if task.tag() == 99 {
                    host.exit(99, "at your service");
                }
            });
            runtime.load(policy).unwrap();
            let tasks: Vec<_> = (1..=20)
                .map(|tag| tagged(&runtime, tag, async {}))
                .collect();
            for _ in 0..20 {
                receive("an offer", &offers);
            }
            end(&runtime);
            for task in tasks {
                wait_for("a task that was held", task).unwrap();
            }
            assert!(runtime.policy_status().is_none());
        });
    }
}

/// Were there a moment under the built-in FIFO between two policies, tasks that both hold back would run in it.
#[test]
fn between_two_policies_there_is_no_moment_under_the_fifo() {
    check(2, |runtime| {
        let polled = Arc::new(AtomicUsize::new(0));
        let busy = Yielding::start(&runtime, 4);
        let (to_policy, offers) = channel();
        runtime.load(holds_back("a", to_policy.clone())).unwrap();
        let mut held = Vec::new();
        let mut offered = 0;
        for swap in 0..300 {
            // Old ones, and one that is on its way to the policy during the swap.
            let counted = Arc::clone(&polled);
            held.push(tagged(&runtime, swap + 1, async move {
                counted.fetch_add(1, Ordering::SeqCst);
            }));
            let name = if swap % 2 == 0 { "b" } else { "a" };
            runtime.load(holds_back(name, to_policy.clone())).unwrap();
            offered += offers.try_iter().count();
            let polled = polled.load(Ordering::SeqCst);
            assert_eq!(polled, 0, "ran after {swap} swaps, {offered} offers");
        }
        assert!(offered > 300, "they are offered again: {offered}");
        runtime.unload();
        for task in held {
            wait_for("a task that was held back", task).unwrap();
        }
        busy.end();
    });
}

/// A call through the host from one callback.
type Say = fn(&Host<'_>);

/// A policy that calls `say` in this callback, for tasks tagged 1 (`dispatch`: always).
fn says(callback: Callback, say: Say) -> Script {
    let script = Script::new("says");
    let on_task = move |host: &Host<'_>, task: &TaskView<'_>| {
        if task.tag() == 1 {
            say(host);
        }
    };
    let keep_tagged = |host: &Host<'_>, task: &TaskView<'_>| {
        if task.tag() != 1 {
            host.insert(task.id(), DsqId::Global, Position::Tail);
        }
    };
    match callback {
        Callback::SelectWorker => script.select_worker(move |host, task| {
            on_task(host, task);
            task.last_worker()
        }),
        Callback::InitTask => script.init_task(move |host, task| {
            on_task(host, task);
            Ok(())
        }),
        Callback::ExitTask => script.exit_task(on_task),
        Callback::Enqueue => script.enqueue(on_task),
        Callback::Runnable => script.runnable(on_task),
        Callback::Running => script.running(on_task),
        Callback::Stopping => script.stopping(move |host, task, _| on_task(host, task)),
        Callback::Quiescent => script.quiescent(on_task),
        Callback::Dispatch => script
            .enqueue(keep_tagged)
            .dispatch(move |host, _, _| say(host)),
        // Its tasks are aborted.
        Callback::Dequeue => script
            .enqueue(keep_tagged)
            .dequeue(move |host, task, _| on_task(host, task)),
        other => unreachable!("{other}"),
    }
}

/// Ends a policy from inside each callback on a worker, and passes callback and exit info to `check`.
fn end_from_each_callback(say: Say, check_info: fn(Callback, &ExitInfo)) {
    for callback in ON_WORKERS {
        check(2, move |runtime| {
            let generation = runtime.load(says(callback, say)).unwrap();
            let tasks: Vec<_> = (0..10)
                .map(|tag| tagged(&runtime, tag % 2, yield_now()))
                .collect();
            if callback == Callback::Dequeue {
                wait_until("all are offered", || runtime.metrics().offered >= 10);
                tasks[1].abort();
            }
            let info = exit_of(&runtime, generation);
            check_info(callback, &info);
            assert!(runtime.policy_status().is_none());
            for task in tasks {
                match wait_for("a task of the ended policy", task) {
                    Ok(()) => {}
                    Err(error) => assert!(error.is_cancelled() && callback == Callback::Dequeue),
                }
            }
            runtime.load(Fifo::new()).unwrap();
        });
    }
}

#[test]
fn a_policy_may_end_itself_in_any_callback_with_a_code_and_a_message() {
    let say: Say = |host| host.exit(0xdead_beef_0000_0001, "goodbye");
    end_from_each_callback(say, |callback, info| {
        assert_eq!(info.kind, ExitKind::PolicyExit, "{callback}: {info}");
        assert_eq!(info.code, 0xdead_beef_0000_0001, "{callback}: {info}");
        assert_eq!(info.message, "goodbye", "{callback}");
        assert!(info.worker.is_some(), "{callback}: {info}");
        let no_task = matches!(callback, Callback::Dispatch | Callback::Dequeue);
        assert_eq!(info.task.is_none(), no_task, "{callback}: {info}");
    });
}

#[test]
fn a_policy_may_report_an_error_in_any_callback() {
    let say: Say = |host| host.error("the books do not balance");
    end_from_each_callback(say, |callback, info| {
        assert_eq!(info.kind, ExitKind::PolicyError, "{callback}: {info}");
        let message = format!("{callback}: the books do not balance");
        assert_eq!((info.code, &info.message), (0, &message));
        assert!(info.worker.is_some(), "{callback}: {info}");
    });
}

#[test]
fn a_panic_in_any_callback_ejects_the_policy_and_every_task_completes() {
    expect_ordered_panics();
    for callback in ON_WORKERS {
        for call in [1, 50] {
            for workers in [1, 2] {
                check(workers, move |runtime| {
                    let fault = Fault::Panic { callback, call };
                    let generation = runtime.load(Faulty::new(fault)).unwrap();
                    let load = Mixed::start(&runtime, 6);
                    let info = exit_of(&runtime, generation);
                    assert_eq!(info.kind, ExitKind::Panic, "{info}");
                    let text = format!("faulty: panic in {callback}, call {call}, as ordered");
                    assert_eq!(info.message, format!("{callback}: {text}"));
                    assert!(info.worker.is_some(), "{info}");
                    load.finish();
                    runtime.load(Fifo::new()).unwrap();
                });
            }
        }
    }
}

#[test]
fn a_panic_in_exit_or_drop_of_a_policy_is_contained() {
    expect_ordered_panics();
    check(2, |runtime| {
        for panics_in_exit in [true, false] {
            let (ended, end) = channel();
            let ended_in_drop = ended.clone();
            let policy = Script::new("bad_end")
                .exit(move |_| {
                    ended.send("exit").unwrap();
                    assert!(!panics_in_exit, "in exit, as ordered");
                })
                .dropped(move || {
                    ended_in_drop.send("drop").unwrap();
                    assert!(panics_in_exit, "in drop, as ordered");
                });
            runtime.load(policy).unwrap();
            runtime.unload();
            assert_eq!(receive("exit", &end), "exit");
            assert_eq!(receive("drop", &end), "drop", "also after a panic in exit");
            wait_for("a task", runtime.spawn(async {})).unwrap();
            runtime.load(Fifo::new()).unwrap();
            Mixed::start(&runtime, 2).finish();
        }
    });
}

#[test]
fn a_panic_payload_that_is_not_text_or_panics_when_dropped_is_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload, as ordered");
        }
    }
    expect_ordered_panics();
    check(2, |runtime| {
        let policy = Script::new("bomb").enqueue(|_, _| std::panic::resume_unwind(Box::new(Bomb)));
        let generation = runtime.load(policy).unwrap();
        Mixed::start(&runtime, 2).finish();
        assert_eq!(exit_of(&runtime, generation).kind, ExitKind::Panic);
    });
}

#[test]
fn the_first_end_of_a_policy_wins() {
    expect_ordered_panics();
    check(1, |runtime| {
        let policy = Script::new("talks_on").enqueue(|host, _| {
            host.error("first");
            host.exit(2, "second");
            panic!("third, as ordered");
        });
        let generation = runtime.load(policy).unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        let info = exit_of(&runtime, generation);
        assert_eq!(
            (info.kind, info.message.as_str()),
            (ExitKind::PolicyError, "enqueue: first")
        );
        assert!(runtime.eject("too late").is_none());
        assert_eq!(exit_of(&runtime, generation).message, "enqueue: first");
    });
}

#[test]
fn of_many_ejections_at_once_one_wins_and_exit_is_called_once() {
    check(2, |runtime| {
        for _ in 0..50 {
            let (policy, record) = Recorder::new(Fifo::new(), 2);
            let generation = runtime.load(policy).unwrap();
            let barrier = Barrier::new(4);
            let said: Vec<_> = thread::scope(|scope| {
                let ejectors: Vec<_> = (0..4)
                    .map(|n| {
                        let (runtime, barrier) = (&runtime, &barrier);
                        scope.spawn(move || {
                            barrier.wait();
                            runtime.eject(&n.to_string())
                        })
                    })
                    .collect();
                let ended = ejectors.into_iter().map(|ejector| ejector.join().unwrap());
                ended.collect()
            });
            let info = exit_of(&runtime, generation);
            for said in said.into_iter().flatten() {
                assert_eq!(said.message, info.message);
                assert_eq!(said.generation, generation);
            }
            wait_until("exit", || record.exits() > 0);
            record.check();
        }
    });
}

#[test]
fn loads_from_many_threads_at_once_are_made_one_after_the_other() {
    check(2, |runtime| {
        let load = Mixed::start(&runtime, 10);
        let records = Mutex::new(Vec::new());
        let generations = Mutex::new(Vec::new());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..25 {
                        let (policy, record) = Recorder::new(Priority::new(), 2);
                        lock(&records).push(record);
                        let generation = runtime.load(policy).unwrap();
                        lock(&generations).push(generation);
                    }
                });
            }
        });
        load.finish();
        runtime.unload();
        let mut generations = lock(&generations).clone();
        generations.sort_unstable();
        generations.dedup();
        assert_eq!(generations.len(), 100);
        for record in lock(&records).iter() {
            wait_until("exit", || record.exits() > 0);
            record.check();
        }
    });
}

struct Named(String);

impl Policy for Named {
    type Task = ();

    fn name(&self) -> &str {
        assert_ne!(self.0, "panics", "no name, as ordered");
        &self.0
    }
}

#[test]
fn a_name_that_cannot_be_printed_is_refused_with_the_reason() {
    for (name, why) in [
        (String::new(), "is empty"),
        ("x".repeat(129), "is longer than 128 bytes"),
        ("ä".repeat(65), "is longer than 128 bytes"),
        (
            "two\nlines".to_owned(),
            "has characters that are not printable",
        ),
        (
            "\u{1b}[31mred".to_owned(),
            "has characters that are not printable",
        ),
        ("nul\0".to_owned(), "has characters that are not printable"),
    ] {
        check_refused(Named(name), move |error| {
            let LoadError::Refused(LoadRefused::Name { name, why: said }) = error else {
                return false;
            };
            *said == why && !name.chars().any(char::is_control) && name.len() < 1000
        });
    }
}

#[test]
fn a_name_of_128_bytes_is_accepted() {
    check(1, |runtime| {
        for name in ["x".repeat(128), "ä".repeat(64), "a b.c-d/é".to_owned()] {
            runtime.load(Named(name.clone())).unwrap();
            assert_eq!(runtime.policy_status().unwrap().name, name);
        }
    });
}

#[test]
fn a_policy_that_panics_when_asked_its_name_is_refused() {
    check_refused(Named("panics".to_owned()), |error| {
        matches!(
            error,
            LoadError::Refused(LoadRefused::Panicked {
                callback: CoreCallback::Name,
                message,
            }) if message.contains("as ordered")
        )
    });
}

#[test]
fn a_load_after_the_runtime_has_gone_is_refused() {
    within(|| {
        let runtime = polity_tests::runtime(1);
        let handle = runtime.handle().clone();
        drop(runtime);
        let error = handle.load(Fifo::new()).unwrap_err();
        assert_eq!(error, LoadError::Refused(LoadRefused::Closing));
        assert!(handle.policy_status().is_none());
    });
}

#[test]
fn the_last_64_exits_are_kept() {
    check(1, |runtime| {
        let generations: Vec<_> = (0..66)
            .map(|_| runtime.load(Fifo::new()).unwrap())
            .collect();
        runtime.unload();
        exit_of(&runtime, generations[65]);
        assert!(runtime.exit_info(generations[0]).is_none());
        assert!(runtime.exit_info(generations[1]).is_none());
        assert!(runtime.exit_info(generations[2]).is_some());
    });
}

/// A policy whose every callback is at least looked at, and that does what the contract does by itself.
#[test]
fn a_policy_given_to_the_builder_runs_from_the_first_task_on() {
    within(|| {
        let enqueues = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&enqueues);
        let policy = Script::new("from_the_start").enqueue(move |host, task| {
            counted.fetch_add(1, Ordering::SeqCst);
            host.insert(task.id(), DsqId::Global, Position::Tail);
        });
        let runtime = polity_tests::builder(1).policy(policy).build().unwrap();
        wait_for("the first task", runtime.spawn(async {})).unwrap();
        assert_eq!(enqueues.load(Ordering::SeqCst), 1);

        let refused = polity_tests::builder(1).policy(Named(String::new()));
        let error = refused.build().unwrap_err();
        assert!(
            matches!(error, polity::BuildError::Load(LoadError::Refused(_))),
            "{error:?}"
        );
    });
}

/// `init` gets no worker, so nothing there that needs one may work or harm.
#[test]
fn init_sees_the_runtime_but_is_on_no_worker() {
    check(3, |runtime| {
        let init = |host: &Host<'_>| -> Result<(), InitError> {
            assert_eq!((host.worker(), host.worker_count()), (None, 3));
            assert!(!host.claim_idle(WorkerId::new(0)));
            host.kick(WorkerId::new(2));
            assert_eq!(thread::current().name(), Some("polity-init"));
            assert!(host.now() < DEADLINE * 10);
            Ok(())
        };
        runtime
            .load(Script::new("looks_around").init(init))
            .unwrap();
    });
}
