//! Who is convicted, and how soon: a call that waits for what does not come, and not one that only waits for its turn.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use polity::{Attributes, DsqId, ExitKind, Position, Runtime};
use polity_policies::Priority;
use polity_tests::{now, receive, wait_for, wait_until, within};

use super::{WORKERS, only, runtime};
use crate::workload::{Mixed, Recorder, Script, exit_of, lock};

/// Two calls of `dispatch` that wait for one another. `false`: the machine was so slow that the first of them was convicted
/// before the second one came.
fn deadlock() -> bool {
    let runtime = runtime();
    let locks = Arc::new([Mutex::new(()), Mutex::new(())]);
    // Both have their first lock when they ask for their second one.
    let both = Arc::new(Barrier::new(WORKERS));
    let met = Arc::new(AtomicBool::new(false));
    let has_met = Arc::clone(&met);
    let policy = Script::new("abba").dispatch(move |_, worker, _| {
        let first = lock(&locks[worker.index()]);
        both.wait();
        has_met.store(true, Ordering::SeqCst);
        let second = lock(&locks[1 - worker.index()]);
        drop((first, second));
    });
    let (policy, record) = Recorder::new(policy, WORKERS);
    let generation = runtime.load(policy).unwrap();
    for worker in 0..WORKERS {
        let here = Attributes::new().affinity(only(worker));
        drop(runtime.spawn_with(here, async {}).unwrap());
    }
    let info = exit_of(&runtime, generation);
    assert_eq!(info.kind, ExitKind::StuckCallback, "{info}");
    let (start, end) = ("dispatch on worker ", "blocked in a system call");
    assert!(info.message.starts_with(start), "{info}");
    assert!(info.message.ends_with(end), "{info}");
    if !met.load(Ordering::SeqCst) {
        return false;
    }
    wait_until("both are convicted", || {
        runtime.abandoned_threads() == WORKERS
    });
    Mixed::start(&runtime, 3).finish();
    runtime.load(Priority::new()).unwrap();
    Mixed::start(&runtime, 3).finish();
    record.check();
    true
}

/// Its threads are lost for good: this test leaves two behind.
#[test]
fn a_policy_that_deadlocks_on_its_own_locks_is_ejected() {
    within(|| while !deadlock() {});
}

/// Time in one system call after which a call counts as stuck: two windows of the watchdog.
const BLOCKED: Duration = Duration::from_millis(20);

/// At the latest by then on a machine that has nothing else to do: two ticks of 5 ms, and the look of control.
const CONVICTED: Duration = Duration::from_millis(60);

/// Runs `trial`, which returns how long a conviction took, until it was as quick as it should be; the machine may be busy
/// with other things, but not for ever.
fn check_conviction_time(what: &str, mut trial: impl FnMut() -> Duration) {
    let mut took = Vec::new();
    for _ in 0..20 {
        took.push(trial());
        assert!(took.iter().min() >= Some(&BLOCKED), "{what}: {took:?}");
        if took.last() <= Some(&CONVICTED) {
            break;
        }
    }
    println!("{what}: {took:?}");
    assert!(took.last() <= Some(&CONVICTED), "{what}: {took:?}");
}

/// Loads a policy whose `enqueue` blocks in `wait`, and returns how long it took to throw it out.
fn time_to_eject(runtime: &Runtime, wait: impl Fn() + Send + Sync + 'static) -> Duration {
    let (begin, begun) = channel();
    let policy = Script::new("blocks").enqueue(move |_, _| {
        begin.send(now()).unwrap();
        wait();
    });
    let generation = runtime.load(policy).unwrap();
    let task = runtime.spawn(async {});
    let begun = receive("the call", &begun);
    wait_until("it is ejected", || runtime.policy_status().is_none());
    let took = now() - begun;
    wait_for("the task that was at hand", task).unwrap();
    assert_eq!(exit_of(runtime, generation).kind, ExitKind::StuckCallback);
    wait_until("the conviction", || runtime.abandoned_threads() == 1);
    took
}

#[test]
fn a_policy_that_waits_for_a_message_that_does_not_come_is_ejected_in_time() {
    within(|| {
        let runtime = runtime();
        check_conviction_time("an empty channel", || {
            let (message, empty) = channel::<()>();
            let empty = Mutex::new(empty);
            let took = time_to_eject(&runtime, move || {
                let _ = lock(&empty).recv();
            });
            drop(message);
            wait_until("the thread is back", || runtime.abandoned_threads() == 0);
            took
        });
    });
}

#[test]
fn a_policy_that_reads_an_empty_pipe_is_ejected_in_time() {
    within(|| {
        let runtime = runtime();
        check_conviction_time("an empty pipe", || {
            let (empty, writer) = std::io::pipe().unwrap();
            let took = time_to_eject(&runtime, move || {
                let _ = (&empty).read(&mut [0]);
            });
            drop(writer);
            wait_until("the thread is back", || runtime.abandoned_threads() == 0);
            took
        });
    });
}

