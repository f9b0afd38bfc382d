//! Callbacks that do not return: when a thread is convicted, and when it is only slow, or has no processor.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use polity_policy::{Attributes, DsqId, ExitKind, Position, WorkerId, WorkerMask};

use super::support::{FIRST, LONG, blocked, in_enqueue, on_a_processor, stuck};
use crate::core::Cause;
use crate::scripted::world::{MS, Script, TICK, Thread, World, exit_of};
use crate::seat::{Place, SeatId};
use crate::watchdog::{Finding, Next, Others};
use crate::worker::Pass;

#[test]
fn a_call_is_convicted_when_its_thread_has_run_for_nine_milliseconds_in_it() {
    let world = World::new(1);
    world.set_thread(0, on_a_processor(70 * MS));
    let (policy, pass) = in_enqueue(world, move || {
        assert_eq!(stuck(&world.tick_for(4 * TICK)), []);
        assert_eq!(stuck(&world.tick_while_running(0, 9 * MS - 1)), []);
        assert_eq!(stuck(&world.tick_while_running(0, 1)), [FIRST]);
        assert_eq!(stuck(&world.tick_for(10 * TICK)), [], "once is enough");
    });
    assert_eq!(pass, Pass::Revoked);
    let info = exit_of(&policy);
    assert_eq!(info.kind, ExitKind::StuckCallback);
    assert_eq!(
        info.message,
        "enqueue on worker 0 has not returned for 24 ms, running"
    );
    assert_eq!(info.worker, Some(WorkerId::new(0)));
    assert_eq!(world.core.metrics().convictions, 1);
}

#[test]
fn what_a_convicted_thread_had_in_its_hands_runs_on_its_heir() {
    let world = World::new(1);
    world.set_thread(0, on_a_processor(0));
    let others: Vec<_> = (0..3).map(|_| world.spawn(0, async {})).collect();
    let ran = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&ran);
    let all_ran = move || others.iter().all(|task| task.is_finished());
    let (_, pass) = in_enqueue(world, move || {
        world.tick();
        let findings = world.tick_while_running(0, 9 * MS);
        assert_eq!(stuck(&findings), [FIRST]);
        assert!(
            findings.iter().any(|finding| matches!(
                finding,
                Finding::NeedsStandIn {
                    cause: Cause::Conviction,
                    ..
                }
            )),
            "{findings:?}"
        );
        // Behind a call that has not returned yet.
        world.stand_in(1, 0, Cause::Conviction);
        counted.fetch_add(world.run(1), Ordering::Relaxed);
    });
    assert_eq!(ran.load(Ordering::Relaxed), 4);
    assert!(all_ran());
    assert_eq!(pass, Pass::Revoked);
}

#[test]
fn a_thread_that_gets_no_processor_is_not_convicted() {
    let world = World::new(1);
    world.set_thread(0, on_a_processor(0));
    let (policy, pass) = in_enqueue(world, move || {
        assert_eq!(stuck(&world.tick_for(1_000 * TICK)), []);
        world.set_thread(0, on_a_processor(10 * MS - 1));
        assert_eq!(stuck(&world.tick_for(TICK)), []);
    });
    assert_ne!(pass, Pass::Revoked);
    assert!(policy.exit_info().is_none());
}

#[test]
fn time_in_which_the_process_was_stopped_convicts_nobody() {
    let world = World::new(1);
    // The machine cannot tell, so alive time counts.
    world.set_thread(0, Thread::default());
    let (policy, _) = in_enqueue(world, move || {
        assert_eq!(stuck(&world.tick_for(TICK)), []);
        world.advance(3_600_000 * MS);
        world.rebase();
        assert_eq!(stuck(&world.tick_for(TICK)), []);
    });
    assert!(policy.exit_info().is_none());
}

