//! The bounded dispatch loop: a policy whose `dispatch` always does something and never gives the worker a task.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use polity::{DsqId, ExitKind, Metrics, Position, TaskId, yield_now};
use polity_policies::{Fault, Faulty};
use polity_tests::{builder, check, now, receive, wait_for, wait_until, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::workload::{Mixed, Script, exit_of, tagged};

const NOBODY: TaskId = TaskId::from_parts(u32::MAX, 1);

/// Runs tasks tagged 1. Has all others in its custody, and inserts nobody, for ever, into a local DSQ.
fn endless() -> Script {
    Script::new("endless")
        .enqueue(|host, task| {
            if task.tag() == 1 {
                host.insert(task.id(), DsqId::Global, Position::Tail);
            }
        })
        .dispatch(|host, _, _| {
            assert!(!host.insert(NOBODY, DsqId::Local, Position::Tail));
        })
}

#[test]
fn the_loop_is_left_after_32_rounds() {
    check(1, |runtime| {
        let before = runtime.metrics();
        runtime.load(endless()).unwrap();
        wait_until("it has been cut a hundred times", || {
            runtime.metrics().dispatch_loops_cut >= before.dispatch_loops_cut + 100
        });
        runtime.eject("enough");
        wait_for("a task", runtime.spawn(async {})).unwrap();
        let after: Metrics = runtime.metrics();
        let cuts = after.dispatch_loops_cut - before.dispatch_loops_cut;
        let rounds = after.dispatches - before.dispatches;
        // The ejection may have come in the middle of the last one.
        assert!(
            (32 * cuts..32 * (cuts + 1)).contains(&rounds),
            "{rounds} rounds, {cuts} cuts"
        );
        assert!(after.stale_claims - before.stale_claims >= 32 * cuts);
    });
}

#[test]
fn a_dispatch_without_progress_is_asked_once_and_the_worker_parks() {
    check(1, |runtime| {
        let dispatches = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&dispatches);
        let policy = Script::new("looks_into_an_empty_queue")
            .init(|host| {
                host.create_dsq(0)?;
                Ok(())
            })
            .dispatch(move |host, _, _| {
                counted.fetch_add(1, Ordering::SeqCst);
                assert_eq!(host.move_to_local(DsqId::Custom(0), 8), 0);
            });
        runtime.load(policy).unwrap();
        let before = runtime.metrics();
        for _ in 0..100 {
            wait_for("a task", runtime.spawn(async {})).unwrap();
        }
        let after = runtime.metrics();
        assert_eq!(after.dispatch_loops_cut, before.dispatch_loops_cut);
        // Before each park it is asked twice: once, and once more after the park was announced.
        let parks = after.parks - before.parks;
        let asked = dispatches.load(Ordering::SeqCst) as u64;
        assert!(
            asked <= 2 * (parks + 100) + 10,
            "{asked} rounds, {parks} parks"
        );
    });
}

/// Processor time of the threads of this name, in nanoseconds.
fn cpu_ns(thread_name: &str) -> u64 {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let comm = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if comm.trim() == thread_name {
            let schedstat = fs::read_to_string(path.join("schedstat")).unwrap_or_default();
            let on_cpu = schedstat.split(' ').next().unwrap_or_default();
            sum += on_cpu.parse::<u64>().unwrap_or(0);
        }
    }
    sum
}

#[test]
fn an_idle_runtime_whose_policy_looks_into_an_empty_queue_sleeps() {
    within(|| {
        let runtime = builder(2).thread_name("idle-looker").build().unwrap();
        let policy = Script::new("looks_into_an_empty_queue")
            .init(|host| {
                host.create_dsq(0)?;
                Ok(())
            })
            .dispatch(|host, _, _| {
                host.move_to_local(DsqId::Custom(0), 8);
            });
        runtime.load(policy).unwrap();
        Mixed::start(&runtime, 5).finish();
        // The interval is the subject here. The sentinel keeps watch for a second after the last poll.
        let mut quiet_since = now();
        let mut dispatches = runtime.metrics().dispatches;
        let mut cpu = cpu_ns("idle-looker");
        wait_until("nobody has asked for a second", || {
            let asked = runtime.metrics().dispatches;
            if asked != dispatches {
                (dispatches, quiet_since) = (asked, now());
                cpu = cpu_ns("idle-looker");
            }
            now() - quiet_since > Duration::from_secs(1)
        });
        let used = cpu_ns("idle-looker") - cpu;
        assert!(used < 5_000_000, "{used} ns of processor time in a second");
        wait_for("it wakes up again", runtime.spawn(async {})).unwrap();
    });
}

