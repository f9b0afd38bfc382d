//! Each callback in turn does not return.

use polity::ExitKind;
use polity_policies::Callback;
use polity_tests::{wait_until, within};

use super::{Bait, Scene, WORKERS, runtime};
use crate::spares::trap::How;
use crate::workload::exit_of;

fn check_stuck(callback: Callback) {
    within(move || {
        let runtime = runtime();
        let mut convictions = 0;
        for (how, calls, bait) in [
            (How::Spinning, 2, Bait::Finishes),
            (How::Blocked, 2, Bait::Waits),
            (How::Spinning, 1, Bait::Yields),
            (How::Blocked, 1, Bait::Finishes),
            (How::Spinning, 2, Bait::Waits),
            (How::Blocked, 2, Bait::Yields),
        ] {
            println!("{callback}: {calls} {how:?}, a bait that {bait:?}");
            let scene = Scene::new(&runtime, callback, how, calls, bait);
            scene.wake_and_abort();
            let info = exit_of(&runtime, scene.generation);
            if calls == WORKERS {
                scene.trigger.is_over();
            }
            assert_eq!(info.kind, ExitKind::StuckCallback, "{info}");
            let worker = info.worker.expect("a worker was stuck");
            let caught = scene.trigger.caught();
            assert!(caught.iter().any(|caught| caught.worker == worker));
            let start = format!("{callback} on worker {worker} has not returned for ");
            assert!(info.message.starts_with(&start), "{info}");
            let way = match how {
                How::Spinning => "running",
                How::Blocked => "blocked in a system call",
            };
            assert!(info.message.ends_with(way), "{info}");
            wait_until("all are convicted", || runtime.abandoned_threads() == calls);
            scene.play_on(&runtime);
            if calls == WORKERS {
                assert!(
                    scene.trigger.late().is_empty(),
                    "{:?}",
                    scene.trigger.late()
                );
            }
            scene.end(&runtime);
            convictions += calls as u64;
            assert!(runtime.metrics().convictions >= convictions);
        }
        assert_eq!(runtime.metrics().spares_exhausted, 0);
    });
}

macro_rules! stuck_in {
    ($($test:ident: $callback:ident;)*) => {
        $(#[test]
        fn $test() {
            check_stuck(Callback::$callback);
        })*
    };
}

stuck_in! {
    a_select_worker_that_does_not_return_costs_no_task: SelectWorker;
    an_enqueue_that_does_not_return_costs_no_task: Enqueue;
    a_dequeue_that_does_not_return_costs_no_task: Dequeue;
    a_dispatch_that_does_not_return_costs_no_task: Dispatch;
    a_runnable_that_does_not_return_costs_no_task: Runnable;
    an_init_task_that_does_not_return_costs_no_task: InitTask;
    an_exit_task_that_does_not_return_costs_no_task: ExitTask;
    a_running_that_does_not_return_costs_no_task: Running;
    a_stopping_that_does_not_return_costs_no_task: Stopping;
    a_quiescent_that_does_not_return_costs_no_task: Quiescent;
}
