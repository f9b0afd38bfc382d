//! Long polls: reported once each, with everything about the task, and never blamed on the policy.

use std::panic::Location;
use std::time::Duration;

use polity::{Attributes, BuildError, Handle, yield_now};
use polity_policies::Fifo;
use polity_tests::{
    builder, in_a_process_of_its_own, now, pass, receive, wait_for, wait_until, within,
};

use crate::reports::Reports;
use crate::watchdog::MS;

/// Does not yield until so many hogs have been counted, and for a while longer.
fn block_until_counted(hogs: u64) {
    let runtime = Handle::current();
    wait_until("the poll is counted", || runtime.metrics().hogs >= hogs);
    pass(50 * MS);
}

/// The value of a field.
fn field<'a>(report: &'a str, name: &str) -> &'a str {
    let (_, rest) = report.split_once(&format!(" {name}=")).expect(name);
    rest.split(' ').next().unwrap()
}

#[test]
fn a_long_poll_is_reported_once_with_task_name_spawn_site_and_duration() {
    in_a_process_of_its_own(
        "watchdog::hogs::a_long_poll_is_reported_once_with_task_name_spawn_site_and_duration",
        || {
            within(|| {
                let reports = Reports::subscribe_to("a poll has not returned");
                for workers in [1, 2] {
                    let threshold = 30 * MS;
                    let runtime = builder(workers).hog_threshold(threshold).build().unwrap();
                    let generation = runtime.load(Fifo::new()).unwrap();
                    let site = Location::caller().file();
                    let attributes = Attributes::new().name("ledger");
                    let polls = 3;
                    let hog = async move {
                        for poll in 1..=polls {
                            block_until_counted(poll);
                            yield_now().await;
                        }
                    };
                    let hog = runtime.spawn_with(attributes, hog).unwrap();
                    let line = line!() - 1;
                    let id = hog.id();
                    wait_for("the hog", hog).unwrap();
                    for _ in 0..polls {
                        let report = receive("a report", &reports);
                        println!("{report}");
                        assert!(report.starts_with("WARN "), "{report}");
                        assert_eq!(field(&report, "task"), id.to_string());
                        assert_eq!(field(&report, "name"), "\"ledger\"");
                        assert!(field(&report, "worker").parse::<usize>().unwrap() < workers);
                        let spawned_at = field(&report, "spawned_at");
                        assert!(
                            spawned_at.starts_with(&format!("{site}:{line}:")),
                            "{report}"
                        );
                        let ms: u128 = field(&report, "ms").parse().unwrap();
                        assert!(ms >= threshold.as_millis(), "{report}");
                    }
                    assert_eq!(runtime.metrics().hogs, polls);
                    let info = runtime.exit_info(generation);
                    assert!(info.is_none(), "{info:?}");
                }
                assert!(reports.try_recv().is_err(), "one for each poll");
            });
        },
    );
}

#[test]
fn polls_below_the_threshold_are_not_hogs() {
    within(|| {
        let threshold = 300 * MS;
        let runtime = builder(2).hog_threshold(threshold).build().unwrap();
        for nth in 0..5 {
            let took = runtime.spawn(async move {
                let begun = now();
                pass(threshold - 50 * MS);
                now() - begun
            });
            let took = wait_for("a poll below the threshold", took).unwrap();
            let hogs = runtime.metrics().hogs;
            // A machine that held it up for so long has made it one.
            if took >= threshold {
                return;
            }
            assert_eq!(hogs, 0, "poll {nth}: {took:?}");
        }
    });
}

#[test]
fn the_default_threshold_is_a_tenth_of_a_second() {
    within(|| {
        let runtime = builder(1).build().unwrap();
        let began = now();
        let hog = runtime.spawn(async { block_until_counted(1) });
        wait_until("it is counted", || runtime.metrics().hogs == 1);
        assert!(now() - began >= 100 * MS);
        wait_for("the hog", hog).unwrap();
        assert_eq!(runtime.metrics().hogs, 1);
    });
}

/// Without a policy, too.
#[test]
fn each_of_several_long_polls_at_once_counts() {
    within(|| {
        let runtime = builder(2).hog_threshold(20 * MS).build().unwrap();
        let blockers: Vec<_> = (0..2)
            .map(|_| crate::support::Blocker::new(&runtime))
            .collect();
        wait_until("both are counted", || runtime.metrics().hogs == 2);
        for blocker in blockers {
            blocker.end();
        }
        assert_eq!(runtime.metrics().hogs, 2);
    });
}

#[test]
fn a_hog_threshold_that_makes_no_sense_is_refused() {
    let hour = Duration::from_secs(3600);
    let nanosecond = Duration::from_nanos(1);
    for threshold in [
        Duration::ZERO,
        MS - nanosecond,
        hour + nanosecond,
        Duration::MAX,
    ] {
        let error = builder(1).hog_threshold(threshold).build().unwrap_err();
        assert!(matches!(error, BuildError::Invalid(_)));
        let expected = format!("hog_threshold is {threshold:?}, but must be from 1 ms to 1 h");
        assert_eq!(error.to_string(), expected);
    }
    for threshold in [MS, hour] {
        drop(builder(1).hog_threshold(threshold).build().unwrap());
    }
}
