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

use polity_policy::{ExitInfo, Generation};

/// How many reports may wait. A reporter that is further behind than this is stuck, not slow.
const CAPACITY: usize = 256;

/// Something that a person should be told.
#[derive(Debug)]
pub(crate) enum Report {
    /// A sentence, at level warn.
    Warn(String),
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
        Report::Stderr(mut text) => {
            if !text.ends_with('\n') {
                text.push('\n');
            }
            // Nobody is left to tell that stderr is gone. Not `eprintln!`, which panics then.
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
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
pub(crate) mod tests {
    use std::fmt::{Debug, Write};

    use polity_policy::{ExitKind, TaskId, WorkerId};
    use tracing::field::{Field, Visit};

    use super::*;

    /// A subscriber that keeps every event as a line: level, then fields by name.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

    impl Lines {
        /// What was written since the last time.
        pub(crate) fn take(&self) -> Vec<String> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    struct Line(String);

    impl Visit for Line {
        fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
            write!(self.0, " {field}={value:?}").unwrap();
        }
    }

    impl tracing::Subscriber for Lines {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut line = Line(format!(
                "{} {}:",
                event.metadata().level(),
                event.metadata().target()
            ));
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    fn check(report: Report, expected: &str) {
        let lines = Lines::default();
        tracing::subscriber::with_default(lines.clone(), || write(report));
        assert_eq!(lines.take(), [expected]);
    }

    /// Writes everything that waits, as a reporter would, and returns it.
    fn drain(reporter: &Reporter) -> Vec<String> {
        let mut texts = Vec::new();
        while !reporter.queue().waiting.is_empty() {
            reporter.write_next(|report| match report {
                Report::Warn(text) => texts.push(text),
                other => panic!("{other:?}"),
            });
        }
        texts
    }

    fn sentence(text: impl ToString) -> Report {
        Report::Warn(text.to_string())
    }

    #[test]
    fn a_load_is_an_event_with_fields() {
        let (policy, generation) = ("vtime".to_owned(), Generation::new(4));
        check(
            Report::Loaded {
                policy: policy.clone(),
                generation,
                swapped_from: None,
            },
            r#"INFO polity: message=policy loaded policy="vtime" generation=4"#,
        );
        check(
            Report::Loaded {
                policy,
                generation,
                swapped_from: Some("fifo".to_owned()),
            },
            r#"INFO polity: message=policy loaded policy="vtime" generation=4 swapped_from="fifo""#,
        );
    }

    #[test]
    fn an_orderly_end_is_info_and_an_error_is_a_warning_that_names_worker_and_task() {
        let mut info = ExitInfo::new(ExitKind::Unload, "vtime", Generation::new(4));
        check(
            Report::Ended(Arc::new(info.clone())),
            "INFO polity: message=policy ended: unloaded by the application \
             policy=\"vtime\" generation=4 kind=\"unload\" code=0",
        );
        info.kind = ExitKind::Panic;
        info.message = "no bananas".to_owned();
        info.worker = Some(WorkerId::new(1));
        info.task = Some(TaskId::from_parts(12, 3));
        check(
            Report::Ended(Arc::new(info)),
            "WARN polity: message=policy ended: a callback panicked: no bananas \
             policy=\"vtime\" generation=4 kind=\"panic\" code=0 worker=1 task=12.3",
        );
    }

    #[test]
    fn sentences_are_events_without_fields_and_braces_in_them_mean_nothing() {
        check(sentence("{a}"), "WARN polity: message={a}");
        check(sentence("{}"), "WARN polity: message={}");
    }

    #[test]
    fn reports_that_do_not_fit_are_counted_and_the_count_is_said_once_with_the_next_one() {
        let reporter = Reporter::new();
        for n in 0..CAPACITY + 3 {
            reporter.push(sentence(n));
        }
        let texts = drain(&reporter);
        assert_eq!(texts.len(), CAPACITY + 1);
        assert!(
            texts[0].starts_with("3 reports were dropped"),
            "{}",
            texts[0]
        );
        assert_eq!((texts[1].as_str(), texts[CAPACITY].as_str()), ("0", "255"));
        reporter.push(sentence("later"));
        assert_eq!(drain(&reporter), ["later"]);
    }

    #[test]
    fn a_flush_is_over_when_what_was_sent_before_is_written_and_not_earlier() {
        let reporter = Reporter::new();
        assert!(reporter.flush(Duration::ZERO));
        reporter.push(sentence(1));
        reporter.push(sentence(2));
        reporter.write_next(drop);
        assert!(!reporter.flush(Duration::ZERO));
        reporter.write_next(drop);
        assert!(reporter.flush(Duration::ZERO));
    }

    #[test]
    fn a_flush_does_not_count_what_was_dropped() {
        let reporter = Reporter::new();
        for n in 0..2 * CAPACITY {
            reporter.push(sentence(n));
        }
        assert!(!reporter.flush(Duration::ZERO));
        drain(&reporter);
        assert!(reporter.flush(Duration::ZERO));
    }

    #[test]
    fn a_subscriber_that_panics_loses_its_event_and_nothing_else() {
        let reporter = Reporter::new();
        reporter.push(sentence(1));
        reporter.push(sentence(2));
        reporter.write_next(|_| panic!("in the subscriber"));
        assert_eq!(drain(&reporter), ["2"]);
        assert!(reporter.flush(Duration::ZERO));
    }

    #[test]
    fn the_thread_starts_with_the_first_report_and_a_flush_waits_for_it() {
        send(sentence("nobody listens"));
        assert!(flush(Duration::from_secs(60)));
    }

    #[test]
    fn a_thread_that_could_not_be_had_is_asked_for_again() {
        let reporter = Reporter::new();
        assert!(reporter.begin_start());
        assert!(!reporter.begin_start());
        reporter.end_start(false);
        assert!(reporter.begin_start());
        reporter.end_start(true);
        assert!(!reporter.begin_start());
    }
}
