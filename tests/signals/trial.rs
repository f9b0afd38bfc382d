//! One ejection by SIGQUIT, in a child, with the times that it took.

use std::fs;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use polity::{ExitKind, Generation, LoadError, Policy, Runtime};
use polity_policies::{Fault, Faulty};
use polity_tests::{DEADLINE, now, receive, wait_until};
use signal_hook::low_level::raise;

/// Starts threads that burn the processors until the process ends.
pub(crate) fn burn(threads: usize) {
    for _ in 0..threads {
        thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
}

/// What came of it.
pub(crate) struct Trial {
    pub(crate) kind: ExitKind,
    /// From the signal until a thread saw that there was no policy.
    pub(crate) gone: Duration,
    /// Of that, how long the signal thread and the one that looks were runnable and not run.
    pub(crate) not_run: Duration,
    /// From the signal to the first poll.
    pub(crate) polled: Duration,
}

/// Loads such a policy. The sysrq of the trial before may still be at work: it cancels what is asked for until it is done.
pub(crate) fn load<P: Policy>(runtime: &Runtime, mut policy: impl FnMut() -> P) -> Generation {
    loop {
        match runtime.load(policy()) {
            Err(LoadError::Cancelled) => {}
            loaded => return loaded.unwrap(),
        }
    }
}

/// Throws out a policy that is in `fault` on every worker. `None`: the watchdog was first.
pub(crate) fn stuck(runtime: &Runtime, fault: Fault) -> Option<Trial> {
    let mut release = None;
    load(runtime, || {
        let policy = Faulty::new(fault);
        release = Some(policy.release_handle());
        policy
    });
    let release = release.expect("it has been loaded");
    let (polled, polls) = channel();
    for worker in 1..=runtime.worker_count() {
        let polled = polled.clone();
        let first_poll = async move {
            // Nobody may be there any more to be told.
            let _ = polled.send(now());
        };
        drop(runtime.spawn(first_poll));
        wait_until("a worker is stuck, or the policy gone", || {
            release.stuck() == worker || runtime.policy_status().is_none()
        });
    }
    let trial = quit(runtime, || receive("the first poll", &polls));
    release.release();
    trial
}

/// Throws out whatever is loaded. `first_poll` returns when a task has been polled afterwards, and tells when that was.
pub(crate) fn quit(runtime: &Runtime, first_poll: impl FnOnce() -> Instant) -> Option<Trial> {
    let generation = runtime.policy_status()?.generation;
    let signal_thread = thread_named("polity-signal");
    let not_run_before = not_run(&signal_thread);
    let start = now();
    raise(libc::SIGQUIT).unwrap();
    let mut ours = not_run("/proc/thread-self");
    let late = loop {
        let before = std::mem::replace(&mut ours, not_run("/proc/thread-self"));
        if runtime.policy_status().is_none() {
            break ours - before;
        }
        // Leaves the processor to the thread that is to act.
        thread::park_timeout(Duration::from_micros(20));
    };
    let gone = now() - start;
    let not_run = late + not_run(&signal_thread) - not_run_before;
    let polled = first_poll().saturating_duration_since(start);
    let info = runtime.wait_exit(generation, DEADLINE).expect("it is gone");
    Some(Trial {
        kind: info.kind,
        gone,
        not_run,
        polled,
    })
}

/// The directory of a thread of this process in /proc.
fn thread_named(name: &str) -> String {
    let mut threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| {
        let path = thread.unwrap().path();
        path.to_str().unwrap().to_owned()
    });
    let is = |path: &String| {
        fs::read_to_string(format!("{path}/comm")).is_ok_and(|comm| comm.trim_end() == name)
    };
    threads.find(is).expect("a thread of this name")
}

/// How long a thread has been runnable without a processor.
fn not_run(thread: &str) -> Duration {
    let stat = fs::read_to_string(format!("{thread}/schedstat")).unwrap_or_default();
    let nanoseconds = stat.split(' ').nth(1).and_then(|word| word.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}
