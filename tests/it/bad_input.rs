//! Values that make no sense: each ends the policy with a message that names the callback and the value, and no task.

use polity::{DsqId, ExitKind, Handle, Policy, Position, TaskId, WorkerId};
use polity_policies::{Fault, Faulty};
use polity_tests::{check, wait_for, wait_until};

use crate::workload::{Held, Mixed, Script, exit_of, tagged};

const NOWHERE: WorkerId = WorkerId::new(77);
const NOBODY: TaskId = TaskId::from_parts(u32::MAX, 1);
const UNKNOWN: DsqId = DsqId::Custom(4000);

/// Runs tasks under `policy` until it is ejected, and all of them to their ends. `expected` is the message, in which
/// `#` stands for the id of a task.
fn check_ejected(policy: impl Policy, expected: &str) {
    check_ejected_over(policy, expected, |runtime| {
        Mixed::start(runtime, 3).finish()
    });
}

fn check_ejected_over(
    policy: impl Policy,
    expected: &str,
    load: impl FnOnce(&Handle) + Send + 'static,
) {
    let expected = expected.to_owned();
    check(2, move |runtime| {
        let generation = runtime.load(policy).unwrap();
        load(&runtime);
        let info = exit_of(&runtime, generation);
        assert_eq!(info.kind, ExitKind::Error, "{info}");
        let pieces: Vec<&str> = expected.split('#').collect();
        let mut rest = info.message.as_str();
        for (nth, piece) in pieces.iter().enumerate() {
            let at = rest.find(piece);
            assert!(
                at.is_some_and(|at| nth > 0 || at == 0),
                "{:?} is not {expected:?}",
                info.message
            );
            rest = &rest[at.unwrap_or(0) + piece.len()..];
        }
        assert!(rest.is_empty() || expected.ends_with('#'), "{rest:?}");
        assert!(info.worker.is_some(), "{info}");
        let without_task = expected.starts_with("dispatch") || expected.starts_with("dequeue");
        assert_eq!(info.task.is_none(), without_task, "{info}");
        assert!(runtime.policy_status().is_none());
        Mixed::start(&runtime, 2).finish();
    });
}

#[test]
fn a_fault_in_an_insert_ejects_and_every_task_completes() {
    for nth in [1, 20] {
        for (fault, message) in [
            (
                Fault::InsertUnknownDsq(nth),
                "enqueue: insert into DSQ custom 3405705229, which does not exist",
            ),
            (
                Fault::InsertDestroyedDsq(nth),
                "enqueue: insert into DSQ custom 4095, which does not exist",
            ),
            (
                Fault::InsertTwice(nth),
                "enqueue: task # inserted twice: into custom # and into global",
            ),
            (
                Fault::InsertOtherTask(nth),
                "enqueue: insert of task 4294967295.1, but the task at hand is #",
            ),
            (
                Fault::InsertWorkerOutOfRange(nth),
                "enqueue: worker 65535 is out of range: there are 2 workers, counted from 0",
            ),
            (
                Fault::SelectWorkerOutOfRange(nth),
                "select_worker: worker 65535 is out of range: there are 2 workers, counted from 0",
            ),
        ] {
            check_ejected(Faulty::new(fault), message);
        }
    }
}

#[test]
fn the_same_faults_in_select_worker() {
    for (dsq, message) in [
        (
            UNKNOWN,
            "select_worker: insert into DSQ custom 4000, which does not exist",
        ),
        (
            DsqId::LocalOn(NOWHERE),
            "select_worker: worker 77 is out of range: there are 2 workers, counted from 0",
        ),
    ] {
        let policy = Script::new("bad_select").select_worker(move |host, task| {
            assert!(!host.insert(task.id(), dsq, Position::Tail));
            task.last_worker()
        });
        check_ejected(policy, message);
    }
    let twice = Script::new("twice").select_worker(|host, task| {
        assert!(host.insert(task.id(), DsqId::Local, Position::Tail));
        assert!(!host.insert(task.id(), DsqId::Global, Position::Head));
        task.last_worker()
    });
    check_ejected(
        twice,
        "select_worker: task # inserted twice: into local and into global",
    );
    let other = Script::new("other").select_worker(|host, task| {
        assert!(!host.insert(NOBODY, DsqId::Local, Position::Tail));
        task.last_worker()
    });
    check_ejected(
        other,
        "select_worker: insert of task 4294967295.1, but the task at hand is #",
    );
}

#[test]
fn an_insert_from_dispatch_into_a_dsq_that_is_not_there_ejects() {
    for (dsq, message) in [
        (
            UNKNOWN,
            "dispatch: insert into DSQ custom 4000, which does not exist",
        ),
        (
            DsqId::LocalOn(NOWHERE),
            "dispatch: worker 77 is out of range: there are 2 workers, counted from 0",
        ),
    ] {
        let policy = Script::new("bad_dispatch").dispatch(move |host, _, _| {
            assert!(!host.insert(NOBODY, dsq, Position::Tail));
        });
        check_ejected(policy, message);
    }
}

