//! What happens while a callback is stuck: loads, ejections, bypasses, aborts.

use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;

use polity::{ExitKind, Runtime};
use polity_policies::{Callback, Priority};
use polity_tests::{receive, wait_for, wait_until, within};

use super::{Bait, Scene, WORKERS, runtime};
use crate::spares::trap::How;
use crate::support::ON_WORKERS;
use crate::workload::{Mixed, Recorder, Script, exit_of, lock};

/// Gets stuck in every callback, and lets `meanwhile` happen before the conviction.
fn check_meanwhile(meanwhile: fn(&Runtime) -> ExitKind) {
    within(move || {
        let runtime = runtime();
        for (callback, how) in
            { ON_WORKERS.iter() }.zip([How::Spinning, How::Blocked].iter().cycle())
        {
            println!("{callback}, {how:?}");
            // On a slow machine the conviction may come first: then once more.
            for attempt in 1.. {
                let scene = Scene::new(&runtime, *callback, *how, 2, Bait::Finishes);
                let kind = meanwhile(&runtime);
                scene.wake_and_abort();
                let info = exit_of(&runtime, scene.generation);
                wait_until("all are convicted", || runtime.abandoned_threads() == 2);
                scene.play_on(&runtime);
                scene.end(&runtime);
                if info.kind == kind {
                    break;
                }
                assert_eq!(info.kind, ExitKind::StuckCallback, "{info}");
                assert!(attempt < 20, "{info}");
            }
        }
    });
}

#[test]
fn threads_stuck_in_a_policy_that_was_unloaded_are_replaced_too() {
    check_meanwhile(|runtime| {
        runtime.unload();
        ExitKind::Unload
    });
}

#[test]
fn threads_stuck_in_a_policy_that_was_ejected_are_replaced_too() {
    check_meanwhile(|runtime| {
        runtime.eject("too slow for us");
        ExitKind::Ejected
    });
}

#[test]
fn threads_stuck_in_a_policy_that_was_swapped_away_are_replaced_too() {
    check_meanwhile(|runtime| {
        runtime.load(Priority::new()).unwrap();
        ExitKind::Swap
    });
}

#[test]
fn a_bypass_may_begin_and_end_while_a_callback_is_stuck() {
    check_meanwhile(|runtime| {
        drop(runtime.bypass());
        let bypass = runtime.bypass();
        let inner = runtime.bypass();
        drop(bypass);
        drop(inner);
        ExitKind::StuckCallback
    });
}

#[test]
fn a_bypass_that_lasts_through_a_conviction_may_end_before_the_threads_are_back() {
    within(|| {
        let runtime = runtime();
        for callback in ON_WORKERS {
            println!("{callback}");
            let scene = Scene::new(&runtime, callback, How::Spinning, 2, Bait::Waits);
            let bypass = runtime.bypass();
            scene.wake_and_abort();
            exit_of(&runtime, scene.generation);
            wait_until("all are convicted", || runtime.abandoned_threads() == 2);
            scene.settle();
            drop(bypass);
            scene.play_on(&runtime);
            scene.end(&runtime);
        }
    });
}

#[test]
fn a_notifier_that_does_not_return_in_a_bypass_costs_no_task() {
    within(|| {
        let runtime = runtime();
        for callback in [
            Callback::InitTask,
            Callback::ExitTask,
            Callback::Dequeue,
            Callback::Runnable,
            Callback::Running,
            Callback::Stopping,
            Callback::Quiescent,
        ] {
            for how in [How::Spinning, How::Blocked] {
                println!("{callback}, {how:?}");
                let scene = loop {
                    let scene = Scene::set(&runtime, callback, how, 2, Bait::Finishes);
                    if callback == Callback::Dequeue {
                        // The bypass itself takes the baits out of custody.
                        scene.trigger.arm();
                    }
                    let bypass = runtime.bypass();
                    let sprung = scene.spring(&runtime, Bait::Finishes);
                    drop(bypass);
                    if let Some(scene) = sprung {
                        break scene;
                    }
                };
                scene.wake_and_abort();
                let info = exit_of(&runtime, scene.generation);
                assert_eq!(info.kind, ExitKind::StuckCallback, "{info}");
                assert!(info.message.starts_with(&callback.to_string()), "{info}");
                wait_until("all are convicted", || runtime.abandoned_threads() == 2);
                scene.play_on(&runtime);
                scene.end(&runtime);
            }
        }
    });
}

#[test]
fn a_load_that_is_pending_when_all_threads_get_stuck_is_completed() {
    within(|| {
        let runtime = runtime();
        let (begun, init_begun) = channel();
        let (finish, init_finish) = channel::<()>();
        let init_finish = Mutex::new(init_finish);
        let next = Script::new("next").init(move |_| {
            begun.send(()).unwrap();
            let _ = lock(&init_finish).recv();
            Ok(())
        });
        let (next, record) = Recorder::new(next, WORKERS);
        let scene = Scene::set(
            &runtime,
            Callback::Dispatch,
            How::Spinning,
            2,
            Bait::Finishes,
        );
        let handle = runtime.handle().clone();
        let load = std::thread::spawn(move || handle.load(next));
        receive("init", &init_begun);
        // If the second call came too late, one of them was stuck: that will do.
        let scene = scene.spring(&runtime, Bait::Finishes);
        if let Some(scene) = &scene {
            scene.wake_and_abort();
            wait_until("all are convicted", || runtime.abandoned_threads() == 2);
            scene.settle();
        }
        drop(finish);
        let generation = load.join().unwrap().unwrap();
        assert_eq!(runtime.policy_status().unwrap().generation, generation);
        Mixed::start(&runtime, 2).finish();
        assert!(record.enqueues.load(Ordering::SeqCst) > 0);
        record.check();
        if let Some(scene) = scene {
            scene.end(&runtime);
        }
    });
}

/// The stuck call has it: in the batch, claimed, about to be polled, or polled.
#[test]
fn a_task_that_is_aborted_while_a_stuck_call_is_about_it_ends_once() {
    within(|| {
        let runtime = runtime();
        for callback in ON_WORKERS {
            for bait in [Bait::Finishes, Bait::Waits] {
                println!("{callback}, a bait that {bait:?}");
                let scene = Scene::new(&runtime, callback, How::Spinning, 2, bait);
                lock(&scene.books).abort_all();
                exit_of(&runtime, scene.generation);
                wait_until("all are convicted", || runtime.abandoned_threads() == 2);
                for spring in lock(&scene.springs).drain(..) {
                    wait_for("a task that spawns others", spring).unwrap();
                }
                scene.go.send_replace(true);
                lock(&scene.books).settle_aborted();
                scene.play_on(&runtime);
                scene.end(&runtime);
            }
        }
    });
}