/// On a machine that is busy the holder may not run for long: the one that waits is not to blame for that.
#[test]
fn a_callback_that_waits_for_a_lock_that_another_one_holds_is_not_convicted() {
    within(|| {
        let runtime = runtime();
        let shared = Arc::new(Mutex::new(()));
        let waits = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&waits);
        let policy = Script::new("slow").dispatch(move |_, _, _| {
            let held = shared.try_lock().unwrap_or_else(|_| {
                counted.fetch_add(1, Ordering::SeqCst);
                lock(&shared)
            });
            spin(Duration::from_millis(2));
            drop(held);
        });
        let (policy, record) = Recorder::new(policy, WORKERS);
        let generation = runtime.load(policy).unwrap();
        while waits.load(Ordering::SeqCst) < 30 {
            let tasks = [0, 1].map(|worker| {
                let here = Attributes::new().affinity(only(worker));
                runtime.spawn_with(here, async {}).unwrap()
            });
            for task in tasks {
                wait_for("a task", task).unwrap();
            }
            let info = runtime.exit_info(generation);
            assert!(info.is_none(), "{}", info.unwrap());
        }
        assert_eq!(runtime.metrics().convictions, 0);
        record.check();
    });
}

/// A thread of this process that runs only when nobody else wants its processor, and threads that do. They end with this.
struct Starved {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Starved {
    /// Holds `lock` until this is dropped, and wants to run all the while.
    fn holding(shared: &Arc<Mutex<()>>) -> Starved {
        let core = core_affinity::get_core_ids().unwrap()[0];
        let stop = Arc::new(AtomicBool::new(false));
        let begin_there = |prepare: fn(), body: Box<dyn FnOnce() + Send>| {
            let (begin, begun) = channel();
            let thread = thread::spawn(move || {
                assert!(core_affinity::set_for_current(core));
                prepare();
                begin.send(()).unwrap();
                body();
            });
            (thread, begun)
        };
        let wants_to_run = |stop: &Arc<AtomicBool>| {
            let stop = Arc::clone(stop);
            move || while !stop.load(Ordering::Relaxed) {}
        };
        let (take, taken) = channel();
        let (held, holds) = (Arc::clone(shared), wants_to_run(&stop));
        let (holder, begun) = begin_there(
            run_only_when_nobody_else_does,
            Box::new(move || {
                let _held = lock(&held);
                take.send(()).unwrap();
                holds();
            }),
        );
        receive("the holder", &begun);
        receive("its lock", &taken);
        let mut threads = vec![holder];
        for _ in 0..3 {
            let (thread, begun) = begin_there(|| {}, Box::new(wants_to_run(&stop)));
            receive("a busy thread", &begun);
            threads.push(thread);
        }
        Starved { stop, threads }
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn run_only_when_nobody_else_does() {
    // SAFETY: all-zero is a valid `sched_param`, of integers; the priority of an idle thread is 0.
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: `sched_setscheduler` requires a `sched_param` that may be read: `param` outlives the call.
    let rc = unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param) };
    assert_eq!(rc, 0);
}

/// A policy may share a lock with its application, and all share that of the allocator.
#[test]
fn a_callback_that_waits_for_a_thread_of_the_application_without_a_processor_is_not_convicted() {
    within(|| {
        let runtime = runtime();
        let shared = Arc::new(Mutex::new(()));
        let starved = Starved::holding(&shared);
        let (begin, begun) = channel();
        let policy = Script::new("shares").enqueue(move |host, task| {
            begin.send(now()).unwrap();
            drop(lock(&shared));
            host.insert(task.id(), DsqId::Local, Position::Tail);
        });
        let generation = runtime.load(policy).unwrap();
        let task = runtime.spawn(async {});
        let begun = receive("the call", &begun);
        wait_until("five times as long as a conviction takes", || {
            now() - begun >= 5 * CONVICTED
        });
        let info = runtime.exit_info(generation);
        assert!(info.is_none(), "{}", info.unwrap());
        assert!(!task.is_finished());
        drop(starved);
        wait_for("the task", task).unwrap();
        assert_eq!(runtime.metrics().convictions, 0);
    });
}

/// Burns so much of this thread's own time, however seldom it gets the processor. The figure is up to a tick of the system old
/// (4 ms): so much more may pass, and the sum has to stay below what the watchdog takes for a loop.
fn spin(time: Duration) {
    let ran = || {
        let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        let nanos = stat.split(' ').next().unwrap().parse().unwrap();
        Duration::from_nanos(nanos)
    };
    let until = ran() + time;
    while ran() < until {}
}
