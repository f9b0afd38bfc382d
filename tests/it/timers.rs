//! `kick_at` and `timer`: a policy that is called when it wants to be.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use polity::{
    DsqId, ExitKind, Host, InitError, Policy, Position, Runtime, TaskId, TaskView, WorkerId,
};
use polity_tests::{alone, builder, check, receive, wait_for, wait_until, within};

use crate::workload::exit_of;

const SOON: Duration = Duration::from_millis(5);
/// Later than any test lasts.
const NEVER: Duration = Duration::from_secs(3600);

type OnInit = Box<dyn Fn(&Host<'_>) + Send + Sync>;
type OnTimer = Box<dyn Fn(&Host<'_>, WorkerId) + Send + Sync>;

/// Runs every task, and does this in `init` and in `timer`.
struct Clock {
    init: OnInit,
    timer: OnTimer,
}

impl Clock {
    fn new(
        init: impl Fn(&Host<'_>) + Send + Sync + 'static,
        timer: impl Fn(&Host<'_>, WorkerId) + Send + Sync + 'static,
    ) -> Self {
        Clock {
            init: Box::new(init),
            timer: Box::new(timer),
        }
    }
}

impl Policy for Clock {
    type Task = ();

    fn name(&self) -> &str {
        "clock"
    }

    fn init(&self, host: &Host<'_>) -> Result<(), InitError> {
        (self.init)(host);
        Ok(())
    }

    fn timer(&self, host: &Host<'_>, worker: WorkerId) {
        (self.timer)(host, worker);
    }
}

fn worker(index: usize) -> WorkerId {
    WorkerId::new(index as u16)
}

fn all(host: &Host<'_>) -> impl Iterator<Item = WorkerId> {
    (0..host.worker_count()).map(worker)
}

/// What `timer` was called for, from a policy that `init` sets times for.
fn rings(
    runtime: &Runtime,
    init: impl Fn(&Host<'_>) + Send + Sync + 'static,
) -> Receiver<(WorkerId, Duration)> {
    let (ring, rings) = channel();
    let ring: Mutex<Sender<_>> = Mutex::new(ring);
    let note = move |host: &Host<'_>, worker: WorkerId| {
        assert_eq!(host.worker(), Some(worker));
        let _ = ring.lock().unwrap().send((worker, host.now()));
    };
    runtime.load(Clock::new(init, note)).unwrap();
    rings
}

#[test]
fn it_comes_in_time_while_every_worker_is_parked() {
    alone(|| {
        check(2, |runtime| {
            const TIMES: usize = 40;
            let at = Arc::new(Mutex::new([Duration::ZERO; 2]));
            let (late, lates) = channel();
            let late: Mutex<Sender<Duration>> = Mutex::new(late);
            let again = {
                let at = Arc::clone(&at);
                move |host: &Host<'_>, worker: WorkerId| {
                    let next = host.now() + SOON;
                    at.lock().unwrap()[worker.index()] = next;
                    host.kick_at(worker, next);
                }
            };
            let again = Arc::new(again);
            let first = Arc::clone(&again);
            let init = move |host: &Host<'_>| all(host).for_each(|worker| first(host, worker));
            let timer = move |host: &Host<'_>, worker: WorkerId| {
                let expected = at.lock().unwrap()[worker.index()];
                // Early is an overflow, and fails below.
                let _ = late
                    .lock()
                    .unwrap()
                    .send(host.now().saturating_sub(expected));
                assert!(host.now() >= expected, "{:?} < {expected:?}", host.now());
                again(host, worker);
            };
            let generation = runtime.load(Clock::new(init, timer)).unwrap();
            let mut lates: Vec<Duration> = (0..TIMES).map(|_| receive("a ring", &lates)).collect();
            lates.sort();
            println!("late by {:?}, {:?}", lates[0], lates[TIMES / 2]);
            // Others may be using the machine; the quickest are not held up by that.
            assert!(lates[TIMES / 10] <= Duration::from_millis(1), "{lates:?}");
            assert!(runtime.exit_info(generation).is_none());
            wait_until("they are counted", || {
                runtime.metrics().timers >= TIMES as u64
            });
        });
    });
}

#[test]
fn a_parked_worker_hears_of_a_time_that_another_one_has_set() {
    check(2, |runtime| {
        let (ring, rings) = channel();
        let ring: Mutex<Sender<_>> = Mutex::new(ring);
        let timer = move |host: &Host<'_>, at: WorkerId| {
            let _ = ring.lock().unwrap().send(at);
            if at == worker(0) {
                host.kick_at(worker(1), host.now() + SOON);
            }
        };
        let init = |host: &Host<'_>| {
            // It would park for this long.
            host.kick_at(worker(1), host.now() + NEVER);
            host.kick_at(worker(0), host.now() + SOON);
        };
        runtime.load(Clock::new(init, timer)).unwrap();
        assert_eq!(receive("the first", &rings), worker(0));
        assert_eq!(receive("the second", &rings), worker(1));
    });
}