#[test]
fn timers_io_and_control_are_served_between_the_loops_on_one_worker() {
    check(1, |runtime| {
        let generation = runtime.load(endless()).unwrap();
        let held = runtime.spawn(async {});
        wait_until("it loops", || runtime.metrics().dispatch_loops_cut > 3);
        let cuts = runtime.metrics().dispatch_loops_cut;
        // The worker drives: no other thread does.
        let io = async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = listener.local_addr().unwrap();
            let mut client = tokio::net::TcpStream::connect(to).await.unwrap();
            let (mut server, _) = listener.accept().await.unwrap();
            for n in 0..10 {
                // A timer of the driver is what is tested, not a wait for luck.
                tokio::time::sleep(Duration::from_millis(2)).await;
                client.write_all(&[n]).await.unwrap();
                let mut byte = [0];
                server.read_exact(&mut byte).await.unwrap();
                assert_eq!(byte, [n]);
            }
        };
        wait_for("I/O by a task", tagged(&runtime, 1, io)).unwrap();
        // A timer of the driver is what is tested, not a wait for luck.
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(5)).await });
        assert!(
            runtime.metrics().dispatch_loops_cut > cuts,
            "it has looped all the time"
        );
        assert!(!held.is_finished());
        assert_eq!(runtime.policy_status().unwrap().generation, generation);
        runtime.eject("enough").unwrap();
        wait_for("the task that was held", held).unwrap();
    });
}

#[test]
fn the_watchdog_ejects_it_and_its_tasks_go_on() {
    for workers in [1, 2] {
        within(move || {
            let timeout = Duration::from_millis(100);
            let runtime = builder(workers).watchdog(timeout).build().unwrap();
            let generation = runtime
                .load(Faulty::new(Fault::DispatchEndlesslyAfter(40)))
                .unwrap();
            let load = Mixed::start(&runtime, 10);
            let info = exit_of(&runtime, generation);
            assert_eq!(info.kind, ExitKind::DispatchLoop, "{info}");
            assert!(
                info.message
                    .starts_with("dispatch: 32 rounds in each cycle for ")
                    && info.message.ends_with(" ms, and nothing to run"),
                "{info}"
            );
            assert!(info.worker.is_some(), "{info}");
            load.finish();
            assert!(runtime.policy_status().is_none());
        });
    }
}

#[test]
fn it_is_not_ejected_before_the_stall_timeout() {
    within(|| {
        let timeout = Duration::from_millis(200);
        let runtime = builder(1).watchdog(timeout).build().unwrap();
        let begun = now();
        let generation = runtime.load(endless()).unwrap();
        let info = exit_of(&runtime, generation);
        assert!(now() - begun >= timeout, "{info}");
        assert_eq!(info.kind, ExitKind::DispatchLoop);
    });
}

/// Polls in between start the time anew: such a policy wastes time, but it does not stall.
#[test]
fn a_policy_that_also_runs_tasks_is_not_ejected() {
    within(|| {
        let timeout = Duration::from_millis(50);
        let runtime = builder(1).watchdog(timeout).build().unwrap();
        let generation = runtime.load(endless()).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ticked, ticks) = channel();
        let ticking = tagged(&runtime, 1, async move {
            while !stopped.load(Ordering::Relaxed) {
                // A timer of the driver is what is tested, not a wait for luck.
                tokio::time::sleep(Duration::from_millis(2)).await;
                let _ = ticked.send(());
            }
        });
        let until = now() + 4 * timeout;
        while now() < until {
            // A machine that does not run us for so long proves nothing.
            if ticks.recv_timeout(timeout / 2).is_err() {
                break;
            }
        }
        let in_time = now() >= until;
        assert!(runtime.exit_info(generation).is_none() || !in_time);
        stop.store(true, Ordering::Relaxed);
        if in_time {
            wait_for("the ticking task", ticking).unwrap();
        }
    });
}

#[test]
fn tasks_that_a_policy_forgot_run_after_its_ejection() {
    check(2, |runtime| {
        let generation = runtime.load(Faulty::new(Fault::ForgetEveryNth(3))).unwrap();
        let (ran, runs) = channel();
        let tasks: Vec<_> = (0..90)
            .map(|_| {
                let ran = ran.clone();
                runtime.spawn(async move {
                    ran.send(()).unwrap();
                    yield_now().await;
                })
            })
            .collect();
        receive("a task that was not forgotten", &runs);
        wait_until("all have been offered", || runtime.metrics().offered >= 90);
        let waits = tasks.iter().filter(|task| !task.is_finished()).count();
        assert!(waits >= 30, "{waits} of 90 wait");
        assert!(runtime.exit_info(generation).is_none());
        runtime.eject("forgetful");
        for task in tasks {
            wait_for("a forgotten task", task).unwrap();
        }
    });
}
