//! A policy that ends from inside a callback: by its own word, or by a panic.

use polity::{DsqId, ExitInfo, ExitKind, Host, Position, TaskView, yield_now};
use polity_policies::{Callback, Fault, Faulty, Fifo};
use polity_tests::{check, wait_for, wait_until};

use crate::support::ON_WORKERS;
use crate::workload::{Mixed, Script, exit_of, expect_ordered_panics, tagged};

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
