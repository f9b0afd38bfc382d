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
