//! The watchdog on the real machine: which policies it ejects, which it leaves alone, what it says of long polls, and what it
//! costs.
//!
//! The machine may be busy with other things, and then the watchdog is late for nobody's fault. So a measured time is held
//! against what a thread beside it has seen of that ([`Lateness`]), not against the plain bound.

mod blame;
mod hogs;
mod idle;
mod stalls;

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::Duration;

use polity::{DsqId, Position};
use polity_tests::now;

use crate::workload::Script;

const MS: Duration = Duration::from_millis(1);

/// The tag of tasks that [`forgetful`] does not run.
const FORGET: u64 = 1;

/// First come, first served, but for the tasks tagged [`FORGET`], which it neither inserts nor remembers.
fn forgetful() -> Script {
    Script::new("forgetful").enqueue(|host, task| {
        if task.tag() != FORGET {
            host.insert(task.id(), DsqId::Global, Position::Tail);
        }
    })
}

/// How much of the time since it began this machine has kept a thread from running that wanted to, every 2 ms.
struct Lateness {
    stop: Arc<AtomicBool>,
    lost_ns: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    unpark: Thread,
}

impl Lateness {
    fn begin() -> Lateness {
        let (stop, lost_ns) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (stopped, lost) = (Arc::clone(&stop), Arc::clone(&lost_ns));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let before = now();
                // The interval is the subject.
                thread::park_timeout(2 * MS);
                let late = (now() - before).saturating_sub(3 * MS);
                lost.fetch_add(late.as_nanos() as u64, Ordering::Relaxed);
            }
        });
        Lateness {
            stop,
            lost_ns,
            unpark: thread.thread().clone(),
            thread: Some(thread),
        }
    }

    fn end(self) -> Duration {
        Duration::from_nanos(self.lost_ns.load(Ordering::Relaxed))
    }
}

impl Drop for Lateness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.unpark.unpark();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn median(mut of: Vec<Duration>) -> Duration {
    of.sort();
    of[of.len() / 2]
}

/// The lower one.
fn quartile(mut of: Vec<Duration>) -> Duration {
    of.sort();
    of[of.len() / 4]
}

/// Something of every thread of this process, by thread id, from this file of `/proc/self/task/ID`.
fn threads<T>(file: &str, read: impl Fn(&str) -> Option<T>) -> HashMap<String, T> {
    let mut all = HashMap::new();
    for thread in fs::read_dir("/proc/self/task").unwrap() {
        let path = thread.unwrap().path();
        // It may have ended meanwhile.
        let Ok(comm) = fs::read_to_string(path.join("comm")) else {
            continue;
        };
        let text = fs::read_to_string(path.join(file)).unwrap_or_default();
        if let Some(value) = read(&text) {
            let id = path.file_name().unwrap().to_string_lossy().into_owned();
            all.insert(format!("{} {id}", comm.trim()), value);
        }
    }
    all
}