#[test]
fn the_earliest_of_several_times_counts_and_the_others_are_forgotten() {
    check(1, |runtime| {
        let heard = rings(&runtime, |host| {
            for time in [SOON * 4, SOON, SOON * 8] {
                host.kick_at(worker(0), host.now() + time);
            }
        });
        receive("the earliest", &heard);
        // Twice as long as the latest: that they do not come is the subject, and tells nobody.
        let long = { runtime.spawn(async { tokio::time::sleep(SOON * 16).await }) };
        wait_for("that time", long).unwrap();
        assert!(heard.try_recv().is_err());
        wait_until("it is counted", || runtime.metrics().timers == 1);
    });
}

#[test]
fn a_time_that_has_passed_comes_at_once() {
    check(1, |runtime| {
        let heard = rings(&runtime, |host| host.kick_at(worker(0), Duration::ZERO));
        receive("the ring", &heard);
    });
}

/// A policy that lets a task wait for a time of its own choice.
#[test]
fn a_dispatch_follows() {
    struct Delays {
        waiting: Mutex<Option<TaskId>>,
        due: AtomicBool,
    }

    impl Policy for Delays {
        type Task = ();

        fn name(&self) -> &str {
            "delays"
        }

        fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_>) {
            *self.waiting.lock().unwrap() = Some(task.id());
            host.kick_at(worker(0), host.now() + SOON);
        }

        fn timer(&self, _host: &Host<'_>, _worker: WorkerId) {
            self.due.store(true, Ordering::Relaxed);
        }

        fn dispatch(&self, host: &Host<'_>, _worker: WorkerId, _prev: Option<&TaskView<'_>>) {
            if self.due.load(Ordering::Relaxed)
                && let Some(task) = self.waiting.lock().unwrap().take()
            {
                host.insert(task, DsqId::Local, Position::Tail);
            }
        }
    }

    check(1, |runtime| {
        let generation = runtime
            .load(Delays {
                waiting: Mutex::default(),
                due: AtomicBool::new(false),
            })
            .unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        assert!(runtime.exit_info(generation).is_none());
        wait_until("it is counted", || runtime.metrics().timers == 1);
    });
}

