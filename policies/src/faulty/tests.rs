use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread;

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
        Callback::InitTask => drop(policy.init_task(&host, &task)),
        Callback::ExitTask => policy.exit_task(&host, &task),
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

/// Returns once `calls` are stuck. If they never are, the test hangs, which names it.
fn wait_until_stuck(release: &Release, calls: usize) {
    while release.stuck() < calls {
        thread::yield_now();
    }
}

/// Calls each callback; the second and third call of the ordered one stay until released, nothing else does.
fn check_stays(ordered: Callback, fault: Fault) {
    let policy = Faulty::new(fault);
    let release = policy.release_handle();
    for callback in Callback::ALL {
        let rounds = if callback == ordered { 1 } else { 2 };
        for _ in 0..rounds {
            call(&policy, &FakeHost::new(1), callback);
        }
    }
    thread::scope(|scope| {
        let stuck = [(); 2].map(|()| scope.spawn(|| call(&policy, &FakeHost::new(1), ordered)));
        wait_until_stuck(&release, 2);
        assert!(stuck.iter().all(|thread| !thread.is_finished()));
        release.release();
    });
    assert_eq!(release.stuck(), 0);
    call(&policy, &FakeHost::new(1), ordered); // returns at once
}

#[test]
fn from_the_ordered_call_on_every_call_stays_until_released_and_no_other_callback_does() {
    for callback in Callback::ALL {
        check_stays(callback, Fault::NeverReturn { callback, call: 2 });
        check_stays(callback, Fault::Block { callback, call: 2 });
    }
}

#[test]
fn call_zero_of_a_callback_that_does_not_return_never_comes() {
    let callback = Callback::Enqueue;
    let (_, inserts) = check(Fault::NeverReturn { callback, call: 0 });
    assert_eq!(inserts.map(|inserts| inserts.len()), [1, 1, 1]);
}

#[test]
fn dropping_the_last_handle_releases_and_dropping_an_earlier_one_does_not() {
    let callback = Callback::Enqueue;
    let policy = Faulty::new(Fault::Block { callback, call: 1 });
    let (first, second) = (policy.release_handle(), policy.release_handle());
    let third = first.clone();
    call(&policy, &FakeHost::new(1), Callback::Init);
    thread::scope(|scope| {
        let stuck = scope.spawn(|| call(&policy, &FakeHost::new(1), callback));
        wait_until_stuck(&second, 1);
        drop((first, second));
        assert!(!stuck.is_finished());
        assert_eq!(third.stuck(), 1);
        drop(third);
    });
}

#[test]
fn a_released_call_does_what_it_was_called_for() {
    let callback = Callback::Enqueue;
    let policy = Faulty::new(Fault::NeverReturn { callback, call: 1 });
    policy.release_handle().release();
    let fake = FakeHost::new(1);
    policy.init(&fake.host()).unwrap();
    policy.enqueue(&fake.host(), &fake.task(1).view());
    assert_eq!(fake.inserts().len(), 1);
}

/// Loads a policy that starves weight 500 and more, and enqueues task 1 (499), 2 (500), 3 (1000).
fn starving() -> (FakeHost, Faulty) {
    let (fake, policy) = (FakeHost::new(1), Faulty::new(Fault::Starve { weight: 500 }));
    policy.init(&fake.host()).unwrap();
    for (slot, weight) in [(1, 499), (2, 500), (3, 1_000)] {
        policy.enqueue(&fake.host(), &fake.task(slot).weight(weight).view());
    }
    (fake, policy)
}

fn inserted(fake: &FakeHost) -> Vec<u32> {
    let slots = fake.inserts().into_iter().map(|insert| insert.task.slot());
    slots.collect()
}

#[test]
fn tasks_of_the_starved_weight_are_kept_and_lighter_ones_run() {
    let (fake, policy) = starving();
    for _ in 0..100 {
        policy.dispatch(&fake.host(), W0, None);
    }
    assert_eq!(inserted(&fake), [1]);
    assert_eq!(fake.run_next().unwrap().slot(), 1);
    assert_eq!(fake.run_next(), None);
    assert!(fake.ended().is_none(), "starving is no wrong value");
}

#[test]
fn released_starved_tasks_are_dispatched_in_order_and_once() {
    let (fake, policy) = starving();
    policy.release_handle().release();
    policy.enqueue(&fake.host(), &fake.task(4).weight(1_000).view());
    assert_eq!(inserted(&fake), [1, 4], "what comes now is not kept");
    policy.dispatch(&fake.host(), W0, None);
    policy.dispatch(&fake.host(), W0, None);
    assert_eq!(inserted(&fake), [1, 4, 2, 3]);
}

#[test]
fn a_starved_task_that_left_custody_is_forgotten() {
    let (fake, policy) = starving();
    let aborted = fake.task(2).weight(500).view();
    policy.dequeue(&fake.host(), &aborted, DequeueReason::Cancelled);
    policy.release_handle().release();
    policy.dispatch(&fake.host(), W0, None);
    assert_eq!(inserted(&fake), [1, 3]);
}

#[test]
fn the_stall_timeout_is_the_runtimes_unless_one_was_given() {
    let policy = Faulty::new(Fault::RefuseInit);
    assert_eq!(policy.stall_timeout(), None);
    let policy = policy.with_stall_timeout(Duration::from_secs(1));
    assert_eq!(policy.stall_timeout(), Some(Duration::from_secs(1)));
}

#[test]
fn the_ordered_task_is_refused_and_no_other() {
    let (fake, policy) = (FakeHost::new(1), Faulty::new(Fault::RefuseTask(2)));
    let answers = [1, 2, 3].map(|slot| {
        let task = fake.task(slot).view();
        policy
            .init_task(&fake.host(), &task)
            .map_err(|error| error.to_string())
    });
    let refused = "faulty: task 2 refused, as ordered".to_owned();
    assert_eq!(answers, [Ok(()), Err(refused), Ok(())]);
    assert!(fake.ended().is_none(), "that is for core to do");
}
