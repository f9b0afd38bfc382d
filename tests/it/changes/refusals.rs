//! Changes that are refused.

use std::sync::Arc;

use polity::ChangeError;
use polity_tests::{check as check_with_spares, check_without_spares as check, wait_for};

use super::{only, waiting};
use crate::support::Threads;

#[test]
fn a_change_that_makes_no_sense_is_refused_with_field_and_value() {
    check(2, |runtime| {
        let notify = Arc::default();
        let task = waiting(&runtime, &notify, &Threads::default());
        for weight in [0, 10_001] {
            let error = task.set_weight(weight).unwrap_err();
            assert_eq!(error, ChangeError::Weight(weight));
            let said = format!("attribute weight is {weight}, but must be from 1 to 10000");
            assert_eq!(error.to_string(), said);
        }
        for mask in [only([]), only([2, 77])] {
            let error = task.set_affinity(mask.clone()).unwrap_err();
            let said = format!("attribute affinity is {mask}, but must name one of the 2 workers");
            assert!(error.to_string().starts_with(&said), "{error}");
            assert_eq!(error, ChangeError::Affinity { mask, workers: 2 });
        }
        notify.notify_one();
        wait_for("the task", task).unwrap();
    });
}

#[test]
fn a_task_that_has_ended_cannot_be_changed() {
    check_with_spares(1, |runtime| {
        let task = runtime.spawn(async {});
        let (id, handle) = (task.id(), task.abort_handle());
        wait_for("the task", task).unwrap();
        // Also when its slot has another tenant.
        let notify = Arc::default();
        let next = waiting(&runtime, &notify, &Threads::default());
        let gone = ChangeError::Finished(id);
        assert_eq!(handle.set_weight(5), Err(gone.clone()));
        assert_eq!(handle.set_affinity(only([0])), Err(gone.clone()));
        let text = gone.to_string();
        assert!(
            text.contains(&id.to_string()) && text.contains("has ended"),
            "{text}"
        );
        // And when its runtime is gone.
        let (next_id, next_handle) = (next.id(), next.abort_handle());
        drop(runtime);
        assert_eq!(
            next_handle.set_weight(5),
            Err(ChangeError::Finished(next_id))
        );
    });
}
