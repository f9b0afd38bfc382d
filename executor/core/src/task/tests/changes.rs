//! Attributes that change.

use std::thread;

use polity_policy::{Attributes, WorkerId, WorkerMask};

use super::{ROUNDS, Runtime, Turn, WORKER};
use crate::task::attributes::{self, Given};
use crate::task::change::ChangeError;
use crate::task::header::Header;
use crate::task::join::JoinHandle;
use crate::task::slab;

fn header_of<T>(handle: &JoinHandle<T>) -> &'static Header {
    slab::get(handle.id().slot()).unwrap()
}

#[test]
fn attributes_change_for_the_present_tenant_and_keep_what_is_not_changed() {
    let mut runtime = Runtime::new();
    let given = Given {
        id: attributes::intern(Attributes::new().name("kept")),
        tag: 3,
        deadline: 9,
    };
    let handle = runtime.spawn_given(given, async {});
    let header = header_of(&handle);
    handle.set_weight(7).unwrap();
    handle.set_weight(8).unwrap();
    assert!(!header.is_restricted());
    handle
        .set_affinity(WorkerMask::from_iter([WORKER]))
        .unwrap();
    assert!(header.is_restricted() && !header.allows(WorkerId::new(1)));
    let view = header.view();
    assert_eq!(
        (view.name(), view.weight(), view.tag()),
        (Some("kept"), 8, 3)
    );
    assert_eq!(view.deadline().map(|at| at.as_nanos()), Some(9));
    handle.set_affinity(WorkerMask::all()).unwrap();
    assert!(!header.is_restricted());
    assert_eq!(runtime.turns(), [Turn::Ended]);
    assert_eq!(
        handle.set_weight(7),
        Err(ChangeError::Finished(handle.id()))
    );
    let next = runtime.spawn(async {});
    assert_eq!(next.id().slot(), handle.id().slot());
    let view = header.view();
    assert_eq!(
        (view.name(), view.weight(), view.deadline()),
        (None, 100, None)
    );
    assert_eq!(runtime.turns(), [Turn::Ended]);
}

/// The task ends, and its slot has another tenant, while its attributes are being changed.
#[test]
fn a_change_that_comes_too_late_does_nothing_to_the_next_tenant() {
    let mut runtime = Runtime::new();
    let first = runtime.spawn(async {});
    let header = header_of(&first);
    let mut next = None;
    let changed = header.change(first.id().tenant(), |set| {
        assert_eq!(runtime.turns(), [Turn::Ended]);
        next = Some(runtime.spawn(async {}));
        set.weight(7).affinity(WorkerMask::from_iter([WORKER]))
    });
    assert!(!changed);
    let next = next.unwrap();
    assert_eq!(next.id().slot(), first.id().slot());
    assert_eq!(header.view().weight(), 100);
    assert!(!header.is_restricted());
    next.set_weight(8).unwrap();
    assert_eq!(header.view().weight(), 8);
    assert_eq!(runtime.turns(), [Turn::Ended]);
}

/// Whoever reads meanwhile sees one set or another, and each a whole one.
#[test]
fn attributes_are_changed_by_many_threads_at_once() {
    let mut runtime = Runtime::new();
    let handle = runtime.spawn(async {});
    let header = header_of(&handle);
    thread::scope(|scope| {
        for weight in [200, 300] {
            let handle = handle.abort_handle();
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    handle.set_weight(weight).unwrap();
                }
            });
        }
        for _ in 0..ROUNDS {
            assert!(matches!(header.view().weight(), 100 | 200 | 300));
        }
    });
    assert_eq!(runtime.turns(), [Turn::Ended]);
}