#[test]
fn an_insert_in_a_notifier_ejects() {
    let insert = |name: &str| {
        let message =
            format!("{name}: insert of task # into DSQ global: not allowed in this callback");
        (Script::new(name), message)
    };
    let (policy, message) = insert("runnable");
    let policy = policy.runnable(|host, task| {
        assert!(!host.insert(task.id(), DsqId::Global, Position::Tail));
    });
    check_ejected(policy, &message);
    let (policy, message) = insert("running");
    let policy = policy.running(|host, task| {
        assert!(!host.insert(task.id(), DsqId::Global, Position::Tail));
    });
    check_ejected(policy, &message);
    let (policy, message) = insert("stopping");
    let policy = policy.stopping(|host, task, _| {
        assert!(!host.insert(task.id(), DsqId::Global, Position::Tail));
    });
    check_ejected(policy, &message);
    let (policy, message) = insert("quiescent");
    let policy = policy.quiescent(|host, task| {
        assert!(!host.insert(task.id(), DsqId::Global, Position::Tail));
    });
    check_ejected(policy, &message);
    let (policy, message) = insert("dequeue");
    let policy = policy
        .init(|host| {
            host.create_dsq(0)?;
            Ok(())
        })
        .enqueue(|host, task| {
            host.insert(task.id(), DsqId::Custom(0), Position::Tail);
        })
        .dispatch(|host, _, _| {
            host.move_to_local(DsqId::Custom(0), 4);
        })
        .dequeue(|host, task, _| {
            assert!(!host.insert(task.id(), DsqId::Global, Position::Tail));
        });
    check_ejected(policy, &message);
}

#[test]
fn move_to_local_outside_of_dispatch_ejects() {
    let in_enqueue = Script::new("in_enqueue")
        .init(|host| {
            host.create_dsq(0)?;
            Ok(())
        })
        .enqueue(|host, _| assert_eq!(host.move_to_local(DsqId::Custom(0), 1), 0));
    check_ejected(
        in_enqueue,
        "enqueue: move_to_local from DSQ custom 0: allowed in dispatch only",
    );
    let in_running =
        Script::new("in_running").running(|host, _| assert_eq!(host.move_to_local(UNKNOWN, 1), 0));
    check_ejected(
        in_running,
        "running: move_to_local from DSQ custom 4000: allowed in dispatch only",
    );
}

#[test]
fn move_to_local_of_a_dsq_that_is_built_in_or_not_there_ejects() {
    for (dsq, message) in [
        (
            DsqId::Global,
            "dispatch: move_to_local from DSQ global: workers empty the built-in ones by themselves",
        ),
        (
            DsqId::Local,
            "dispatch: move_to_local from DSQ local: workers empty the built-in ones by themselves",
        ),
        (
            DsqId::LocalOn(WorkerId::new(0)),
            "dispatch: move_to_local from DSQ local of worker 0: workers empty the built-in ones by themselves",
        ),
        (
            UNKNOWN,
            "dispatch: move_to_local from DSQ custom 4000, which does not exist",
        ),
        (
            DsqId::Custom(u32::MAX),
            "dispatch: move_to_local from DSQ custom 4294967295, which does not exist",
        ),
    ] {
        let policy = Script::new("bad_move").dispatch(move |host, _, _| {
            assert_eq!(host.move_to_local(dsq, 1), 0);
        });
        check_ejected(policy, message);
    }
}

#[test]
fn a_kick_or_claim_of_a_worker_that_is_not_there_ejects() {
    let kick = Script::new("kick").enqueue(|host, _| host.kick(NOWHERE));
    check_ejected(
        kick,
        "enqueue: worker 77 is out of range: there are 2 workers, counted from 0",
    );
    let claim = Script::new("claim").enqueue(|host, _| assert!(!host.claim_idle(NOWHERE)));
    check_ejected(
        claim,
        "enqueue: worker 77 is out of range: there are 2 workers, counted from 0",
    );
}

/// Another worker's callback destroys the DSQ after the insert has been recorded and before it is carried out: here the
/// same `enqueue` does.
#[test]
fn a_dsq_destroyed_between_insert_and_its_execution_ejects_and_the_task_runs() {
    let policy = Script::new("destroys")
        .init(|host| {
            host.create_dsq(5)?;
            Ok(())
        })
        .enqueue(|host, task| {
            let dsq = DsqId::Custom(5);
            if host.insert(task.id(), dsq, Position::Tail) {
                let _ = host.destroy_dsq(dsq);
            }
        });
    check(2, move |runtime| {
        let generation = runtime.load(policy).unwrap();
        Mixed::start(&runtime, 3).finish();
        let info = exit_of(&runtime, generation);
        assert_eq!(info.kind, ExitKind::Error, "{info}");
        assert!(info.message.contains("DSQ custom 5"), "{info}");
    });
}

/// A policy that is wrong about some tasks must not have its way with the others of the same batch.
#[test]
fn nothing_that_a_policy_said_after_its_fault_counts() {
    check(1, |runtime| {
        let policy = Script::new("late").enqueue(|host, task| {
            if task.tag() == 1 {
                host.error("as ordered");
            }
            // Never claimed, so these would wait for ever.
        });
        let held = Held::new(&runtime);
        runtime.load(policy).unwrap();
        let tasks: Vec<_> = (0..10)
            .map(|n| tagged(&runtime, u64::from(n == 9), async {}))
            .collect();
        held.end();
        for task in tasks {
            wait_for("a task of the batch", task).unwrap();
        }
        wait_until("the policy is gone", || runtime.policy_status().is_none());
    });
}
