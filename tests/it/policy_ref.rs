//! A typed reference to the loaded policy: read and changed from outside while it runs, and in nobody's way.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, ThreadId};

use polity::{BoxPolicy, DsqId, ExitInfo, ExitKind, Host, Policy, Position, TaskView};
use polity_policies::{Fifo, Priority};
use polity_tests::{DEADLINE, builder, check, receive, runtime, wait_for, within};

/// Says when it exits and where it is dropped; has a parameter and a statistic.
struct Knob {
    /// Its `enqueue` reports an error at this call.
    fails_at: AtomicU64,
    enqueues: AtomicU64,
    exited: Sender<ExitKind>,
    dropped: Sender<ThreadId>,
}

struct Events {
    exited: Receiver<ExitKind>,
    dropped: Receiver<ThreadId>,
}

fn knob() -> (Knob, Events) {
    let (exited, has_exited) = channel();
    let (dropped, was_dropped) = channel();
    let knob = Knob {
        fails_at: AtomicU64::new(u64::MAX),
        enqueues: AtomicU64::new(0),
        exited,
        dropped,
    };
    let events = Events {
        exited: has_exited,
        dropped: was_dropped,
    };
    (knob, events)
}

impl Policy for Knob {
    type Task = AtomicUsize;

    fn name(&self) -> &str {
        "knob"
    }

    fn exit(&self, info: &ExitInfo) {
        let _ = self.exited.send(info.kind);
    }

    fn enqueue(&self, host: &Host<'_>, task: &TaskView<'_, AtomicUsize>) {
        let nth = self.enqueues.fetch_add(1, Ordering::SeqCst) + 1;
        if nth >= self.fails_at.load(Ordering::SeqCst) {
            return host.error("as ordered");
        }
        host.insert(task.id(), DsqId::Global, Position::Tail);
    }
}

impl Drop for Knob {
    fn drop(&mut self) {
        let _ = self.dropped.send(thread::current().id());
    }
}

#[test]
fn the_loaded_policy_is_found_by_its_type_and_no_other() {
    check(1, |runtime| {
        assert!(runtime.policy::<Fifo>().is_none());
        let generation = runtime.load(Fifo::new()).unwrap();
        assert!(runtime.policy::<Priority>().is_none());
        let fifo = runtime.policy::<Fifo>().unwrap();
        assert_eq!(fifo.generation(), generation);
        assert!(fifo.is_loaded());
        assert_eq!(fifo.name(), "fifo");
        runtime.unload();
        assert!(runtime.policy::<Fifo>().is_none());
        assert!(!fifo.is_loaded());
    });
}

#[test]
fn a_policy_in_a_box_is_found_by_the_type_inside() {
    check(1, |runtime| {
        runtime
            .load(BoxPolicy::new(BoxPolicy::new(Fifo::new())))
            .unwrap();
        assert!(runtime.policy::<Fifo>().is_some());
        assert!(runtime.policy::<Priority>().is_none());
    });
}

#[test]
fn the_policy_that_a_runtime_starts_with_is_found_too() {
    within(|| {
        let runtime = builder(1).policy(Priority::new()).build().unwrap();
        assert!(runtime.policy::<Priority>().is_some());
    });
}

#[test]
fn what_is_changed_through_a_reference_counts_for_the_next_call() {
    check(1, |runtime| {
        let (knob, events) = knob();
        let generation = runtime.load(knob).unwrap();
        let knob = runtime.policy::<Knob>().unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        assert_eq!(knob.enqueues.load(Ordering::SeqCst), 1);
        knob.fails_at.store(2, Ordering::SeqCst);
        wait_for("a task", runtime.spawn(async {})).unwrap();
        let info = runtime.wait_exit(generation, DEADLINE).unwrap();
        assert_eq!(info.kind, ExitKind::PolicyError);
        assert_eq!(receive("exit", &events.exited), ExitKind::PolicyError);
    });
}

#[test]
fn a_reference_holds_up_neither_the_end_of_its_policy_nor_the_next_load() {
    check(2, |runtime| {
        let (first, events) = knob();
        runtime.load(first).unwrap();
        let first = runtime.policy::<Knob>().unwrap();
        wait_for("a task", runtime.spawn(async {})).unwrap();
        let (second, _second_events) = knob();
        runtime.load(second).unwrap();
        assert_eq!(receive("exit", &events.exited), ExitKind::Swap);
        let second = runtime.policy::<Knob>().unwrap();
        assert!(!first.is_loaded() && second.is_loaded());
        assert_ne!(first.generation(), second.generation());
        // Of each its own.
        assert_eq!(first.enqueues.load(Ordering::SeqCst), 1);
        assert_eq!(second.enqueues.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn statistics_stay_readable_after_an_ejection_and_the_policy_is_dropped_after_the_last_reference() {
    check(1, |runtime| {
        let (knob, events) = knob();
        let generation = runtime.load(knob).unwrap();
        let knob = runtime.policy::<Knob>().unwrap();
        for _ in 0..3 {
            wait_for("a task", runtime.spawn(async {})).unwrap();
        }
        runtime.eject("to see what is left").unwrap();
        assert_eq!(receive("exit", &events.exited), ExitKind::Ejected);
        assert_eq!(knob.enqueues.load(Ordering::SeqCst), 3);
        let again = knob.clone();
        drop(knob);
        drop(runtime);
        assert_eq!(again.enqueues.load(Ordering::SeqCst), 3);
        assert_eq!(again.generation(), generation);
        assert!(events.dropped.try_recv().is_err(), "it is still in use");
        drop(again);
        // Here, unless the thread of its `exit` has not let go of it yet.
        receive("the drop", &events.dropped);
    });
}

#[test]
fn without_a_reference_the_drop_has_a_thread_of_its_own() {
    within(|| {
        let runtime = runtime(1);
        let (knob, events) = knob();
        runtime.load(knob).unwrap();
        drop(runtime.policy::<Knob>());
        runtime.unload();
        let dropped_on = receive("the drop", &events.dropped);
        assert_ne!(dropped_on, thread::current().id());
    });
}
