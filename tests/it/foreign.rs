//! Tasks that were started with `tokio::spawn`: counted, and said once for each load that does not see them.

#![expect(clippy::disallowed_methods, reason = "they are the subject")]

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use polity::Runtime;
use polity_policies::{Fifo, Priority};
use polity_tests::{
    check, in_a_process_of_its_own, receive, runtime, wait_for, wait_until, within,
};
use tokio::sync::oneshot;

use crate::reports::Reports;

/// Reports of foreign tasks.
fn warnings() -> Receiver<String> {
    Reports::subscribe_to("on the I/O driver")
}

/// Foreign tasks, spawned from a task of ours; they end when the senders are gone.
fn spawn_foreign(runtime: &Runtime, count: usize) -> Vec<oneshot::Sender<()>> {
    let spawning = runtime.spawn(async move {
        let foreign = (0..count).map(|_| {
            let (hold, held) = oneshot::channel::<()>();
            tokio::spawn(held);
            hold
        });
        foreign.collect()
    });
    wait_for("the task that spawns foreign ones", spawning).unwrap()
}

/// Returns when workers have been in the driver since, several times.
fn many_rounds(runtime: &Runtime) {
    for _ in 0..20 {
        // Workers look into the driver for it.
        let sleep = async { tokio::time::sleep(Duration::from_millis(1)).await };
        wait_for("a timer", runtime.spawn(sleep)).unwrap();
    }
}

#[test]
fn live_foreign_tasks_are_counted_and_those_that_ended_are_not() {
    check(2, |runtime| {
        assert_eq!(runtime.metrics().foreign_tasks, 0);
        let held = spawn_foreign(&runtime, 3);
        assert_eq!(runtime.metrics().foreign_tasks, 3);
        assert_eq!(runtime.foreign_tasks(), 3);
        let dump = runtime.dump().to_string();
        assert!(dump.contains(" foreign_tasks 3"), "{dump}");
        drop(held);
        wait_until("they have ended", || runtime.metrics().foreign_tasks == 0);
    });
}

#[test]
fn nothing_of_ours_is_a_foreign_task() {
    check(2, |runtime| {
        let (release, released) = channel::<()>();
        let blocking = runtime.spawn_blocking(move || released.recv().is_err());
        let ours = runtime.spawn(std::future::pending::<()>());
        runtime.block_on(async {
            // A timer is ours, too: it needs no task of tokio's.
            tokio::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(polity::Handle::current().metrics().foreign_tasks, 0);
        });
        ours.abort();
        drop(release);
        wait_for("the blocking call", blocking).unwrap();
    });
}

#[test]
fn foreign_tasks_under_a_policy_are_warned_of_once_per_load() {
    const NAME: &str = "foreign::foreign_tasks_under_a_policy_are_warned_of_once_per_load";
    in_a_process_of_its_own(NAME, || {
        within(|| {
            let says = warnings();
            let runtime = runtime(2);
            // Without a policy there is nothing to say.
            let held = spawn_foreign(&runtime, 2);
            many_rounds(&runtime);
            assert!(says.try_recv().is_err());

            runtime.load(Priority::new()).unwrap();
            many_rounds(&runtime);
            let said = receive("a warning", &says);
            let expected = "WARN 2 tasks live on the I/O driver, where policy \"priority\" does not see them: they were started \
                            with tokio::spawn, perhaps by a library. Start what should be scheduled with polity::spawn, ";
            assert!(said.starts_with(expected), "{said}");
            let more = spawn_foreign(&runtime, 2);
            many_rounds(&runtime);

            runtime.load(Fifo::new()).unwrap();
            many_rounds(&runtime);
            let said = receive("a warning for the next policy", &says);
            assert!(
                said.starts_with("WARN 4 tasks live on the I/O driver, where policy \"fifo\""),
                "{said}"
            );
            drop((held, more));
            wait_until("they have ended", || runtime.foreign_tasks() == 0);

            // The next one has none to warn of.
            runtime.load(Fifo::new()).unwrap();
            many_rounds(&runtime);
            drop(runtime);
            assert_eq!(says.try_iter().count(), 0);
        });
    });
}

#[test]
fn a_foreign_task_of_the_root_future_is_warned_of_while_every_worker_is_parked() {
    const NAME: &str =
        "foreign::a_foreign_task_of_the_root_future_is_warned_of_while_every_worker_is_parked";
    in_a_process_of_its_own(NAME, || {
        within(|| {
            let says = warnings();
            let runtime = runtime(1);
            runtime.load(Fifo::new()).unwrap();
            // Nothing of ours is ever polled: the worker stays in the driver.
            wait_until("the worker is parked", || runtime.metrics().parks > 0);
            let mut said = None;
            wait_until("a warning", || {
                // Ends in the first round that it is polled in, so a look may miss one.
                runtime.block_on(async { tokio::spawn(async {}).await.unwrap() });
                said = says.try_recv().ok();
                said.is_some()
            });
            let said = said.unwrap();
            assert!(
                said.starts_with("WARN 1 task lives on the I/O driver"),
                "{said}"
            );
        });
    });
}