/// A processor clock may go on where ours does not: in a stop of which the kernel knows nothing.
#[test]
fn processor_time_from_a_gap_convicts_nobody() {
    let world = World::new(1);
    world.set_thread(0, on_a_processor(0));
    let (policy, _) = in_enqueue(world, move || {
        world.tick_for(2 * TICK);
        world.set_thread(0, on_a_processor(1_000 * MS));
        world.advance(3_600_000 * MS);
        assert_eq!(stuck(&world.tick().0), []);
        assert_eq!(stuck(&world.tick_while_running(0, 7 * MS - 1)), []);
        assert!(world.core.current_policy().is_some());
        assert_eq!(stuck(&world.tick_while_running(0, 1)), [FIRST]);
    });
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

/// A thread's processor clock goes on while a hypervisor has its processor.
#[test]
fn what_a_hypervisor_takes_convicts_nobody() {
    let world = World::new(1);
    world.tick_for(40 * TICK);
    world.set_thread(0, on_a_processor(0));
    let (policy, _) = in_enqueue(world, move || {
        world.tick();
        world.core.machine.stolen.store(10 * MS, Ordering::Relaxed);
        assert_eq!(stuck(&world.tick_while_running(0, 19 * MS - 1)), []);
        assert_eq!(stuck(&world.tick_while_running(0, 1)), [FIRST]);
    });
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

/// And not every hypervisor says what it took.
#[test]
fn four_gaps_in_a_row_convict_nobody_however_long_they_are() {
    let world = World::new(1);
    world.set_thread(0, on_a_processor(0));
    let (policy, _) = in_enqueue(world, move || {
        world.tick();
        for gap in 1..=4 {
            world.set_thread(0, on_a_processor(gap * 1_000 * MS));
            world.advance(2 * MS);
            assert_eq!(stuck(&world.tick().0), []);
        }
        assert_eq!(stuck(&world.tick_while_running(0, MS - 1)), []);
        assert_eq!(stuck(&world.tick_while_running(0, 1)), [FIRST]);
    });
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

#[test]
fn a_thread_whose_processor_does_not_answer_at_once_has_not_run() {
    let world = World::new(1);
    world.set_thread(0, on_a_processor(0));
    let (policy, _) = in_enqueue(world, move || {
        let unanswered = &world.core.machine.unanswered;
        unanswered.store(MS / 4 + 1, Ordering::Relaxed);
        world.tick();
        assert_eq!(stuck(&world.tick_while_running(0, 1_000 * MS)), []);
        unanswered.store(MS / 4, Ordering::Relaxed);
        assert_eq!(stuck(&world.tick_while_running(0, 20 * MS)), [FIRST]);
    });
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

/// What its clock did until the answer came counts for nothing either.
#[test]
fn a_thread_whose_processor_is_gone_at_every_other_look_has_not_run() {
    let world = World::new(1);
    world.set_thread(0, on_a_processor(0));
    let (policy, _) = in_enqueue(world, move || {
        world.tick();
        for look in 0..100 {
            let unanswered = if look % 2 == 0 { 3 * MS } else { 0 };
            let machine = &world.core.machine;
            machine.unanswered.store(unanswered, Ordering::Relaxed);
            world.advance(2 * MS);
            assert_eq!(stuck(&world.tick().0), []);
        }
    });
    assert!(policy.exit_info().is_none());
}

#[test]
fn a_closer_look_that_takes_long_does_not_put_the_next_tick_off() {
    let world = World::new(1);
    world.set_thread(0, on_a_processor(0));
    let (policy, _) = in_enqueue(world, move || {
        let ticked_at = || world.core.tick.load(Ordering::Relaxed);
        world.tick();
        let due = world.now() + TICK;
        world.advance(2 * MS);
        let machine = &world.core.machine;
        machine.unanswered.store(2 * MS, Ordering::Relaxed);
        assert_eq!(
            world.tick().1,
            Next::After(MS),
            "what is left after the look"
        );
        machine.unanswered.store(0, Ordering::Relaxed);
        world.advance(MS);
        assert_eq!(world.now(), due);
        world.tick();
        assert_eq!(ticked_at(), due);
    });
    assert!(policy.exit_info().is_none());
}

#[test]
fn a_closer_look_does_not_say_that_there_are_spares_again() {
    let world = World::new(1);
    world.set_thread(0, on_a_processor(0));
    let (policy, _) = in_enqueue(world, move || {
        world.tick();
        assert!(world.note_exhausted(true));
        world.advance(2 * MS);
        assert_eq!(world.tick().1, Next::After(2 * MS), "a closer look");
        assert!(!world.note_exhausted(false));
        world.tick_for(3 * MS);
        assert!(!world.note_exhausted(true), "it is the same want");
    });
    assert!(policy.exit_info().is_none());
    assert_eq!(world.core.metrics().spares_exhausted, 1);
}

/// It waits for whoever prints a backtrace.
#[test]
fn a_thread_that_makes_the_report_of_a_wrong_call_is_not_stuck() {
    let world = World::new(1);
    world.set_thread(0, blocked());
    let (policy, _) = in_enqueue(world, move || {
        let activity = &world.core.seat(SeatId::new(0)).activity;
        let place = activity.place();
        activity.set_place(Place::Reporting);
        assert_eq!(stuck(&world.tick_for(50 * TICK)), []);
        activity.set_place(place);
        assert_eq!(stuck(&world.tick_for(10 * TICK)), [FIRST]);
    });
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

/// They are offered in one call.
#[test]
fn many_slow_callbacks_are_not_one_that_is_stuck() {
    let world = World::new(1);
    let ran = Arc::new(AtomicU64::new(0));
    let policy = world.load(Script::new().enqueue(move |_, _| {
        for _ in 0..2 {
            let ran_ns = ran.fetch_add(4 * MS, Ordering::Relaxed);
            world.set_thread(0, on_a_processor(ran_ns));
            assert_eq!(stuck(&world.tick_for(TICK)), []);
        }
    }));
    let tasks: Vec<_> = (0..32).map(|_| world.spawn(0, async {})).collect();
    world.pass(0);
    assert_eq!(world.core.metrics().convictions, 0);
    assert!(policy.exit_info().is_none(), "{:?}", policy.exit_info());
    assert!(tasks.iter().all(|task| !task.is_finished()));
}

#[test]
fn where_the_machine_cannot_tell_a_call_is_convicted_after_nine_milliseconds() {
    let world = World::new(1);
    let (policy, pass) = in_enqueue(world, move || {
        world.tick();
        assert_eq!(stuck(&world.tick_for(9 * MS - 1)), []);
        assert_eq!(stuck(&world.tick_for(1)), [FIRST]);
    });
    assert_eq!(pass, Pass::Revoked);
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

#[test]
fn a_thread_that_is_stuck_in_its_last_look_before_a_park_is_not_idle() {
    let world = World::new(1);
    let rounds = Arc::new(AtomicUsize::new(0));
    let policy = world.load(Script::new().dispatch(move |_, _| {
        if rounds.fetch_add(1, Ordering::Relaxed) == 1 {
            world.set_thread(0, blocked());
            let (_, next) = world.tick();
            assert!(matches!(next, Next::After(..=TICK)), "{next:?}");
            assert_eq!(stuck(&world.tick_for(8 * TICK)), [FIRST]);
            let (findings, _) = world.tick();
            let needs = matches!(
                findings[..],
                [Finding::NeedsStandIn {
                    others: Others::AreStuckToo,
                    ..
                }]
            );
            assert!(needs, "{findings:?}");
        }
    }));
    assert_eq!(world.pass(0), Pass::Revoked);
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
}

#[test]
fn a_thread_that_lingers_in_its_last_look_before_a_park_is_not_free_for_what_others_hold_up() {
    let world = World::new(2);
    world.set_thread(0, on_a_processor(0));
    world.set_thread(1, on_a_processor(0));
    let rounds = Arc::new(AtomicUsize::new(0));
    let polled = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polled);
    let policy = Script::new()
        .enqueue(|host, task| {
            host.insert(task.id(), DsqId::Global, Position::Tail);
        })
        .dispatch(move |_, worker| {
            if worker.index() == 1 && rounds.fetch_add(1, Ordering::Relaxed) == 1 {
                world.run(0);
            }
        });
    let policy = world.load(policy);
    let here = Attributes::new().affinity(WorkerMask::from_iter([WorkerId::new(0)]));
    drop(world.spawn_with(here, async move {
        let findings = world.tick_for(10 * TICK);
        let stuck_too = findings.iter().any(|finding| {
            matches!(finding, Finding::NeedsStandIn { others, .. } if *others == Others::AreStuckToo)
        });
        assert!(stuck_too, "{findings:?}");
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    world.run(1);
    assert_eq!(polled.load(Ordering::Relaxed), 1);
    assert!(policy.exit_info().is_none());
}

/// Else the next stand-in would wait for its turn for ever, with the tasks that it is about to offer.
#[test]
fn a_turn_ends_with_the_conviction_of_whoever_has_it_also_when_nobody_else_takes_turns_any_more() {
    let world = World::new(1);
    let worker = WorkerId::new(0);
    world.set_thread(0, on_a_processor(0));
    let policy = world.load(Script::new().enqueue(move |host, task| {
        if task.tag() == LONG {
            // The stand-in goes while this call has the turn.
            world.tick_for(TICK);
            world.leave(1);
            world.tick_for(TICK);
            assert!(!world.core.placed(worker).take_turn(SeatId::new(1)));
            assert_eq!(stuck(&world.tick_while_running(0, 9 * MS - 1)), []);
            assert_eq!(stuck(&world.tick_while_running(0, 1)), [FIRST]);
        } else {
            host.insert(task.id(), DsqId::Global, Position::Tail);
        }
    }));
    drop(world.spawn(0, async move {
        drop(world.spawn(LONG, async {}));
        world.tick_for(10 * TICK);
        world.stand_in(1, 0, Cause::LongPoll);
    }));
    assert_eq!(world.pass(0), Pass::Ran);
    assert_eq!(world.pass(0), Pass::Revoked);
    assert_eq!(exit_of(&policy).kind, ExitKind::StuckCallback);
    assert!(world.core.placed(worker).take_turn(SeatId::new(1)));
}

#[test]
fn a_callback_around_a_poll_names_the_task_that_it_is_about() {
    let world = World::new(1);
    let policy = world.load(
        Script::new()
            .enqueue(|host, task| {
                host.insert(task.id(), DsqId::Local, Position::Tail);
            })
            .running(move |_, _| drop(world.tick_for(4 * TICK))),
    );
    let task = world.spawn(0, async {});
    assert_eq!([world.pass(0), world.pass(0)], [Pass::Ran, Pass::Revoked]);
    let info = exit_of(&policy);
    assert!(info.message.starts_with("running on worker 0 "), "{info}");
    assert_eq!(info.task, Some(task.id()));
    // It was to be polled, and is, once.
    assert!(!task.is_finished());
    world.stand_in(1, 0, Cause::Conviction);
    assert_eq!(world.run(1), 1);
    assert!(task.is_finished());
}
