//! What the runtime tells people: one thread per process, "polity-report", that alone calls `tracing` and writes
//! to stderr.
//!
//! Not a log of its own: no levels, no formats, no files. Those are the subscriber's that the application installed
//! (a global one; a subscriber that is the default of some other thread only does not see these events).
//! Called by control, the watchdog, the signal thread and workers on their slow paths. [`send`] holds one short
//! lock and never waits for the reader's work; [`flush`] waits, and is for whoever may. The reporter itself holds
//! no lock while it writes: a subscriber that hangs, or a full stderr pipe, stops reports and nothing else.
//! Invariant: reports are written in the order in which they were accepted; at most [`CAPACITY`] wait; one that
//! does not fit is counted, and the count is said with the next one that is written.
//! Rejected: `std::sync::mpsc::sync_channel`. It has no send with a timeout, so that a `flush` through a full
//! channel would either block or get lost; counting beside the channel cannot tell what was sent before the flush.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use polity_core::Hog;
use polity_policy::{ExitInfo, Generation};

/// How many reports may wait. A reporter that is further behind than this is stuck, not slow.
const CAPACITY: usize = 256;

/// Something that a person should be told.
#[derive(Debug)]
pub(crate) enum Report {
    /// A sentence, at level warn.
    Warn(String),
    /// The same at level debug: for whoever asks why.
    Debug(String),
    /// A policy was loaded: level info, with fields `policy`, `generation`, `swapped_from`.
    Loaded {
        /// Its name.
        policy: String,
        /// Which load of it.
        generation: Generation,
        /// The name of the policy that it replaced, if it replaced one.
        swapped_from: Option<String>,
    },
    /// A policy ended: level info if in good order, else warn, with fields `policy`, `generation`, `kind`, `code`,
    /// `worker`, `task`.
    Ended(Arc<ExitInfo>),
    /// A poll takes long: level warn, with fields `worker`, `task`, `name`, `spawned_at`, `ms`, `ran_ms`.
    Hog(Hog),
    /// Text for stderr, past `tracing`: what a person at a terminal has asked for. A final newline is added.
    Stderr(String),
}

/// Hands a report to the reporter. Never waits for it: a report too many is dropped and counted.
///
/// The first report of the process also starts the thread, unless [`start`] was called.
pub(crate) fn send(report: Report) {
    REPORTER.push(report);
    start();
}

/// Starts the reporter if it does not run yet. Whoever builds a runtime calls this, on a thread that is not pinned:
/// the reporter inherits the affinity mask of the thread that starts it, and must not share a core with a worker
/// that is stuck. Should there be no thread to be had, reports wait and the next `send` tries again.
pub(crate) fn start() {
    if REPORTER.begin_start() {
        let spawned = thread::Builder::new()
            .name("polity-report".to_owned())
            .spawn(|| {
                loop {
                    REPORTER.write_next(write);
                }
            });
        REPORTER.end_start(spawned.is_ok());
    }
}

/// Waits until everything that was sent before is written, or `timeout` is over. Says whether it is written.
///
/// For the end of the last runtime, and for tests. Not to be called from a subscriber (the reporter would wait for
/// itself), nor by a thread that must not block.
pub(crate) fn flush(timeout: Duration) -> bool {
    REPORTER.flush(timeout)
}

static REPORTER: Reporter = Reporter::new();

/// The queue between those who report and the thread that writes.
struct Reporter {
    queue: Mutex<Queue>,
    /// Signalled when a report was accepted. One waits: the reporter.
    accepted: Condvar,
    /// Signalled when a report was written. Those in `flush` wait.
    written: Condvar,
}

/// What the lock protects. It is held for a push or a pop, never while anything is written, started or dropped.
struct Queue {
    waiting: VecDeque<Report>,
    /// Since the start, without the dropped ones. `accepted - written` are waiting or being written.
    accepted: u64,
    written: u64,
    /// Not yet said.
    dropped: u64,
    thread: Thread,
}

/// | state    | who runs the queue | leaves to                                 |
/// |----------|--------------------|-------------------------------------------|
/// | None     | nobody             | Starting, by the first `start`            |
/// | Starting | nobody yet         | Running; None, if there was no thread     |
/// | Running  | "polity-report"    | never: it ends with the process           |
#[derive(Clone, Copy, PartialEq, Eq)]
enum Thread {
    None,
    Starting,
    Running,
}