#[test]
fn times_go_with_their_policy() {
    check(2, |runtime| {
        let heard = rings(&runtime, |host| {
            all(host).for_each(|worker| host.kick_at(worker, host.now() + SOON * 10));
        });
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let silent = Clock::new(
            |_| {},
            move |_, _| {
                counted.fetch_add(1, Ordering::Relaxed);
            },
        );
        runtime.load(silent).unwrap();
        // That they do not come is the subject, and tells nobody.
        let long = runtime.spawn(async { tokio::time::sleep(SOON * 20).await });
        wait_for("twice that time", long).unwrap();
        assert!(heard.try_recv().is_err());
        assert_eq!(count.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn what_comes_in_a_bypass_comes_after_it() {
    check(1, |runtime| {
        let heard = rings(&runtime, |host| {
            host.kick_at(worker(0), host.now() + SOON * 4);
        });
        let bypass = runtime.bypass();
        // That it does not come is the subject, and tells nobody.
        let long = runtime.spawn(async { tokio::time::sleep(SOON * 20).await });
        wait_for("five times that time", long).unwrap();
        let too_early = heard.try_recv();
        drop(bypass);
        // Unless the machine was so slow that it came before the bypass.
        if too_early.is_err() {
            receive("the ring", &heard);
        }
        wait_until("it is counted", || runtime.metrics().timers == 1);
    });
}

#[test]
fn a_worker_that_does_not_exist_has_no_timer() {
    check(2, |runtime| {
        let bad = |host: &Host<'_>, _: WorkerId| host.kick_at(worker(2), host.now());
        let first = |host: &Host<'_>| host.kick_at(worker(0), host.now());
        let generation = runtime.load(Clock::new(first, bad)).unwrap();
        let info = exit_of(&runtime, generation);
        assert_eq!(info.kind, ExitKind::Error);
        assert_eq!(
            info.message,
            "timer: worker 2 is out of range: there are 2 workers, counted from 0"
        );
        let error = runtime.load(Clock::new(move |host| bad(host, worker(0)), |_, _| {}));
        let message = error.unwrap_err().to_string();
        assert!(message.contains("kick_at of worker 2"), "{message}");
    });
}

#[test]
fn nothing_can_be_inserted_from_it() {
    check(1, |runtime| {
        let inserts = |host: &Host<'_>, _: WorkerId| {
            let nobody = TaskId::from_parts(u32::MAX, 1);
            assert!(!host.insert(nobody, DsqId::Global, Position::Tail));
        };
        let first = |host: &Host<'_>| host.kick_at(worker(0), host.now());
        let generation = runtime.load(Clock::new(first, inserts)).unwrap();
        let info = exit_of(&runtime, generation);
        assert!(info.message.starts_with("timer: insert of task "), "{info}");
        assert!(
            info.message.ends_with("not allowed in this callback"),
            "{info}"
        );
    });
}

#[test]
fn a_panic_in_it_ejects_the_policy_and_costs_no_task() {
    check(1, |runtime| {
        let first = |host: &Host<'_>| host.kick_at(worker(0), host.now() + SOON);
        let panics = |_: &Host<'_>, _: WorkerId| panic!("no time");
        let generation = runtime.load(Clock::new(first, panics)).unwrap();
        let info = exit_of(&runtime, generation);
        assert_eq!(info.kind, ExitKind::Panic);
        assert!(info.message.starts_with("timer: no time"), "{info}");
        wait_for("a task", runtime.spawn(async {})).unwrap();
        wait_until("it has gone", || runtime.policy_status().is_none());
    });
}

#[test]
fn a_timer_that_does_not_return_costs_no_task() {
    within(|| {
        let runtime = builder(1).build().unwrap();
        let (release, released) = channel::<()>();
        let released = Mutex::new(released);
        let first = |host: &Host<'_>| host.kick_at(worker(0), host.now() + SOON);
        let stuck = move |_: &Host<'_>, _: WorkerId| {
            let _ = released.lock().unwrap().recv();
        };
        let generation = runtime.load(Clock::new(first, stuck)).unwrap();
        let info = exit_of(&runtime, generation);
        assert_eq!(info.kind, ExitKind::StuckCallback);
        let start = "timer on worker 0 has not returned for ";
        assert!(info.message.starts_with(start), "{info}");
        wait_for("a task", runtime.spawn(async {})).unwrap();
        drop(release);
        wait_until("the thread is back", || runtime.abandoned_threads() == 0);
        wait_for("a task", runtime.spawn(async {})).unwrap();
    });
}
