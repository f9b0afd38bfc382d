use std::panic::{AssertUnwindSafe, catch_unwind};

use polity_policy::fake::{FakeHost, Insert};
use polity_policy::{ExitKind, Generation};

use super::*;

const W0: WorkerId = WorkerId::new(0);

/// Enqueues tasks 1, 2, 3 and returns the inserts that each led to.
fn check(fault: Fault) -> (FakeHost, [Vec<Insert>; 3]) {
    let (fake, policy) = (FakeHost::new(2), Faulty::new(fault));
    policy.init(&fake.host()).unwrap();
    let inserts = [1, 2, 3].map(|slot| {
        let before = fake.inserts().len();
        policy.enqueue(&fake.host(), &fake.task(slot).view());
        fake.inserts()[before..].to_vec()
    });
    (fake, inserts)
}

fn second_goes_to(fault: Fault) -> DsqId {
    let (_, [first, second, third]) = check(fault);
    assert_eq!((first.len(), third.len()), (1, 1));
    assert_eq!(first[0].dsq, third[0].dsq, "the others are not affected");
    assert_eq!(second.len(), 1);
    second[0].dsq
}

fn call(policy: &Faulty, fake: &FakeHost, callback: Callback) {
    let (host, task) = (fake.host(), fake.task(1).view());
    match callback {
        Callback::Init => drop(policy.init(&host)),
        Callback::Exit => {
            policy.exit(&ExitInfo::new(
                ExitKind::Unload,
                "faulty",
                Generation::new(1),
            ));
        }
        Callback::SelectWorker => drop(policy.select_worker(&host, &task)),
        Callback::Enqueue => policy.enqueue(&host, &task),
        Callback::Dequeue => policy.dequeue(&host, &task, DequeueReason::Cancelled),
        Callback::Dispatch => policy.dispatch(&host, W0, None),
        Callback::Runnable => policy.runnable(&host, &task),
        Callback::Running => policy.running(&host, &task),
        Callback::Stopping => policy.stopping(&host, &task, Stopped::Waiting),
        Callback::Quiescent => policy.quiescent(&host, &task),
    }
}

#[test]
fn a_panic_comes_at_the_ordered_call_of_the_ordered_callback_and_nowhere_else() {
    for ordered in Callback::ALL {
        let fault = Fault::Panic {
            callback: ordered,
            call: 2,
        };
        let (fake, policy) = (FakeHost::new(1), Faulty::new(fault));
        for round in 1..=3 {
            for callback in Callback::ALL {
                let call = AssertUnwindSafe(|| call(&policy, &fake, callback));
                let message = catch_unwind(call).map_err(|panic| *panic.downcast().unwrap());
                let expected = if (callback, round) == (ordered, 2) {
                    Err(format!("faulty: panic in {ordered}, call 2, as ordered"))
                } else {
                    Ok(())
                };
                assert_eq!(message, expected);
            }
        }
    }
}

#[test]
fn an_ordered_error_is_reported_and_its_task_is_left_lying() {
    let (fake, [first, second, _]) = check(Fault::ErrorAfterEnqueues(2));
    assert_eq!((first.len(), second.len()), (1, 0));
    assert_eq!(fake.ended().unwrap().kind, ExitKind::PolicyError);
}

#[test]
fn every_second_task_is_forgotten_and_none_by_zero() {
    let counts = |fault| check(fault).1.map(|inserts| inserts.len());
    assert_eq!(counts(Fault::ForgetEveryNth(2)), [1, 0, 1]);
    assert_eq!(counts(Fault::ForgetEveryNth(0)), [1, 1, 1]);
}

#[test]
fn endless_dispatch_makes_progress_without_giving_the_worker_anything_real() {
    let policy = Faulty::new(Fault::DispatchEndlesslyAfter(1));
    let fake = FakeHost::new(1);
    policy.init(&fake.host()).unwrap();
    for slot in [1, 2] {
        policy.enqueue(&fake.host(), &fake.task(slot).view());
    }
    policy.dispatch(&fake.host(), W0, None);
    assert_eq!(fake.run_next().unwrap().slot(), 1);
    for _ in 0..100 {
        policy.dispatch(&fake.host(), W0, None);
        assert_eq!(fake.inserts().pop().unwrap().task, NO_TASK);
        assert_eq!(fake.run_next(), Some(NO_TASK), "which core would refuse");
    }
}

#[test]
fn a_wrong_insert_comes_once_and_names_what_does_not_exist() {
    assert_eq!(second_goes_to(Fault::InsertUnknownDsq(2)), UNKNOWN_DSQ);
    assert_eq!(
        second_goes_to(Fault::InsertDestroyedDsq(2)),
        DsqId::Custom(DESTROYED_DSQ)
    );
    assert_eq!(
        second_goes_to(Fault::InsertWorkerOutOfRange(2)),
        DsqId::LocalOn(NO_WORKER)
    );
}

#[test]
fn a_second_insert_is_of_the_same_task_and_another_task_is_another() {
    let (_, [_, twice, _]) = check(Fault::InsertTwice(2));
    assert_eq!(twice.len(), 2);
    assert_eq!(twice[0].task, twice[1].task);
    let (_, [_, other, _]) = check(Fault::InsertOtherTask(2));
    assert_eq!(other[0].task, NO_TASK);
}

#[test]
fn a_selected_worker_is_out_of_range_at_the_ordered_call() {
    let (fake, policy) = (
        FakeHost::new(2),
        Faulty::new(Fault::SelectWorkerOutOfRange(2)),
    );
    policy.init(&fake.host()).unwrap();
    let select = || policy.select_worker(&fake.host(), &fake.task(1).view());
    assert_eq!([select(), select(), select()], [W0, NO_WORKER, W0]);
}

#[test]
fn a_refused_init_says_why() {
    let refusal = Faulty::new(Fault::RefuseInit).init(&FakeHost::new(1).host());
    assert_eq!(
        refusal.unwrap_err().to_string(),
        "faulty: init refuses, as ordered"
    );
}