impl Reporter {
    const fn new() -> Self {
        Reporter {
            queue: Mutex::new(Queue {
                waiting: VecDeque::new(),
                accepted: 0,
                written: 0,
                dropped: 0,
                thread: Thread::None,
            }),
            accepted: Condvar::new(),
            written: Condvar::new(),
        }
    }

    /// Nothing under the lock can panic half-way, so a poisoned queue is a good one.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, report: Report) {
        let mut queue = self.queue();
        if queue.waiting.len() < CAPACITY {
            queue.waiting.push_back(report);
            queue.accepted += 1;
            drop(queue);
            self.accepted.notify_one();
        } else {
            queue.dropped += 1;
        }
    }

    /// Whether it is the caller who must start the thread.
    fn begin_start(&self) -> bool {
        let mut queue = self.queue();
        let mine = queue.thread == Thread::None;
        if mine {
            queue.thread = Thread::Starting;
            // So that no push has to grow the queue: an allocation may block behind a thread that is stuck.
            queue.waiting.reserve(CAPACITY);
        }
        mine
    }

    fn end_start(&self, started: bool) {
        self.queue().thread = if started {
            Thread::Running
        } else {
            Thread::None
        };
    }

    /// Waits for the next report and gives it to `write`, after the number of those dropped since the last one.
    fn write_next(&self, mut write: impl FnMut(Report)) {
        let mut queue = self
            .accepted
            .wait_while(self.queue(), |queue| queue.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        let report = queue.waiting.pop_front();
        let dropped = std::mem::take(&mut queue.dropped);
        drop(queue);
        // A subscriber is foreign code. Its panic has been printed by the hook, and must not end the reporter.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if dropped > 0 {
                write(Report::Warn(format!(
                    "{dropped} reports were dropped: the subscriber or stderr did not take them in time"
                )));
            }
        }));
        let _ = catch_unwind(AssertUnwindSafe(|| report.map(&mut write)));
        self.queue().written += 1;
        self.written.notify_all();
    }

    fn flush(&self, timeout: Duration) -> bool {
        let queue = self.queue();
        // First in, first out: when as many are written as are accepted now, these are the ones.
        let target = queue.accepted;
        let (queue, _) = self
            .written
            .wait_timeout_while(queue, timeout, |queue| queue.written < target)
            .unwrap_or_else(PoisonError::into_inner);
        queue.written >= target
    }
}

/// Writes one report, on the reporter's thread: may block as long as it likes.
fn write(report: Report) {
    match report {
        Report::Warn(text) => tracing::warn!(target: "polity", "{text}"),
        Report::Debug(text) => tracing::debug!(target: "polity", "{text}"),
        Report::Loaded {
            policy,
            generation,
            swapped_from,
        } => tracing::info!(
            target: "polity",
            policy,
            generation = generation.number(),
            swapped_from,
            "policy loaded"
        ),
        Report::Ended(info) => write_ended(&info),
        Report::Hog(hog) => write_hog(&hog),
        Report::Stderr(mut text) => {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            // Nobody is left to tell that stderr is gone. Not `eprintln!`, which panics then.
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
}

fn write_hog(hog: &Hog) {
    let ms = hog.for_ns / 1_000_000;
    let ran_ms = hog.ran_ns / 1_000_000;
    tracing::warn!(
        target: "polity",
        worker = hog.worker.index(),
        task = %hog.task,
        name = hog.name.as_deref(),
        spawned_at = hog.spawned_at.map(tracing::field::display),
        ms,
        ran_ms,
        "a poll has not returned for {ms} ms: no other task runs on its worker, whatever the policy"
    );
}

fn write_ended(info: &ExitInfo) {
    // A level is part of a callsite, hence two of them.
    macro_rules! event {
        ($level:ident) => {
            tracing::$level!(
                target: "polity",
                policy = info.policy,
                generation = info.generation.number(),
                kind = info.kind.as_str(),
                code = info.code,
                worker = info.worker.map(|worker| worker.index()),
                task = info.task.map(tracing::field::display),
                "policy ended: {}{}{}",
                info.reason(),
                if info.message.is_empty() { "" } else { ": " },
                info.message
            )
        };
    }
    if info.kind.is_error() {
        event!(warn);
    } else {
        event!(info);
    }
}

#[cfg(test)]
pub(crate) mod tests;
